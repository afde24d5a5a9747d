"""A clock for what ages: tells the wall's time, and no step of the wall clock reaches it."""

import threading
import time
from collections.abc import Callable

STEP_NS = 100_000_000
"""What the wall clock must be off by to have been stepped [ns]."""


class Unstepped:
    """Wall time when made, and steady time since. It may be asked from any thread.

    Args:
        wall_ns: the clock that may be stepped [ns].
        steady_ns: the clock that measures what passes [ns]; where it jumps back, as the time of a
            simulation does when that is reset, no time has passed.
        least_ns: where it begins if the wall clock is behind that, as after a step back.
    """

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        steady_ns: Callable[[], int] = time.monotonic_ns,
        least_ns: int = 0,
    ) -> None:
        self._wall_ns, self._steady_ns = wall_ns, steady_ns
        self._lock = threading.Lock()
        self._steady = steady_ns()
        self._offset = max(wall_ns(), least_ns) - self._steady
        self._skew = 0

    def now(self) -> int:
        """Nanoseconds; never less than before."""
        with self._lock:
            steady = self._steady_ns()
            self._offset += max(self._steady - steady, 0)
            self._steady = steady
            return self._offset + steady

    def skew(self) -> int:
        """How far the wall clock is ahead [ns]: subtract it from a stamp made by the wall clock
        since its last step, add it to what a person is told."""
        skew = self._wall_ns() - self.now()
        if abs(skew - self._skew) >= STEP_NS:
            self._skew = skew
        return self._skew
