"""The navigator drives named actions to their end, and says what they were worth."""

import math
from itertools import pairwise

import pytest

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robots.crowd import Crowd
from brainos_ros.robots.layout import warehouse
from brainos_ros.robots.navigator import Navigator, Path
from brainos_ros.robots.physics import Base
from brainos_ros.robots.simulation import Simulation

LAYOUT = warehouse()
BASE = Base()
NAVIGATOR = Navigator(LAYOUT, BASE)
START = (*LAYOUT.start, 0.0)


@pytest.fixture
def sim():
    pytest.importorskip("mujoco", reason="MuJoCo is not installed")
    return Simulation(LAYOUT, Crowd(LAYOUT, 0), BASE)


def drive(sim, errand, blocked=lambda sim: False):
    """Drive to the end; returns every point passed."""
    passed = []
    while not errand.over:
        command = errand.step(sim.body.pose, 0.05)
        sim.command(*((0.0, 0.0) if blocked(sim) else command))
        sim.advance(0.05)
        passed.append(sim.body.pose[:2])
    return passed


def drive_for(sim, errand, seconds):
    for _ in range(round(seconds / 0.05)):
        sim.command(*errand.step(sim.body.pose, 0.05))
        sim.advance(0.05)


@pytest.mark.parametrize("aisle", list(LAYOUT.aisles))
def test_it_drives_through_the_aisle_named_to_the_station_named(sim, aisle):
    errand = NAVIGATOR.begin(aisle, {"from": "station_a", "to": "station_b"}, sim.body.pose)
    passed = drive(sim, errand)
    outcome = errand.outcome
    assert (outcome.outcome, outcome.progress) == ("success", 1.0)
    assert math.dist(sim.body.pose[:2], LAYOUT.station("station_b")) < 0.35
    middle = LAYOUT.aisles[aisle].ends[0][1]
    assert all(abs(y - middle) < 0.2 for x, y in passed if abs(x) < 3.0)
    assert 0.6 < outcome.reward <= 1.0
    assert sim.shelf_contacts == 0


def test_shorter_ways_are_worth_more_and_held_ones_less(sim):
    rewards = {}
    for aisle in ("aisle_2", "aisle_1"):
        there = NAVIGATOR.begin(aisle, {"to": "station_b"}, sim.body.pose)
        drive(sim, there)
        back = NAVIGATOR.begin("go:station_a", {}, sim.body.pose)
        drive(sim, back)
        rewards[aisle] = there.outcome.reward
    assert rewards["aisle_2"] > rewards["aisle_1"]
    begin = sim.time_s
    held = NAVIGATOR.begin("aisle_2", {"to": "station_b"}, sim.body.pose)
    drive(sim, held, blocked=lambda sim: sim.time_s - begin < 10.0)
    assert held.outcome.outcome == "success"
    assert held.outcome.reward < rewards["aisle_2"] - 0.2
    assert held.held_s > 7.0


def test_out_of_time_is_a_failure_or_half_a_success(sim):
    stuck = NAVIGATOR.begin("aisle_2", {"to": "station_b", "timeout_s": 3.0}, sim.body.pose)
    drive(sim, stuck, blocked=lambda sim: True)
    assert (stuck.outcome.outcome, stuck.outcome.reward) == ("failure", 0.0)
    assert "not there after 3 s" in stuck.outcome.message
    late = NAVIGATOR.begin("aisle_2", {"to": "station_b"}, sim.body.pose)
    drive(sim, late, blocked=lambda sim: sim.body.pose[0] > 3.0)
    assert late.outcome.outcome == "partial"
    assert 0.0 < late.outcome.reward < 0.25


def test_a_cancelled_errand_asks_for_zero():
    errand = NAVIGATOR.begin("aisle_1", {"to": "station_b"}, START)
    errand.cancel()
    assert errand.step(START, 0.05) == (0.0, 0.0)
    assert errand.outcome.outcome == "failure"


