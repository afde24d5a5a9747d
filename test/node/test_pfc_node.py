"""The PFC among a conscience and a robot that do what the test says, over real DDS."""

import json
import math
import queue
import shutil
import sqlite3
import threading
import time
import uuid
from contextlib import closing
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from action_msgs.msg import GoalStatus
from brainos_msgs.action import Execute, Pursue
from brainos_msgs.msg import (
    Attribute,
    Decision,
    Episode,
    ErrorCode,
    Option,
    SafetyState,
    ServiceLevel,
    WorldState,
)
from brainos_msgs.srv import (
    Approve,
    Decide,
    Evaluate,
    Explain,
    ListPending,
    Retrieve,
    WriteEpisode,
)
from conscience_world import FAST_BASE, provisioned
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import Log
from rclpy.action import ActionClient, ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from unique_identifier_msgs.msg import UUID
from waiting import DEADLINE_S, matched, wait_for

from brainos_ros import errors
from brainos_ros.conscience.credentials import load_key, load_operators, sign
from brainos_ros.conscience.node import ConscienceNode
from brainos_ros.ledger import Stream
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.log import frames_from, to_record
from brainos_ros.memory.node import MemoryNode
from brainos_ros.pfc.node import PfcNode
from brainos_ros.pfc.store import Outcome, Store
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import attributes_to_dict, dict_to_attributes


class Body(ActionServer):
    """Counts how often it was asked to cancel something."""

    cancels = 0

    async def _execute_cancel_request(self, request):
        await super()._execute_cancel_request(request)
        self.cancels += 1


class World(Node):
    """Offers `conscience/evaluate` and `execute`."""

    def __init__(self, robot=True):
        super().__init__("world")
        self.refused: set[str] = set()
        self.silent = False
        self.asked: list[str] = []
        self.ordered: list[Execute.Goal] = []
        self.holding = self.busy = False
        self.obeys = self.stops_at_once = True
        self.cancelled = threading.Event()
        self.began = threading.Event()
        self.reward = 1.0
        self.says: dict[str, Any] = {}
        self.meanwhile = lambda: None
        self._release = threading.Event()
        self.create_service(
            Evaluate, "conscience/evaluate", self._evaluate, qos_profile=qos.SERVICE
        )
        self.robot = None
        if robot:
            self.robot = Body(
                self,
                Execute,
                "execute",
                self._execute,
                cancel_callback=self._cancel,
                callback_group=ReentrantCallbackGroup(),
            )

    def destroy_node(self):
        if self.robot is not None:
            self.robot.destroy()
        super().destroy_node()

    def _evaluate(self, request, response):
        self.asked.append(request.action)
        if self.silent:
            self._release.wait(DEADLINE_S)
        response.success = True
        response.evaluation.evaluation_id = f"evaluation of {request.action}"
        response.evaluation.approved = request.action not in self.refused
        response.evaluation.reason = "as the test says"
        return response

    async def _execute(self, goal):
        self.ordered.append(goal.request)
        goal.publish_feedback(Execute.Feedback(progress=0.5, text="half-way"))
        self._over = Future(executor=self.executor)
        self.began.set()
        if self.busy:
            goal.abort()
            return Execute.Result(error_code=int(ErrorCode.UNAVAILABLE), outcome="failure")
        if self.holding:
            await self._over
            goal.canceled()
            return Execute.Result()
        self.meanwhile()
        goal.succeed()
        outcome = "success" if self.reward > 0 else "failure"
        said = {
            "success": True,
            "outcome": outcome,
            "reward": self.reward,
            "duration_s": 1.5,
            "facts": dict_to_attributes({"stops": 2}),
        }
        return Execute.Result(**{**said, **self.says})

    def _cancel(self, goal):
        if not self.obeys:
            return CancelResponse.REJECT
        self.cancelled.set()
        if self.stops_at_once:
            self.stop()
        return CancelResponse.ACCEPT

    def stop(self):
        self._over.set_result(None)

    def cancelled_again(self):
        """Wait until it answered another two cancels."""
        before = self.robot.cancels
        wait_for(lambda: self.robot.cancels >= before + 2, lambda: "it is cancelled no more")


@pytest.fixture
def world(graph):
    made = World()
    graph._run(made)
    return made


def options(*names, **attributes):
    return [Option(name=name, attributes=dict_to_attributes(attributes)) for name in names]


def request(*names, objective="deliver", **fields):
    return Decide.Request(objective=objective, options=options(*names), **fields)


