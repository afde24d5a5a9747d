"""Recorded driving becomes legs: from setting off to standing again."""

import math

from brainos_ros.robots.carmen import OdometryRow, read
from brainos_ros.robots.legs import Leg, Legs


def drive(*parts: tuple[float, float, float]) -> list[Leg]:
    """The legs of parts (seconds, m/s, rad/s), sampled at 10 Hz."""
    legs, found = Legs(), []
    x = y = yaw = time = 0.0
    for seconds, linear, angular in parts:
        for _ in range(round(seconds * 10)):
            time += 0.1
            yaw += angular * 0.1
            x, y = x + linear * 0.1 * math.cos(yaw), y + linear * 0.1 * math.sin(yaw)
            leg = legs.feed(OdometryRow(time, (x, y, yaw), linear, angular))
            found += [leg] if leg else []
    return found


def test_a_leg_ends_when_the_robot_has_stood() -> None:
    (leg,) = drive((2, 0, 0), (10, 0.5, 0), (2, 0, 0))
    assert math.isclose(leg.distance_m, 5.0, abs_tol=0.1)
    assert math.isclose(leg.duration_s, 10.0, abs_tol=0.5)
    assert math.isclose(leg.straightness, 1.0, abs_tol=0.01)


def test_a_short_stop_does_not_end_it() -> None:
    (leg,) = drive((5, 0.5, 0), (0.5, 0, 0), (5, 0.5, 0), (2, 0, 0))
    assert math.isclose(leg.distance_m, 5.0, abs_tol=0.15)


def test_a_full_circle_comes_back_and_a_turn_goes_nowhere() -> None:
    circle, turn = drive((10, 0.5, math.tau / 10), (2, 0, 0), (4, 0, 1.0), (2, 0, 0))
    assert circle.straightness < 0.05
    assert turn.straightness == 0.0
    assert math.isclose(turn.end[2] - turn.begin[2], 4.0, abs_tol=0.2)


def test_who_never_stands_still_has_no_leg_yet() -> None:
    assert drive((30, 0.3, 0.1)) == []


def test_the_recorded_robot_made_many(shared_data) -> None:
    legs = Legs()
    rows = read(shared_data / "intel-lab.carmen.log.gz").rows
    found = [leg for row in rows if isinstance(row, OdometryRow) and (leg := legs.feed(row))]
    assert len(found) > 10
    assert all(0.0 <= leg.straightness <= 1.0 and leg.duration_s > 0.0 for leg in found)
