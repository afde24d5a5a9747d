"""Recorded people, played back where they walked.

The format is the one of the ETH/UCY pedestrian sets (Pellegrini et al., ICCV 2009) as it is
commonly passed on: rows of `frame id x y`, separated by blanks or tabs, metres.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robots.layout import Layout, hall
from brainos_ros.robots.people import Floats

UNSEEN_S = 10.0  # Away for longer than this, a person came back: a track of its own.
EMPTY_S = 3600.0  # Nobody there for longer than this: a frame number is wrong.
LAST_FRAME = 2**63  # Time stamps in nanoseconds are frame numbers too.
FURTHEST_M = 10_000_000  # So far north UTM coordinates reach.

Row = tuple[float, int, float, float]
Extent = tuple[float, float, float, float]


def read_rows(path: Path) -> list[Row]:
    """Rows (frame, id, x, y) of a file, in its order. Blank lines and `#` comments are skipped.

    Frames are told apart to 1e-6. A row that is there twice counts once.

    Raises:
        BrainError: NOT_FOUND if the file cannot be read; INVALID_ARGUMENT naming file and
            line for a line that is no row, or has somebody in two places in one frame, or
            a file without any row.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise BrainError(f"people_file {path}: {error.strerror}", ErrorCode.NOT_FOUND) from None
    except UnicodeDecodeError:
        raise BrainError(f"people_file {path} is not a text file") from None
    found: dict[tuple[float, int], tuple[Row, int]] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            row = _row(fields)
            first, at = found.setdefault(row[:2], (row, number))
            if first != row:
                raise ValueError(f"expected person {row[1]} where line {at} has it in this frame")
        except ValueError as error:
            raise BrainError(
                f"people_file {path} line {number}: {error}, got {line.strip()[:80]!r}"
            ) from None
    if not found:
        raise BrainError(f"people_file {path} holds no row 'frame id x y'")
    return [row for row, _ in found.values()]


def _row(fields: list[str]) -> Row:
    """Raises ValueError saying what was expected."""
    try:
        frame, identity, x, y = map(float, fields)
    except ValueError:
        raise ValueError("expected 'frame id x y'") from None
    if not abs(frame) <= LAST_FRAME:
        raise ValueError("expected a frame of at most 2^63")
    if not (abs(x) <= FURTHEST_M and abs(y) <= FURTHEST_M):
        raise ValueError(f"expected x and y of at most {FURTHEST_M} m")
    return round(frame, 6), _identity(fields[1], identity), x, y


def _identity(text: str, number: float) -> int:
    try:
        return int(text)
    except ValueError:
        if number.is_integer() and abs(number) < 2**53:
            return int(number)
        raise ValueError("expected a whole number as id, as a float below 2^53") from None


def frame_gap(rows: list[Row]) -> float:
    """Difference of frame numbers between consecutive annotations: the most frequent one.

    Raises:
        BrainError: nobody was seen twice, so there is no time between frames.
    """
    frames: dict[int, set[float]] = defaultdict(set)
    for frame, identity, _, _ in rows:
        frames[identity].add(frame)
    gaps = np.concatenate([np.diff(sorted(seen)) for seen in frames.values()])
    if gaps.size == 0:
        raise BrainError("people_file: nobody is in more than one frame, so nobody walks")
    values, counts = np.unique(np.round(gaps, 6), return_counts=True)
    return float(values[np.argmax(counts)])


class Track:
    """One person: `times` (k,) [s], rising, and `places` (k, 2) [m]; straight between them."""

    def __init__(self, identity: int, times: Floats, places: Floats) -> None:
        self.identity = identity
        self.times = times
        self.places = places

    def at(self, time: float) -> Floats:
        """Position (2,) at `time`; the ends hold outside of the track."""
        return np.array(
            [
                np.interp(time, self.times, self.places[:, 0]),
                np.interp(time, self.times, self.places[:, 1]),
            ]
        )


def tracks_of(rows: list[Row], time_step_s: float) -> list[Track]:
    """People as they were recorded, time in seconds from the first frame.

    `time_step_s` is the time between two consecutive annotated frames.

    Raises:
        BrainError: nobody was seen twice, or nobody at all for more than an hour.
    """
    seconds_per_frame = time_step_s / frame_gap(rows)
    frames = sorted({row[0] for row in rows})
    last, back = max(itertools.pairwise(frames), key=lambda pair: pair[1] - pair[0])
    if (back - last) * seconds_per_frame > EMPTY_S:
        raise BrainError(
            f"people_file: nobody is there from frame {last:.15g} to frame {back:.15g}, which is"
            f" more than an hour at {time_step_s} s for {time_step_s / seconds_per_frame:g} frames"
        )
    first = frames[0]
    seen: dict[int, dict[float, tuple[float, float]]] = defaultdict(dict)
    for frame, identity, x, y in rows:
        seen[identity][(frame - first) * seconds_per_frame] = (x, y)
    tracks: list[Track] = []
    for samples in seen.values():
        times = np.array(sorted(samples))
        places = np.array([samples[time] for time in times])
        cuts = np.flatnonzero(np.diff(times) > UNSEEN_S) + 1
        for piece_times, piece in zip(np.split(times, cuts), np.split(places, cuts), strict=True):
            tracks.append(Track(len(tracks) + 1, piece_times, piece))
    return tracks


