"""Speed and separation: the formula, the scan's points, the way ahead."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainos_ros.conscience.separation import (
    Base,
    People,
    Scan,
    Scanner,
    path_separation,
    person_separation,
    speed_limit,
)

BASE = Base(0.3, 1.0, 1.5, 1.0, 2.0, 0.05, 0.3)
PEOPLE = People(2.5, 0.0, 0.1, 0.1)
RADIUS = 0.3
TURN = 2 * math.pi / 360
floats = st.floats


def make_scan(ranges: Any, start: float = -math.pi, step: float = TURN) -> Scan:
    return Scanner(RADIUS).points(np.asarray(ranges, dtype=np.float32), start, step, 0.05, 12.0)


def one_return(bearing_deg: int, distance: float) -> Scan:
    ranges = np.full(360, math.inf)
    ranges[180 + bearing_deg] = distance
    return make_scan(ranges)


def test_reaction_time_adds_sensor_gate_and_the_slower_of_delay_and_timeout() -> None:
    assert BASE.reaction_time_s(0.05, 0.02) == pytest.approx(0.37)
    slow = Base(0.3, 1.0, 1.5, 1.0, 2.0, 0.4, 0.3)
    assert slow.reaction_time_s(0.05, 0.02) == pytest.approx(0.47)


@given(floats(0, 30), floats(0, 4), floats(0.05, 1), floats(0.2, 5))
def test_at_the_limit_the_protective_separation_is_exactly_there(
        separation: float, person: float, reaction: float, a: float) -> None:
    base = Base(0.3, 1.0, 1.5, 1.0, a, 0.05, 0.3)
    v = speed_limit(separation, person, reaction, base, PEOPLE)
    needed = person * (reaction + v / a) + v * reaction + v * v / (2 * a) + PEOPLE.margin_m
    if v == 0.0:
        assert separation <= person * reaction + PEOPLE.margin_m + 1e-9
    else:
        assert needed == pytest.approx(separation, abs=1e-6)


def test_the_limit_is_zero_from_the_point_where_c_is() -> None:
    touching = 2.5 * 0.37 + PEOPLE.margin_m
    assert speed_limit(touching, 2.5, 0.37, BASE, PEOPLE) == 0.0
    assert speed_limit(touching + 0.01, 2.5, 0.37, BASE, PEOPLE) > 0.0
    assert speed_limit(math.inf, 2.5, 0.37, BASE, PEOPLE) == math.inf
    assert speed_limit(math.nan, 2.5, 0.37, BASE, PEOPLE) == 0.0
    assert speed_limit(3.0, 2.5, 0.37, BASE, PEOPLE) == pytest.approx(1.00236, abs=1e-5)


@given(floats(0.1, 10), floats(0.001, 0.1))
def test_the_limit_never_falls_faster_than_the_base_brakes(start: float, dt: float) -> None:
    before = speed_limit(start, 2.5, 0.37, BASE, PEOPLE)
    after = speed_limit(max(0.0, start - (2.5 + before) * dt), 2.5, 0.37, BASE, PEOPLE)
    assert before - after <= BASE.deceleration_mps2 * dt + 1e-9


def test_person_separation_is_from_footprint_to_body() -> None:
    assert person_separation(0, 0, 0.3, []) == math.inf
    assert person_separation(1, 1, 0.3, [(4, 5, 0.2), (9, 9, 0.2)]) == pytest.approx(4.5)
    assert person_separation(0, 0, 0.3, [(0.4, 0, 0.2)]) == 0.0


def test_a_scan_follows_rep_117() -> None:
    free = make_scan([math.inf] * 360)
    assert (free.nearest_m, free.unseen, free.x.size) == (math.inf, False, 0)
    beyond = make_scan([12.5] * 360)
    assert beyond.nearest_m == math.inf
    edge = make_scan([12.0] * 360)
    assert edge.nearest_m == pytest.approx(11.7)
    for bad in (math.nan, -math.inf, 0.0, -1.0, 0.01):
        blind = make_scan([5.0] * 359 + [bad])
        assert blind.unseen
        assert blind.nearest_m == 0.0
        assert blind.x.size == 360


@pytest.mark.parametrize("reading", [0.0, 1e-9, -0.0])
def test_a_range_of_zero_is_not_seen_even_where_range_min_is_zero(reading: float) -> None:
    ranges = np.full(360, 8.0)
    ranges[135:225] = reading
    scan = Scanner(RADIUS).points(ranges, -math.pi, TURN, 0.0, 12.0)
    assert scan.unseen and scan.nearest_m == 0.0
    assert path_separation(scan, 0.5, 0.0, RADIUS) == 0.0


def test_bearings_outside_the_scan_are_blind() -> None:
    half = Scanner(RADIUS).points(np.full(181, 5.0), -math.pi / 2, TURN, 0.05, 12.0)
    assert half.unseen
    assert half.nearest_m == 0.0
    assert path_separation(half, 0.5, 0.0, RADIUS) == pytest.approx(math.sqrt(25) - 0.3)
    assert path_separation(half, -0.5, 0.0, RADIUS) == 0.0
    assert not make_scan([5.0] * 361, step=2 * math.pi / 360).unseen
    assert not make_scan([5.0] * 360, start=math.pi, step=-TURN).unseen


@pytest.mark.parametrize("geometry", [
    (math.nan, TURN, 0.05, 12.0), (0.0, 0.0, 0.05, 12.0), (0.0, math.inf, 0.05, 12.0),
    (0.0, 1e-8, 0.05, 12.0), (0.0, 2.0, 0.05, 12.0), (0.0, TURN, 12.0, 0.05),
    (0.0, TURN, math.nan, 12.0), (0.0, TURN, -1.0, 12.0), (0.0, TURN, 0.05, math.nan)])
def test_a_senseless_scan_is_refused(geometry: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="scan"):
        Scanner(RADIUS).points(np.full(360, 5.0), *geometry)
    with pytest.raises(ValueError, match="rays"):
        make_scan([5.0])


@pytest.mark.parametrize(("bearing", "command", "expected"), [
    (0, (0.5, 0.0), 1.7), (0, (-0.5, 0.0), math.inf), (-180, (-0.5, 0.0), 1.7),
    (90, (0.5, 0.0), math.inf), (0, (0.0, 1.0), math.inf), (0, (0.0, 0.0), math.inf)])
def test_only_what_lies_on_the_way_counts(
        bearing: int, command: tuple[float, float], expected: float) -> None:
    assert path_separation(one_return(bearing, 2.0), *command, RADIUS) == pytest.approx(expected)


def test_what_touches_counts_only_if_the_command_moves_towards_it() -> None:
    ahead = one_return(0, 0.29)
    assert path_separation(ahead, 0.5, 0.0, RADIUS) == 0.0
    assert path_separation(ahead, 0.5, 1.0, RADIUS) == 0.0
    assert path_separation(ahead, -0.5, 0.0, RADIUS) == math.inf


def at(x: float, y: float) -> Scan:
    """A scan with one return [m]."""
    bearing, scan = math.atan2(y, x), one_return(0, math.hypot(x, y))
    return Scan(scan.x * math.cos(bearing), scan.x * math.sin(bearing), scan.nearest_m, False)


def test_a_tight_arc_into_what_touches_the_side_counts() -> None:
    beside = at(-0.05, 0.29)
    assert path_separation(beside, 0.1, 1.0, RADIUS) == pytest.approx(0.0257, abs=1e-4)
    assert path_separation(beside, 0.1, -1.0, RADIUS) > 0.15
    assert path_separation(beside, 0.5, 0.1, RADIUS) > 10.0
    assert path_separation(beside, 0.5, 0.0, RADIUS) == math.inf


@pytest.mark.parametrize("seed", range(200))
def test_nothing_that_touches_comes_nearer_on_the_way_that_is_free(seed: int) -> None:
    dice = np.random.default_rng(seed)
    distance, bearing = dice.uniform(0.2, 0.3), dice.uniform(math.pi / 2, 3 * math.pi / 2)
    scan = at(distance * math.cos(bearing), distance * math.sin(bearing))
    radius, side = dice.uniform(0.02, 1.0), dice.choice([-1.0, 1.0])
    way = path_separation(scan, 0.2, side * 0.2 / radius, RADIUS)
    turned = np.arange(0.0, min(way / radius, 2 * math.pi), 0.01)
    apart = np.hypot(
        scan.x - radius * np.sin(turned), scan.y - side * radius * (1 - np.cos(turned)))
    assert (apart >= min(distance, RADIUS) - 1e-6).all()


def driven(scan: Scan, linear: float, angular: float) -> float:
    """The same by driving the arc in steps of 2 mm, up to one turn or 9 m."""
    step, x, y, yaw, way = 0.002, 0.0, 0.0, 0.0, 0.0
    while way < 9.0 and abs(yaw) < 2 * math.pi:
        if (np.hypot(scan.x - x, scan.y - y) < RADIUS).any():
            return way
        x += math.copysign(step, linear) * math.cos(yaw)
        y += math.copysign(step, linear) * math.sin(yaw)
        yaw += angular / abs(linear) * step
        way += step
    return math.inf


@pytest.mark.parametrize("seed", range(12))
def test_the_way_ahead_is_what_driving_it_finds(seed: int) -> None:
    dice = np.random.default_rng(seed)
    scan = make_scan(dice.uniform(0.35, 4.0, 360) ** 1.5 + 0.4)
    linear = float(dice.choice([-1.0, 1.0]) * dice.uniform(0.2, 1.0))
    angular = float(dice.uniform(-1.5, 1.5))
    assert path_separation(scan, linear, angular, RADIUS) == pytest.approx(
        driven(scan, linear, angular), abs=0.01)
