"""Faults on request in a node's process, for the benchmarks: put this folder on PYTHONPATH.

SIGUSR1 dead-locks the main thread, which runs the node's callbacks; SIGUSR2 makes it spin;
SIGRTMIN+1 freezes the conscience's output and SIGRTMIN+2 makes it NaN, both with the rest alive;
both write down when.

Where BRAINOS_ACTS names a file, each process appends to it when it first beat as active, answered
and commanded; and a file `configuring-<role>` beside it kills the next one that configures itself
for that role.
"""

import math
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any


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


def _write_down_first_acts(path: str) -> None:
    from brainos_ros.conscience.outlet import Outlet
    from brainos_ros.ros.lifecycle import BrainNode

    known: set[tuple[str, str]] = set()
    answering, enter = BrainNode.answering, BrainNode._enter

    def note(role: str, what: str) -> None:
        if (role, what) not in known:
            known.add((role, what))
            with open(path, "a") as file:
                file.write(f"{time.monotonic()!r} {role} {os.getpid()} {what}\n")

    def noted_beat(beat: Any) -> Any:
        def noted(self: BrainNode) -> None:
            if self.is_active:
                note(self.role, "beat")
            beat(self)

        return noted

    def noted_answering(self: BrainNode, *given: Any) -> Any:
        answer = answering(self, *given)

        def noted(request: Any, response: Any) -> Any:
            response = answer(request, response)
            note(self.role, "answer")
            return response

        return noted

    def entering(self: BrainNode, name: str, hook: Any, *given: Any) -> Any:
        fault = Path(path).with_name(f"configuring-{self.role}")

        def fatal() -> None:
            hook()
            fault.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

        dies = name == "configure" and fault.exists()
        return enter(self, name, fatal if dies else hook, *given)

    def publish(outlet: Outlet, send: Any) -> None:
        def noted(linear: float, angular: float) -> None:
            note("conscience", "command")
            send(linear, angular)

        outlet.__dict__["send_command"] = send and noted

    BrainNode.beat = noted_beat(BrainNode.beat)  # type: ignore[method-assign]
    BrainNode._publish_heartbeat = noted_beat(  # type: ignore[method-assign]
        BrainNode._publish_heartbeat)  # of the watchdog, which beats by message
    BrainNode._enter = entering  # type: ignore[method-assign]
    BrainNode.answering = noted_answering  # type: ignore[method-assign]
    Outlet.publish = property(lambda self: self.__dict__["send_command"], publish)  # type: ignore


if os.environ.get("BRAINOS_ACTS") and any(
        part.startswith("from brainos_ros.") for part in sys.orig_argv):
    _write_down_first_acts(os.environ["BRAINOS_ACTS"])

signal.signal(signal.SIGUSR1, lambda *_: threading.Event().wait())
signal.signal(signal.SIGUSR2, _spin)
signal.signal(signal.SIGRTMIN + 1, _freeze)
signal.signal(signal.SIGRTMIN + 2, _nan)