class Pursuer:
    """A client of `pfc/pursue`, there once the PFC has found the robot."""

    def __init__(self, graph, pfc, robot=True):
        self.client = ActionClient(graph.tester, Pursue, "pfc/pursue")
        assert self.client.wait_for_server(DEADLINE_S)
        assert not robot or pfc._acting._robot.wait_for_server(DEADLINE_S)
        self.feedback: list[Pursue.Feedback] = []
        self._executor = graph.tester.executor

    def send(self, *names, **fields):
        goal = Pursue.Goal(objective="deliver", options=options(*names), **fields)
        return self.finished(
            lambda: self.client.send_goal_async(goal, lambda m: self.feedback.append(m.feedback))
        )

    def pursue(self, *names, **fields):
        return self.result(self.send(*names, **fields))

    def result(self, handle):
        return self.finished(handle.get_result_async)

    def close(self):
        """In the executor's thread: in another, rclpy may be using what is destroyed."""
        wait(self._executor.create_task(self.client.destroy))

    def finished(self, begin):
        """The result of the future that `begin` makes.

        It is made in the executor's thread: in another, an answer can come before rclpy's action
        client knows that it asked, and is dropped.
        """
        return wait(wait(self._executor.create_task(begin)))


def interrupted(graph, pfc):
    return graph.within(pfc, pfc.store.interrupted)


def start(graph, **parameters):
    """A PFC that waits long enough for the conscience, however busy the machine is."""
    return graph.start(PfcNode, **{"conscience_timeout_s": 5.0, **parameters})


def wait(future):
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    assert done.wait(DEADLINE_S)
    return future.result()


def test_decide_asks_the_conscience_publishes_and_explains(graph, world):
    pfc = start(graph)
    said = graph.listen(Decision, "pfc/decisions")
    world.refused = {"a", "b"}
    reply = graph.call(Decide, "pfc/decide", request("a", "b", "c"))
    assert (reply.success, reply.decision.recommended_action) == (True, "c")
    assert reply.decision.evaluation_id == "evaluation of c"
    assert len(reply.decision.alternatives) == 2
    assert 0.0 < reply.decision.latency_ms < 1e4
    assert "c scores" in reply.decision.reasoning
    assert said.wait_for(lambda m: m.decision_id == reply.decision.decision_id) == reply.decision
    assert graph.call(Explain, "pfc/explain").decision == reply.decision
    graph.stop(pfc)
    start(graph)
    asked = Explain.Request(decision_id=reply.decision.decision_id)
    assert graph.call(Explain, "pfc/explain", asked).decision == reply.decision


def test_the_store_is_rebuilt_from_the_ledger(graph, world):
    pfc = start(graph)
    reply = graph.call(Decide, "pfc/decide", request("a"))
    graph.stop(pfc)
    (graph.home / "pfc" / "pfc.db").unlink()
    start(graph)
    assert graph.call(Explain, "pfc/explain").decision == reply.decision


def test_a_damaged_store_is_kept_aside_and_what_was_under_way_is_still_interrupted(graph, world):
    pfc = start(graph)
    reply = graph.call(Decide, "pfc/decide", request("a"))
    graph.within(pfc, lambda: pfc.record_pursuit(reply.decision.decision_id, "began"))
    graph.stop(pfc)
    path = graph.home / "pfc" / "pfc.db"
    path.write_bytes(b"garbage" * 1000)
    warned = graph.listen(Log, "/rosout")
    world.robot.destroy()
    world.robot = None
    pfc = start(graph)
    assert graph.call(Explain, "pfc/explain").decision == reply.decision
    assert interrupted(graph, pfc) == [reply.decision.decision_id]
    (aside,) = path.parent.glob("pfc.db.damaged-*")
    assert aside.read_bytes() == b"garbage" * 1000
    assert "under way" in warned.wait_for(lambda log: str(aside) in log.msg).msg


def test_a_store_of_another_stream_is_built_anew(graph, world):
    pfc = start(graph)
    graph.call(Decide, "pfc/decide", request("a"))
    graph.stop(pfc)
    shutil.rmtree(graph.home / "ledger")
    with Stream.open(graph.home / "ledger", "pfc") as other:
        for _ in range(9):
            other.event("pursuit", {"decision_id": "d", "phase": "ended"})
    start(graph)
    assert graph.call(Explain, "pfc/explain").error_code == ErrorCode.NOT_FOUND


