"""The PFC's door to ROS: `decide` and `explain`; `acting` holds `pursue`.

An action that was under way when this process ended is reported at the next activation, cancelled
and not repeated.
"""

import json
import math
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brainos_msgs.msg import Attribute, Episode, SafetyState, ServiceLevel, WorldState
from brainos_msgs.msg import Decision as DecisionMsg
from brainos_msgs.srv import Decide, Evaluate, Explain, Redeem, WriteEpisode
from rclpy.client import Client
from rclpy.serialization import deserialize_message, serialize_message

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.pfc.acting.node import Acting, arguments
from brainos_ros.pfc.constraints import load_constraints
from brainos_ros.pfc.engine import Decision, Engine, Option, Permission
from brainos_ros.pfc.learning import Learning
from brainos_ros.pfc.store import Outcome, Store
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import attributes_to_dict, refuse
from brainos_ros.ros.decision_messages import decision_to_msg
from brainos_ros.ros.inline import Inline
from brainos_ros.ros.lifecycle import BrainNode
from brainos_ros.ros.main import run
from brainos_ros.ros.parameters import Parameter
from brainos_ros.shipped import shipped
from brainos_ros.values import check_values

SETTLE_S = 0.5
ANSWER_S = 0.1  # the loop waits meanwhile


class PfcNode(BrainNode):
    """Decides by constraints and remembered outcomes, and pursues objectives with the robot."""

    role = "pfc"
    parameters = (
        Parameter("constraints_file", "", "constraints (YAML); empty for the one that ships"),
        Parameter(
            "conscience_timeout_s",
            0.2,
            "how long the conscience may take for one decision; silent is refused. The heartbeat "
            "waits meanwhile, so stay below what the watchdog allows (0.35 s by default)",
            unit="s",
            minimum=0.01,
            maximum=10.0,
        ),
        Parameter(
            "action_timeout_s",
            120.0,
            "how long the robot may take for one action before it counts as failed",
            unit="s",
            minimum=0.1,
            maximum=86400.0,
            dynamic=True,
        ),
    )

    _acting: Acting | None = None

    def configure(self) -> None:
        given = self.settings["constraints_file"]
        constraints = load_constraints(Path(given) if given else shipped("constraints.yaml"))
        self.store = self._owned(Store(self.home / "pfc" / "pfc.db"), Store.close)
        self._engine = Engine(constraints, Learning())
        self._asking = self._owned(Inline(self), Inline.close)
        self._evaluate = self._asking.client(Evaluate, "conscience/evaluate")
        self._redeem = self._asking.client(Redeem, "conscience/redeem")
        self._write = self._asking.client(WriteEpisode, "memory/write")
        self._world: dict[str, Any] = {}
        self._world_works = True
        self._halted = self._emergency = ""
        self._decisions = self.create_publisher(DecisionMsg, "pfc/decisions", qos.EVENT)
        self._episodes = self.create_publisher(Episode, "episodes", qos.EVENT)
        self.create_subscription(ServiceLevel, "service_level", self._note_level, qos.STATE)
        self.create_subscription(
            SafetyState, "conscience/safety_state", self._note_safety, qos.STATE
        )
        self.create_subscription(WorldState, "world_model/state", self._note_world, qos.STATE)

    def activate(self) -> None:
        self._engine.learning, foreign = self.store.catch_up(self.ledger)
        if foreign:
            self.get_logger().warning("the store is not this ledger's; it is built anew")
        while self.store.damaged:
            self.get_logger().warning(
                "pfc.db was damaged and is built anew from the ledger. Only it had which episodes "
                "the memory has not got; what was under way is what has no end in the ledger. It "
                f"is kept as {self.store.damaged.pop()}"
            )
        interrupted = self.store.interrupted()
        for decision_id in interrupted:
            self.get_logger().warning(
                f"the action of decision {decision_id} was interrupted; it is cancelled, and not "
                "repeated"
            )
        if self._acting is not None:
            self._acting.destroy()
        self._acting = Acting(self, interrupted)
        self.create_subscription(Episode, "episodes", self._learn_from, qos.EVENT)
        self.every(0.1, self._tick)
        self.every(SETTLE_S, self._settle)
        self.door(Decide, "pfc/decide", self._decide)
        self.door(Explain, "pfc/explain", self._explain)

    def deactivate(self) -> None:
        if self._acting is not None:
            self._acting.close()

    def cleanup(self) -> None:
        if self._acting is not None:
            self._acting.destroy()
            self._acting = None

    def diagnose(self) -> Mapping[str, object]:
        return {"pursuing": self._acting.objective if self._acting else ""}

    # ---------------------------------------------------------------- decide, explain

    def _decide(self, request: Decide.Request, response: Decide.Response) -> Decide.Response:
        decision, response.decision = self.take_decision(request)
        if not decision.recommended_action:
            refuse(response, BrainError(decision.reasoning, ErrorCode.PFC_NO_OPTION_LEFT))
        return response

    def take_decision(self, request: Any) -> tuple[Decision, DecisionMsg]:
        options = [
            Option(each.name, attributes_to_dict(each.attributes, f"options[{i}].attributes"))
            for i, each in enumerate(request.options)
        ]
        context = attributes_to_dict(request.context, "context")
        inputs = {each.name: arguments(request, each) for each in request.options}
        deadline = time.monotonic() + self.settings["conscience_timeout_s"]
        decision = self._engine.decide(
            request.objective,
            options,
            context,
            request.constraints,
            lambda action, _: self._ask(action, inputs[action], deadline),
            self.observed,
        )
        body = json.dumps(decision.to_dict(), separators=(",", ":")).encode()
        place = self.record("decision", body)
        self.store.add_decision(place, decision.decision_id, body)
        message = decision_to_msg(decision)
        if self._decisions.get_subscription_count():
            self._decisions.publish(message)
        return decision, message

    def _ask(self, action: str, inputs: list[Attribute], deadline: float) -> Permission:
        """Ask the conscience; what a person approved meanwhile is used, once, by whoever asks."""
        asked = {"action": action, "context": inputs, "requester": self.role}
        reply = self._consult(self._evaluate, Evaluate.Request(**asked), deadline)
        if not reply.success:
            return Permission(False, reply.message, "")
        verdict = reply.evaluation
        if verdict.approval_id:
            use = Redeem.Request(approval_id=verdict.approval_id, **asked)
            reply = self._consult(self._redeem, use, deadline)
            if not reply.success:
                return Permission(False, f"{verdict.reason} {reply.message}", "")
            verdict = reply.evaluation
        return Permission(verdict.approved, verdict.reason, verdict.evaluation_id)

    def _consult(self, client: Client, request: Any, deadline: float) -> Any:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0.0:
            raise BrainError("the time for asking about one decision is over", ErrorCode.TIMEOUT)
        return self._asking.call(client, request, remaining_s)

    def _explain(self, request: Explain.Request, response: Explain.Response) -> Explain.Response:
        decision, response.outcome, response.reward = self.store.explain(request.decision_id)
        response.decision = decision_to_msg(decision)
        return response

    # ---------------------------------------------------------------- observe

    @property
    def stopped(self) -> str:
        """Why nothing may be begun or gone on with now; empty if it may.

        A protective stop is no reason: it is short, and the robot goes on by itself.
        """
        return self._halted or self._emergency

    def _note_level(self, message: ServiceLevel) -> None:
        emergency = message.level == ServiceLevel.EMERGENCY
        self._emergency = f"the service level is EMERGENCY: {message.reason}" if emergency else ""
        self._world_works = "world_model" not in message.failed_components
        self._heed()

    def _note_safety(self, message: SafetyState) -> None:
        self._halted = message.reason if message.state == SafetyState.HALTED else ""
        self._heed()

    def _heed(self) -> None:
        if self.stopped and self._acting is not None:
            self._acting.stop(self.stopped)

    @property
    def observed(self) -> dict[str, Any]:
        """What the world model says, which it says again only where it changed.

        Nothing while it does not work: its last word is of a world that went on without it, and
        what is not known counts against an option.
        """
        return self._world if self._world_works else {}

    def _note_world(self, message: WorldState) -> None:
        self._world = {"entities": message.total_entities}
        if message.people_known:
            self._world["people"] = message.people
        if math.isfinite(message.nearest_obstacle_m):
            self._world["nearest_obstacle_m"] = message.nearest_obstacle_m

    # ---------------------------------------------------------------- learn

    def _tick(self) -> None:
        if self._acting is not None:
            self._acting.check_time()
        self.store.flush()

    def learn(self, outcome: Outcome) -> None:
        self.store.add_outcome(self.record("outcome", outcome.to_dict()), outcome)
        self._engine.learning.learn(
            outcome.objective, outcome.action, outcome.context, outcome.outcome, outcome.reward
        )

    def _learn_from(self, message: Episode) -> None:
        """An episode of somebody who acted on a decision himself; what is known teaches nothing,
        nor does what was done instead of what was decided.

        Raises BrainError if the ledger refuses it.
        """
        decided = self.store.action_of(message.decision_id)
        if decided is None or self.store.knows_episode(message.episode_id):
            return
        try:
            if message.action != decided:
                raise BrainError(f"action: is {message.action!r}, `{decided}` was decided")
            context = attributes_to_dict(message.context, "context")
            check_values("context", context)
            self.learn(
                Outcome(
                    message.episode_id,
                    message.decision_id,
                    message.objective,
                    message.action,
                    context,
                    message.outcome,
                    message.reward,
                )
            )
        except BrainError as error:
            if error.code is ErrorCode.LEDGER_REFUSED:
                raise
            self.get_logger().warning(
                f"an episode teaches nothing: {error}", throttle_duration_sec=1.0
            )

    def tell(self, episode: Episode, outcome: Outcome) -> None:
        """Learn from what it did itself and publish it; the memory gets it now or later.

        It is owed first: what is owed and not learnt, because the process ended in between or the
        ledger refused it, is learnt later, and what is learnt and not owed would be lost.
        """
        try:
            self.store.owe(episode.episode_id, serialize_message(episode))
        except sqlite3.Error as error:
            self.get_logger().error(f"an episode cannot be kept for the memory yet: {error}")
        self.learn(outcome)
        self._episodes.publish(episode)

    def _settle(self) -> None:
        """Record what ended, learn what is owed and not learnt, and give the memory what is owed
        the longest."""
        if self._acting is not None:
            self._acting.record_ends()
        for packed in self.store.unlearnt():
            self._learn_from(deserialize_message(packed, Episode))
        owed = self.store.owed()
        if owed is None or not self._write.service_is_ready():
            return
        episode_id, packed = owed
        request = WriteEpisode.Request(episode=deserialize_message(packed, Episode))
        try:
            reply = self._asking.call(self._write, request, ANSWER_S)
        except BrainError:
            return  # it is tried again
        if reply.error_code in (ErrorCode.INVALID_ARGUMENT, ErrorCode.ALREADY_EXISTS):
            self.get_logger().warning(f"the memory will not have an episode: {reply.message}")
        elif not reply.success:
            return
        self.store.settle(episode_id)

    def record_pursuit(self, decision_id: str, phase: str) -> None:
        self.record("pursuit", {"decision_id": decision_id, "phase": phase})


def main() -> None:
    """Entry point of the `pfc` executable."""
    run(PfcNode)
