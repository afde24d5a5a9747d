"""The built-in crowd walks where people can, differs by seed, and is denser in one aisle."""

import numpy as np
import pytest

from brainos_ros.errors import BrainError
from brainos_ros.robots.crowd import MAX_SPEED_MPS, Crowd
from brainos_ros.robots.layout import warehouse

LAYOUT = warehouse()
FAR_AWAY = np.array([100.0, 100.0, 0.0, 0.0])


def walk(crowd, seconds, robot=FAR_AWAY):
    """Positions (steps, n, 2) every 50 ms."""
    places = []
    for _ in range(round(seconds / 0.05)):
        crowd.advance(0.05, robot)
        places.append(crowd.positions)
    return np.array(places)


def test_nobody_walks_through_shelves_or_walls_or_runs():
    crowd = Crowd(LAYOUT, 12, seed=3)
    places = walk(crowd, 60.0)
    for box in (*LAYOUT.shelves, *LAYOUT.walls):
        inside = (
            (places[..., 0] > box.x_min)
            & (places[..., 0] < box.x_max)
            & (places[..., 1] > box.y_min)
            & (places[..., 1] < box.y_max)
        )
        assert not inside.any()
    assert (np.hypot(*np.diff(places, axis=0).T) <= MAX_SPEED_MPS * 0.05 + 1e-9).all()


def test_the_same_seed_is_the_same_crowd_and_another_is_not():
    first, again, other = (walk(Crowd(LAYOUT, 6, seed=seed), 5.0) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_middle_aisle_is_the_busiest():
    places = walk(Crowd(LAYOUT, 12, seed=0), 120.0).reshape(-1, 2)
    in_aisles = places[np.abs(places[:, 0]) < 4.0]
    counts = {
        name: int((np.abs(in_aisles[:, 1] - aisle.ends[0][1]) < 1.5).sum())
        for name, aisle in LAYOUT.aisles.items()
    }
    assert max(counts, key=counts.__getitem__) == "aisle_2"
    assert counts["aisle_2"] > 1.5 * min(counts.values())


def test_everybody_keeps_walking_around_a_robot_that_stands_in_the_way():
    robot = np.array([0.0, 0.0, 0.0, 0.0])
    crowd = Crowd(LAYOUT, 8, seed=1, politeness=0.5)
    places = walk(crowd, 60.0, robot)
    assert np.hypot(*(places[20:] - robot[:2]).T).min() > 0.5
    late = places[600:]
    assert (np.ptp(late, axis=0).max(axis=1) > 1.0).all()


def test_an_empty_crowd_and_one_too_large():
    crowd = Crowd(LAYOUT, 0)
    crowd.advance(0.05, FAR_AWAY)
    assert crowd.positions.shape == (0, 2)
    with pytest.raises(BrainError, match="0 to 200"):
        Crowd(LAYOUT, 201)