def test_constraints_are_named_by_hand(graph, world):
    start(graph)
    asked = request("path_a", constraints=["avoid_stairs", "energy_efficient"])
    asked.options.append(Option(name="path_b"))
    stairs = Attribute(key="stairs")
    stairs.value.string_value = "true"
    asked.options[1].attributes = [stairs]
    reply = graph.call(Decide, "pfc/decide", asked)
    assert reply.decision.recommended_action == "path_a"
    assert reply.decision.alternatives[0].reason == "avoid_stairs excludes it: it leads over stairs"


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (request("a", objective=""), ErrorCode.INVALID_ARGUMENT, "objective"),
        (request(), ErrorCode.INVALID_ARGUMENT, "options"),
        (request("a", "a"), ErrorCode.INVALID_ARGUMENT, "`a` is there twice"),
        (request("a", constraints=["x"]), ErrorCode.PFC_UNKNOWN_CONSTRAINT, "`x`"),
        (request("a", context=[Attribute()]), ErrorCode.INVALID_ARGUMENT, "context"),
    ],
)
def test_a_malformed_request_is_refused_and_the_next_answered(graph, world, asked, code, said):
    start(graph)
    reply = graph.call(Decide, "pfc/decide", asked)
    assert (reply.success, reply.error_code) == (False, code)
    assert said in reply.message
    assert graph.call(Decide, "pfc/decide", request("a")).success


def test_without_a_conscience_nothing_is_allowed(graph):
    start(graph, conscience_timeout_s=0.05)
    reply = graph.call(Decide, "pfc/decide", request("a", "b"))
    assert (reply.success, reply.error_code) == (False, ErrorCode.PFC_NO_OPTION_LEFT)
    assert reply.decision.recommended_action == ""
    assert all("cannot be asked" in each.reason for each in reply.decision.alternatives)


def test_a_silent_conscience_is_a_refusal(graph, world):
    start(graph, conscience_timeout_s=2.0)
    world.silent = True
    reply = graph.call(Decide, "pfc/decide", request("a", "b"))
    assert reply.error_code == ErrorCode.PFC_NO_OPTION_LEFT
    assert len(world.asked) == 1
    world._release.set()


def test_what_a_person_approved_is_done_once(graph):
    keys = provisioned(graph.home)
    graph.start(ConscienceNode, **FAST_BASE)
    start(graph)
    context = {"zone": "public", "battery_percent": 50.0, "charging": False}
    asked = request("go_to", context=dict_to_attributes(context))

    def waiting():
        return graph.call(ListPending, "conscience/list_pending").pending

    for _ in range(2):
        reply = graph.call(Decide, "pfc/decide", asked)
        (pending,) = waiting()
        assert f"approval {pending.approval_id} is pending" in reply.message
    signed = {"challenge": pending.challenge}
    robot = load_operators(graph.home).robot
    approve = Approve.Request(
        approval_id=pending.approval_id,
        operator_name="anna",
        token=sign(load_key("anna", keys), "approve", robot, signed),
    )
    assert graph.call(Approve, "conscience/approve", approve).success
    reply = graph.call(Decide, "pfc/decide", asked)
    assert (reply.success, reply.decision.recommended_action) == (True, "go_to")
    assert reply.decision.evaluation_id
    assert not waiting()
    reply = graph.call(Decide, "pfc/decide", asked)
    (again,) = waiting()
    assert not reply.success
    assert again.approval_id != pending.approval_id


def test_explain_of_the_unknown(graph, world):
    start(graph)
    reply = graph.call(Explain, "pfc/explain", Explain.Request(decision_id="nonsense"))
    assert reply.error_code == ErrorCode.NOT_FOUND


def test_pursue_acts_and_learns(graph, world):
    pfc = start(graph)
    episodes = graph.listen(Episode, "episodes")
    pursuer = Pursuer(graph, pfc)
    context = dict_to_attributes({"floor": "dry"})
    done = pursuer.pursue("a", context=context)
    assert done.status == GoalStatus.STATUS_SUCCEEDED
    assert (done.result.success, done.result.outcome, done.result.reward) == (True, "success", 1.0)
    assert world.ordered[0].action == "a"
    assert world.ordered[0].decision_id == done.result.decision.decision_id
    episode = episodes.wait_for()
    assert episode.episode_id == done.result.episode_id
    assert attributes_to_dict(episode.metadata, "metadata") == {"duration_s": 1.5, "stops": 2}
    phases = [each.phase for each in pursuer.feedback]
    assert phases == ["observing", "deciding", "acting", "learning"]
    again = graph.call(Decide, "pfc/decide", request("a", context=context))
    assert "1.0 of 1.0 similar outcomes were successes" in again.decision.reasoning
    told = graph.call(
        Explain, "pfc/explain", Explain.Request(decision_id=done.result.decision.decision_id)
    )
    assert (told.outcome, told.reward) == ("success", 1.0)
    pursuer.close()


def test_what_was_learnt_survives_a_restart(graph, world):
    pfc = start(graph)
    pursuer = Pursuer(graph, pfc)
    world.reward = -1.0
    assert pursuer.pursue("a").result.outcome == "failure"
    pursuer.close()
    graph.stop(pfc)
    start(graph)
    reply = graph.call(Decide, "pfc/decide", request("a"))
    assert "0.0 of 1.0 similar outcomes were successes" in reply.decision.reasoning


