"""What scans, odometry and a tracker become."""

import math
from dataclasses import replace

import pytest

from brainos_ros.world_model import senses
from brainos_ros.world_model.entities import Entity, Fact, Pose

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("ranges", "nearest"),
    [
        ([3.0, 1.5, 2.0], 1.5),
        ([INF, INF], INF),
        ([INF, 4.0, NAN], 4.0),
        ([-INF, 4.0], 0.1),
        ([0.05, 40.0, 4.0], 4.0),
        ([NAN, NAN], NAN),
        ([], NAN),
    ],
)
def test_nearest_return_follows_rep_117(ranges, nearest: float) -> None:
    found = senses.nearest_return(ranges, 0.1, 30.0)
    assert found == nearest or (math.isnan(found) and math.isnan(nearest))


def test_a_robot_that_stands_changes_nothing() -> None:
    pose = Pose("odom", (1.0, 2.0, 0.0))
    held = senses.robot(Entity.new("robot", 0, "r1"), pose, {"speed_mps": 0.0}, 1)
    assert held is not None
    near = Pose("odom", (1.005, 2.0, 0.0))
    assert senses.robot(held, near, {"speed_mps": 0.005}, 2) is None
    assert senses.robot(held, None, {}, 2) is None
    turned = Pose("odom", (1.0, 2.0, 0.0), (0.0, 0.0, math.sin(0.02), math.cos(0.02)))
    for pose in (turned, Pose("odom", (1.1, 2.0, 0.0)), Pose("map", (1.0, 2.0, 0.0))):
        assert senses.robot(held, pose, {}, 2).where == pose
    assert senses.robot(held, None, {"speed_mps": 0.5}, 2).where == held.where


def test_what_is_no_longer_known_of_the_robot_is_removed() -> None:
    held = Entity.new("robot", 0, "r1", attributes={"nearest_obstacle_m": 0.5, "load": "box"})
    free = senses.robot(held, None, {"nearest_obstacle_m": INF, "speed_mps": 0.5}, 1)
    assert free is not None
    assert free.attributes == {"speed_mps": 0.5, "load": "box"}
    assert senses.robot(free, None, {"nearest_obstacle_m": NAN, "speed_mps": 0.5}, 2) is None


def test_people_keep_what_others_observed_of_them_and_no_figure_that_is_none() -> None:
    pose = Pose("odom", (0.0, 0.0, 0.0))
    (first,) = senses.people([(7, pose, 1.25, 0.3)], {}, 10)
    known = replace(first, facts={**first.facts, "wears_vest": Fact(True, 15)})
    (again,) = senses.people([(7, pose, NAN, 0.4)], {known.entity_id: known}, 20)
    assert again.attributes == {"wears_vest": True, "radius_m": 0.4}


def test_people_keep_their_birthday() -> None:
    pose = Pose("odom", (0.0, 0.0, 0.0))
    (first,) = senses.people([(7, pose, 1.25, 0.3)], {}, 10)
    (again,) = senses.people([(7, pose, 1.25, 0.3)], {first.entity_id: first}, 20)
    assert (again.entity_id, again.created_at, again.last_updated) == ("tracked/7", 10, 20)
    assert again.attributes == {"speed_mps": 1.25, "radius_m": 0.3}
