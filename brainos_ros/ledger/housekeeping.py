"""Consolidate and prune: less on the robot's disk, and every proof still good."""

import os
import time
from pathlib import Path
from typing import NamedTuple

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import disk, erasure, frames, kinds, rotation
from brainos_ros.ledger.archive import compress
from brainos_ros.ledger.backup import standing
from brainos_ros.ledger.frames import Damage
from brainos_ros.ledger.layout import COMPRESSED, PRUNED, RAW, Layout, SegmentFile
from brainos_ros.ledger.log import load
from brainos_ros.ledger.manifest import pack_manifest
from brainos_ros.ledger.notes import Checkpoint
from brainos_ros.ledger.stream import Stream
from brainos_ros.ledger.verify import Audit

#: Without these the keys, the purges or what a path ever held could not be told from the log.
_NEVER_PRUNED = set(kinds.OPERATIONS.values())


class Consolidated(NamedTuple):
    """What `consolidate` did: the head signed, segments compressed, bytes before and after."""

    checkpoint: Checkpoint
    compressed: int
    bytes_before: int
    bytes_after: int


def consolidate(stream: Stream, workers: int = 1) -> Consolidated:
    """Walk, seal, compress, sign, publish.

    The whole log is verified first, with `workers` as in `Audit`; then every sealed segment is
    compressed, a head is signed, heads between the segments' ends are dropped, and
    `manifest.json` says what there is.

    Raises BrainError (LEDGER_REFUSED) where the log does not verify, OSError.
    """
    layout = Layout(stream.path)
    checkpoint = stream.checkpoint()
    report = Audit(layout, workers=workers).run().report()
    if not report.verified:
        raise BrainError(
            f"stream '{report.stream}' does not verify, so nothing was changed: {report.problem}",
            ErrorCode.LEDGER_REFUSED,
        )
    with stream.reshaping:
        segments = layout.segments()
        before = _bytes(segments)
        sealed = [segment for segment in segments[:-1] if segment.suffix == RAW]
        for segment in sealed:
            _compress(layout, segment)
    stream.thin_checkpoints()
    names = [segment.path.name for segment in layout.segments()]
    manifest = pack_manifest(layout, checkpoint, rotation.history(layout), names)
    disk.replace_file(layout.manifest, manifest)
    return Consolidated(checkpoint, len(sealed), before, _bytes(layout.segments()))


def _bytes(segments: list[SegmentFile]) -> int:
    return sum(segment.path.stat().st_size for segment in segments)


def _compress(layout: Layout, segment: SegmentFile) -> None:
    """Replace a sealed segment by its compressed form, once that reads back the same."""
    data = segment.path.read_bytes()
    packed = SegmentFile(segment.first, layout.segment(segment.first, COMPRESSED), COMPRESSED)
    disk.replace_file(packed.path, compress(data))
    if load(packed) != data:
        disk.remove_file(packed.path)
        raise Damage(f"{packed.path.name} does not read back what was written")
    disk.remove_file(segment.path)


def prune(stream: Stream, older_than_s: float, backup: Path) -> list[int]:
    """Remove sealed segments that are older and safe in a backup; returns their first records.

    Leaf hashes, the segment's header and its last seal stay, so that chain, tree and proofs of
    all other records are as before. Segments that hold an operation stay: the log is read for it.

    Args:
        stream: the open stream.
        older_than_s: age of a segment's last seal from which on it may go [s].
        backup: directory of the stream's backup, which must hold the same bytes.

    Raises:
        BrainError: NOT_FOUND where the backup is not one of this stream; INVALID_ARGUMENT where
            it lies inside the stream; LEDGER_REFUSED.
        OSError.
    """
    layout, copy = Layout(stream.path), Layout(standing(backup))
    if copy.path.resolve().is_relative_to(layout.path.resolve()):
        raise BrainError(
            f"backup '{backup}' is the stream itself or lies inside it; name its backup elsewhere"
        )
    if not copy.log.is_dir():
        raise BrainError(f"backup '{backup}' is not a backup of a stream", ErrorCode.NOT_FOUND)
    copies = {segment.first: segment for segment in copy.segments()}
    before_ns = time.time_ns() - int(older_than_s * 1e9)
    with stream.reshaping:
        erasure.drop_spares(layout)
        going: dict[SegmentFile, bytes] = {}
        for segment in layout.segments()[:-1]:
            if segment.suffix == PRUNED or segment.first not in copies:
                continue
            data, kept = load(segment), copies[segment.first]
            seal = _prunable(data, before_ns)
            if seal is None or os.path.samefile(segment.path, kept.path) or load(kept) != data:
                continue
            going[segment] = data[: frames.SEGMENT_HEADER_SIZE] + seal
        if going:
            stream.record_pruning([segment.first for segment in going])
        for segment, rest in going.items():
            disk.replace_file(layout.segment(segment.first, PRUNED), rest)
            disk.remove_file(segment.path)
    return [segment.first for segment in going]


def _prunable(data: bytes, before_ns: int) -> bytes | None:
    """The last seal of a segment that may be pruned; None for one that may not."""
    seal, time_ns = b"", 0
    for offset, frame in frames.scan(data):
        if frame.form == frames.SEAL:
            seal = data[offset : offset + frame.size]
        elif frame.kind in _NEVER_PRUNED and frame.form == frames.RECORD:
            return None
        time_ns = frame.time_ns
    return seal if seal and time_ns < before_ns else None
