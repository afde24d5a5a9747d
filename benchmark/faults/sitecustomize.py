"""Faults on request in a node's process, for bench_recovery: put this folder on PYTHONPATH.

SIGUSR1 dead-locks the main thread, which runs the node's callbacks; SIGUSR2 makes it spin;
SIGRTMIN+1 freezes the conscience's output and SIGRTMIN+2 makes it NaN, both with the rest alive.
"""

import math
import signal
import threading


def _spin(*_: object) -> None:
    while True:
        pass


def _freeze(*_: object) -> None:
    from brainos_ros.conscience.outlet import Outlet

    Outlet.send = lambda self, linear, angular: None  # type: ignore[method-assign]


def _nan(*_: object) -> None:
    from brainos_ros.conscience.outlet import Outlet

    def send(self: Outlet, linear: float, angular: float) -> None:
        if self.publish is not None:
            self.publish(math.nan, 0.0)

    Outlet.send = send  # type: ignore[method-assign]


signal.signal(signal.SIGUSR1, lambda *_: threading.Event().wait())
signal.signal(signal.SIGUSR2, _spin)
signal.signal(signal.SIGRTMIN + 1, _freeze)
signal.signal(signal.SIGRTMIN + 2, _nan)
