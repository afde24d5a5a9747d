"""Purge: payload and salt are overwritten, the commitment stays, and so does every proof.

The order makes it safe to be interrupted anywhere: (1) the file `erasing` says what will be
erased, with the commitments; (2) the purge record is durable and under a signed head; (3) the
frames are overwritten; (4) `erasing` is removed. A crash before (2) leaves everything as it was;
after it, the next opening finishes the work.
"""

import json
import os
from operator import index
from pathlib import Path
from typing import NamedTuple

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import disk, frames, kinds
from brainos_ros.ledger.archive import Archive
from brainos_ros.ledger.frames import Damage
from brainos_ros.ledger.layout import COMPRESSED, PRUNED, Layout, SegmentFile
from brainos_ros.ledger.log import LogReader


class Target(NamedTuple):
    """A record to erase: its number, its segment's first, its offset there, its commitment."""

    sequence: int
    first: int
    offset: int
    commitment: bytes


def locate(layout: Layout, reader: LogReader, sequence: int) -> Target:
    """Where record `sequence` lies. Raises BrainError (NOT_FOUND, UNAVAILABLE), Damage."""
    frame, first, offset = reader.locate(sequence)
    return Target(sequence, first, offset, frame.commitment)


def announce(layout: Layout, size: int, targets: list[Target]) -> None:
    """Say durably what record `size`, a purge, is going to erase. Raises OSError."""
    listed = [[*target[:3], target.commitment.hex()] for target in targets]
    disk.replace_file(layout.erasing, json.dumps({"purge": size, "targets": listed}).encode())


def announced(layout: Layout) -> tuple[int, list[Target]] | None:
    """The purge record's number and its targets, where a purge was not finished. Raises Damage."""
    try:
        pending = json.loads(layout.erasing.read_bytes())
        return index(pending["purge"]), [
            Target(index(sequence), index(first), index(offset), bytes.fromhex(commitment))
            for sequence, first, offset, commitment in pending["targets"]
        ]
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError):
        raise Damage("the file 'erasing' cannot be read", "body-hashes") from None


def mend(layout: Layout) -> None:
    """Make whole the frames that a crash left half overwritten, before the log is walked."""
    pending = announced(layout)
    for target in pending[1] if pending else []:
        path = layout.segment(target.first)
        if path.exists() and _is_torn(layout, target):
            _overwrite(path, [target])


def finish(layout: Layout, size: int) -> None:
    """Carry out a purge whose record was accepted, forget one that was not. Raises OSError."""
    pending = announced(layout)
    if pending is None:
        return
    purge, targets = pending
    if size > purge:
        reader = LogReader(layout)
        try:
            accepted = reader.frame(purge).kind == kinds.PURGE
        finally:
            reader.close()
        if accepted:
            perform(layout, targets)
            for suffix in ("", "-wal", "-shm"):
                disk.remove_file(layout.paths.with_name(layout.paths.name + suffix))
    disk.remove_file(layout.erasing)


def drop_spares(layout: Layout) -> int:
    """Remove what a crash left: second forms of segments. Returns how many. Raises OSError."""
    spares = layout.spares()
    for spare in spares:
        disk.remove_file(spare.path)
    return len(spares)


def perform(layout: Layout, targets: list[Target]) -> None:
    """Overwrite the targets. Doing it again changes nothing. Raises OSError, Damage."""
    drop_spares(layout)
    by_first: dict[int, list[Target]] = {}
    for target in targets:
        by_first.setdefault(target.first, []).append(target)
    segments = layout.segments()
    nowhere = by_first.keys() - {segment.first for segment in segments}
    if nowhere:
        raise Damage(f"no segment begins with record {min(nowhere)}, where something is to erase")
    for segment in segments:
        wanted = by_first.get(segment.first)
        if wanted and segment.suffix == COMPRESSED:
            _rewrite(segment, wanted)
        elif wanted and segment.suffix != PRUNED:
            _overwrite(segment.path, wanted)


def _is_torn(layout: Layout, target: Target) -> bool:
    data = layout.segment(target.first).read_bytes()
    try:
        frames.parse(data, target.offset)
    except Damage:
        return True
    return False


def _erased(head: bytes, target: Target) -> bytes:
    """The erased frame for a target, from the first bytes of the frame it replaces."""
    _, _, kind, length, sequence, time_ns = frames.FRAME.unpack(head)
    if sequence != target.sequence:
        raise Damage(f"record {sequence} stands where {target.sequence} should")
    header = frames.HEADER.pack(kind, length, sequence, time_ns)
    region = target.commitment.ljust(frames.region_size(length), b"\0")
    return frames.build(frames.ERASED, header, region)


def _overwrite(path: Path, targets: list[Target]) -> None:
    fd = disk.open_file(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for target in targets:
            head = os.pread(fd, frames.FRAME.size, target.offset)
            disk.write_all(fd, _erased(head, target), target.offset)
        disk.fdatasync(fd)
    finally:
        disk.close(fd)


def _rewrite(segment: SegmentFile, targets: list[Target]) -> None:
    archive = Archive(segment.path)
    try:
        changed = archive.patched(
            (target.offset, _erased(archive.read(target.offset, frames.FRAME.size), target))
            for target in targets
        )
    finally:
        archive.close()
    disk.replace_file(segment.path, changed)


def redo(layout: Layout, purged: set[int], erased: set[int]) -> int:
    """Erase what purge records name and a restored log still has; returns how many records."""
    reader = LogReader(layout)
    targets = []
    try:
        for sequence in sorted(purged - erased):
            try:
                targets.append(locate(layout, reader, sequence))
            except BrainError as error:
                if error.code is not ErrorCode.UNAVAILABLE:
                    raise
    finally:
        reader.close()
    perform(layout, targets)
    return len(targets)
