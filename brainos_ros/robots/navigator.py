"""Drives the base along waypoints: named actions, pure pursuit, and what they were worth.

Pure pursuit after Coulter, "Implementation of the Pure Pursuit Path Tracking Algorithm",
CMU-RI-TR-92-01. No ROS in here: `Errand.step` is called at a fixed rate with the pose.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robots.layout import Layout, Point, path_length
from brainos_ros.robots.physics import Base

Pose = tuple[float, float, float]
ARRIVED_M = 0.15
STANDING = 0.02  # m/s and rad/s
PASSED_ON_S = 0.1  # From a command asked for to the base, through a gate.
PATIENCE = 3.0  # A base that still moves after so many times what braking takes is not waited for.


@dataclass(frozen=True)
class Driving:
    """How the navigator drives; `evolve` may tune it."""

    cruise_speed_mps: float = 1.2
    lookahead_m: float = 0.7
    turn_in_place_rad: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """How an errand ended: `outcome` is success, partial or failure; `reward` 0 to 1."""

    outcome: str
    reward: float
    duration_s: float
    ideal_s: float
    progress: float
    message: str = ""


class Path:
    """A line through waypoints, with a position on it that only moves forward."""

    def __init__(self, points: list[Point]) -> None:
        self._points = [points[0]] + [
            b for a, b in itertools.pairwise(points) if math.dist(a, b) > 1e-6
        ]
        self._at = [0.0]
        for a, b in itertools.pairwise(self._points):
            self._at.append(self._at[-1] + math.dist(a, b))
        self.travelled_m = 0.0

    @property
    def length_m(self) -> float:
        """Length of the whole line [m]."""
        return self._at[-1]

    @property
    def goal(self) -> Point:
        """The last point."""
        return self._points[-1]

    def follow(self, point: Point, window_m: float = 1.0) -> None:
        """Move the position to the nearest place to `point`, at most `window_m` ahead."""
        steps = 20
        candidates = [self.travelled_m + window_m * i / steps for i in range(steps + 1)]
        self.travelled_m = min(
            (min(at, self.length_m) for at in candidates),
            key=lambda at: math.dist(self.point_at(at), point),
        )

    def point_at(self, distance_m: float) -> Point:
        """The point `distance_m` from the beginning; the goal beyond its end."""
        for i in range(1, len(self._points)):
            if distance_m <= self._at[i]:
                a, b = self._points[i - 1], self._points[i]
                part = (distance_m - self._at[i - 1]) / (self._at[i] - self._at[i - 1])
                return a[0] + (b[0] - a[0]) * part, a[1] + (b[1] - a[1]) * part
        return self.goal


class Errand:
    """One action under way. Call `step` until `over`.

    `outcome` is set once it has ended; `over` only when the base stands besides, so that the next
    one begins from rest.
    """

    def __init__(
        self,
        name: str,
        path: Path | None,
        shortest_m: float,
        ideal_s: float,
        limit_s: float,
        base: Base,
        driving: Driving,
    ) -> None:
        self.name = name
        self.path = path
        self.shortest_m = shortest_m
        self.ideal_s = ideal_s
        self.limit_s = limit_s
        self.elapsed_s = 0.0
        self.held_s = 0.0
        self.held = False
        self._last = (math.inf, math.inf, 0.0)
        self.outcome: Outcome | None = None
        self.over = False
        self._zero_s = 0.0
        self._braking_s = 0.0
        self._base = base
        self._driving = driving
        self._speed = 0.0

    @property
    def progress(self) -> float:
        """Part done, 0 to 1."""
        if self.path is None:
            return min(1.0, self.elapsed_s / self.ideal_s) if self.ideal_s else 1.0
        return min(1.0, self.path.travelled_m / self.path.length_m) if self.path.length_m else 1.0

    def step(self, pose: Pose, dt: float) -> tuple[float, float]:
        """The command (linear [m/s], angular [rad/s]) for now; zero once it has ended."""
        stood = (
            math.dist(pose[:2], self._last[:2]) < STANDING * dt
            and abs(math.remainder(pose[2] - self._last[2], math.tau)) < STANDING * dt
        )
        self._last = pose
        command = (0.0, 0.0) if self.outcome is not None else self._command(pose, stood, dt)
        if self.outcome is not None:
            self._brake(stood, dt)
        self._zero_s = 0.0 if any(command) else self._zero_s + dt
        return command

    def _brake(self, stood: bool, dt: float) -> None:
        """Ended: over once the base stands and no command that is under way will move it."""
        assert self.outcome is not None
        base = self._base
        speed = max(base.max_speed_mps, base.max_yaw_rate_radps * base.footprint_radius_m)
        reaction_s = base.actuation_delay_s + PASSED_ON_S
        longest_s = reaction_s + base.command_timeout_s + speed / base.deceleration_mps2
        self._braking_s += dt
        if stood and self._zero_s >= reaction_s:
            self.over = True
        elif self._braking_s >= PATIENCE * longest_s:
            self.over = True
            said = f"the base still moves {self._braking_s:.1f} s later"
            message = f"{self.outcome.message}; {said}" if self.outcome.message else said
            self.outcome = replace(self.outcome, message=message)

    def _command(self, pose: Pose, stood: bool, dt: float) -> tuple[float, float]:
        self.elapsed_s += dt
        if self.path is None:
            if self.elapsed_s >= self.ideal_s:
                self._end("success", 0.0)
            return 0.0, 0.0
        self.path.follow(pose[:2])
        left = self.path.length_m - self.path.travelled_m
        if left < ARRIVED_M and math.dist(pose[:2], self.path.goal) < 2 * ARRIVED_M:
            self._end("success", min(1.0, self.ideal_s / self.elapsed_s))
            return 0.0, 0.0
        if self.elapsed_s >= self.limit_s:
            half_way = self.progress >= 0.5
            self._end(
                "partial" if half_way else "failure",
                0.25 * self.progress if half_way else 0.0,
                f"not there after {self.limit_s:.0f} s, {100 * self.progress:.0f} % done",
            )
            return 0.0, 0.0
        self.held = stood
        self.held_s += dt if self.held else 0.0
        return self._pursue(pose, left, dt)

    def cancel(self) -> None:
        """End it now; it is over when the base stands."""
        if self.outcome is None:
            self._end("failure", 0.0, "cancelled")

    def _end(self, outcome: str, reward: float, message: str = "") -> None:
        self.outcome = Outcome(
            outcome,
            reward,
            self.elapsed_s,
            self.ideal_s,
            1.0 if outcome == "success" else self.progress,
            message,
        )

    def _pursue(self, pose: Pose, left_m: float, dt: float) -> tuple[float, float]:
        assert self.path is not None
        base, driving = self._base, self._driving
        reach = driving.lookahead_m
        x, y = self.path.point_at(self.path.travelled_m + reach)
        dx, dy = x - pose[0], y - pose[1]
        distance = max(1e-3, math.hypot(dx, dy))
        error = math.remainder(math.atan2(dy, dx) - pose[2], 2 * math.pi)
        threshold = driving.turn_in_place_rad if self._speed > 0 else 0.3
        if abs(error) > threshold and distance > 0.05:
            self._speed = max(0.0, self._speed - base.deceleration_mps2 * dt)
            if self._speed > 0:
                return self._speed, 0.0
            turn = min(base.max_yaw_rate_radps, max(0.2, 1.5 * abs(error)))
            return 0.0, math.copysign(turn, error)
        curvature = 2 * math.sin(error) / distance
        speed = min(
            driving.cruise_speed_mps,
            base.max_speed_mps,
            max(0.08, math.sqrt(0.5 * base.deceleration_mps2 * max(0.0, left_m - 0.05))),
            0.8 * base.max_yaw_rate_radps / max(1e-6, abs(curvature)),
        )
        self._speed = min(speed, self._speed + base.acceleration_mps2 * dt)
        return self._speed, self._speed * curvature


class Navigator:
    """Makes errands out of action names for one hall and one base."""

    def __init__(self, layout: Layout, base: Base, driving: Driving | None = None) -> None:
        self._layout = layout
        self._base = base
        self.driving = driving or Driving()

    def actions(self) -> list[str]:
        """Names that `begin` understands."""
        return [*self._layout.aisles, *(f"go:{name}" for name in self._layout.stations), "wait"]

    def begin(self, action: str, context: Mapping[str, object], pose: Pose) -> Errand:
        """Plan `action` from where the base stands.

        `aisle_…` drives through that aisle to the station named by `to` (`from`, if given, must
        exist; the way begins where the base is). `go:<station>` takes the shortest way. `wait`
        stands for `seconds` (2). `timeout_s` ends a drive; by default three times what the
        way takes undisturbed and 15 s. The ideal is the shortest way at cruise speed, whichever
        aisle was chosen.

        Raises:
            BrainError: unknown action, station or aisle, or a value out of its range.
        """
        layout = self._layout
        if action == "wait":
            seconds = _number(context, "seconds", 2.0)
            return Errand(action, None, 0.0, seconds, math.inf, self._base, self.driving)
        here = pose[:2]
        if action.startswith("go:"):
            goal = layout.station(action[3:])
            points = layout.route(here, goal)
        elif action in layout.aisles:
            if "to" not in context:
                raise BrainError(
                    f"{action} needs a station in 'to'; there are {', '.join(layout.stations)}"
                )
            if "from" in context:
                layout.station(str(context["from"]))
            goal = layout.station(str(context["to"]))
            points = layout.route(here, goal, action)
        else:
            raise BrainError(
                f"action '{action}' is unknown; the robot can do {', '.join(self.actions())}",
                ErrorCode.NOT_FOUND,
            )
        base, cruise = self._base, min(self.driving.cruise_speed_mps, self._base.max_speed_mps)
        ramps = cruise / (2 * base.acceleration_mps2) + cruise / (2 * base.deceleration_mps2)
        shortest = path_length([here, *layout.route(here, goal)])
        ideal = shortest / cruise + ramps
        planned = path_length([here, *points]) / cruise + ramps
        limit = _number(context, "timeout_s", 3 * planned + 15.0)
        return Errand(
            action, Path([here, *points]), shortest, ideal, limit, self._base, self.driving
        )


def _number(context: Mapping[str, object], name: str, default: float) -> float:
    value = context.get(name, default)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= 0
    ):
        raise BrainError(f"{name} is {value!r}; it must be a number of seconds above 0")
    return float(value)
