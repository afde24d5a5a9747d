"""Halls: what is where, and ways through them."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robots.layout import hall, path_length, warehouse

WAREHOUSE = warehouse()
ANYWHERE = st.tuples(st.floats(-8, 8), st.sampled_from([4.0, 0.0, -4.0]))


def clear_of_shelves(layout, points, margin):
    for a, b in pairwise(points):
        for i in range(101):
            x, y = a[0] + (b[0] - a[0]) * i / 100, a[1] + (b[1] - a[1]) * i / 100
            for box in layout.shelves:
                dx = max(box.x_min - x, 0.0, x - box.x_max)
                dy = max(box.y_min - y, 0.0, y - box.y_max)
                assert math.hypot(dx, dy) >= margin, f"({x:.2f}, {y:.2f}) is too near a shelf"


@given(start=ANYWHERE, goal=st.sampled_from(list(WAREHOUSE.stations)))
def test_every_way_keeps_clear_of_shelves_and_goes_through_its_aisle(start, goal):
    target = WAREHOUSE.station(goal)
    for name, aisle in WAREHOUSE.aisles.items():
        way = WAREHOUSE.route(start, target, name)
        assert way[-1] == target
        clear_of_shelves(WAREHOUSE, [start, *way], margin=0.9)
        assert any(aisle.offset(point) < 1e-9 for point in way[:-1])


@given(start=ANYWHERE, goal=st.sampled_from(list(WAREHOUSE.stations)))
def test_without_an_aisle_the_way_is_the_shortest(start, goal):
    target = WAREHOUSE.station(goal)
    shortest = path_length([start, *WAREHOUSE.route(start, target)])
    for name in WAREHOUSE.aisles:
        assert shortest <= path_length([start, *WAREHOUSE.route(start, target, name)]) + 1e-9


def test_a_station_on_the_same_side_needs_no_aisle():
    a, c = WAREHOUSE.station("station_a"), WAREHOUSE.station("station_c")
    assert WAREHOUSE.route(a, c) == [c]


def test_the_wrong_aisle_is_left_away_from_the_goal():
    way = WAREHOUSE.route((2.0, 0.0), WAREHOUSE.station("station_b"), "aisle_1")
    assert way[0][0] < 0 and way[1] == (-5.2, 4.0) and way[2] == (5.2, 4.0)


@pytest.mark.parametrize("flow_along_x", [True, False])
def test_a_hall_has_lanes_across_the_flow_and_stations_beyond_the_people(flow_along_x):
    layout = hall(-3.0, -10.0, 4.0, 4.0, flow_along_x)
    across = 1 if flow_along_x else 0
    low, high = (-10.0, 4.0) if flow_along_x else (-3.0, 4.0)
    assert len(layout.aisles) == 3
    for aisle in layout.aisles.values():
        (first, second) = aisle.ends
        assert first[1 - across] == second[1 - across]
        assert first[across] < low and second[across] > high
    for x, y in layout.stations.values():
        assert not low - 1 <= (x, y)[across] <= high + 1
        assert layout.extent[0] < x < layout.extent[2] and layout.extent[1] < y < layout.extent[3]
    assert layout.side(layout.station("station_a")) == 0
    assert layout.side(layout.station("station_b")) == 1


def test_unknown_names_say_what_there_is():
    with pytest.raises(BrainError, match="station_a, station_b") as station:
        WAREHOUSE.station("dock")
    assert station.value.code == ErrorCode.NOT_FOUND
    with pytest.raises(BrainError, match="aisle_1, aisle_2, aisle_3"):
        WAREHOUSE.route((0.0, 0.0), (1.0, 1.0), "aisle_9")