def test_a_cancel_reaches_the_robot(graph, world):
    pfc = start(graph)
    pursuer = Pursuer(graph, pfc)
    world.holding = True
    handle = pursuer.send("a")
    assert world.began.wait(DEADLINE_S)
    pursuer.finished(handle.cancel_goal_async)
    done = pursuer.result(handle)
    assert world.cancelled.is_set()
    assert done.status == GoalStatus.STATUS_CANCELED
    assert done.result.error_code == ErrorCode.CANCELLED
    assert done.result.episode_id == ""
    world.holding = False
    assert pursuer.pursue("a").result.success
    pursuer.close()


def test_deactivation_aborts_and_nothing_is_repeated(graph, world):
    pfc = start(graph)
    pursuer = Pursuer(graph, pfc)
    world.holding = True
    handle = pursuer.send("a")
    result = wait(graph.tester.executor.create_task(handle.get_result_async))
    assert world.began.wait(DEADLINE_S)
    assert graph.change_state("pfc", Transition.TRANSITION_DEACTIVATE)
    done = wait(result)
    assert done.status == GoalStatus.STATUS_ABORTED
    assert done.result.error_code == ErrorCode.CANCELLED
    assert world.cancelled.wait(DEADLINE_S)
    assert graph.change_state("pfc", Transition.TRANSITION_ACTIVATE)
    assert graph.call(Decide, "pfc/decide", request("a")).success
    assert len(world.ordered) == 1
    pursuer.close()


def test_what_a_killed_pfc_left_the_robot_doing_is_cancelled(graph, monkeypatch):
    graph._run(World(robot=False))
    pfc = start(graph)
    decision_id = graph.call(Decide, "pfc/decide", request("a")).decision.decision_id
    graph.stop(pfc)
    with closing(sqlite3.connect(graph.home / "pfc" / "pfc.db")) as kept, kept:
        kept.execute("INSERT INTO under_way VALUES (?)", (decision_id,))
    graph.stop(start(graph))
    world = World()
    world.holding = True
    graph._run(world)
    robot = ActionClient(graph.tester, Execute, "execute")
    assert robot.wait_for_server(DEADLINE_S)
    goal_id = UUID(uuid=list(uuid.UUID(decision_id).bytes))
    task = graph.tester.executor.create_task(
        lambda: robot.send_goal_async(Execute.Goal(action="a"), goal_uuid=goal_id)
    )
    assert wait(wait(task)).accepted
    assert world.began.wait(DEADLINE_S)
    ended, settled = Store.end_action, queue.SimpleQueue()
    monkeypatch.setattr(Store, "end_action", lambda *which: (ended(*which), settled.put(which[1])))
    pfc = start(graph)
    assert world.cancelled.wait(DEADLINE_S)
    assert settled.get(timeout=DEADLINE_S) == decision_id
    graph.stop(pfc)
    with closing(Store(graph.home / "pfc" / "pfc.db")) as store:
        assert store.interrupted() == []
    assert len(world.ordered) == 1
    wait(graph.tester.executor.create_task(robot.destroy))


def test_an_order_is_cancelled_until_the_robot_says_that_it_is_over(graph, world, monkeypatch):
    monkeypatch.setattr("brainos_ros.pfc.pursuit.CANCEL_S", 0.3)
    ended, settled = Store.end_action, queue.SimpleQueue()
    monkeypatch.setattr(Store, "end_action", lambda *which: (ended(*which), settled.put(which[1])))
    pfc = start(graph, action_timeout_s=0.2)
    pursuer = Pursuer(graph, pfc)
    world.holding, world.obeys = True, False
    decision_id = pursuer.pursue("a").result.decision.decision_id
    assert settled.empty(), "the robot still acts on it"
    assert decision_id in pursuer.pursue("b").result.message
    assert len(world.ordered) == 1
    world.holding, world.obeys = False, True
    assert settled.get(timeout=DEADLINE_S) == decision_id
    assert world.cancelled.is_set()
    assert pursuer.pursue("b").result.success
    pursuer.close()


