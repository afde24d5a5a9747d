"""Faults on request in a node's process, for bench_recovery: put this folder on PYTHONPATH.

SIGUSR1 dead-locks the main thread, which runs the node's callbacks; SIGUSR2 makes it spin;
SIGRTMIN+1 freezes the conscience's output and SIGRTMIN+2 makes it NaN, both with the rest alive;
both write down when.
"""

import math
import os
import signal
import tempfile
import threading
import time
from pathlib import Path


def _spin(*_: object) -> None:
    while True:
        pass


def _say_when() -> None:
    """The moment [s, monotonic] a fault began: Python handles a signal up to a heartbeat later."""
    path = Path(tempfile.gettempdir(), f"brainos-fault-{os.getpid()}")
    path.write_text(repr(time.monotonic()))


def _freeze(*_: object) -> None:
    from brainos_ros.conscience.outlet import Outlet

    Outlet.send = lambda self, linear, angular: None  # type: ignore[method-assign]
    _say_when()


def _nan(*_: object) -> None:
    from brainos_ros.conscience.outlet import Outlet

    def send(self: Outlet, linear: float, angular: float) -> None:
        if self.publish is not None:
            self.publish(math.nan, 0.0)

    Outlet.send = send  # type: ignore[method-assign]
    _say_when()


signal.signal(signal.SIGUSR1, lambda *_: threading.Event().wait())
signal.signal(signal.SIGUSR2, _spin)
signal.signal(signal.SIGRTMIN + 1, _freeze)
signal.signal(signal.SIGRTMIN + 2, _nan)
