"""Reads CARMEN logs: odometry and laser scans, in the order of time.

The format is the one written by `logger` of the Carnegie Mellon Robot Navigation Toolkit and used
by the Radish data sets: one message per line, blank-separated,

    ODOM x y theta tv rv accel ipc_time host logger_time
    FLASER n r1..rn x y theta odom_x odom_y odom_theta ipc_time host logger_time
    RLASER (the same, looking backwards)
    PARAM name value …

with metres, radians and seconds. Lines beginning with `#` are comments; messages of other kinds
are counted and left out.
"""

from __future__ import annotations

import gzip
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robots.people import Floats

NO_RETURN_M = 80.0  # SICK LMS 200: 8183 cm says that nothing came back; it reaches 80 m.
REPORTED_AT_MOST = 20
Pose = tuple[float, float, float]


@dataclass(frozen=True)
class OdometryRow:
    """Raw odometry: pose (x, y, yaw) [m, rad], speed [m/s] and yaw rate [rad/s]."""

    time_s: float
    pose: Pose
    linear_mps: float
    angular_radps: float


@dataclass(frozen=True)
class ScanRow:
    """One laser scan: `ranges` (n,) [m], +Inf where nothing came back, from the right on.

    Beam i points at `angle_min` + i·`angle_increment` [rad] from the front of the laser. `pose`
    is the raw odometry then. A scan of the rear laser has `rear` set.
    """

    time_s: float
    ranges: Floats
    angle_min: float
    angle_increment: float
    pose: Pose
    rear: bool


@dataclass
class CarmenLog:
    """A whole log. `rows` are in the order of time, whatever the order of the lines."""

    rows: list[OdometryRow | ScanRow]
    parameters: dict[str, str] = field(default_factory=dict)
    malformed: int = 0
    problems: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def duration_s(self) -> float:
        """From the first row to the last [s]."""
        return self.rows[-1].time_s - self.rows[0].time_s


def read(path: Path) -> CarmenLog:
    """The log at `path`, plain or gzip (told by its first bytes).

    A malformed line is counted in `malformed`, reported in `problems` by number (the first 20),
    and left out.

    Raises:
        BrainError: NOT_FOUND if the file cannot be read; INVALID_ARGUMENT if it is a broken
            archive or holds neither odometry nor a scan.
    """
    log = CarmenLog([])
    try:
        for number, line in enumerate(_lines(path), start=1):
            try:
                _take(log, line)
            except ValueError as error:
                log.malformed += 1
                if len(log.problems) < REPORTED_AT_MOST:
                    log.problems.append(f"{path.name} line {number}: {error}")
    except (EOFError, gzip.BadGzipFile) as error:
        raise BrainError(f"log_file {path} is a broken gzip archive: {error}") from None
    except OSError as error:
        raise BrainError(f"log_file {path}: {error.strerror}", ErrorCode.NOT_FOUND) from None
    if not log.rows:
        raise BrainError(
            f"log_file {path} holds no ODOM, FLASER or RLASER line"
            + (f"; {log.problems[0]}" if log.problems else "")
        )
    log.rows.sort(key=lambda row: row.time_s)
    return log


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if packed else path.open("rb") as lines:
        for line in lines:
            yield line.decode("utf-8", errors="replace")


def _take(log: CarmenLog, line: str) -> None:
    words = line.split()
    if not words or words[0].startswith("#"):
        return
    kind = words[0]
    if kind == "ODOM":
        log.rows.append(_odometry(words))
    elif kind in ("FLASER", "RLASER"):
        log.rows.append(_scan(words))
    elif kind == "PARAM":
        if len(words) < 3:
            raise ValueError("PARAM needs a name and a value")
        log.parameters[words[1]] = words[2]
    elif kind.isupper():
        log.left_out[kind] += 1
    else:
        raise ValueError(f"{kind[:20]!r} is no message")


def _odometry(words: list[str]) -> OdometryRow:
    if len(words) != 10:
        raise ValueError(f"ODOM has {len(words) - 1} fields, not 9")
    x, y, yaw, linear, angular, _, time_s = _numbers(words[1:8])
    return OdometryRow(time_s, (x, y, yaw), linear, angular)


def _scan(words: list[str]) -> ScanRow:
    kind = words[0]
    count = int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0
    if count < 2:
        raise ValueError(f"{kind} says it has {words[1] if len(words) > 1 else 'no'} ranges")
    if len(words) != count + 11:
        raise ValueError(f"{kind} of {count} ranges has {len(words) - 1} fields, not {count + 10}")
    ranges = np.array(_numbers(words[2 : 2 + count]))
    if (ranges < 0).any():
        raise ValueError(f"{kind} has a range below zero")
    ranges[ranges >= NO_RETURN_M] = math.inf
    *_, x, y, yaw, time_s = _numbers(words[2 + count : 9 + count])
    return ScanRow(
        time_s, ranges, -math.pi / 2, angle_increment(count), (x, y, yaw), kind == "RLASER"
    )


def angle_increment(count: int) -> float:
    """Angle between beams of a laser that sees 180° [rad].

    An even number leaves the last beam out (180 beams: −90° to +89°), an odd number includes it
    (181 beams: −90° to +90°), as SICK scanners count.
    """
    return math.pi / (count - count % 2)


def _numbers(words: list[str]) -> list[float]:
    numbers = []
    for word in words:
        try:
            number = float(word)
        except ValueError:
            raise ValueError(f"{word[:20]!r} is no number") from None
        if not math.isfinite(number):
            raise ValueError(f"{word} is not finite")
        numbers.append(number)
    return numbers