def flows_along_x(tracks: list[Track]) -> bool:
    """Whether the people walk more along x than along y."""
    walked = sum(
        (np.abs(np.diff(track.places, axis=0)).sum(axis=0) for track in tracks), start=np.zeros(2)
    )
    return bool(walked[0] >= walked[1])


def lengthen(track: Track, extent: tuple[float, float, float, float]) -> Track:
    """The track carried on, straight, to the walls at both ends.

    So nobody appears or vanishes in front of the robot: a recording starts where the camera's
    view does, a person does not. Who was standing there comes and goes along the shorter way.
    """
    times, places = track.times, track.places
    before = _way_out(places[0], -_velocity(times, places, 0), extent)
    after = _way_out(places[-1], _velocity(times, places, -1), extent)
    times = np.concatenate([[times[0] - before[1]], times, [times[-1] + after[1]]])
    places = np.vstack([before[0], places, after[0]])
    keep = np.concatenate([[True], np.diff(times) > 1e-9])
    return Track(track.identity, times[keep], places[keep])


def _velocity(times: Floats, places: Floats, end: int) -> Floats:
    if len(times) < 2:
        return np.zeros(2)
    first, second = (0, 1) if end == 0 else (-2, -1)
    velocity: Floats = (places[second] - places[first]) / (times[second] - times[first])
    return velocity


def _way_out(
    place: Floats, velocity: Floats, extent: tuple[float, float, float, float]
) -> tuple[Floats, float]:
    """Where a walk straight on meets the wall, and how long it takes [s]."""
    low, high = np.array(extent[:2]), np.array(extent[2:])
    speed = float(np.hypot(*velocity))
    if speed < 0.3:
        distances = np.concatenate([place - low, high - place])
        nearest = int(np.argmin(distances))
        velocity = np.zeros(2)
        velocity[nearest % 2] = -1.0 if nearest < 2 else 1.0
        speed = 1.0
    velocity = velocity * (min(speed, 2.0) / speed)
    moves = np.abs(velocity) > 1e-9
    reach = (np.where(velocity > 0, high, low) - place)[moves] / velocity[moves]
    seconds = max(0.0, float(np.min(reach)))
    return place + velocity * seconds, seconds


class RecordedPeople:
    """A crowd that walks as it was recorded, over and over, and gives way to nobody.

    Positions are linear between annotated frames and velocities are their slope.
    """

    def __init__(self, path: Path, time_step_s: float = 0.4, start_s: float = 0.0,
                 carry_on: Callable[[Track, Extent], Track] = lengthen) -> None:
        """Read `path`; `time_step_s` between annotated frames; begin `start_s` into it.

        `carry_on` says where people come from and go to beyond the recording.

        Raises:
            BrainError: a file that cannot be read or a step that is not above zero.
        """
        if not (math.isfinite(time_step_s) and time_step_s > 0):
            raise BrainError(f"people_time_step_s is {time_step_s}; it must be above 0 s")
        tracks = tracks_of(read_rows(path), time_step_s)
        places = np.vstack([track.places for track in tracks])
        low, high = places.min(axis=0), places.max(axis=0)
        self.layout: Layout = hall(
            float(low[0]), float(low[1]), float(high[0]), float(high[1]), flows_along_x(tracks)
        )
        self._tracks = [carry_on(track, self.layout.extent) for track in tracks]
        begin = min(float(track.times[0]) for track in self._tracks)
        for track in self._tracks:
            track.times = track.times - begin
        self.recording_begins_s = -begin
        self.duration_s = max(float(track.times[-1]) for track in self._tracks)
        self._knots: list[float] = np.unique(
            np.concatenate([track.times for track in self._tracks])
        ).tolist()
        starts = np.sort([track.times[0] for track in self._tracks])
        ends = np.sort([track.times[-1] for track in self._tracks])
        self.capacity = int(
            np.max(np.arange(1, len(starts) + 1) - np.searchsorted(ends, starts, side="left"))
        )
        self._time = start_s % self.duration_s
        self._round = 0
        self._segment = -1
        self.positions: Floats = np.empty((0, 2))
        self._enter(self._segment_of(self._time))

    @property
    def time_s(self) -> float:
        """Time in the recording; the first annotated frame is at `recording_begins_s`."""
        return self._time

    def advance(self, dt: float, robot: Floats) -> None:
        """Walk on by `dt` seconds, from the end back to the beginning. `robot` is not seen."""
        self._time += dt
        if self._time >= self.duration_s:
            self._time -= self.duration_s
            self._round += 1
            self._segment = -1
        segment = self._segment_of(self._time)
        if segment != self._segment:
            self._enter(segment)
        self.positions = self._origin + self.velocities * (self._time - self._knots[segment])

    def _segment_of(self, time: float) -> int:
        return min(bisect.bisect_right(self._knots, time) - 1, len(self._knots) - 2)

    def _enter(self, segment: int) -> None:
        begin, end = self._knots[segment], self._knots[segment + 1]
        here = [
            track for track in self._tracks if track.times[0] <= begin and track.times[-1] >= end
        ]
        self._segment = segment
        offset = self._round * len(self._tracks)
        self.ids: NDArray[np.int64] = np.array(
            [track.identity + offset for track in here], dtype=np.int64
        )
        self._origin = np.array([track.at(begin) for track in here]).reshape(-1, 2)
        there = np.array([track.at(end) for track in here]).reshape(-1, 2)
        self.velocities: Floats = (there - self._origin) / (end - begin)
        self.positions = self._origin + self.velocities * (self._time - begin)