@pytest.mark.parametrize("restarted", [False, True])
def test_an_arm_that_takes_its_time_to_stop_is_given_nothing_meanwhile(
    graph, world, monkeypatch, restarted
):
    monkeypatch.setattr("brainos_ros.pfc.pursuit.CANCEL_S", 0.3)
    monkeypatch.setattr("brainos_ros.pfc.left_behind.AGAIN_S", 0.2)
    pfc = start(graph, action_timeout_s=0.2)
    pursuer = Pursuer(graph, pfc)
    world.holding, world.stops_at_once = True, False
    decision_id = pursuer.pursue("a").result.decision.decision_id
    assert world.cancelled.is_set()
    if restarted:
        graph.stop(pfc)
        pfc = start(graph)
        assert pfc._acting._robot.wait_for_server(DEADLINE_S)
    world.cancelled_again()
    assert decision_id in pursuer.pursue("b").result.message
    assert interrupted(graph, pfc) == [decision_id]
    assert len(world.ordered) == 1
    world.holding = False
    world.executor.create_task(world.stop)
    wait_for(lambda: not interrupted(graph, pfc))
    assert pursuer.pursue("b").result.success
    pursuer.close()


def test_a_robot_that_died_while_it_stopped_is_asked_anew(graph, world, monkeypatch):
    monkeypatch.setattr("brainos_ros.pfc.pursuit.CANCEL_S", 0.3)
    monkeypatch.setattr("brainos_ros.pfc.left_behind.AGAIN_S", 0.2)
    pfc = start(graph, action_timeout_s=0.2)
    pursuer = Pursuer(graph, pfc)
    world.holding, world.stops_at_once = True, False
    pursuer.pursue("a")
    world.cancelled_again()
    graph.stop(world)
    assert interrupted(graph, pfc)
    graph._run(World())
    wait_for(lambda: not interrupted(graph, pfc))
    assert pursuer.pursue("b").result.success
    pursuer.close()


def test_a_robot_that_is_busy_teaches_nothing(graph, world):
    pfc = start(graph)
    pursuer = Pursuer(graph, pfc)
    world.busy = True
    done = pursuer.pursue("a")
    assert (done.result.success, done.result.error_code) == (False, ErrorCode.UNAVAILABLE)
    assert not done.result.episode_id
    reply = graph.call(Decide, "pfc/decide", request("a"))
    assert "similar outcomes" not in reply.decision.reasoning
    pursuer.close()


def test_a_silent_conscience_holds_up_the_loop_once(graph, world):
    pfc = start(graph, conscience_timeout_s=1.0)
    world.silent = True
    began = time.monotonic()
    reply = graph.call(Decide, "pfc/decide", request(*"abcdef"))
    assert not reply.success
    assert time.monotonic() - began < 2.0, "one wait for all options"
    reply = graph.call(Decide, "pfc/decide", request("a"))
    assert "did not answer just now" in reply.decision.reasoning
    world._release.set()
    world.silent = False
    graph.stop(pfc)


def test_an_episode_waits_for_the_memory(graph, world):
    pfc = start(graph)
    pursuer = Pursuer(graph, pfc)
    done = pursuer.pursue("a")
    assert done.result.success
    graph.stop(pfc)
    came = queue.SimpleQueue()

    def write(request, response):
        came.put(request.episode)
        response.success = came.qsize() > 1
        return response

    graph.tester.create_service(WriteEpisode, "memory/write", write, qos_profile=qos.SERVICE)
    pfc = start(graph)
    first, again = came.get(timeout=DEADLINE_S), came.get(timeout=DEADLINE_S)
    assert first == again, "refused for the time being, it is sent again"
    assert (first.episode_id, first.outcome) == (done.result.episode_id, "success")
    pursuer.close()


@pytest.fixture
def told(graph):
    """The episodes that a memory was given."""
    came = queue.SimpleQueue()

    def write(request, response):
        came.put(request.episode)
        response.success = True
        return response

    graph.tester.create_service(WriteEpisode, "memory/write", write, qos_profile=qos.SERVICE)
    return came


def test_what_a_pfc_was_killed_before_it_recorded_is_learnt_once(graph, world, told, monkeypatch):
    record = PfcNode.record

    def refuse(node, kind, *body):
        if kind == "outcome":
            raise errors.BrainError("it is gone", errors.ErrorCode.LEDGER_REFUSED)
        return record(node, kind, *body)

    pfc = start(graph)
    pursuer = Pursuer(graph, pfc)
    with monkeypatch.context() as killed:
        killed.setattr(PfcNode, "record", refuse)
        assert not pursuer.pursue("a").result.success
        graph.stop(pfc)
    pursuer.close()
    pfc = start(graph)
    episode = told.get(timeout=DEADLINE_S)
    for _ in range(2):
        reply = graph.call(Decide, "pfc/decide", request("a"))
        assert "1.0 of 1.0 similar outcomes were successes" in reply.decision.reasoning
        graph.stop(pfc)
        pfc = start(graph)
    asked = Explain.Request(decision_id=episode.decision_id)
    assert graph.call(Explain, "pfc/explain", asked).outcome == "success"


