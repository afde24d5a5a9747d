"""The job of the demo, as a client of the brain: carry goods, watch, and count what happened."""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from brainos_msgs import srv
from brainos_msgs.action import Pursue
from brainos_msgs.msg import (
    Decision,
    Heartbeat,
    Option,
    SafetyEvaluation,
    SafetyState,
    ServiceLevel,
    SimTruth,
    TrackedPeople,
)
from geometry_msgs.msg import Twist
from rclpy.action import ActionClient
from rclpy.node import Node

from brainos_ros.errors import BrainError
from brainos_ros.robots.layout import Layout, Point, path_length
from brainos_ros.robots.picture import Scene
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import dict_to_attributes
from brainos_ros.ros.executor import Outgoing, make_executor, spin, wake

OBJECTIVE = "deliver"
#: No rule allows it, so the conscience refuses it each time it looks best: default deny.
CLOSED_WAY = "emergency_exit"
#: A door of each role that changes nothing, to see when it answers again.
PROBES: dict[str, tuple[Any, str]] = {
    "pfc": (srv.Explain, "pfc/explain"),
    "conscience": (srv.ListPending, "conscience/list_pending"),
    "memory": (srv.GetMemoryStats, "memory/get_stats"),
    "world_model": (srv.GetSnapshot, "world_model/get_snapshot"),
    "genome_sync": (srv.GetGenomeStatus, "genome_sync/get_status"),
}
#: What is answered, and the stream, kind of record and field that must have its id.
KEPT = {
    "decisions": ("pfc", "decision", "decision_id"),
    "outcomes": ("pfc", "outcome", "episode_id"),
    "evaluations": ("conscience", "evaluation", "evaluation_id"),
}
FREE, SLOWED, STOPPED = "free", "slowed", "stopped"
LONGEST_DELIVERY_S = 120.0


@dataclass
class Aisle:
    """What came of one aisle so far."""

    tried: int = 0
    rewards: list[float] = field(default_factory=list)

    @property
    def mean_reward(self) -> float:
        """Mean reward; 0 before the first."""
        return sum(self.rewards) / len(self.rewards) if self.rewards else 0.0


@dataclass
class Facts:
    """Everything the live view shows and the report counts."""

    deliveries: int = 0
    interrupted: int = 0
    decisions: int = 0
    decide_ms: list[float] = field(default_factory=list)
    vetoes: int = 0
    slow_downs: int = 0
    stops: int = 0
    gate: str = FREE
    requested_mps: float = 0.0
    allowed_mps: float = 0.0
    level: ServiceLevel | None = None
    safety: SafetyState | None = None
    truth: SimTruth | None = None
    aisles: dict[str, Aisle] = field(default_factory=dict)
    here: str = ""
    there: str = ""
    phase: str = ""
    last_decision: str = ""
    last_veto: str = ""
    said: deque[str] = field(default_factory=lambda: deque(maxlen=6))
    recoveries: list[dict[str, Any]] = field(default_factory=list)
    pids: dict[str, int] = field(default_factory=dict)
    beat_at: dict[str, float] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)
    answered: dict[str, set[str]] = field(default_factory=lambda: {what: set() for what in KEPT})

    def keep(self, what: str, given: str) -> None:
        """Note an id that was answered or heard; empty where there was nothing to name."""
        if given:
            self.answered[what].add(given)


