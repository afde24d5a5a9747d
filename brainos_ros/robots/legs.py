"""Cuts recorded driving into legs, from setting off to standing again: what a robot lived.

Told by the poses alone: many logs carry no speeds.
"""

import math
from dataclasses import dataclass, replace

from brainos_ros.robots.carmen import OdometryRow, Pose

STILL_M, STILL_RAD = 0.05, 0.05
STOOD_S = 1.0


@dataclass(frozen=True)
class Leg:
    """One drive: from `begin` to `end` (x, y, yaw) [m, rad], the distance driven and the time."""

    begin: Pose
    end: Pose
    distance_m: float
    duration_s: float

    @property
    def straightness(self) -> float:
        """Distance as the crow flies over distance driven, 0-1; 0 for a turn on the spot."""
        if self.distance_m <= 0.0:
            return 0.0
        return min(1.0, math.dist(self.begin[:2], self.end[:2]) / self.distance_m)


class Legs:
    """Fed odometry in the order of time, gives a leg once the robot has stood for a second."""

    def __init__(self) -> None:
        self._rest: OdometryRow | None = None
        self._began: OdometryRow | None = None
        self._distance_m = self._stood_until = 0.0

    def feed(self, row: OdometryRow) -> Leg | None:
        """The leg that is over with this row, or None."""
        rest = self._rest
        if rest is None:
            self._rest, self._stood_until = row, row.time_s
            return None
        step_m = math.dist(rest.pose[:2], row.pose[:2])
        turned = abs(math.remainder(row.pose[2] - rest.pose[2], math.tau))
        if step_m > STILL_M or turned > STILL_RAD:
            if self._began is None:
                self._began, self._distance_m = replace(rest, time_s=self._stood_until), 0.0
            self._distance_m += step_m
            self._rest = row
            return None
        self._stood_until = row.time_s
        if self._began is None or row.time_s - rest.time_s < STOOD_S:
            return None
        began, self._began = self._began, None
        return Leg(began.pose, rest.pose, self._distance_m, rest.time_s - began.time_s)
