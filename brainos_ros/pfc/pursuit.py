"""One goal of `pursue` while the robot acts on it: who ends it, and what is learnt of it.

Plain Python: the action's futures are handed in, whatever library they are of.
"""

import math
import time
from collections.abc import Callable
from typing import Any

from brainos_ros.errors import BrainError, ErrorCode

CANCEL_S = 5.0
NOT_TRIED = (ErrorCode.UNAVAILABLE, ErrorCode.INVALID_ARGUMENT)


class Pursuit:
    """Follows an order to the robot until `over` is set; it is sent once and never again.

    Args:
        objective: what is pursued, for whoever asks meanwhile.
        goal_id: the goal's, to tell its cancel from another's.
        over: a future, set when there is nothing more to wait for.
    """

    def __init__(self, objective: str, goal_id: bytes, over: Any) -> None:
        self.objective, self.goal_id, self.over = objective, goal_id, over
        self.action, self.reason = "", ""
        self.unrecorded = ""
        """Why the ledger does not have yet how it ended, or what is learnt of it."""
        self.code = ErrorCode.NONE
        self.result: Any = None
        self._order: Any = None
        self._refused = False
        self._deadline = math.inf

    @property
    def left_behind(self) -> bool:
        """The robot may still be acting on it: it neither refused nor said how it ended."""
        return self.result is None and not self._refused

    def begin(self, action: str, sent: Any, timeout_s: float) -> None:
        """The action was sent to the robot: `sent` is the future of its goal handle."""
        self.action = action
        self._deadline = time.monotonic() + timeout_s
        sent.add_done_callback(self._accepted)

    def end(self, reason: str, code: ErrorCode) -> None:
        """Ask the robot to stop; it has CANCEL_S to say that it did. The first reason counts."""
        if self.reason:
            return
        self.reason, self.code = reason, code
        self._deadline = time.monotonic() + CANCEL_S
        if self._order is not None:
            self._order.cancel_goal_async()

    def abandon(self) -> None:
        """Wait no longer."""
        if not self.over.done():
            self.over.set_result(None)

    def check_time(self, there: Callable[[], bool]) -> None:
        """End what takes too long, and what the robot (`there` says whether it is) left behind."""
        if not self.action:
            return
        if not there():
            self.end("the robot is gone", ErrorCode.UNAVAILABLE)
            self.abandon()
        elif time.monotonic() >= self._deadline:
            if self.reason:
                self.abandon()
            self.end("the robot took too long", ErrorCode.TIMEOUT)

    def outcome(self) -> tuple[str, float]:
        """What is learnt: (outcome, reward). Raises BrainError if nothing is.

        Taking too long is a failure, unless the robot did it before the cancel reached it. A
        cancel, or a robot that refused, was busy or vanished, says nothing of the option.
        """
        late = self.code is ErrorCode.TIMEOUT
        if late and not (self.result and self.result.success):
            return "failure", -1.0
        if self.reason and not late:
            raise BrainError(f"{self.action}: {self.reason}", self.code)
        if not self.result.success and self.result.error_code in NOT_TRIED:
            raise BrainError(
                f"{self.action}: {self.result.message}", ErrorCode(self.result.error_code)
            )
        if not self.result.outcome:
            return ("success", 1.0) if self.result.success else ("failure", -1.0)
        return self.result.outcome, self.result.reward

    def _accepted(self, sent: Any) -> None:
        order = sent.result()
        if not order.accepted:
            self._refused = True
            self.end("the robot refuses the action", ErrorCode.PFC_ACTION_FAILED)
            self.abandon()
            return
        self._order = order
        order.get_result_async().add_done_callback(self._finished)
        if self.reason:
            order.cancel_goal_async()

    def _finished(self, answer: Any) -> None:
        self.result = answer.result().result
        self.abandon()
