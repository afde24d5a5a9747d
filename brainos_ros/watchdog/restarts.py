"""When a failed process is started again, and when no more."""

from collections import deque
from random import Random

from brainos_ros.robot_spec import Restart


class History:
    """Windowed intensity and exponential backoff with jitter for one process.

    The first restart is immediate; the n-th in a row waits `backoff_s * 2**(n-2)`, at most
    `backoff_max_s`, times a random factor from 0.5 to 1 so that processes that fail together do
    not come back together. A process that ran `stable_s` starts again from nothing.
    """

    def __init__(self, policy: Restart, random: Random) -> None:
        self.policy = policy
        self._random = random
        self._failures: deque[float] = deque()
        self._in_a_row = 0
        self._healthy_since: float | None = None

    @property
    def limit(self) -> str:
        """What was exceeded where `failed` returned None, in words."""
        policy = self.policy
        return f"more than {policy.max_restarts} restarts in {policy.window_s:g} s"

    def healthy(self, now: float) -> None:
        """The process works; call it whenever that is seen."""
        if self._healthy_since is None:
            self._healthy_since = now

    def failed(self, now: float) -> float | None:
        """Seconds to wait before the next start; None if it failed too often to try again."""
        if self._healthy_since is not None and now - self._healthy_since >= self.policy.stable_s:
            self._in_a_row = 0
        self._healthy_since = None
        self._failures.append(now)
        while self._failures[0] <= now - self.policy.window_s:
            self._failures.popleft()
        if len(self._failures) > self.policy.max_restarts:
            return None
        self._in_a_row += 1
        if self._in_a_row == 1:
            return 0.0
        delay = self.policy.backoff_s * 2.0 ** min(self._in_a_row - 2, 60)
        return min(delay, self.policy.backoff_max_s) * self._random.uniform(0.5, 1.0)

    def forgive(self) -> None:
        """A person asked for a restart: count from nothing."""
        self._failures.clear()
        self._in_a_row = 0
        self._healthy_since = None
