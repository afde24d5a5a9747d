"""The service level: down at once, up only after it held."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType


class Level(IntEnum):
    """The values of brainos_msgs/ServiceLevel."""

    ONLINE = 0
    DEGRADED_ONLINE = 1
    OFFLINE = 2
    EMERGENCY = 3


_SEVERITY = {Level.ONLINE: 0, Level.OFFLINE: 1, Level.DEGRADED_ONLINE: 2, Level.EMERGENCY: 3}


@dataclass(frozen=True)
class Assessment:
    """A level with what a person needs to know about it."""

    level: Level
    reason: str
    failed: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


def assess(
    working: Sequence[str],
    recovering: Sequence[str],
    given_up: Sequence[str],
    essential: Sequence[str],
    unreachable: Sequence[str] = (),
    hindered: Mapping[str, str] = MappingProxyType({}),
    alone: Mapping[str, str] = MappingProxyType({}),
) -> Assessment:
    """The level that the state of the roles calls for.

    EMERGENCY if an essential role is given up on; DEGRADED_ONLINE if any role does not work, is
    `hindered`: lives, and says why it cannot do its job, or `alone`: works, and its stand-by, the
    node named, is given up on; OFFLINE if all work and the places outside the robot are
    `unreachable`. With `working` empty and nothing failed the brain is only starting,
    which is DEGRADED_ONLINE too.
    """
    failed = tuple(sorted({*recovering, *given_up, *hindered}))
    actions = tuple(
        f"Look at the log of {node} for why it keeps failing, then run: brainos restart {role}"
        for role, node in sorted({**alone, **{role: role for role in given_up}}.items())
    )
    lost = sorted(set(given_up) & set(essential))
    if lost:
        return Assessment(
            Level.EMERGENCY,
            f"failed for good: {', '.join(lost)}; the robot must not act without",
            failed,
            (*actions, "Keep people informed that the robot stands still until then."),
        )
    if given_up:
        return Assessment(Level.DEGRADED_ONLINE, f"failed for good: {', '.join(sorted(given_up))}",
                          failed, actions)
    if recovering or hindered or alone:
        reasons = [f"{role}: {why}" for role, why in sorted(hindered.items())]
        reasons += [f"{role} has no stand-by: {node} failed for good"
                    for role, node in sorted(alone.items())]
        actions += tuple(f"If {role} does not work when that is mended: brainos restart {role}"
                        for role in sorted(hindered))
        if recovering:
            reasons.append(f"not working yet: {', '.join(sorted(recovering))}")
            actions += ("Wait: it is being brought back.",)
        return Assessment(Level.DEGRADED_ONLINE, "; ".join(reasons), failed, actions)
    if unreachable:
        return Assessment(Level.OFFLINE, f"cut off: no answer from {', '.join(unreachable)}", (),
                          ("Check the robot's network; the brain works without it.",))
    return Assessment(Level.ONLINE, f"all {len(working)} roles work")


class Ladder:
    """Holds the level: worse is taken over at once, better after it held for `hold_s`."""

    def __init__(self, hold_s: float) -> None:
        self.current: Assessment | None = None
        self._hold = hold_s
        self._better_since: float | None = None
        self._started = False

    def update(self, now: float, wanted: Assessment) -> bool:
        """True if `current` changed and is to be published."""
        if self.current is None:
            self.current = wanted
            return True
        if wanted.level is self.current.level:
            self._better_since = None
            if wanted == self.current:
                return False
            self.current = wanted
            return True
        if _SEVERITY[wanted.level] > _SEVERITY[self.current.level]:
            self._better_since = None
            self.current = wanted
            return True
        if self._better_since is None:
            self._better_since = now
        if self._started and now - self._better_since < self._hold:
            return False
        self._started = True  # the first time all work is no recovery, so nothing to hold for
        self._better_since = None
        self.current = wanted
        return True

    def deadline(self) -> float:
        """When `update` must be called again."""
        return float("inf") if self._better_since is None else self._better_since + self._hold
