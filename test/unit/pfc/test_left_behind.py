from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from brainos_ros.pfc import left_behind as left_behind_module
from brainos_ros.pfc.left_behind import AGAIN_S, UNKNOWN_GOAL, LeftBehind

TERMINATED = 3


class Robot:
    """The client's sides of the orders: what was asked, by the order, to be answered."""

    def __init__(self):
        self.cancels, self.results = [], []

    def order(self, decision_id):
        def ask(asked):
            asked.append(Future())
            return asked[-1]

        return SimpleNamespace(
            cancel_goal_async=lambda: ask(self.cancels),
            get_result_async=lambda: ask(self.results),
        )


class Watched:
    """What was left behind, looked at once a while."""

    def __init__(self, monkeypatch):
        self.now, self.there, self.over, self.robot = 100.0, True, [], Robot()
        monkeypatch.setattr(left_behind_module, "time", SimpleNamespace(monotonic=self.clock))
        self.left = LeftBehind(["a"], self.robot.order, self.note)
        self.full = False

    def clock(self):
        return self.now

    def note(self, decision_id):
        if self.full:
            raise OSError("no space left")
        self.over.append(decision_id)

    def look(self, after_s=AGAIN_S):
        self.now += after_s
        self.left.check(lambda: self.there)


@pytest.fixture
def watched(monkeypatch):
    return Watched(monkeypatch)


def answer(cancel, code=0):
    cancel.set_result(SimpleNamespace(return_code=code))


@pytest.mark.parametrize("code", [0, TERMINATED])
def test_what_was_cancelled_is_cancelled_again_until_its_result_comes(watched, code):
    for times in (1, 2, 3):
        watched.look()
        assert len(watched.robot.cancels) == times
        answer(watched.robot.cancels[-1], code)
        watched.look(0.1)
        assert watched.left.first == "a"
    (result,) = watched.robot.results
    result.set_result(None)
    watched.look(0.1)
    assert (watched.over, watched.left.first) == (["a"], "")
    watched.look()
    assert len(watched.robot.cancels) == 3


def test_a_robot_that_does_not_know_the_order_is_not_at_it(watched):
    watched.look()
    answer(watched.robot.cancels[0], UNKNOWN_GOAL)
    watched.look(0.1)
    assert watched.over == ["a"]


def test_a_cancel_that_is_not_answered_is_waited_for_no_longer(watched):
    watched.look()
    watched.look()
    assert [each.cancelled() for each in watched.robot.cancels] == [True, False]


def test_a_robot_that_comes_back_is_asked_anew(watched):
    watched.look()
    watched.there = False
    watched.look()
    assert len(watched.robot.cancels) == 1
    watched.there = True
    watched.look()
    first, again = watched.robot.results
    assert first.cancelled()
    again.set_result(None)
    watched.look(0.1)
    assert watched.over == ["a"]


def test_what_it_said_before_it_went_counts(watched):
    watched.look()
    watched.robot.results[0].set_result(None)
    watched.there = False
    watched.look(0.1)
    assert watched.over == ["a"]


def test_what_cannot_be_noted_is_told_again_and_the_others_are_cancelled(watched):
    watched.left.add("b")
    watched.look()
    watched.robot.results[0].set_result(None)
    watched.full = True
    for _ in range(2):
        with pytest.raises(OSError, match="space"):
            watched.look()
    assert len(watched.robot.cancels) == 6
    watched.full = False
    watched.look(0.1)
    assert (watched.over, watched.left.first) == (["a"], "b")
