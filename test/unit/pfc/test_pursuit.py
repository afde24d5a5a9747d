from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.pfc import pursuit as pursuit_module
from brainos_ros.pfc.pursuit import CANCEL_S, Pursuit


class Robot:
    """The client's side of one order, as an action client shows it."""

    def __init__(self, accepts=True):
        self.accepted = accepts
        self.cancels = 0
        self.answer = Future()

    def get_result_async(self):
        return self.answer

    def cancel_goal_async(self):
        self.cancels += 1

    def finish(self, **result):
        given = {"success": True, "error_code": 0, "outcome": "success", "reward": 0.5,
                 "message": "", **result}
        self.answer.set_result(SimpleNamespace(result=SimpleNamespace(**given)))


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(pursuit_module, "time", made)
    return made


def begin(robot=None, timeout_s=60.0):
    pursuit, sent = Pursuit("deliver", b"id", Future()), Future()
    pursuit.begin("aisle_1", sent, timeout_s)
    if robot:
        sent.set_result(robot)
    return pursuit, sent


def test_the_robots_result_is_learnt():
    robot = Robot()
    pursuit, _ = begin(robot)
    assert not pursuit.over.done()
    robot.finish()
    assert pursuit.over.done()
    assert pursuit.outcome() == ("success", 0.5)


@pytest.mark.parametrize(
    ("success", "learnt"), [(True, ("success", 1.0)), (False, ("failure", -1.0))]
)
def test_a_robot_that_names_no_outcome(success, learnt):
    robot = Robot()
    pursuit, _ = begin(robot)
    robot.finish(success=success, outcome="", reward=0.0)
    assert pursuit.outcome() == learnt


def test_a_refused_order_teaches_nothing():
    pursuit, _ = begin(Robot(accepts=False))
    assert pursuit.over.done()
    assert not pursuit.left_behind
    with pytest.raises(BrainError, match="aisle_1: the robot refuses") as caught:
        pursuit.outcome()
    assert caught.value.code is ErrorCode.PFC_ACTION_FAILED


def test_a_cancel_waits_for_the_robot_to_stop_and_teaches_nothing():
    robot = Robot()
    pursuit, _ = begin(robot)
    pursuit.end("cancelled", ErrorCode.CANCELLED)
    pursuit.end("too long", ErrorCode.TIMEOUT)
    assert robot.cancels == 1
    assert not pursuit.over.done()
    robot.finish(outcome="partial")
    with pytest.raises(BrainError, match="cancelled"):
        pursuit.outcome()


def test_a_cancel_before_the_robot_accepted_reaches_it():
    robot = Robot()
    pursuit, sent = begin()
    pursuit.end("cancelled", ErrorCode.CANCELLED)
    assert robot.cancels == 0
    sent.set_result(robot)
    assert robot.cancels == 1


def test_taking_too_long_is_a_failure(clock):
    robot = Robot()
    pursuit, _ = begin(robot, timeout_s=60.0)
    clock.now += 59.0
    pursuit.check_time(lambda: True)
    assert robot.cancels == 0
    clock.now += 1.0
    pursuit.check_time(lambda: True)
    assert robot.cancels == 1
    assert not pursuit.over.done()
    clock.now += CANCEL_S
    pursuit.check_time(lambda: True)
    assert pursuit.over.done()
    assert pursuit.left_behind
    assert pursuit.outcome() == ("failure", -1.0)
    robot.finish(success=False)
    assert not pursuit.left_behind


def test_what_the_robot_did_before_the_cancel_reached_it_counts(clock):
    robot = Robot()
    pursuit, _ = begin(robot, timeout_s=60.0)
    clock.now += 60.0
    pursuit.check_time(lambda: True)
    assert robot.cancels == 1
    robot.finish()
    assert pursuit.result.success
    assert pursuit.outcome() == ("success", 0.5)


def test_a_robot_that_vanishes_teaches_nothing():
    pursuit, _ = begin(Robot())
    pursuit.check_time(lambda: False)
    assert pursuit.over.done()
    with pytest.raises(BrainError, match="the robot is gone"):
        pursuit.outcome()


def test_before_the_order_nothing_is_timed():
    pursuit = Pursuit("deliver", b"id", Future())
    pursuit.check_time(lambda: False)
    assert not pursuit.over.done()
