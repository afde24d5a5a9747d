"""Evaluates genomes in a process of its own, so that a roll-out can neither block nor crash a node.

The child is started fresh (never forked with locks held), at a low priority, and speaks JSON lines
over two pipes; what the fitness function prints goes to stderr. It ends with its parent: the end
of its standard input ends it, even in the middle of a roll-out. It leads a process group: what it
started there, such as a simulator, ends with it.
"""

import contextlib
import importlib
import json
import math
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Any

from brainos_ros.errors import BrainError, ErrorCode

SPECIFICATION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
NICENESS = 10


class Worker:
    """A process that evaluates `module:function`, called as f(parameters, seed, seconds) -> float.

    `timeout_s` is the time for everything from the start on (steady clock). Close it in the end;
    `kill` may be called from any thread and makes a running `evaluate` raise CANCELLED.
    """

    def __init__(self, function: str, seconds: float, timeout_s: float) -> None:
        if not SPECIFICATION.fullmatch(function):
            raise BrainError(f"fitness is {function!r}: give 'module:function'")
        self._function = function
        self._deadline = time.monotonic() + timeout_s
        self._timeout = timeout_s
        self._cancelled = False
        self._buffer = b""
        self._last_error = ""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, function, repr(float(seconds))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    def close(self) -> None:
        """End the child, wait for its end and release the pipes."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def last_error(self) -> str:
        """What the fitness function raised last; empty if it never did."""
        return self._last_error

    def kill(self) -> None:
        """End the child and what it started at once."""
        self._cancelled = True
        if self._process.returncode is None:  # else the number may be that of other processes
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def evaluate(self, parameters: Mapping[str, float], seed: int) -> float:
        """Return the fitness, or minus infinity if the function raised or gave no finite number.

        Raises TIMEOUT when the time is up, CANCELLED after `kill`, UNAVAILABLE if the function
        cannot be imported or the child died.
        """
        assert self._process.stdin
        line = json.dumps({"parameters": dict(parameters), "seed": seed}).encode() + b"\n"
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        reply = self._read()
        if "fatal" in reply:
            raise BrainError(
                f"fitness {self._function} cannot be used: {reply['fatal']}", ErrorCode.UNAVAILABLE
            )
        if "error" in reply:
            self._last_error = str(reply["error"])
            return -math.inf
        return float(reply["fitness"])

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = self._deadline - time.monotonic()
                if left <= 0.0 or not selector.select(left):
                    self.kill()
                    raise BrainError(
                        f"evolution took longer than {self._timeout:g} s: nothing was changed",
                        ErrorCode.TIMEOUT,
                    )
                data = os.read(self._process.stdout.fileno(), 65_536)
                if not data:
                    raise self._ended()
                self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _ended(self) -> BrainError:
        if self._cancelled:
            return BrainError("evolution was cancelled: nothing was changed", ErrorCode.CANCELLED)
        end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)  # reaped when its group ends
        assert end
        how = "code" if end.si_code == os.CLD_EXITED else "signal"
        return BrainError(
            f"the fitness process ended with {how} {end.si_status}: nothing was changed",
            ErrorCode.UNAVAILABLE,
        )


def _load(specification: str) -> Callable[[Mapping[str, float], int, float], float]:
    module, name = specification.split(":")
    function: Callable[[Mapping[str, float], int, float], float]
    function = getattr(importlib.import_module(module), name)
    return function


def _watch_input(jobs: "SimpleQueue[bytes]") -> None:
    for line in sys.stdin.buffer:
        jobs.put(line)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """The child: read jobs, write figures, until standard input ends."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    os.nice(NICENESS)
    jobs: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_watch_input, args=(jobs,), daemon=True).start()
    seconds = float(sys.argv[2])
    try:
        function = _load(sys.argv[1])
    except (Exception, SystemExit) as error:
        jobs.get()
        out.write(json.dumps({"fatal": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        os._exit(1)  # an orderly end would wait for the thread that reads
    while True:
        job = json.loads(jobs.get())
        try:
            value = float(function(job["parameters"], job["seed"], seconds))
            if not math.isfinite(value):
                raise ValueError(f"fitness is {value}")
            reply: dict[str, Any] = {"fitness": value}
        except (Exception, SystemExit) as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(reply).encode() + b"\n")


if __name__ == "__main__":
    main()
