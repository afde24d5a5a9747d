"""The action `pursue`: observe, decide, let the robot act, learn."""

import uuid
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from brainos_msgs.action import Execute, Pursue
from brainos_msgs.msg import Attribute
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.action.client import ClientGoalHandle
from rclpy.task import Future
from unique_identifier_msgs.msg import UUID

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.pfc.engine import Decision
from brainos_ros.pfc.left_behind import LeftBehind
from brainos_ros.pfc.pursuit import Pursuit
from brainos_ros.pfc.store import BEGAN, LEFT_BEHIND, Outcome
from brainos_ros.ros.conversions import accept, attributes_to_dict, refuse
from brainos_ros.ros.decision_messages import outcome_to_episode

if TYPE_CHECKING:
    from brainos_ros.pfc.node import PfcNode

LINGER_S = 0.2
Work = Generator[Future, None, Pursue.Result]


class Acting:
    """Pursues one objective at a time; made anew at each activation of the PFC.

    An order to the robot has its decision's id, so that `interrupted`, the decisions whose action
    the robot may still be at because an earlier process ended, can be cancelled until the robot
    says that it is over, as what it did not end in time is; until then it is given no other.
    How an order ended that the ledger refuses to record waits for `record_ends`; until it is on
    record, the order is one of those that `interrupted` names next time.
    Closing it ends what is under way and keeps the action's doors for LINGER_S where somebody still
    waits for a result, because only a server that is there can give it.
    """

    def __init__(self, brain: "PfcNode", interrupted: list[str]) -> None:
        self._brain = brain
        self._left_behind = LeftBehind(interrupted, self._order, self._note_interrupted)
        self._ends: list[tuple[str, str, bool]] = []  # decision, how it ended, whether it is over
        self._pursuit: Pursuit | None = None
        self._open = True
        self._robot = ActionClient(brain, Execute, "execute")
        self._server = ActionServer(
            brain,
            Pursue,
            "pfc/pursue",
            execute_callback=lambda _: None,
            handle_accepted_callback=lambda goal: self._drive(goal, self._pursue(goal)),
            goal_callback=lambda _: GoalResponse.ACCEPT if self._open else GoalResponse.REJECT,
            cancel_callback=self._cancel,
        )
        self._timer: Any = None

    @property
    def objective(self) -> str:
        """What is pursued now; empty if nothing is."""
        return self._pursuit.objective if self._pursuit else ""

    def close(self) -> None:
        """Admit nothing more, have the robot stop, and close the doors, soon or at once."""
        self._open = False
        if self._pursuit is None:
            self.destroy()
            return
        self._pursuit.end("the brain was deactivated", ErrorCode.CANCELLED)
        self._pursuit.abandon()
        self._timer = self._brain.every(LINGER_S, self.destroy)

    def destroy(self) -> None:
        """Close the doors now."""
        if self._timer is not None:
            self._brain.destroy_timer(self._timer)
            self._timer = None
        if self._server is not None:
            self._server.destroy()
            self._robot.destroy()
            self._server = None

    def stop(self, reason: str) -> None:
        """Have the robot stop what it is at; nothing is learnt from it."""
        if self._pursuit is not None:
            self._pursuit.end(reason, ErrorCode.CONSCIENCE_HALTED)

    def check_time(self) -> None:
        """To be called now and then: ends what takes too long, and what was left behind."""
        if self._pursuit is not None:
            self._pursuit.check_time(self._robot.server_is_ready)
        self._left_behind.check(self._robot.server_is_ready)

    def record_ends(self) -> None:
        """Record what ended and is not on record yet. Raises BrainError (LEDGER_REFUSED)."""
        while self._ends:
            decision_id, how, over = self._ends[0]
            self._brain.record_pursuit(decision_id, how)
            if over:
                self._brain.store.end_action(decision_id)
            del self._ends[0]

    def _order(self, decision_id: str) -> ClientGoalHandle:
        """The client's side of an order that was given, whoever gave it."""
        accepted = Execute.Impl.SendGoalService.Response(accepted=True)
        return ClientGoalHandle(self._robot, _goal_id(decision_id), accepted)

    def _note_interrupted(self, decision_id: str) -> None:
        self.record_ends()
        self._brain.record_pursuit(decision_id, "interrupted")
        self._brain.store.end_action(decision_id)

    def _drive(self, goal: Any, work: Work) -> None:
        """Go on with `work` until it waits again, then when that is done, until it ends.

        Driven from here, because the executor polls an awaited future without a pause.
        """
        try:
            waits_for = next(work)
        except StopIteration as ended:
            result = ended.value
            goal.execute(lambda _: _conclude(goal, result))
        else:
            waits_for.add_done_callback(lambda _: self._drive(goal, work))

    def _pursue(self, goal: Any) -> Work:
        result = Pursue.Result()
        over = Future(executor=self._brain.executor)
        pursuit = Pursuit(goal.request.objective, bytes(goal.goal_id.uuid), over)
        try:
            if self._pursuit is not None:
                raise BrainError(
                    f"the robot is busy with `{self.objective}`; cancel that or wait",
                    ErrorCode.UNAVAILABLE,
                )
            self._pursuit = pursuit
            try:
                yield from self._carry_out(goal, pursuit, result)
            finally:
                self._pursuit = None
        except BrainError as error:
            refuse(result, error)
        except Exception as error:
            self._brain.note_failure(f"pursue failed: {error!r}")
            refuse(result, BrainError(f"pursue failed inside: {error!r}", ErrorCode.INTERNAL))
        if pursuit.unrecorded:
            code = ErrorCode(result.error_code) or ErrorCode.LEDGER_REFUSED
            came = result.message or result.outcome
            refuse(result, BrainError(f"{came}; not on record yet: {pursuit.unrecorded}", code))
        return result

    def _carry_out(
        self, goal: Any, pursuit: Pursuit, result: Pursue.Result
    ) -> Generator[Future, None, None]:
        brain, request = self._brain, goal.request
        _tell(goal, pursuit, Pursue.Feedback.OBSERVING, f"{len(brain.observed)} facts")
        if brain.stopped:
            raise BrainError(f"nothing is begun now: {brain.stopped}", ErrorCode.CONSCIENCE_HALTED)
        if not self._robot.server_is_ready():
            raise BrainError("no robot offers `execute`", ErrorCode.UNAVAILABLE)
        if self._left_behind.first:
            raise BrainError(
                "the robot has not said that its last action is over; it is asked to end it "
                f"(decision {self._left_behind.first})",
                ErrorCode.UNAVAILABLE,
            )
        _tell(goal, pursuit, Pursue.Feedback.DECIDING, f"{len(request.options)} options")
        decision, result.decision = brain.take_decision(request)
        if not decision.recommended_action:
            raise BrainError(decision.reasoning, ErrorCode.PFC_NO_OPTION_LEFT)
        yield from self._act(goal, pursuit, decision)
        came, reward = pursuit.outcome()
        _tell(goal, pursuit, Pursue.Feedback.LEARNING, f"{came}, reward {reward:.2f}")
        try:
            outcome = Outcome(
                str(uuid.uuid4()),
                decision.decision_id,
                decision.objective,
                decision.recommended_action,
                attributes_to_dict(request.context, "context"),
                came,
                reward,
            )
        except BrainError as error:
            raise BrainError(
                f"nothing is learnt of what the robot reports: {error}", ErrorCode.PFC_ACTION_FAILED
            ) from error
        done = pursuit.result or Execute.Result(message=pursuit.reason)
        episode, left_out = outcome_to_episode(outcome, done)
        said = [done.message or ("" if done.success else "the robot could not do it")]
        if left_out:
            said.append(f"left out of the episode: {'; '.join(left_out)}")
        message = "; ".join(filter(None, said))
        result.outcome, result.reward = came, reward
        result.episode_id = episode.episode_id
        try:
            brain.tell(episode, outcome)
        except BrainError as error:
            pursuit.unrecorded = str(error)
        if not done.success:
            raise BrainError(message, ErrorCode.PFC_ACTION_FAILED)
        accept(result, message)

    def _act(
        self, goal: Any, pursuit: Pursuit, decision: Decision
    ) -> Generator[Future, None, None]:
        brain, action = self._brain, decision.recommended_action
        option = next(each for each in goal.request.options if each.name == action)
        order = Execute.Goal(
            action=action,
            context=arguments(goal.request, option),
            decision_id=decision.decision_id,
        )

        def relay(message: Any) -> None:
            said = message.feedback
            if not pursuit.over.done():
                _tell(goal, pursuit, Pursue.Feedback.ACTING, said.text, said.progress)

        brain.record_pursuit(decision.decision_id, BEGAN)
        brain.store.begin_action(decision.decision_id)
        sent = self._robot.send_goal_async(
            order, feedback_callback=relay, goal_uuid=_goal_id(decision.decision_id)
        )
        pursuit.begin(action, sent, brain.settings["action_timeout_s"])
        yield pursuit.over
        if not self._open:
            return
        how = pursuit.reason or "ended"
        if pursuit.left_behind:
            self._left_behind.add(decision.decision_id)
            how += LEFT_BEHIND
        self._ends.append((decision.decision_id, how, not pursuit.left_behind))
        try:
            self.record_ends()
        except BrainError as error:
            pursuit.unrecorded = str(error)

    def _cancel(self, goal: Any) -> CancelResponse:
        if self._pursuit is not None and self._pursuit.goal_id == bytes(goal.goal_id.uuid):
            self._pursuit.end("cancelled by the caller", ErrorCode.CANCELLED)
        return CancelResponse.ACCEPT


def _goal_id(decision_id: str) -> UUID:
    return UUID(uuid=list(uuid.UUID(decision_id).bytes))


def _conclude(goal: Any, result: Pursue.Result) -> Pursue.Result:
    if goal.is_cancel_requested:
        goal.canceled()
    elif result.success:
        goal.succeed()
    else:
        goal.abort()
    return result


def arguments(request: Any, option: Any) -> list[Attribute]:
    """Context and attributes of an option together; of the same key the option's counts."""
    if not option.attributes:
        return list(request.context)
    return list({each.key: each for each in [*request.context, *option.attributes]}.values())


def _tell(goal: Any, pursuit: Pursuit, phase: str, text: str, progress: float = 0.0) -> None:
    goal.publish_feedback(
        Pursue.Feedback(phase=phase, action=pursuit.action, progress=progress, text=text)
    )
