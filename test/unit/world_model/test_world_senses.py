"""What scans, odometry and a tracker become."""

import math

import pytest

from brainos_ros.world_model import senses
from brainos_ros.world_model.entities import Entity, Pose

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


def test_people_keep_their_birthday() -> None:
    pose = Pose("odom", (0.0, 0.0, 0.0))
    (first,) = senses.people([(7, pose, 1.25, 0.3)], {}, 10)
    (again,) = senses.people([(7, pose, 1.25, 0.3)], {first.entity_id: first}, 20)
    assert (again.entity_id, again.created_at, again.last_updated) == ("tracked/7", 10, 20)
    assert again.attributes == {"speed_mps": 1.25, "radius_m": 0.3}