def test_what_a_full_disk_keeps_from_being_owed_is_answered_published_and_owed_later(
    graph, world, told
):
    pfc = start(graph)
    episodes = graph.listen(Episode, "episodes")
    pursuer = Pursuer(graph, pfc)
    only = "PRAGMA query_only=%s"
    world.meanwhile = lambda: graph.within(pfc, lambda: pfc.store._db.execute(only % "ON"))
    done = pursuer.pursue("a").result
    assert (done.success, done.outcome) == (True, "success"), done.message
    assert episodes.wait_for().episode_id == done.episode_id
    assert told.empty()
    graph.within(pfc, lambda: pfc.store._db.execute(only % "OFF"))
    assert told.get(timeout=DEADLINE_S).episode_id == done.episode_id
    assert interrupted(graph, pfc) == []
    reply = graph.call(Decide, "pfc/decide", request("a"))
    assert "1.0 of 1.0 similar outcomes were successes" in reply.decision.reasoning
    pursuer.close()


class Refusing:
    """A ledger that refuses all records of a kind."""

    def __init__(self, monkeypatch, kind):
        self._patch, self._kind, self._record = monkeypatch, kind, PfcNode.record

    def begin(self):
        self._patch.setattr(PfcNode, "record", lambda node, *what: self._answer(node, *what))

    def _answer(self, node, kind, *body):
        if kind == self._kind:
            raise errors.BrainError("no space left", errors.ErrorCode.LEDGER_REFUSED)
        return self._record(node, kind, *body)


def on_record(graph, kind):
    """The records of a kind, once the PFC has ended."""
    frames = frames_from(Layout(graph.home / "ledger" / "pfc"), 0)
    return [json.loads(each.body) for each in map(to_record, frames) if each.kind == kind]


@pytest.mark.parametrize("kind", ["pursuit", "outcome"])
def test_an_end_that_the_ledger_refuses_is_told_and_recorded_later(
    graph, world, monkeypatch, kind
):
    pfc = start(graph)
    pursuer = Pursuer(graph, pfc)
    with monkeypatch.context() as patch:
        world.meanwhile = Refusing(patch, kind).begin
        done = pursuer.pursue("a").result
        assert (done.success, done.error_code) == (False, ErrorCode.LEDGER_REFUSED)
        assert (done.outcome, done.reward) == ("success", 1.0)
        assert done.message == "success; not on record yet: no space left"
    asked = Explain.Request(decision_id=done.decision.decision_id)
    wait_for(lambda: graph.call(Explain, "pfc/explain", asked).outcome == "success")
    wait_for(lambda: not pfc._acting._ends)
    pursuer.close()
    graph.stop(pfc)
    assert [each["phase"] for each in on_record(graph, "pursuit")] == ["began", "ended"]
    assert [each["episode_id"] for each in on_record(graph, "outcome")] == [done.episode_id]
    with closing(Store(graph.home / "pfc" / "pfc.db")) as store:
        assert store.interrupted() == []


def test_a_cancelled_order_whose_end_was_never_recorded_counts_as_interrupted(
    graph, world, monkeypatch
):
    pfc = start(graph)
    pursuer = Pursuer(graph, pfc)
    world.holding = True
    handle = pursuer.send("a")
    assert world.began.wait(DEADLINE_S)
    with monkeypatch.context() as patch:
        Refusing(patch, "pursuit").begin()
        pursuer.finished(handle.cancel_goal_async)
        done = pursuer.result(handle).result
        assert done.error_code == ErrorCode.CANCELLED
        assert done.message == "a: cancelled by the caller; not on record yet: no space left"
        graph.stop(pfc)
    pfc = start(graph)
    wait_for(lambda: not pfc._acting._left_behind.first)
    pursuer.close()
    graph.stop(pfc)
    assert [each["phase"] for each in on_record(graph, "pursuit")] == ["began", "interrupted"]


def test_one_body_pursues_one_thing(graph, world):
    pfc = start(graph)
    pursuer = Pursuer(graph, pfc)
    world.holding = True
    first = pursuer.send("a")
    assert world.began.wait(DEADLINE_S)
    second = pursuer.pursue("b")
    assert second.result.error_code == ErrorCode.UNAVAILABLE
    assert "busy" in second.result.message
    pursuer.finished(first.cancel_goal_async)
    pursuer.result(first)
    pursuer.close()


def test_too_long_is_a_failure_that_is_learnt(graph, world):
    pfc = start(graph, action_timeout_s=0.2)
    pursuer = Pursuer(graph, pfc)
    world.holding = True
    done = pursuer.pursue("a")
    assert (done.result.error_code, done.result.outcome) == (
        ErrorCode.PFC_ACTION_FAILED,
        "failure",
    )
    assert world.cancelled.is_set()
    reply = graph.call(Decide, "pfc/decide", request("a"))
    assert "0.0 of 1.0 similar" in reply.decision.reasoning
    pursuer.close()


