"""Reads CARMEN logs: odometry and laser scans, in the order of time.

The format is the one written by `logger` of the Carnegie Mellon Robot Navigation Toolkit and used
by the Radish data sets: one message per line, blank-separated,

    ODOM x y theta tv rv accel ipc_time host logger_time
    FLASER n r1..rn x y theta odom_x odom_y odom_theta ipc_time host logger_time
    RLASER (the same, looking backwards)
    ROBOTLASER1 type start_angle field_of_view resolution maximum_range accuracy remission_mode
        n r1..rn m remission1..remissionm x y theta odom_x odom_y odom_theta
        tv rv forward_safety side_safety turn_axis ipc_time host logger_time
    ROBOTLASER2 (the same, looking backwards)
    PARAM name value …

with metres, radians and seconds. Lines beginning with `#` are comments; messages of other kinds
are counted and left out.
"""

from __future__ import annotations

import gzip
import itertools
import math
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robots.people import Floats

NO_RETURN_M = 80.0  # SICK LMS 200: 8183 cm says that nothing came back; it reaches 80 m.
APART_S = 3600.0  # A row further than this from most others has a wrong time.
LARGEST = 1e12  # What a robot measures is smaller, in whatever unit.
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


Row = OdometryRow | ScanRow


@dataclass
class CarmenLog:
    """A whole log. `rows` are in the order of time, whatever the order of the lines."""

    rows: list[Row]
    parameters: dict[str, str] = field(default_factory=dict)
    malformed: int = 0
    problems: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def duration_s(self) -> float:
        """From the first row to the last [s]."""
        return self.rows[-1].time_s - self.rows[0].time_s

    def report(self, problem: str) -> None:
        """Count a line that is left out."""
        self.malformed += 1
        if len(self.problems) < REPORTED_AT_MOST:
            self.problems.append(problem)


def read(path: Path) -> CarmenLog:
    """The log at `path`, plain or gzip (told by its first bytes).

    A malformed line is counted in `malformed`, reported in `problems` by number (the first 20),
    and left out; so is a row whose time is more than an hour away from most others.

    Raises:
        BrainError: NOT_FOUND if the file cannot be read; INVALID_ARGUMENT if it is a broken
            archive or holds neither odometry nor a scan.
    """
    log = CarmenLog([])
    found: list[tuple[int, Row]] = []
    try:
        for number, line in enumerate(_lines(path), start=1):
            try:
                if row := _take(log, line):
                    found.append((number, row))
            except ValueError as error:
                log.report(f"{path.name} line {number}: {error}")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BrainError(f"log_file {path} is a broken gzip archive: {error}") from None
    except OSError as error:
        raise BrainError(f"log_file {path}: {error.strerror}", ErrorCode.NOT_FOUND) from None
    if not found:
        others = [f"{count} {kind[:20]}" for kind, count in log.left_out.most_common(5)]
        raise BrainError(
            f"log_file {path} holds no ODOM, FLASER, RLASER or ROBOTLASER line"
            + (f", only {', '.join(others)}" if others else "")
            + (f"; {log.problems[0]}" if log.problems else "")
        )
    found.sort(key=lambda each: each[1].time_s)
    stretches = _stretches(found)
    longest = max(stretches, key=len)
    for stretch in stretches:
        for number, row in stretch if stretch is not longest else ():
            log.report(
                f"{path.name} line {number}: its time {row.time_s:.15g} s is more than an hour"
                f" away from {len(longest)} others"
            )
    log.rows = [row for _, row in longest]
    return log


def _stretches(rows: list[tuple[int, Row]]) -> list[list[tuple[int, Row]]]:
    """Rows in the order of time, cut wherever more than an hour lies between two."""
    cuts = [
        i
        for i, ((_, before), (_, after)) in enumerate(itertools.pairwise(rows), start=1)
        if after.time_s - before.time_s > APART_S
    ]
    return [rows[i:j] for i, j in itertools.pairwise([0, *cuts, len(rows)])]


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    opener = gzip.open if packed else open
    with opener(path, "rt", encoding="utf-8-sig", errors="replace") as lines:
        yield from lines


def _take(log: CarmenLog, line: str) -> Row | None:
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    kind = words[0]
    if kind == "ODOM":
        return _odometry(words)
    if kind in ("FLASER", "RLASER"):
        return _scan(words)
    if kind in ("ROBOTLASER1", "ROBOTLASER2"):
        return _robot_scan(words)
    if kind == "PARAM":
        if len(words) < 3:
            raise ValueError("PARAM needs a name and a value")
        log.parameters[words[1]] = words[2]
    elif kind.isupper():
        log.left_out[kind] += 1
    else:
        raise ValueError(f"{kind[:20]!r} is no message")
    return None


def _odometry(words: list[str]) -> OdometryRow:
    if len(words) != 10:
        raise ValueError(f"ODOM has {len(words) - 1} fields, not 9")
    x, y, yaw, linear, angular, _ = _numbers(words[1:7])
    return OdometryRow(_time(words[7]), (x, y, yaw), linear, angular)


def _scan(words: list[str]) -> ScanRow:
    kind, count = words[0], _count(words, 1, "ranges", 2)
    if len(words) != count + 11:
        raise ValueError(f"{kind} of {count} ranges has {len(words) - 1} fields, not {count + 10}")
    ranges = _ranges(words[2 : 2 + count], kind, NO_RETURN_M)
    x, y, yaw = _numbers(words[5 + count : 8 + count])
    return ScanRow(
        _time(words[8 + count]),
        ranges,
        -math.pi / 2,
        angle_increment(count),
        (x, y, yaw),
        kind == "RLASER",
    )


def _robot_scan(words: list[str]) -> ScanRow:
    kind, count = words[0], _count(words, 8, "ranges", 2)
    remissions = _count(words, 9 + count, "remissions", 0)
    poses = 10 + count + remissions
    if len(words) != poses + 14:
        raise ValueError(
            f"{kind} of {count} ranges and {remissions} remissions has {len(words) - 1} fields,"
            f" not {poses + 13}"
        )
    start, _, increment, furthest = _numbers(words[2:6])
    if not (abs(start) <= math.tau and 0 < increment <= 1.01 * math.tau / count):
        raise ValueError(f"{kind} says its {count} beams begin at {start}, {increment} rad apart")
    if furthest <= 0:
        raise ValueError(f"{kind} says it reaches {furthest} m")
    ranges = _ranges(words[9 : 9 + count], kind, min(furthest, NO_RETURN_M))
    x, y, yaw = _numbers(words[poses + 3 : poses + 6])
    return ScanRow(
        _time(words[poses + 11]), ranges, start, increment, (x, y, yaw), kind == "ROBOTLASER2"
    )


def _count(words: list[str], at: int, what: str, at_least: int) -> int:
    text = words[at] if len(words) > at else "no"
    if not text.isdecimal() or int(text) < at_least:
        raise ValueError(f"{words[0]} says it has {text[:20]} {what}")
    return int(text)


def _ranges(words: list[str], kind: str, furthest_m: float) -> Floats:
    ranges = np.array(_numbers(words))
    if (ranges < 0).any():
        raise ValueError(f"{kind} has a range below zero")
    ranges[ranges >= furthest_m] = math.inf
    return ranges


def _time(word: str) -> float:
    (time_s,) = _numbers([word])
    if not 0 <= time_s < 2**31:
        raise ValueError(f"its time {word[:20]} is not from 0 to 2^31 s")
    return time_s


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
        if not abs(number) < LARGEST:
            raise ValueError(f"{word[:20]} is not below {LARGEST:.0e}")
        numbers.append(number)
    return numbers
