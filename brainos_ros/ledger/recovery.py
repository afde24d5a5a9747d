"""Opening a log that may have been left in any state.

The newest segment is walked from its beginning; what lies before it is taken from the stored
nodes, which must lead to the root in its header. A tail that was never sealed durably may be torn:
it is cut off and kept. Damage in what was, or a head that says more than the log holds, freezes
the stream for a person.
"""

import json
import os
from contextlib import suppress
from typing import NamedTuple

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import disk, erasure, frames
from brainos_ros.ledger.frames import Damage
from brainos_ros.ledger.layout import PRUNED, RAW, Layout, SegmentFile
from brainos_ros.ledger.log import load, read_header
from brainos_ros.ledger.merkle import HASH_SIZE, TILE_WIDTH, Mountain, Run, range_root
from brainos_ros.ledger.notes import Checkpoint, PublicKey, last_checkpoint
from brainos_ros.ledger.tiles import Derived, Tiles
from brainos_ros.ledger.walk import Walk, later_seals

RECOVERABLE, HUMAN = "FROZEN_RECOVERABLE", "FROZEN_HUMAN"
_REMEDY = {
    RECOVERABLE: "run 'brainos ledger doctor --repair' on it: it re-reads everything and opens "
    "the stream again if every invariant holds",
    HUMAN: "keep the directory as evidence and run 'brainos ledger doctor' on it; then restore "
    "the last backup, or move the directory away to let the robot begin a new stream",
}


class Frozen(BrainError):
    """The stream takes no more records until something is done.

    Attributes:
        state: FROZEN_RECOVERABLE or FROZEN_HUMAN.
        reason: what was found.
    """

    def __init__(self, name: str, state: str, reason: str) -> None:
        super().__init__(
            f"stream '{name}' is {state}: {reason}; {_REMEDY.get(state, '')}",
            ErrorCode.LEDGER_REFUSED,
        )
        self.state = state
        self.reason = reason


def freeze(layout: Layout, state: str, reason: str) -> Frozen:
    """Write the file `frozen`, as far as the disk lets it, and return the error to raise.

    A disk that fails may not sync this file either; unsynced it still stops the next process,
    which would find the page cache as this one left it.
    """
    text = json.dumps({"state": state, "reason": reason, "remedy": _REMEDY[state]}, indent=1)
    for durable in (True, False):
        with suppress(OSError):
            disk.replace_file(layout.frozen, text.encode() + b"\n", durable=durable)
            break
    return Frozen(layout.path.name, state, reason)


class Torn(NamedTuple):
    """What recovery cut off: how much, and the file that keeps it."""

    bytes: int
    file: str


class Recovered(NamedTuple):
    """An opened log: the newest segment's walk and what was found around it.

    `torn` is what was cut off, now or before, and no record names.
    """

    segment: SegmentFile
    walk: Walk
    checkpoint: Checkpoint | None
    checkpoints_end: int
    torn: list[Torn]
    derived: Derived


def recover(layout: Layout, stream_id: bytes, key: PublicKey, tiles: Tiles) -> Recovered | None:
    """Bring the log to where it can be continued; None where nothing was ever accepted.

    Raises Frozen, OSError.
    """
    segments = layout.segments()
    try:
        checkpoint, end = _last_checkpoint(layout, key)
        if not segments:
            if checkpoint:
                raise Damage(f"the log is gone, but a head over {checkpoint.size} records is kept")
            return None
        erasure.mend(layout)
        if segments[-1].suffix != RAW:
            raise Damage("the newest segment of the log is missing")
        walk = _enter(segments, stream_id, tiles)
        _walk_newest(layout, segments[-1], walk, checkpoint)
        derived = walk.take_derived()
        size, fresh, _ = derived
        tiles.cut(size)
        _compare(checkpoint, walk, _followed_by(tiles, size, fresh))
    except Damage as damage:
        raise freeze(layout, HUMAN, str(damage)) from None
    return Recovered(segments[-1], walk, checkpoint, end, _unnamed(layout, size), derived)


def _unnamed(layout: Layout, size: int) -> list[Torn]:
    """What was cut off and no record names: that record is the first after what was before.

    Only `stream.created` may come between, in a log of which nothing else was left.
    """
    least = f"{size if size > 1 else 0:016d}"
    return [
        Torn(path.stat().st_size, f"torn/{path.name}")
        for path in sorted(layout.torn.glob("[0-9]*-*.torn"))
        if path.name >= least
    ]


def _followed_by(tiles: Tiles, size: int, fresh: list[bytearray]) -> Run:
    """The stored nodes, and after them those that a tree of `size` leaves has and nobody stored."""

    def run(level: int, start: int, count: int) -> bytes:
        first = size // TILE_WIDTH**level - len(fresh[level]) // HASH_SIZE
        stored = min(count, max(0, first - start))
        at = max(0, start - first) * HASH_SIZE
        rest = fresh[level][at : at + (count - stored) * HASH_SIZE]
        return tiles.run(level, start, stored) + rest

    return run