class Work:
    """A node on a thread of its own that delivers goods by `pfc/pursue` until told to end."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.facts = Facts(aisles={name: Aisle() for name in layout.aisles})
        self.facts.here, self.facts.there = list(layout.stations)[:2]
        self.scene = Scene(layout)
        self._seen: dict[int, Point] = {}
        self._over = threading.Event()
        self._changed = threading.Condition()
        self.node = node = Node("demo", enable_rosout=False, start_parameter_services=False)
        self.outgoing = Outgoing(node)
        node.create_subscription(Decision, "pfc/decisions", self._decided, qos.EVENT)
        node.create_subscription(
            SafetyEvaluation, "conscience/evaluations", self._evaluated, qos.EVENT
        )
        node.create_subscription(SafetyState, "conscience/safety_state", self._safety, qos.STATE)
        node.create_subscription(ServiceLevel, "service_level", self._level, qos.STATE)
        node.create_subscription(SimTruth, "sim_truth", self._truth, qos.EVENT)
        node.create_subscription(TrackedPeople, "tracked_people", self._people, qos.SENSOR)
        for topic in ("heartbeats", "watchdog/heartbeat"):
            node.create_subscription(Heartbeat, topic, self._beat, qos.HEARTBEATS)
        node.create_subscription(Twist, "cmd_vel_raw", self._requested, qos.COMMAND)
        node.create_subscription(Twist, "cmd_vel", self._allowed, qos.COMMAND)
        self._decide = self.outgoing.client(srv.Decide, "pfc/decide")
        self._pursue = ActionClient(node, Pursue, "pfc/pursue")
        self._stop = threading.Event()
        self._executor = make_executor(node)
        self._threads = [
            threading.Thread(target=spin, args=(node, self._executor, self._stop), daemon=True),
            threading.Thread(target=self._deliver, daemon=True),
        ]
        self._threads[0].start()

    # ---------------------------------------------------------------- what is heard

    def _decided(self, decision: Decision) -> None:
        facts = self.facts
        facts.keep("decisions", decision.decision_id)
        facts.keep("evaluations", decision.evaluation_id)
        if decision.objective != OBJECTIVE:
            return
        facts.decisions += 1
        facts.decide_ms.append(decision.latency_ms)
        facts.last_decision = decision.reasoning

    def _evaluated(self, evaluation: SafetyEvaluation) -> None:
        if evaluation.approved:  # of refusals of a kind only the first in a second is on record
            self.facts.keep("evaluations", evaluation.evaluation_id)
        else:
            self.facts.vetoes += 1
            self.facts.last_veto = f"{evaluation.action}: {evaluation.reason}"

    def _safety(self, state: SafetyState) -> None:
        self.facts.safety = state

    def _level(self, level: ServiceLevel) -> None:
        if self.facts.level is None or self.facts.level.level != level.level:
            self.say(f"service level: {level.reason}")
        self.facts.level = level
        self._notify()

    def _truth(self, truth: SimTruth) -> None:
        self.facts.truth = truth
        self.scene.see((truth.robot.x, truth.robot.y, truth.robot.theta), self._seen)
        self._notify()

    def _people(self, people: TrackedPeople) -> None:
        self._seen = {each.id: (each.position.x, each.position.y) for each in people.people}

    def _beat(self, beat: Heartbeat) -> None:
        fresh = self.facts.pids.get(beat.role) != beat.pid
        self.facts.pids[beat.role] = beat.pid
        self.facts.beat_at[beat.role] = time.monotonic()
        if fresh:
            self._notify()

    def _requested(self, twist: Twist) -> None:
        self.facts.requested_mps = twist.linear.x

    def _allowed(self, twist: Twist) -> None:
        facts = self.facts
        facts.allowed_mps = twist.linear.x
        asked = abs(facts.requested_mps)
        if asked < 0.05:
            gate = FREE
        elif abs(twist.linear.x) < 0.01:
            gate = STOPPED
        elif abs(twist.linear.x) < 0.8 * asked:
            gate = SLOWED
        elif abs(twist.linear.x) > 0.95 * asked:
            gate = FREE
        else:
            return
        if gate != facts.gate:
            facts.slow_downs += gate == SLOWED and facts.gate == FREE
            facts.stops += gate == STOPPED
            facts.gate = gate

    def say(self, text: str) -> None:
        """A line for the live view."""
        self.facts.said.append(text)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait(self, fits: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something heard makes `fits` true; whether it did in time."""
        with self._changed:
            return self._changed.wait_for(fits, timeout_s)

    # ---------------------------------------------------------------- what is done

    def ready(self) -> bool:
        """Whether the robot's truth flows and the brain decides, its conscience included."""
        if self.facts.truth is None or not self._pursue.server_is_ready():
            return False
        request = srv.Decide.Request(objective="wake up", options=[Option(name="wait")])
        try:
            return bool(self.outgoing.call(self._decide, request, 1.0).success)
        except BrainError:
            return False

    def begin(self) -> None:
        """Start to deliver."""
        self._threads[1].start()

    def _deliver(self) -> None:
        facts = self.facts
        while not self._over.is_set():
            result = self._one_delivery()
            if result is None:
                self._over.wait(0.2)
                continue
            action = result.decision.recommended_action
            if action in facts.aisles and result.outcome:
                facts.aisles[action].tried += 1
                facts.aisles[action].rewards.append(result.reward)
            if result.success and result.outcome == "success":
                facts.deliveries += 1
                self.say(f"delivered to {facts.there} by {action}, reward {result.reward:.2f}")
                facts.here, facts.there = facts.there, facts.here
            elif not result.success:
                self.say(f"not delivered: {result.message}")
                self._over.wait(0.5)

    def _one_delivery(self) -> Pursue.Result | None:
        """One pursuit; None if it could not begin or its brain died on the way."""
        facts, pid = self.facts, self.facts.pids.get("pfc")
        stations = self.layout.stations
        start, goal = stations[facts.here], stations[facts.there]
        ways = {
            name: path_length([start, *self.layout.route(start, goal, name)])
            for name in self.layout.aisles
        }
        ways[CLOSED_WAY] = math.dist(start, goal)
        request = Pursue.Goal(
            objective=OBJECTIVE,
            options=[
                Option(name=name, attributes=dict_to_attributes({"length_m": round(length, 2)}))
                for name, length in ways.items()
            ],
            context=dict_to_attributes({"from": facts.here, "to": facts.there}),
            constraints=["energy_efficient"],
        )
        handle = self._done(
            lambda: self._pursue.send_goal_async(request, self._feedback), 10.0, pid
        )
        if handle is None or not handle.accepted:
            return None
        result = self._done(handle.get_result_async, LONGEST_DELIVERY_S, pid)
        if result is None:
            facts.interrupted += not self._over.is_set()
            return None
        outcome: Pursue.Result = result.result
        facts.keep("decisions", outcome.decision.decision_id)
        facts.keep("outcomes", outcome.episode_id)
        return outcome

    def _done(self, begin: Callable[[], Any], timeout_s: float, pid: int | None) -> Any:
        """What comes of `begin`; None at the end of the demo, of its time, or of that PFC.

        It is begun on the executor's thread: from another, rclpy's action client can drop an
        answer that comes before it has noted the question.
        """
        came: list[Any] = []

        def keep(future: Any) -> None:
            came.append(future.result())
            self._notify()

        self._executor.create_task(lambda: begin().add_done_callback(keep))
        self.wait(
            lambda: bool(came) or self._over.is_set() or self.facts.pids.get("pfc") != pid,
            timeout_s,
        )
        return came[0] if came else None

    def _feedback(self, message: Any) -> None:
        feedback = message.feedback
        self.facts.phase = f"{feedback.phase} {feedback.text}".strip()

    # ---------------------------------------------------------------- the fault

    def watch_recovery(self, role: str, fault: str, old: int, began: float) -> None:
        """Measure when the fault of process `old` was seen and when it was over, from `began`
        (steady clock) on."""
        recovery = {"node": role, "fault": fault, "detected_ms": None, "answering_ms": None}
        self.facts.recoveries.append(recovery)
        status = self.outgoing.client(srv.GetSystemStatus, "watchdog/get_status")
        probe = self.outgoing.client(*PROBES[role])
        until = began + 60.0
        while recovery["answering_ms"] is None and time.monotonic() < until:
            if recovery["detected_ms"] is None and self._noticed(status, role, old):
                recovery["detected_ms"] = round((time.monotonic() - began) * 1000, 1)
                continue
            if recovery["detected_ms"] is not None and self._answers(probe, PROBES[role][0]):
                recovery["answering_ms"] = round((time.monotonic() - began) * 1000, 1)
                self.say(f"{role} answers again after {recovery['answering_ms'] / 1000:.1f} s")

    def _noticed(self, client: Any, role: str, old: int) -> bool:
        try:
            reply = self.outgoing.call(client, srv.GetSystemStatus.Request(), 0.1)
        except BrainError:
            return False
        return any(
            node.role == role and (node.pid != old or node.status != node.ACTIVE)
            for node in reply.nodes
            if node.status != node.STANDBY
        )

    def _answers(self, client: Any, srv_type: Any) -> bool:
        try:
            self.outgoing.call(client, srv_type.Request(), 0.1)
        except BrainError:
            return False
        return True

    def end(self) -> None:
        """Stop delivering."""
        self._over.set()
        self._notify()
        if self._threads[1].is_alive():
            self._threads[1].join(5.0)

    def close(self) -> None:
        """End the node."""
        self.end()
        self.outgoing.close()
        self._stop.set()
        wake(self._executor)
        self._threads[0].join()
        self._executor.shutdown()
        self.node.destroy_node()
