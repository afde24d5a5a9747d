"""Orders that the robot may still be acting on though nobody waits for them: they are ended.

Plain Python, like `pursuit`: what speaks to the robot is handed in.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

AGAIN_S = 1.0  # between two cancels of an order
UNKNOWN_GOAL = 2  # ERROR_UNKNOWN_GOAL_ID of action_msgs/srv/CancelGoal


@dataclass
class _Asked:
    """What the robot was asked about an order, as futures; None where it was not."""

    cancel: Any = None
    result: Any = None

    def ask(self, order: Any) -> None:
        """Cancel again, whether or not the last cancel was answered, and ask for the result."""
        if self.cancel is not None:
            self.cancel.cancel()
        self.cancel = order.cancel_goal_async()
        if self.result is None:
            self.result = order.get_result_async()

    def forget(self) -> None:
        """The robot is gone, and gives no result that it did not give before."""
        if self.result is not None and not self.result.done():
            self.result.cancel()
            self.result = None

    @property
    def over(self) -> bool:
        """The robot says so."""
        if self.result is not None and self.result.done():
            return True
        answered = self.cancel is not None and self.cancel.done()
        return answered and self.cancel.result().return_code == UNKNOWN_GOAL


class LeftBehind:
    """Cancels each order again and again, until the robot itself says that it is over.

    A cancel that the robot accepts does not say so: it may take its time to stop, and calls the
    order terminated meanwhile. So it is asked for the result too, which it gives once the order is
    over. A robot that was started anew does not know the order and says that to the next cancel,
    whatever became of the question for the result.

    Args:
        decision_ids: the orders, by the decision that each came from.
        order: makes the client's side of an order, as an action client shows it.
        over: is told of each that is over; where it raises, it is told again.
    """

    def __init__(
        self,
        decision_ids: Iterable[str],
        order: Callable[[str], Any],
        over: Callable[[str], None],
    ) -> None:
        self._asked = {each: _Asked() for each in decision_ids}
        self._order, self._over = order, over
        self._again_at = 0.0

    @property
    def first(self) -> str:
        """The decision whose order is waited for the longest; empty if none is."""
        return next(iter(self._asked), "")

    def add(self, decision_id: str) -> None:
        """This order was left behind, too."""
        self._asked[decision_id] = _Asked()

    def check(self, there: Callable[[], bool]) -> None:
        """To be called now and then; `there` says whether the robot is."""
        if not self._asked:
            return
        if not there():
            for asked in self._asked.values():
                asked.forget()
        elif (now := time.monotonic()) >= self._again_at:
            self._again_at = now + AGAIN_S
            for decision_id, asked in self._asked.items():
                asked.ask(self._order(decision_id))
        for decision_id in [each for each, asked in self._asked.items() if asked.over]:
            self._over(decision_id)
            del self._asked[decision_id]
