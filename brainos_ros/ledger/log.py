"""Reading a stream's log: whole segments in order, or one record by its number.

Readers take no lock and never block the writer. A record is found by its segment, whose file name
is the number of its first record, and by its offset there, which the derived file `offsets` keeps
in 4 bytes.
"""

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import frames
from brainos_ros.ledger.archive import Archive
from brainos_ros.ledger.frames import Damage, Frame, Operation, Segment
from brainos_ros.ledger.kinds import CODES, NAMES
from brainos_ros.ledger.layout import COMPRESSED, PRUNED, Layout, SegmentFile
from brainos_ros.ledger.notes import last_checkpoint

_GUESS = 512
_OPEN_FILES = 32
_UNPACK = frames.FRAME.unpack_from
_REGION = frames.FRAME.size + frames.SALT_SIZE
_NEW = tuple.__new__  # a third of what the NamedTuple's own takes


class Record(NamedTuple):
    """One record.

    Attributes:
        sequence: its number in the stream, from 0.
        time_ns: wall clock when it was written [ns since the epoch].
        kind: name of its kind.
        payload: what was written; empty once erased.
        erased: whether a purge erased it.
    """

    sequence: int
    time_ns: int
    kind: str
    payload: bytes
    erased: bool

    @property
    def operation(self) -> Operation:
        """The payload of a put, move, delete or import, decoded."""
        return frames.decode_operation(CODES[self.kind], self.payload)

    @property
    def body(self) -> bytes:
        """What the writer gave: an event's payload, or the body of a put or import."""
        return self.operation.body if self.kind in ("put", "import") else self.payload


def to_record(frame: Frame) -> Record:
    """A record's frame as a reader sees it. Raises Damage for an unknown kind."""
    if frame.kind not in NAMES:
        raise Damage(f"record {frame.sequence} has the unknown kind {frame.kind}")
    return Record(
        frame.sequence,
        frame.time_ns,
        NAMES[frame.kind],
        frame.payload,
        frame.form == frames.ERASED,
    )


def load(segment: SegmentFile) -> bytes:
    """The content of a segment, decompressed; of a pruned one its header and last seal.

    Raises Damage, OSError.
    """
    if segment.suffix != COMPRESSED:
        return segment.path.read_bytes()
    archive = Archive(segment.path)
    try:
        return archive.load()
    finally:
        archive.close()


def read_header(segment: SegmentFile) -> Segment:
    """The header of a segment in any form. Raises Damage, OSError."""
    if segment.suffix == COMPRESSED:
        return Segment.parse(load(segment))
    with segment.path.open("rb") as file:
        return Segment.parse(file.read(frames.SEGMENT_HEADER_SIZE))


def frames_from(layout: Layout, sequence: int) -> Iterator[Frame]:
    """The frames of all records from `sequence` on; those of pruned segments are left out.

    Raises Damage in what is sealed or under a signed head; beyond, it ends where the writer is.
    """
    signed = _signed(layout)  # asked before the segments: a writer goes on meanwhile
    segments = layout.segments()
    for segment, after in zip(segments, [*segments[1:], None], strict=True):
        if after and after.first <= sequence:
            continue
        data, reached = content(layout, segment), segment.first
        end = after.first if after else signed
        try:
            for _, frame in frames.scan(data):
                reached = frame.sequence + (frame.form != frames.SEAL)
                if frame.form != frames.SEAL and frame.sequence >= sequence:
                    yield frame
        except Damage:
            if after or reached < end:
                raise
        if reached < end and (data or not after):
            raise Damage(f"{segment.path.name} ends with {reached} records, not {end}")


def _signed(layout: Layout) -> int:
    """The number of records under the newest head that can be read; 0 if there is none."""
    with suppress(FileNotFoundError, Damage):
        head, _ = last_checkpoint(layout.checkpoints)
        return head.size if head else 0
    return 0


def content(layout: Layout, segment: SegmentFile) -> bytes:
    """A segment's content, also if its form changed a moment ago; empty where it was pruned.

    Raises Damage, OSError.
    """
    try:
        data = b"" if segment.suffix == PRUNED else load(segment)
    except FileNotFoundError:
        again = [each for each in layout.segments() if each.first == segment.first]
        if again in ([], [segment]):
            raise
        return content(layout, again[0])
    if not data and segment.suffix != PRUNED:
        raise Damage(f"{segment.path.name} is empty")
    return data