@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.0, 3.0])
def test_a_cancelled_errand_is_over_when_the_base_stands_and_stays_there(sim, seconds):
    errand = NAVIGATOR.begin("aisle_2", {"to": "station_b"}, sim.body.pose)
    drive_for(sim, errand, seconds)
    errand.cancel()
    begin = sim.time_s
    drive(sim, errand)
    assert sim.time_s - begin < 0.9
    assert errand.outcome.message == "cancelled"
    place = sim.body.pose
    sim.advance(0.5)
    assert sim.body.pose == pytest.approx(place, abs=0.002)


def test_an_errand_that_arrives_is_over_when_the_base_stands(sim):
    errand = NAVIGATOR.begin("go:station_c", {}, sim.body.pose)
    drive(sim, errand)
    assert errand.outcome.outcome == "success"
    assert math.hypot(*sim.body.velocity[:2]) < 0.02


def test_a_base_that_points_back_stands_too():
    errand = NAVIGATOR.begin("aisle_2", {"to": "station_b"}, START)
    errand.cancel()
    for yaw in (math.pi, -math.pi) * 3:
        errand.step((*START[:2], yaw), 0.05)
    assert errand.over and errand.outcome.message == "cancelled"


def test_a_base_that_is_driven_by_others_is_not_waited_for(sim):
    errand = NAVIGATOR.begin("aisle_2", {"to": "station_b"}, sim.body.pose)
    errand.cancel()
    while not errand.over:
        errand.step(sim.body.pose, 0.05)
        sim.command(0.0, 0.5)
        sim.advance(0.05)
        assert sim.time_s < 5.0
    assert errand.outcome.message == "cancelled; the base still moves 2.9 s later"


def test_commands_respect_the_acceleration_and_limits_of_the_base():
    errand = NAVIGATOR.begin("aisle_2", {"to": "station_b"}, START)
    speeds = [errand.step(START, 0.05) for _ in range(60)]
    linear = [command[0] for command in speeds]
    steps = [b - a for a, b in pairwise(linear)]
    assert max(steps) <= BASE.acceleration_mps2 * 0.05 + 1e-9
    assert max(linear) <= BASE.max_speed_mps
    assert all(abs(command[1]) <= BASE.max_yaw_rate_radps for command in speeds)


def test_waiting_takes_its_time_and_earns_nothing():
    errand = NAVIGATOR.begin("wait", {"seconds": 0.2}, START)
    steps = 0
    while not errand.over:
        assert errand.step(START, 0.05) == (0.0, 0.0)
        steps += 1
    assert steps == 4
    assert (errand.outcome.outcome, errand.outcome.reward) == ("success", 0.0)


@pytest.mark.parametrize(
    ("action", "context", "said", "code"),
    [
        ("dance", {}, "can do aisle_1", ErrorCode.NOT_FOUND),
        ("aisle_1", {}, "needs a station in 'to'", ErrorCode.INVALID_ARGUMENT),
        ("aisle_1", {"to": "moon"}, "station 'moon'", ErrorCode.NOT_FOUND),
        ("aisle_1", {"from": "moon", "to": "station_b"}, "'moon'", ErrorCode.NOT_FOUND),
        ("go:moon", {}, "station 'moon'", ErrorCode.NOT_FOUND),
        ("wait", {"seconds": -1.0}, "seconds is -1.0", ErrorCode.INVALID_ARGUMENT),
        ("wait", {"seconds": True}, "seconds is True", ErrorCode.INVALID_ARGUMENT),
        ("aisle_1", {"to": "station_b", "timeout_s": math.nan}, "timeout_s", None),
    ],
)
def test_what_cannot_be_done_is_refused_saying_what_can(action, context, said, code):
    with pytest.raises(BrainError, match=said) as refused:
        NAVIGATOR.begin(action, context, START)
    assert code in (None, refused.value.code)


def test_a_path_only_goes_forward():
    path = Path([(0.0, 0.0), (2.0, 0.0), (2.0, 2.0)])
    path.follow((0.9, 0.1))
    assert path.travelled_m == pytest.approx(0.9, abs=0.06)
    path.follow((0.2, 0.0))
    assert path.travelled_m == pytest.approx(0.9, abs=0.06)
    assert path.point_at(3.0) == (2.0, 1.0)
    assert path.point_at(99.0) == (2.0, 2.0)