def _last_checkpoint(layout: Layout, key: PublicKey) -> tuple[Checkpoint | None, int]:
    """The newest head, its signature checked, and where the next one goes."""
    try:
        last, end = last_checkpoint(layout.checkpoints)
    except FileNotFoundError:
        return None, 0
    if last is None:
        return None, 0
    if not last.signed_by(key):
        raise Damage(
            f"the head over {last.size} records is not signed by the key of this stream: the key "
            "was replaced or the head was changed"
        )
    return last, end


def _enter(segments: list[SegmentFile], stream_id: bytes, tiles: Tiles) -> Walk:
    """A walk at the beginning of the newest segment; stored nodes are rebuilt where they fail."""
    newest = segments[-1]
    header = read_header(newest)
    if header.first != newest.first:
        raise Damage(f"'{newest.path.name}' begins with record {header.first}")
    try:
        before = segments[-2].first if len(segments) > 1 else 0
        walk = Walk(_check_nodes(before, header.first, tiles), every_root=False)
        walk.begin(header, stream_id)
    except Damage:
        walk = rebuild_tiles(segments[:-1], stream_id, tiles)
        walk.every_root = False
        walk.begin(header, stream_id)
    return walk


def _check_nodes(start: int, end: int, tiles: Tiles) -> Mountain:
    """The mountain of `end` leaves, the stored nodes over those from `start` on re-computed.

    A power cut may have taken nodes of the segment before the newest. Raises Damage.
    """
    mountain = tiles.mountain(start)
    mountain.extend(tiles.run(0, start, end - start))
    for level, hashes in enumerate(mountain.take_fresh()):
        count = len(hashes) // HASH_SIZE
        if tiles.stored(level, end // TILE_WIDTH**level - count, count) != hashes:
            raise Damage(f"tiles/{level} is not what its leaves say")
    return mountain


def rebuild_tiles(segments: list[SegmentFile], stream_id: bytes, tiles: Tiles) -> Walk:
    """Walk `segments` from the first record on and store nodes and offsets anew. Raises Damage."""
    walk = Walk(Mountain())
    for segment in segments:
        walk_segment(segment, walk, stream_id, tiles)
        size, fresh, offsets = walk.take_derived()
        if segment.suffix == PRUNED:
            fresh[0].clear()
        tiles.extend(size, fresh, offsets)
    return walk


def walk_segment(segment: SegmentFile, walk: Walk, stream_id: bytes, tiles: Tiles) -> None:
    """Walk one segment; the leaves of a pruned one come from the stored nodes. Raises Damage."""
    try:
        walk.offset = 0
        data = load(segment)
        header = frames.Segment.parse(data)
        if header.first != segment.first:
            raise Damage(f"begins with record {header.first}")
        walk.begin(header, stream_id)
        if segment.suffix == PRUNED:
            seal = frames.parse(data, frames.SEGMENT_HEADER_SIZE)
            count = seal.sequence - header.first
            walk.skip(tiles.run(0, header.first, count), seal, len(data))
        else:
            walk.walk(data)
    except Damage as damage:
        where = f"{segment.path.name}, byte {walk.offset}"
        raise Damage(f"{where}: {damage}", damage.check) from None


def _walk_newest(
    layout: Layout, segment: SegmentFile, walk: Walk, checkpoint: Checkpoint | None
) -> None:
    """Walk the newest segment and cut off a torn tail. Raises Damage for what is no torn tail."""
    data, problem = segment.path.read_bytes(), ""
    try:
        walk.walk(data)
    except Damage as damage:
        problem = f"{segment.path.name}, byte {walk.offset}: {damage}"
    size = walk.mountain.size
    if checkpoint and checkpoint.size > size:
        raise Damage(
            f"the head is over {checkpoint.size} records, but only {size} are there: "
            f"{problem or 'the log ends before it'}"
        )
    if not problem:
        return
    if later_seals(data, walk.offset) > 1:
        raise Damage(f"{problem}, and sealed records follow")
    rest = data[walk.offset :].rstrip(b"\0")
    disk.make_directory(layout.torn)
    kept = layout.torn / f"{size:016d}-{len(os.listdir(layout.torn))}.torn"
    disk.replace_file(kept, rest)
    fd = disk.open_file(segment.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        disk.ftruncate(fd, walk.offset)
        disk.fsync(fd)
    finally:
        disk.close(fd)


def _compare(checkpoint: Checkpoint | None, walk: Walk, run: Run) -> None:
    """The head must be one of this log's, and the newest seal's root that of the records."""
    if checkpoint is None:
        if walk.mountain.size > 1:
            raise Damage(f"there are {walk.mountain.size} records, but no head is kept")
        return
    if range_root(0, checkpoint.size, run) != checkpoint.root:
        raise Damage(f"the head over {checkpoint.size} records has another root than they have")
    for seal in walk.seals:
        if seal.size == checkpoint.size and seal.hash != checkpoint.seal:
            raise Damage(f"the head over {checkpoint.size} records names another seal")
    last = walk.seals[-1]
    if range_root(0, last.size, run) != last.root:
        raise Damage(f"the seal over {last.size} records has another root than they have")