def test_a_disk_that_is_full_meanwhile_does_not_let_it_go_on(graph, world, monkeypatch):
    flush = Store.flush

    def fill_up(store):
        if world.began.is_set():
            raise sqlite3.OperationalError("database or disk is full")
        flush(store)

    pfc = start(graph, action_timeout_s=0.2)
    pursuer = Pursuer(graph, pfc)
    world.holding = True
    with monkeypatch.context() as full:
        full.setattr(Store, "flush", fill_up)
        done = pursuer.pursue("a")
    assert world.cancelled.is_set()
    assert done.result.outcome == "failure"
    reply = graph.call(Decide, "pfc/decide", request("a"))
    assert "0.0 of 1.0 similar" in reply.decision.reasoning
    pursuer.close()


def test_nothing_is_begun_in_an_emergency(graph, world):
    pfc = start(graph)
    level = graph.publisher(ServiceLevel, "service_level", qos.STATE)
    level.publish(ServiceLevel(level=ServiceLevel.EMERGENCY))
    pursuer = Pursuer(graph, pfc)
    wait_for(lambda: pfc.stopped)
    done = pursuer.pursue("a")
    assert "EMERGENCY" in done.result.message
    assert world.ordered == []
    pursuer.close()


@pytest.mark.parametrize("why", ["halt", "emergency"])
def test_a_halt_ends_what_is_under_way_and_teaches_nothing(graph, world, why):
    pfc = start(graph)
    states = graph.publisher(SafetyState, "conscience/safety_state", qos.STATE)
    levels = graph.publisher(ServiceLevel, "service_level", qos.STATE)
    stops = {
        "halt": (states, SafetyState(state=SafetyState.HALTED, reason="halted: spilt oil")),
        "emergency": (levels, ServiceLevel(level=ServiceLevel.EMERGENCY, reason="spilt oil")),
    }
    episodes = graph.listen(Episode, "episodes")
    pursuer = Pursuer(graph, pfc)
    world.holding = True
    handle = pursuer.send("a")
    assert world.began.wait(DEADLINE_S)
    states.publish(SafetyState(state=SafetyState.PROTECTIVE_STOP, reason="somebody is near"))
    publisher, message = stops[why]
    publisher.publish(message)
    done = pursuer.result(handle)
    assert world.cancelled.is_set()
    assert done.status == GoalStatus.STATUS_ABORTED
    assert done.result.error_code == ErrorCode.CONSCIENCE_HALTED
    assert "spilt oil" in done.result.message
    assert (done.result.outcome, done.result.episode_id) == ("", "")
    world.holding = False
    refused = pursuer.pursue("a").result
    assert "spilt oil" in refused.message
    assert not refused.decision.decision_id
    assert len(world.ordered) == 1
    states.publish(SafetyState(state=SafetyState.PROTECTIVE_STOP))
    levels.publish(ServiceLevel(level=ServiceLevel.ONLINE))
    wait_for(lambda: not pfc.stopped)
    again = pursuer.pursue("a").result
    assert again.success
    assert "similar outcomes" not in again.decision.reasoning
    assert episodes.wait_for().episode_id == again.episode_id
    pursuer.close()


def test_what_a_dead_world_model_said_last_is_not_known(graph, world):
    constraints = graph.home / "constraints.yaml"
    constraints.write_text(
        "constraints: [{id: alone, level: hard, reason: people, when: context.people > 0.0}]"
    )
    pfc = start(graph, constraints_file=str(constraints))
    level = graph.publisher(ServiceLevel, "service_level", qos.STATE)
    state = graph.publisher(WorldState, "world_model/state", qos.STATE)
    state.publish(WorldState(people=0, people_known=True))
    wait_for(lambda: pfc.observed)
    asked = request("a", constraints=["alone"])
    assert graph.call(Decide, "pfc/decide", asked).success
    level.publish(ServiceLevel(failed_components=["world_model"]))
    wait_for(lambda: not pfc.observed)
    reply = graph.call(Decide, "pfc/decide", asked)
    assert "context.people is not known" in reply.decision.reasoning
    level.publish(ServiceLevel())
    wait_for(lambda: pfc.observed)
    assert graph.call(Decide, "pfc/decide", asked).success


def test_without_a_robot_pursue_says_so(graph):
    graph._run(World(robot=False))
    pfc = start(graph)
    pursuer = Pursuer(graph, pfc, robot=False)
    done = pursuer.pursue("a")
    assert not done.result.success
    assert "execute" in done.result.message
    pursuer.close()


FACTS = {"stops": 2, "nearest_person_m": math.inf, "picture": b"abc", "log": "x" * 4_200_000}


