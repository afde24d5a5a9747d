"""The one way out for commands, shared by the gate's thread and the halt's."""

import contextlib
import threading
from collections.abc import Callable

from brainos_ros.conscience.halt import Latch

PATIENCE_S = 0.005


class Outlet:
    """Publishes commands; zero always gets out, anything else only while not halted.

    `publish(linear, angular)` is what really sends; None while the gate is closed.
    """

    def __init__(self, latch: Latch) -> None:
        self._latch, self._lock = latch, threading.Lock()
        self.publish: Callable[[float, float], None] | None = None

    def send(self, linear: float, angular: float) -> None:
        """Sends a command [m/s, rad/s], or zero if the robot is halted."""
        with self._lock:
            if self.publish is None:
                return
            if self._latch.halted:
                self.publish(0.0, 0.0)
            else:
                self.publish(linear, angular)
                if self._latch.halted:  # while it was on its way out
                    self.publish(0.0, 0.0)

    def zero(self) -> None:
        """Sends zero; a sender that hangs delays it by 5 ms, no more."""
        held = self._lock.acquire(timeout=PATIENCE_S)
        try:
            if self.publish is not None:
                self.publish(0.0, 0.0)
        finally:
            if held:
                self._lock.release()

    def close(self) -> None:
        """Sends a last zero, if it can, then nothing any more."""
        with contextlib.suppress(Exception):
            self.zero()
        self.publish = None
