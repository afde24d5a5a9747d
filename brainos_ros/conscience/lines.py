"""What the gate did, as few records: its changes, and one line a second while it is asked."""

import math
from collections.abc import Callable
from typing import Any

from brainos_ros.conscience.gate import Tick

MOST_CHANGES_PER_S = 20


class Lines:
    """Watches the ticks. `put(kind, body)` takes a record and never waits."""

    def __init__(self, put: Callable[[str, dict[str, Any]], None]) -> None:
        self._put = put
        self._causes: tuple[str, ...] | None = None
        self._second = -math.inf
        self._changes = self._unwritten = 0
        self._clear()

    def _clear(self) -> None:
        self._ticks = self._slowed = self._stopped = 0
        self._fastest, self._person, self._obstacle = 0.0, math.inf, math.inf

    def see(self, now: float, tick: Tick) -> bool:
        """Takes a tick; True if what holds the robot changed with it."""
        if now - self._second >= 1.0:
            self._end_of_second(now)
        if not math.isnan(tick.requested[0]):
            self._ticks += 1
            self._slowed += tick.slowed
            self._stopped += bool(tick.causes)
            self._fastest = max(self._fastest, abs(tick.command[0]))
            self._person = min(self._person, tick.person_m)
            self._obstacle = min(self._obstacle, tick.obstacle_m)
        if tick.causes == self._causes:
            return False
        self._causes = tick.causes
        self._changes += 1
        if self._changes <= MOST_CHANGES_PER_S:
            self._put("stop" if tick.causes else "gate", {
                "causes": list(tick.causes), "requested": _numbers(tick.requested),
                "command": _numbers(tick.command), "person_m": _number(tick.person_m),
                "obstacle_m": _number(tick.obstacle_m), "limit_mps": _number(tick.limit_mps)})
        else:
            self._unwritten += 1
        return True

    def _end_of_second(self, now: float) -> None:
        if self._ticks:
            self._put("gate", {
                "ticks": self._ticks, "slowed": self._slowed, "stopped": self._stopped,
                "fastest_mps": self._fastest, "person_m": _number(self._person),
                "obstacle_m": _number(self._obstacle), "unwritten_changes": self._unwritten})
            self._unwritten = 0
        self._second, self._changes = now, 0
        self._clear()


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _numbers(values: tuple[float, ...]) -> list[float | None]:
    return [_number(value) for value in values]
