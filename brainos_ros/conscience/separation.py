"""Speed and separation: how fast the base may go, given what is around it.

The limit solves the protective separation of ISO/TS 15066 (5.5.4) and ISO 13855 for the speed
of the robot: while it reacts and brakes, a person walks towards it at `v_h`.

    S >= v_h (T_r + v/a) + v T_r + v^2 / 2a + C + Z
    v_max = a (-k + sqrt(k^2 - 2c/a)),  k = T_r + v_h/a,  c = v_h T_r + C + Z - S

Because S shrinks no faster than v + v_h, v_max falls no faster than a: the base that obeys it
slows down smoothly, never harder than it can brake.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NOTHING_M = 1e-6  # a return nearer than this has no direction
FINEST = 1e-4  # between rays [rad]; blind bearings are filled in as densely


@dataclass(frozen=True, slots=True)
class Base:
    """The robot's own numbers, from its file: a round base with its sensor at its centre."""

    footprint_radius_m: float
    max_speed_mps: float
    max_yaw_rate_radps: float
    acceleration_mps2: float
    deceleration_mps2: float
    actuation_delay_s: float
    command_timeout_s: float

    def reaction_time_s(self, sensor_s: float, gate_s: float) -> float:
        """T_r [s]: the sensor's age or period, one gate period, and what the base adds."""
        return sensor_s + gate_s + max(self.actuation_delay_s, self.command_timeout_s)


@dataclass(frozen=True, slots=True)
class People:
    """What is assumed of people: v_h tracked and not tracked [m/s], Z and C [m]."""

    person_speed_mps: float
    unrecognised_speed_mps: float
    position_uncertainty_m: float
    intrusion_m: float

    @property
    def margin_m(self) -> float:
        """C + Z [m]."""
        return self.intrusion_m + self.position_uncertainty_m


def speed_limit(
    separation_m: float, person_speed_mps: float, reaction_s: float, base: Base, people: People
) -> float:
    """v_max [m/s] for a separation S [m] from the footprint; 0 where c >= 0, +inf for S = +inf."""
    if separation_m == math.inf:
        return math.inf
    a = base.deceleration_mps2
    k = reaction_s + person_speed_mps / a
    c = person_speed_mps * reaction_s + people.margin_m - separation_m
    if not c < 0.0:
        return 0.0
    return max(0.0, a * (math.sqrt(k * k - 2.0 * c / a) - k))


def person_separation(
    x: float, y: float, footprint_m: float, people: Sequence[tuple[float, float, float]]
) -> float:
    """From the footprint at (x, y) to the nearest person (x, y, radius) [m]; +inf if none."""
    if not people:
        return math.inf
    nearest = min(math.hypot(px - x, py - y) - radius for px, py, radius in people)
    return max(0.0, nearest - footprint_m)


@dataclass(frozen=True, slots=True)
class Scan:
    """What a laser scan says: points in the base's frame [m]; `unseen` if any bearing is blind."""

    x: Floats
    y: Floats
    nearest_m: float
    unseen: bool


class Scanner:
    """Turns laser scans into points, following REP 117.

    +inf and ranges beyond range_max are free space. NaN, -inf, ranges below range_min and the
    bearings outside the scan are not seen: each counts as something that touches the footprint. So
    is a range of 0, whatever range_min says: many drivers mean "no return" by it.
    """

    def __init__(self, footprint_m: float) -> None:
        self._footprint = footprint_m
        self._key: tuple[int, float, float] | None = None
        self._cos = self._sin = self._blind_x = self._blind_y = np.empty(0)

    def points(
        self,
        ranges: Any,
        angle_min: float,
        angle_increment: float,
        range_min: float,
        range_max: float,
    ) -> Scan:
        """The points of one scan. Raises ValueError if its geometry makes no sense."""
        r = np.asarray(ranges, dtype=np.float64)
        key = (r.size, angle_min, angle_increment)
        if key != self._key:
            self._prepare(*key)
        if not (math.isfinite(range_min) and range_max > range_min >= 0.0):
            raise ValueError(f"scan range [{range_min}, {range_max}] is empty")
        seen = r >= max(range_min, NOTHING_M)
        here = r <= range_max
        if seen.all():
            keep, unseen = here, self._blind_x.size > 0
        else:
            r = np.where(seen, r, self._footprint)
            keep, unseen = here | ~seen, True
        r = r[keep]
        x, y = r * self._cos[keep], r * self._sin[keep]
        if self._blind_x.size:
            x, y = np.concatenate((x, self._blind_x)), np.concatenate((y, self._blind_y))
        nearest = 0.0 if unseen else float(r.min()) - self._footprint if r.size else math.inf
        return Scan(x, y, max(0.0, nearest), unseen)

    def _prepare(self, size: int, angle_min: float, increment: float) -> None:
        if size < 2 or not math.isfinite(angle_min) or not math.isfinite(increment):
            raise ValueError("scan has no rays or no angles")
        if not FINEST <= abs(increment) <= math.pi / 2:
            raise ValueError(f"scan angle_increment {increment} is not an angle between rays: "
                             f"{FINEST} to pi/2 rad")
        angles = angle_min + increment * np.arange(size)
        self._cos, self._sin = np.cos(angles), np.sin(angles)
        missing = math.floor((2 * math.pi - abs(increment) * size) / abs(increment) + 1e-3)
        blind = angles[-1] + increment * np.arange(1, missing + 1)
        self._blind_x = self._footprint * np.cos(blind)
        self._blind_y = self._footprint * np.sin(blind)
        self._key = (size, angle_min, increment)


def path_separation(scan: Scan, linear: float, angular: float, footprint_m: float) -> float:
    """How far the footprint can go along this command's arc before it touches a return [m].

    `linear` [m/s] and `angular` [rad/s] are the command; +inf if nothing lies on the path, or if
    the base (it is round) only turns: on a circle of less than a nanometre. What already touches
    the footprint counts from where the command moves towards it: at once if it lies ahead, later
    on a tight arc round it.
    """
    if abs(linear) <= 1e-9 * abs(angular) or linear == 0.0 or not scan.x.size:
        return math.inf
    x = scan.x if linear > 0.0 else -scan.x
    y = scan.y
    turn = angular / linear
    square = footprint_m * footprint_m
    touching = x * x + y * y <= square * (1 + 1e-9)
    if (x[touching] > 1e-9).any():
        return 0.0
    if abs(turn) < 1e-6:
        lane = (np.abs(y) < footprint_m) & (x > 0.0) & ~touching
        if not lane.any():
            return math.inf
        ahead = x[lane] - np.sqrt(square - y[lane] * y[lane])
        return float(ahead.min())
    radius = 1.0 / abs(turn)
    y = y if turn > 0.0 else -y
    q = np.hypot(x, y - radius)
    lane = (np.abs(q - radius) < footprint_m) | touching
    if not lane.any():
        return math.inf
    x, y, q, touching = x[lane], y[lane], np.maximum(q[lane], 1e-9), touching[lane]
    x = np.where(touching, -np.abs(x), x)
    bearing = np.arctan2(x, radius - y)
    reach = (radius * radius + q * q - square) / (2.0 * radius * q)
    contact = bearing - np.arccos(np.clip(reach, -1.0, 1.0))
    contact = np.where(touching, contact + 2 * math.pi, contact % (2 * math.pi))
    return float(radius * contact.min())