def test_what_the_memory_would_refuse_is_left_out_of_the_episode_and_named(graph, world):
    pfc = start(graph)
    graph.start(MemoryNode)
    pursuer = Pursuer(graph, pfc)
    facts = dict_to_attributes(FACTS) + dict_to_attributes({"": 1, "stops": 3})
    world.says = {"facts": facts, "duration_s": math.nan, "message": "done"}
    result = pursuer.pursue("a").result
    assert (result.success, result.outcome) == (True, "success")
    assert result.message.startswith("done; left out of the episode: ")
    for said in ("duration_s", "nearest_person_m", "picture", "log", "key is empty", "`stops`"):
        assert said in result.message
    (hit,) = wait_for(lambda: graph.call(Retrieve, "memory/retrieve").results)
    assert hit.episode.episode_id == result.episode_id
    assert attributes_to_dict(hit.episode.metadata, "metadata") == {"stops": 2}
    pursuer.close()


@pytest.mark.parametrize(
    ("says", "named"), [({"outcome": "Success"}, "'Success'"), ({"reward": math.nan}, "nan")]
)
def test_a_robot_that_reports_nonsense_failed(graph, world, says, named):
    pursuer = Pursuer(graph, start(graph))
    world.says = says
    result = pursuer.pursue("a").result
    assert (result.success, result.error_code) == (False, ErrorCode.PFC_ACTION_FAILED)
    assert "the robot reports" in result.message
    assert named in result.message
    pursuer.close()


def test_it_learns_from_who_acted_on_a_decision_himself(graph, world):
    start(graph)
    decision = graph.call(Decide, "pfc/decide", request("a")).decision
    episodes = matched(graph.publisher(Episode, "episodes"))
    strangers = {"objective": "deliver", "action": "a", "outcome": "failure", "reward": -1.0}
    episodes.publish(Episode(episode_id="e0", decision_id="somebody else's", **strangers))
    episodes.publish(
        Episode(
            episode_id="e1",
            objective="deliver",
            action="a",
            outcome="partial",
            reward=0.5,
            decision_id=decision.decision_id,
        )
    )
    asked = Explain.Request(decision_id=decision.decision_id)
    told = wait_for(
        lambda: (found := graph.call(Explain, "pfc/explain", asked)).outcome and found)
    assert (told.outcome, told.reward) == ("partial", 0.5)
    reply = graph.call(Decide, "pfc/decide", request("a"))
    assert "0.5 of 1.0 similar outcomes" in reply.decision.reasoning


def test_what_was_done_instead_of_what_was_decided_is_not_its_outcome(graph, world):
    pfc = start(graph)
    decision = graph.call(Decide, "pfc/decide", request("a")).decision
    episodes = matched(graph.publisher(Episode, "episodes"))
    lived = {"objective": "deliver", "decision_id": decision.decision_id}
    episodes.publish(Episode(episode_id="e1", action="b", outcome="failure", **lived))
    episodes.publish(Episode(episode_id="e2", action="a", outcome="success", **lived))
    wait_for(lambda: graph.within(pfc, lambda: pfc.store.knows_episode("e2")))
    assert not graph.within(pfc, lambda: pfc.store.knows_episode("e1"))


@pytest.mark.parametrize("load_kg", [math.inf, math.nan])
def test_an_episode_with_a_number_that_is_none_is_not_recorded(graph, world, load_kg):
    pfc = start(graph)
    decision = graph.call(Decide, "pfc/decide", request("a")).decision
    episodes = matched(graph.publisher(Episode, "episodes"))
    lived = {"objective": "deliver", "action": "a", "decision_id": decision.decision_id}
    for name, value, outcome in (("bad", load_kg, "failure"), ("good", 2.0, "success")):
        context = dict_to_attributes({"load_kg": value})
        episodes.publish(Episode(episode_id=name, context=context, outcome=outcome, **lived))
    wait_for(lambda: graph.within(pfc, lambda: pfc.store.knows_episode("good")))
    graph.stop(pfc)
    assert [each["episode_id"] for each in on_record(graph, "outcome")] == ["good"]


def test_what_an_earlier_release_learnt_of_such_a_number_stops_nothing(graph, world):
    pfc = start(graph)
    for load_kg in (math.inf, 1.0):
        outcome = Outcome(f"e{load_kg}", "d", "deliver", "a", {"load_kg": load_kg}, "success", 1.0)
        graph.within(pfc, lambda outcome=outcome: pfc.learn(outcome))
    graph.stop(pfc)
    start(graph)
    asked = request("a", context=dict_to_attributes({"load_kg": 2.0}))
    assert graph.call(Decide, "pfc/decide", asked).success
