"""When a robot that was asked to move stood still, and whether anybody said why."""

from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

HEARD_S = 1.0  # so near to its beginning the reason must be told


@dataclass(frozen=True)
class Stop:
    """From `begin` to `end` [s]; `silent` if no command came rather than zero."""

    begin: float
    end: float
    silent: bool


def stops(commands: Sequence[tuple[float, float]], timeout_s: float) -> list[Stop]:
    """The stops in a row of (time [s], size), in order of time.

    The base stands while it is told zero, and `timeout_s` after a command until the next.
    """
    found: list[Stop] = []
    for (at, size), (then, _) in pairwise(commands):
        if size == 0.0:
            begin = found.pop().begin if found and found[-1].end == at else at
            found.append(Stop(begin, then, False))
        elif then - at > timeout_s:
            found.append(Stop(at + timeout_s, then, True))
    return found


def unasked(stops: Iterable[Stop], requests: Sequence[float], fresh_s: float) -> list[Stop]:
    """Those which began when the last of the requests (times [s], in order) was older than this:
    nobody wanted the robot to move."""
    return [stop for stop in stops
            if stop.begin - requests[bisect(requests, stop.begin) - 1] > fresh_s]


def untold(stops: Iterable[Stop], reasons: Sequence[tuple[float, float]]) -> list[Stop]:
    """Those for which no reason, (from, to) [s], was given when they began."""
    return [stop for stop in stops
            if not any(begin - HEARD_S < stop.begin < end + HEARD_S for begin, end in reasons)]
