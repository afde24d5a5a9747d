"""Events on their way to the ledger, on a thread of their own: a slow disk must not stop the
watchdog's loop. While the ledger refuses, they wait."""

import queue
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from brainos_ros.errors import BrainError, ErrorCode

RETRY_S = 1.0
Event = tuple[str, Mapping[str, Any]]


class Journal:
    """Each event goes, in order, to `tell` and to `write`; to `write` again and again while it
    raises LEDGER_REFUSED, which `refused(reason)` is told of."""

    def __init__(
        self,
        tell: Callable[[str, Mapping[str, Any]], object],
        write: Callable[[str, Mapping[str, Any]], object],
        refused: Callable[[str], object],
    ) -> None:
        self._tell, self._write, self._refused = tell, write, refused
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._unwritten: deque[Event] = deque()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def add(self, kind: str, body: Mapping[str, Any]) -> None:
        self._queue.put((kind, body))

    def close(self) -> None:
        """Try to write what is left, once, and end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                event = self._queue.get(timeout=RETRY_S if self._unwritten else None)
            except queue.Empty:
                self._flush()
                continue
            if event is None:
                self._flush()
                return
            _safely(self._tell, *event)
            self._unwritten.append(event)
            self._flush()

    def _flush(self) -> None:
        while self._unwritten:
            try:
                self._write(*self._unwritten[0])
            except Exception as error:
                _safely(self._refused, str(error))
                if isinstance(error, BrainError) and error.code is ErrorCode.LEDGER_REFUSED:
                    return
            self._unwritten.popleft()


def _safely(say: Callable[..., object], *what: object) -> None:
    """What is on record does not depend on what can be said of it."""
    try:
        say(*what)
    except Exception:
        traceback.print_exc()
