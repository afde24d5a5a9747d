"""The gate: what of a velocity request may leave, decided afresh at every tick.

Plain Python on a steady clock that the caller hands in as `now` [s]; frames: people and
odometry in `odom`, scan and commands in the base's own frame. Nothing is ever louder than the
request, faster than the separation allows, or rising faster than the base accelerates.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from brainos_ros.conscience.rules import RuleSet
from brainos_ros.conscience.separation import (
    Base,
    People,
    Scan,
    Scanner,
    path_separation,
    person_separation,
    speed_limit,
)

MISSED_PERIODS = 3
FAR_M = 1000.0
FROZEN_MOVE = 0.1
CREEP_MPS = 0.1
Command = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Periods:
    """How often each input is promised [s]; an input is stale after three of its periods."""

    gate: float = 0.02
    request: float = 0.1
    scan: float = 0.1
    odom: float = 0.05
    people: float = 0.1
    watchdog_silence: float = 0.2


@dataclass(frozen=True, slots=True)
class Tick:
    """One decision of the gate; NaN where there was no request, +inf where nothing limits."""

    requested: Command
    command: Command
    limit_mps: float
    person_m: float
    obstacle_m: float
    reaction_s: float
    causes: tuple[str, ...]

    @property
    def slowed(self) -> bool:
        """True if less speed left than was asked for, though nothing stopped it."""
        asked = math.hypot(*self.requested)
        return not self.causes and math.hypot(*self.command) < asked - 1e-6


HALTED = "halted: "  # how the cause begins that only a reset ends
ZERO = (0.0, 0.0)
NOTHING = (math.nan, math.nan)


class Gate:
    """Latest inputs and the tick over them. One thread feeds and ticks it.

    `halted()` says why the robot is halted, each of `held(now)` what else holds
    it, or nothing; `protective` are the
    causes of the last tick but the halt, `emergency` says why the service
    level is EMERGENCY.
    """

    def __init__(self, base: Base, people: People, periods: Periods, rules: RuleSet) -> None:
        self.base, self.assumed, self.periods = base, people, periods
        self.rules = rules
        self.expects_people = True
        self.halted: Callable[[], str] = lambda: ""
        self.held: list[Callable[[float], str]] = []
        self._scanner = Scanner(base.footprint_radius_m)
        self._request: tuple[float, float, float] | None = None
        self._request_problem = ""
        self._scan_at = self._odom_at = self._people_at = self._watchdog_at = -math.inf
        self._scan_stamp = self._odom_stamp = self._people_stamp = -1
        self._scan_args: tuple[Any, ...] | None = None
        self._scan: Scan | None = None
        self._scan_bytes = b""
        self._same_since: tuple[float, float, float] | None = None
        self._scan_problem = self._odom_problem = self._people_problem = ""
        self._pose = (0.0, 0.0, 0.0)
        self._odom_frame = self._people_frame = ""
        self._people: list[tuple[float, float, float]] = []
        self._person_m: float | None = None
        self.emergency = ""
        self.protective: tuple[str, ...] = ("no tick yet",)
        self._last = ZERO
        self._last_at = -math.inf

    def request(self, now: float, linear: float, angular: float, others: Sequence[float]) -> None:
        """A velocity request [m/s, rad/s]; `others` are the axes the base does not have."""
        self._request = (now, linear, angular)
        if not (math.isfinite(linear) and math.isfinite(angular)):
            self._request_problem = "request not finite"
        elif any(value != 0.0 for value in others):
            self._request_problem = "request for an axis the base does not have"
        else:
            self._request_problem = ""

    def scan(
        self,
        now: float,
        stamp: int,
        ranges: Any,
        angle_min: float,
        angle_increment: float,
        range_min: float,
        range_max: float,
    ) -> None:
        """A laser scan; one with the stamp [ns] of the one before is not a new one."""
        if stamp == self._scan_stamp:
            return
        self._scan_stamp, self._scan_at = stamp, now
        self._scan, self._scan_problem = None, ""
        self._scan_args = (ranges, angle_min, angle_increment, range_min, range_max)
        content = ranges.tobytes()
        if content != self._scan_bytes:
            self._scan_bytes, self._same_since = content, None
        elif self._same_since is None:
            self._same_since = self._pose

    def odometry(
        self, now: float, stamp: int, frame: str, x: float, y: float, yaw: float,
        linear: float, angular: float,
    ) -> None:
        """Pose [m, rad] in `frame` and twist [m/s, rad/s] of the base."""
        if stamp == self._odom_stamp:
            return
        self._odom_stamp, self._odom_at = stamp, now
        if not all(map(math.isfinite, (x, y, yaw, linear, angular))):
            self._odom_problem = "odom not finite"
            return
        self._odom_problem = ""
        self._pose, self._odom_frame, self._person_m = (x, y, yaw), frame, None

    def people(
        self, now: float, stamp: int, frame: str, people: list[tuple[float, float, float]]
    ) -> None:
        """All tracked people now, each (x, y, radius) [m] in `frame`."""
        if stamp == self._people_stamp:
            return
        self._people_stamp, self._people_at = stamp, now
        self._people_frame, self._person_m = frame, None
        finite = all(math.isfinite(x + y + r) and r >= 0.0 for x, y, r in people)
        self._people_problem = "" if finite else "tracked_people not finite"
        self._people = people if finite else []

    def watchdog(self, now: float) -> None:
        """The watchdog's heartbeat."""
        self._watchdog_at = now

    def asked(self, now: float) -> bool:
        """Whether a fresh request other than zero is there."""
        request = self._request
        return (
            request is not None
            and now - request[0] <= MISSED_PERIODS * self.periods.request
            and (request[1] != 0.0 or request[2] != 0.0)
        )

    def causes(self, now: float) -> tuple[str, ...]:
        """Every protective stop there is now, whatever is asked; empty if nothing but a halt
        holds the robot."""
        periods = self.periods
        found = [problem for held in self.held if (problem := held(now))]
        if now - self._watchdog_at > periods.watchdog_silence:
            found.append("watchdog silent")
        if self.emergency:
            found.append(self.emergency)
        late = _late("scan", now, self._scan_at, periods.scan)
        found += filter(None, (late, self._scan_problem, self._frozen()))
        late = _late("odom", now, self._odom_at, periods.odom)
        found += filter(None, (late, self._odom_problem))
        if self.expects_people:
            late = _late("tracked_people", now, self._people_at, periods.people)
            found += filter(None, (late, self._people_problem))
            if not late and self._people_frame != self._odom_frame:
                found.append(
                    f"tracked_people in frame `{self._people_frame}`, odom in `{self._odom_frame}`"
                )
        return tuple(found)

    def _frozen(self) -> str | None:
        if self._same_since is None:
            return None
        x, y, yaw = self._same_since
        moved = math.hypot(self._pose[0] - x, self._pose[1] - y)
        turned = abs(math.remainder(self._pose[2] - yaw, math.tau))
        if moved < FROZEN_MOVE and turned < FROZEN_MOVE:
            return None
        scan = self._points()
        return "scan frozen" if scan is None or scan.x.size else None

    def _points(self) -> Scan | None:
        if self._scan_args is not None:
            try:
                self._scan = self._scanner.points(*self._scan_args)
            except (ValueError, TypeError) as error:
                self._scan_problem = f"scan invalid: {error}"
            self._scan_args = None
        return self._scan

    def tick(self, now: float) -> Tick:
        """What may leave now; ZERO where anything holds it."""
        elapsed = min(max(0.0, now - self._last_at), 2 * self.periods.gate)
        self._last_at = now
        tick = self._decide(now, elapsed)
        self._last = tick.command
        return tick

    def _decide(self, now: float, elapsed: float) -> Tick:
        causes = self.protective = self.causes(now)
        if halted := self.halted():
            causes = (f"{HALTED}{halted}", *causes)
        request = self._request
        if request is None or now - request[0] > MISSED_PERIODS * self.periods.request:
            return Tick(NOTHING, ZERO, math.inf, math.inf, math.inf, math.nan, causes)
        asked = request[1:]
        if self._request_problem:
            causes += (self._request_problem,)
        if causes or asked == ZERO:
            return Tick(asked, ZERO, math.inf, math.inf, math.inf, math.nan, causes)
        scan = self._points()
        if scan is None:
            problem = (self._scan_problem or "no scan",)
            return Tick(asked, ZERO, 0.0, math.inf, 0.0, math.nan, problem)
        return self._limited(now, asked, scan, elapsed)

    def _limited(self, now: float, asked: tuple[float, float], scan: Scan, elapsed: float) -> Tick:
        base, assumed, periods = self.base, self.assumed, self.periods
        sensor = max(periods.scan, now - self._scan_at)
        if self.expects_people:
            sensor = max(sensor, periods.people, now - self._people_at)
            if self._person_m is None:
                self._person_m = person_separation(
                    *self._pose[:2], base.footprint_radius_m, self._people)
        person = math.inf if self._person_m is None else self._person_m
        reaction = base.reaction_time_s(sensor, periods.gate)
        limit = speed_limit(person, assumed.person_speed_mps, reaction, base, assumed)
        if assumed.unrecognised_speed_mps > 0.0:
            obstacle = scan.nearest_m
            limit = min(limit, speed_limit(
                obstacle, assumed.unrecognised_speed_mps, reaction, base, assumed))
            command = self._risen(self._scaled(self._within_base(asked), limit), elapsed)
        else:
            target = self._scaled(self._within_base(asked), limit)
            target, near, obstacle = self._clear(scan, target, reaction)
            command = self._risen(target, elapsed)
            if command != target:
                command, nearer, _ = self._clear(scan, command, reaction)
                near = min(near, nearer)
            limit = min(limit, near)
        causes = self._refused(command, person, obstacle)
        return Tick(asked, ZERO if causes else command, limit, person, obstacle, reaction, causes)

    def _within_base(self, asked: Command) -> Command:
        base, (linear, angular) = self.base, asked
        scale = min(1.0, base.max_speed_mps / max(abs(linear), 1e-9),
                    base.max_yaw_rate_radps / max(abs(angular), 1e-9))
        return linear * scale, angular * scale

    def _scaled(self, wanted: Command, limit: float) -> Command:
        """Along the same curve, |v| + |w| r at the limit [m/s] or below."""
        rim = self._rim(wanted)
        return wanted if rim <= limit else (wanted[0] * limit / rim, wanted[1] * limit / rim)

    def _rim(self, command: Command) -> float:
        return abs(command[0]) + abs(command[1]) * self.base.footprint_radius_m

    def _clear(self, scan: Scan, wanted: Command, reaction: float) -> tuple[Command, float, float]:
        """(command, its limit [m/s], way ahead [m]) among things that stand still.

        What could only creep along its curve turns on the spot instead, so that a base in front
        of a wall gets away from it. No way ahead is shorter than the distance to the nearest
        return: where that is enough, no curve needs to be worked out.
        """
        limit = speed_limit(scan.nearest_m, 0.0, reaction, self.base, self.assumed)
        if self._rim(wanted) <= limit:
            return wanted, limit, scan.nearest_m
        way = path_separation(scan, *wanted, self.base.footprint_radius_m)
        limit = speed_limit(way, 0.0, reaction, self.base, self.assumed)
        if limit < CREEP_MPS and wanted[1]:
            return (0.0, wanted[1]), math.inf, way
        return self._scaled(wanted, limit), limit, way

    def _risen(self, target: Command, elapsed: float) -> Command:
        step = self.base.acceleration_mps2 * elapsed
        return (_rise(self._last[0], target[0], step),
                _rise(self._last[1], target[1], step / self.base.footprint_radius_m))

    def _refused(self, command: Command, person: float, obstacle: float) -> tuple[str, ...]:
        inputs = {
            "linear_mps": command[0],
            "angular_radps": command[1],
            "person_separation_m": min(person, FAR_M),
            "obstacle_separation_m": min(obstacle, FAR_M),
        }
        verdict = self.rules.evaluate("cmd_vel", inputs)
        return () if verdict.approved else (f"rules: {verdict.reason}",)


def _late(name: str, now: float, at: float, period: float) -> str | None:
    if now - at <= MISSED_PERIODS * period:
        return None
    return f"no {name} yet" if at == -math.inf else f"{name} stale"


def _rise(last: float, wanted: float, step: float) -> float:
    """`wanted`, or as near to it as a rise by `step` allows; a reversal starts again from zero."""
    start = abs(last) if last * wanted > 0.0 else 0.0
    return math.copysign(min(abs(wanted), start + step), wanted)