class _Raw:
    """Random access to an uncompressed segment."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        os.close(self._fd)


class LogReader:
    """Reads single records of the log under `layout`; close it when done."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._files: OrderedDict[int, _Raw | Archive] = OrderedDict()
        self._offsets = -1
        self.refresh()

    def refresh(self) -> None:
        """Look at the directory again, after segments were added, compressed or rewritten."""
        self.close()
        self._segments = self._layout.segments()
        self._firsts = [segment.first for segment in self._segments]
        try:
            self._offsets = os.open(self._layout.offsets, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._offsets = -1

    def close(self) -> None:
        """Close the files it holds open."""
        while self._files:
            self._files.popitem()[1].close()
        if self._offsets >= 0:
            os.close(self._offsets)
            self._offsets = -1

    def record(self, sequence: int) -> Record:
        """Record `sequence`; raises as `frame` does."""
        return self._quick(sequence) or to_record(self.frame(sequence))

    def _quick(self, sequence: int) -> Record | None:
        """The record, if its segment is open, it is short and nothing is unusual about it."""
        file = self._files.get(bisect_right(self._firsts, sequence) - 1)
        if file is None or self._offsets < 0:
            return None
        try:
            offset = int.from_bytes(os.pread(self._offsets, 4, 4 * sequence), "big")
        except OverflowError:  # beyond what a file can hold
            return None
        data = file.read(offset, _GUESS)
        if len(data) < frames.FRAME.size:
            return None
        crc, form, kind, length, found, time_ns = _UNPACK(data)
        end = _REGION + (length if length > 16 else 16)
        if (
            found != sequence
            or form != frames.RECORD
            or end > len(data)
            or crc32(data[4:end]) != crc
        ):
            return None
        name = NAMES.get(kind)
        if name is None:
            return None
        return _NEW(Record, (found, time_ns, name, data[_REGION : _REGION + length], False))

    def frame(self, sequence: int) -> Frame:
        """The frame of record `sequence`.

        Raises BrainError (NOT_FOUND) where there is none, (UNAVAILABLE) where its segment was
        pruned; Damage where its bytes are wrong.
        """
        return self.locate(sequence)[0]

    def locate(self, sequence: int) -> tuple[Frame, int, int]:
        """The frame of record `sequence`, its segment's first record and its offset there.

        Raises as `frame`.
        """
        for last in (False, True):
            try:
                return self._find(sequence)
            except (FileNotFoundError, LookupError, OverflowError):
                self.refresh()
            except Damage:
                if last:
                    raise
                self.refresh()
        raise BrainError(
            f"sequence {sequence} is not in stream '{self._layout.path.name}'", ErrorCode.NOT_FOUND
        )

    def _find(self, sequence: int) -> tuple[Frame, int, int]:
        index = bisect_right(self._firsts, sequence) - 1
        if index < 0:
            raise LookupError
        file, first = self._file(index), self._firsts[index]
        damage: Damage | None = None
        if self._offsets >= 0:
            offset = int.from_bytes(os.pread(self._offsets, 4, 4 * sequence), "big")
            if offset >= frames.SEGMENT_HEADER_SIZE:
                try:
                    frame = _frame_at(file, offset)
                    if frame.sequence == sequence and frame.form != frames.SEAL:
                        return frame, first, offset
                except Damage as found:
                    damage = found
        try:
            return self._search(file, sequence, first)
        except LookupError:
            if damage:
                raise damage from None
            raise

    def _file(self, index: int) -> _Raw | Archive:
        file = self._files.get(index)
        if file is None:
            segment = self._segments[index]
            if segment.suffix == PRUNED:
                raise BrainError(
                    f"the records from {segment.first} on were pruned; they are in the backup",
                    ErrorCode.UNAVAILABLE,
                )
            compressed = segment.suffix == COMPRESSED
            file = self._files[index] = (Archive if compressed else _Raw)(segment.path)
            if len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        return file

    @staticmethod
    def _search(file: "_Raw | Archive", sequence: int, first: int) -> tuple[Frame, int, int]:
        """Walk the segment: for what the derived offsets do not know (yet)."""
        offset = frames.SEGMENT_HEADER_SIZE
        while True:
            try:
                frame = _frame_at(file, offset)
            except Damage:
                raise LookupError from None
            if frame.sequence == sequence and frame.form != frames.SEAL:
                return frame, first, offset
            offset += frame.size


def _frame_at(file: _Raw | Archive, offset: int) -> Frame:
    data = file.read(offset, _GUESS)
    if len(data) >= frames.FRAME.size:
        length = frames.FRAME.unpack_from(data)[3]
        size = frames.FRAME.size + frames.region_size(min(length, frames.MAX_PAYLOAD))
        if size > len(data):
            data = file.read(offset, size)
    return frames.parse(data, 0)
