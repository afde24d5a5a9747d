"""The PFC's door to ROS: `decide`, `explain`, and `pursue`, which also acts and learns.

Whatever is under way when this process ends is reported at the next activation and not repeated.
"""

import json
import math
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from brainos_msgs.action import Execute, Pursue
from brainos_msgs.msg import Alternative, Attribute, Contribution, Episode, ServiceLevel, WorldState
from brainos_msgs.msg import Decision as DecisionMsg
from brainos_msgs.srv import Decide, Evaluate, Explain
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.task import Future

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.pfc.constraints import load_constraints, shipped_file
from brainos_ros.pfc.engine import Decision, Engine, Option, Permission
from brainos_ros.pfc.pursuit import Pursuit
from brainos_ros.pfc.store import Outcome, Store
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import (
    accept,
    attributes_to_dict,
    dict_to_attributes,
    ns_to_time,
    refuse,
)
from brainos_ros.ros.inline import Inline
from brainos_ros.ros.lifecycle import BrainNode
from brainos_ros.ros.main import run
from brainos_ros.ros.parameters import Parameter

LINGER_S = 0.2


class PfcNode(BrainNode):
    """Decides by constraints and remembered outcomes, and pursues objectives with the robot."""

    role = "pfc"
    parameters = (
        Parameter("constraints_file", "", "constraints (YAML); empty for the one that ships"),
        Parameter(
            "conscience_timeout_s",
            0.2,
            "how long the conscience may take; silent is refused",
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

    def configure(self) -> None:
        given = self.settings["constraints_file"]
        constraints = load_constraints(Path(given) if given else shipped_file())
        self._store = self._owned(Store(self.home / "pfc" / "pfc.db"), Store.close)
        self._engine = Engine(constraints, self._store.learning())
        self._asking = self._owned(Inline(self), Inline.close)
        self._evaluate = self._asking.client(Evaluate, "conscience/evaluate")
        self._observed: dict[str, Any] = {}
        self._level = ServiceLevel.ONLINE
        self._pursuit: Pursuit | None = None
        self._acting: list[Callable[[], object]] = []
        self._decisions = self.create_publisher(DecisionMsg, "pfc/decisions", qos.EVENT)
        self._episodes = self.create_publisher(Episode, "episodes", qos.EVENT)
        self.create_subscription(ServiceLevel, "service_level", self._note_level, qos.STATE)
        self.create_subscription(WorldState, "world_model/state", self._note_world, qos.STATE)

    def activate(self) -> None:
        self._catch_up()
        for decision_id in self._store.take_interrupted():
            self._record_pursuit(decision_id, "interrupted")
            self.get_logger().warning(
                f"the action of decision {decision_id} was interrupted; it is not repeated"
            )
        self._close_acting()
        self._robot = ActionClient(self, Execute, "execute")
        server = ActionServer(
            self,
            Pursue,
            "pfc/pursue",
            self._pursue,
            goal_callback=self._admit,
            cancel_callback=self._cancel,
        )
        self._acting = [server.destroy, self._robot.destroy]
        self.create_subscription(Episode, "episodes", self._learn_from_others, qos.EVENT)
        self.every(0.1, self._check_time)
        self.door(Decide, "pfc/decide", self._decide)
        self.door(Explain, "pfc/explain", self._explain)

    def deactivate(self) -> None:
        if self._pursuit is None:
            self._close_acting()
            return
        self._pursuit.end("the brain was deactivated", ErrorCode.CANCELLED)
        self._pursuit.abandon()
        # who waits for the result gets it only from a server that is still there
        timer = self.every(LINGER_S, self._close_acting)
        self._acting.append(lambda: self.destroy_timer(timer))

    def cleanup(self) -> None:
        self._close_acting()

    def _close_acting(self) -> None:
        acting, self._acting = self._acting, []
        for close in acting:
            close()

    def diagnose(self) -> Mapping[str, object]:
        pursuit = getattr(self, "_pursuit", None)
        return {"pursuing": pursuit.objective if pursuit else ""}

    def _catch_up(self) -> None:
        """Bring the store up to the ledger, which is the truth, and learn from it."""
        size, start = self.ledger.size, self._store.end()
        if start > size:
            self.get_logger().warning("the store is ahead of the ledger; it is built anew")
            self._store.clear()
            start = 0
        records = (self.ledger.read(place) for place in range(start, size))
        self._store.replay((each.sequence, each.kind, each.payload) for each in records)
        self._engine.learning = self._store.learning()

    # ---------------------------------------------------------------- decide, explain

    def _decide(self, request: Decide.Request, response: Decide.Response) -> Decide.Response:
        decision, response.decision = self._take_decision(request)
        if not decision.recommended_action:
            refuse(response, _none_left(decision))
        return response

    def _take_decision(self, request: Any) -> tuple[Decision, DecisionMsg]:
        options = [
            Option(each.name, attributes_to_dict(each.attributes, f"options[{i}].attributes"))
            for i, each in enumerate(request.options)
        ]
        context = attributes_to_dict(request.context, "context")
        arguments = {each.name: _arguments(request, each) for each in request.options}
        decision = self._engine.decide(
            request.objective,
            options,
            context,
            request.constraints,
            lambda action, _: self._ask(action, arguments[action]),
            self._observed,
        )
        body = json.dumps(decision.to_dict(), separators=(",", ":")).encode()
        place = self.record("decision", body)
        self._store.add_decision(place, decision.decision_id, body)
        message = _decision_to_msg(decision)
        if self._decisions.get_subscription_count():
            self._decisions.publish(message)
        return decision, message

    def _ask(self, action: str, arguments: list[Attribute]) -> Permission:
        request = Evaluate.Request(action=action, context=arguments, requester=self.role)
        timeout_s = self.settings["conscience_timeout_s"]
        reply = self._asking.call(self._evaluate, request, timeout_s)
        if not reply.success:
            return Permission(False, reply.message, "")
        verdict = reply.evaluation
        return Permission(verdict.approved, verdict.reason, verdict.evaluation_id)

    def _explain(self, request: Explain.Request, response: Explain.Response) -> Explain.Response:
        decision, response.outcome, response.reward = self._store.explain(request.decision_id)
        response.decision = _decision_to_msg(decision)
        return response

    # ---------------------------------------------------------------- observe

    def _note_level(self, message: ServiceLevel) -> None:
        self._level = message.level

    def _note_world(self, message: WorldState) -> None:
        self._observed = {"people": message.people, "entities": message.total_entities}
        if math.isfinite(message.nearest_obstacle_m):
            self._observed["nearest_obstacle_m"] = message.nearest_obstacle_m

    # ---------------------------------------------------------------- pursue

    def _admit(self, _: Pursue.Goal) -> GoalResponse:
        return GoalResponse.ACCEPT if self.is_active else GoalResponse.REJECT

    async def _pursue(self, goal: Any) -> Pursue.Result:
        result = Pursue.Result()
        try:
            if self._pursuit is not None:
                raise BrainError(
                    f"the robot is busy with `{self._pursuit.objective}`; cancel that or wait",
                    ErrorCode.UNAVAILABLE,
                )
            self._pursuit = Pursuit(goal.request.objective, Future(executor=self.executor))
            try:
                await self._carry_out(goal, self._pursuit, result)
            finally:
                self._pursuit = None
        except BrainError as error:
            refuse(result, error)
        except Exception as error:
            self.note_failure(f"pursue failed: {error!r}")
            refuse(result, BrainError(f"pursue failed inside: {error!r}", ErrorCode.INTERNAL))
        if goal.is_cancel_requested:
            goal.canceled()
        elif result.success:
            goal.succeed()
        else:
            goal.abort()
        return result

    async def _carry_out(self, goal: Any, pursuit: Pursuit, result: Pursue.Result) -> None:
        request = goal.request
        _tell(goal, pursuit, Pursue.Feedback.OBSERVING, f"{len(self._observed)} facts")
        if self._level == ServiceLevel.EMERGENCY:
            raise BrainError(
                "the service level is EMERGENCY; nothing is begun now", ErrorCode.UNAVAILABLE
            )
        _tell(goal, pursuit, Pursue.Feedback.DECIDING, f"{len(request.options)} options")
        decision, result.decision = self._take_decision(request)
        if not decision.recommended_action:
            raise _none_left(decision)
        await self._act(goal, pursuit, decision)
        came, reward = pursuit.outcome()
        _tell(goal, pursuit, Pursue.Feedback.LEARNING, f"{came}, reward {reward:.2f}")
        outcome = Outcome(
            str(uuid.uuid4()),
            decision.decision_id,
            decision.objective,
            decision.recommended_action,
            attributes_to_dict(request.context, "context"),
            came,
            reward,
        )
        self._learn(outcome)
        done = pursuit.result or Execute.Result(message=pursuit.reason)
        self._episodes.publish(_episode(outcome, done))
        result.outcome, result.reward = outcome.outcome, outcome.reward
        result.episode_id = outcome.episode_id
        if not done.success:
            raise BrainError(
                done.message or "the robot could not do it", ErrorCode.PFC_ACTION_FAILED
            )
        accept(result, done.message)

    async def _act(self, goal: Any, pursuit: Pursuit, decision: Decision) -> None:
        if not self._robot.server_is_ready():
            raise BrainError("no robot offers `execute`", ErrorCode.UNAVAILABLE)
        action = decision.recommended_action
        option = next(each for each in goal.request.options if each.name == action)
        order = Execute.Goal(
            action=action,
            context=_arguments(goal.request, option),
            decision_id=decision.decision_id,
        )

        def relay(message: Any) -> None:
            said = message.feedback
            if not pursuit.over.done():
                _tell(goal, pursuit, Pursue.Feedback.ACTING, said.text, said.progress)

        self._record_pursuit(decision.decision_id, "began")
        self._store.begin_action(decision.decision_id)
        sent = self._robot.send_goal_async(order, feedback_callback=relay)
        pursuit.begin(action, sent, self.settings["action_timeout_s"])
        await pursuit.over
        if self.is_active:
            self._store.end_action(decision.decision_id)
            self._record_pursuit(decision.decision_id, pursuit.reason or "ended")

    def _cancel(self, goal: Any) -> CancelResponse:
        if self._pursuit is not None:
            self._pursuit.end("cancelled by the caller", ErrorCode.CANCELLED)
        return CancelResponse.ACCEPT

    def _check_time(self) -> None:
        self._store.flush()
        if self._pursuit is not None:
            self._pursuit.check_time(self._robot.server_is_ready)

    # ---------------------------------------------------------------- learn

    def _learn(self, outcome: Outcome) -> None:
        self._store.add_outcome(self.record("outcome", outcome.to_dict()), outcome)
        self._engine.learning.learn(
            outcome.objective, outcome.action, outcome.context, outcome.outcome, outcome.reward
        )

    def _learn_from_others(self, message: Episode) -> None:
        """An episode of somebody who acted on a decision himself; its own are known already."""
        if not message.decision_id or self._store.knows_episode(message.episode_id):
            return
        try:
            context = attributes_to_dict(message.context, "context")
            self._learn(
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
            self.get_logger().warning(
                f"an episode teaches nothing: {error}", throttle_duration_sec=1.0
            )

    def _record_pursuit(self, decision_id: str, phase: str) -> None:
        self.record("pursuit", {"decision_id": decision_id, "phase": phase})


def _tell(goal: Any, pursuit: Pursuit, phase: str, text: str, progress: float = 0.0) -> None:
    goal.publish_feedback(
        Pursue.Feedback(phase=phase, action=pursuit.action, progress=progress, text=text)
    )


def _arguments(request: Any, option: Any) -> list[Attribute]:
    """Context and attributes of an option together; of the same key the option's counts."""
    if not option.attributes:
        return list(request.context)
    return list({each.key: each for each in [*request.context, *option.attributes]}.values())


def _none_left(decision: Decision) -> BrainError:
    return BrainError(decision.reasoning, ErrorCode.PFC_NO_OPTION_LEFT)


def _contributions(parts: list[Any]) -> list[Contribution]:
    return [Contribution(source=part[0], value=part[1], text=part[2]) for part in parts]


def _decision_to_msg(decision: Decision) -> DecisionMsg:
    return DecisionMsg(
        decision_id=decision.decision_id,
        stamp=ns_to_time(decision.stamp_ns),
        objective=decision.objective,
        context=dict_to_attributes(decision.context),
        recommended_action=decision.recommended_action,
        confidence=decision.confidence,
        reasoning=decision.reasoning,
        contributions=_contributions(decision.contributions),
        alternatives=[
            Alternative(
                action=each.action,
                confidence=each.confidence,
                score=each.score,
                excluded=each.excluded,
                reason=each.reason,
                contributions=_contributions(each.contributions),
            )
            for each in decision.alternatives
        ],
        evaluation_id=decision.evaluation_id,
        latency_ms=decision.latency_ms,
    )


def _episode(outcome: Outcome, done: Execute.Result) -> Episode:
    facts = {each.key: each for each in done.facts}
    duration = dict_to_attributes({"duration_s": done.duration_s})
    return Episode(
        episode_id=outcome.episode_id,
        stamp=ns_to_time(time.time_ns()),
        objective=outcome.objective,
        context=dict_to_attributes(outcome.context),
        action=outcome.action,
        outcome=outcome.outcome,
        reward=outcome.reward,
        metadata=[*duration, *(fact for key, fact in facts.items() if key != "duration_s")],
        kind="episodic",
        decision_id=outcome.decision_id,
    )


def main() -> None:
    """Entry point of the `pfc` executable."""
    run(PfcNode)
