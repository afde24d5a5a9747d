"""Who acted in a role when, and whether two ever did at once.

Each process of the brain writes its first acts down itself (faults/sitecustomize.py); when it ended
is seen from outside, through its pidfd. All times are `time.monotonic()` [s].
"""

import math
import os
import select
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

VARIABLE = "BRAINOS_ACTS"  # the file that the processes append to


@dataclass(frozen=True, order=True)
class Act:
    """The first time that a process did something: a `beat` as active, an `answer`, a `command`."""

    at: float
    role: str
    pid: int
    what: str


def read(path: Path) -> list[Act]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [Act(float(at), role, int(pid), what)
            for at, role, pid, what in map(str.split, lines)]


def successions(acts: Iterable[Act]) -> list[tuple[Act, Act]]:
    """(first act of a process, first act of the next one in its role), for every role."""
    first: dict[tuple[str, int], Act] = {}
    for act in sorted(acts):
        first.setdefault((act.role, act.pid), act)
    roles: dict[str, list[Act]] = {}
    for act in first.values():
        roles.setdefault(act.role, []).append(act)
    return [pair for each in roles.values() for pair in pairwise(each)]


def overlaps(acts: Iterable[Act], ends: Mapping[int, float]) -> list[tuple[Act, Act]]:
    """The successions in which the earlier process is not known to have ended by then."""
    return [(was, new) for was, new in successions(acts)
            if ends.get(was.pid, math.inf) > new.at]


class Ends:
    """Notes when processes end: `at` is pid -> time."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}
        self._ended = threading.Condition()
        self._seen: set[int] = set()
        self._pids: dict[int, int] = {}
        self._poll = select.epoll()
        threading.Thread(target=self._run, name="ends", daemon=True).start()

    def watch(self, pid: int) -> None:
        if pid in self._seen:
            return
        self._seen.add(pid)
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self.at[pid] = time.monotonic()
            return
        self._pids[pidfd] = pid
        self._poll.register(pidfd, select.EPOLLIN)

    def wait(self, pid: int, limit_s: float) -> bool:
        """Wait until a process that is watched has ended; whether it did in time."""
        with self._ended:
            return self._ended.wait_for(lambda: pid in self.at, limit_s)

    def _run(self) -> None:
        while True:
            for pidfd, _ in self._poll.poll():
                now = time.monotonic()
                with self._ended:
                    self.at[self._pids.pop(pidfd)] = now
                    self._ended.notify_all()
                self._poll.unregister(pidfd)
                os.close(pidfd)
