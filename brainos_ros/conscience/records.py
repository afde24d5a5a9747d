"""How verdicts and gate lines reach the ledger without ever holding up the gate."""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

from brainos_ros.errors import LEDGER_REFUSED

Record = Callable[[str, dict[str, Any]], object]
LAG_LIMIT_S = 0.1
RETRY_S = 0.2
CLOSE_S = 2.0
MOST_WAITING = 1000
MOST_HALTS = 100  # that no writer has
MOST_LINES = 500  # of MOST_WAITING, the gate's; the rest of the room is for what people did
LINES = ("gate", "stop")


class Writer:
    """A thread that writes records in order; a record the ledger refuses is tried again.

    The gate only asks `problem(now)`: motion needs the writer to keep up, stopping needs nothing.
    """

    def __init__(self, record: Record, clock: Callable[[], float] = time.monotonic) -> None:
        self._record, self._clock = record, clock
        self._waiting: deque[tuple[float, str, dict[str, Any]]] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._failure = ""
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="conscience_writer", daemon=True)
        self._thread.start()

    def put(self, kind: str, body: dict[str, Any]) -> None:
        """Hands a record over; never waits. What does not fit is lost, and a record says so later.

        While the ledger refuses, the gate writes a line a second: it must not crowd out a halt.
        """
        if len(self._waiting) < (MOST_LINES if kind in LINES else MOST_WAITING):
            if self._lost and len(self._waiting) < MOST_LINES:
                lost, self._lost = self._lost, 0
                self._waiting.append((self._clock(), "gate", {"records_lost": lost}))
            self._waiting.append((self._clock(), kind, body))
        else:
            self._lost += 1
        self._wake.set()

    def problem(self, now: float) -> str:
        """Why the robot may not move as far as the ledger goes; empty if it may."""
        try:
            since = self._waiting[0][0]
        except IndexError:
            return ""
        if self._failure:
            return f"{LEDGER_REFUSED}: {self._failure}"
        return "ledger lags" if now - since > LAG_LIMIT_S else ""

    def close(self) -> list[tuple[str, dict[str, Any]]]:
        """Writes what waits, if the ledger takes it, ends the thread and gives what is left.

        What a ledger that hangs may take later is among it. No record is handed over from now on.
        """
        self._closing = True
        self._wake.set()
        self._thread.join(timeout=CLOSE_S)
        left, self._waiting = self._waiting, deque()
        return [(kind, body) for _, kind, body in left]

    def _run(self) -> None:
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._wake.wait()
            self._wake.clear()
            with suppress(IndexError):  # nothing waits any more, or `close` has taken it
                while True:
                    _, kind, body = self._waiting[0]
                    try:
                        self._record(kind, body)
                    except Exception as error:
                        self._failure = str(error) or type(error).__name__
                        if self._closing:
                            return
                        self._wake.wait(RETRY_S)
                        self._wake.clear()
                    else:
                        self._failure = ""
                        self._waiting.popleft()


class Halts:
    """Hands halts to the writer there is, or keeps them for the next; from any thread."""

    def __init__(self) -> None:
        self._writer: Writer | None = None
        self._waiting: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def put(self, body: dict[str, Any]) -> None:
        """Never waits for the ledger."""
        with self._lock:
            if self._writer is not None:
                self._writer.put("halt", body)
            elif len(self._waiting) < MOST_HALTS:
                self._waiting.append(body)

    def begin(self, writer: Writer) -> None:
        """From now on they go to this writer, those that waited first."""
        with self._lock:
            while self._waiting:
                writer.put("halt", self._waiting.pop(0))
            self._writer = writer

    def end(self) -> None:
        """Closes the writer, and keeps the halts that it did not get on record."""
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is not None:
            left = [body for kind, body in writer.close() if kind == "halt"]
            with self._lock:
                self._waiting[:0] = left


class Refusals:
    """Keeps a flood of refusals from filling the disk.

    The first of its kind within a second is a record of its own, up to `rate` a second with a
    burst of `burst`; the others are counted into one record a second.
    """

    def __init__(self, rate: float = 20.0, burst: float = 100.0) -> None:
        self._rate, self._burst = rate, burst
        self._tokens = burst
        self._refilled = -1e9
        self._window = -1e9
        self._seen: set[Hashable] = set()
        self._counted: dict[str, int] = {}

    def admit(self, now: float, key: Hashable, label: str) -> bool:
        """Whether this refusal gets a record of its own; else it is counted under `label`."""
        self._tokens = min(self._burst, self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now
        if now - self._window >= 1.0:
            self._window = now
            self._seen.clear()
        if key not in self._seen and self._tokens >= 1.0:
            self._seen.add(key)
            self._tokens -= 1.0
            return True
        if label not in self._counted and len(self._counted) >= 32:
            label = "others"
        self._counted[label] = self._counted.get(label, 0) + 1
        return False

    def take(self) -> dict[str, int]:
        """What was counted since the last time, by label; starts again from nothing."""
        counted, self._counted = self._counted, {}
        return counted
