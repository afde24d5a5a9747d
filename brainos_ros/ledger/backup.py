"""Incremental backup of a stream, verified by restoring it; and the restoration.

A backup is a directory like a stream's, without the lock, and without the private key unless asked
for. It may be taken while the stream is being written.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import disk, erasure, frames, rotation
from brainos_ros.ledger.layout import PRUNED, RAW, Layout, SegmentFile, find
from brainos_ros.ledger.log import load, read_header
from brainos_ros.ledger.notes import Checkpoint, read_checkpoints
from brainos_ros.ledger.recovery import rebuild_tiles
from brainos_ros.ledger.tiles import Tiles
from brainos_ros.ledger.verify import Audit, Report


class Backup(NamedTuple):
    """What a backup did: files copied and left alone, bytes copied, and its verification."""

    copied: int
    unchanged: int
    bytes: int
    report: Report


def back_up(path: Path, target: Path, with_key: bool = False) -> Backup:
    """Bring the backup in `target` up to date with the stream in `path`, and verify it.

    Segments that did not change since are not copied again. The backup ends at the newest head.

    Raises:
        BrainError: NOT_FOUND where there is no stream or no head; ALREADY_EXISTS where `target`
            holds something else; LEDGER_REFUSED where the copy does not verify.
        OSError.
    """
    source, copy = find(Path(path)), Layout(Path(target))
    heads, head = _heads(source)
    if head is None:
        raise BrainError(f"stream '{path}' has no signed head yet", ErrorCode.NOT_FOUND)
    known = _read_state(copy, head)
    disk.make_directory(copy.log)
    state: dict[str, list[int]] = {}
    copied = unchanged = size = 0
    wanted = [each for each in source.segments() if each.first < head.size]
    for each in wanted:
        segment, status, file = _opened(source, each)
        with file:
            if segment.suffix == PRUNED and known:
                continue
            place, now = segment.path.name, [status.st_size, status.st_mtime_ns]
            if known.get(place) == now:
                state[place] = now
                unchanged += 1
                continue
            data = whole = file.read()
            if each == wanted[-1]:
                place, data = _until_head(source, segment, whole, head)
        if data == whole:
            state[place] = now
        disk.replace_file(copy.log / place, data)
        _drop_other_forms(copy, segment.first, place)
        copied, size = copied + 1, size + len(data)
    disk.replace_file(copy.checkpoints, heads)
    rotation.keep_history(copy, rotation.history(source))
    if with_key:
        disk.replace_file(copy.key, source.key.read_bytes(), 0o600)
    report = _verify_restored(copy, head)
    text = json.dumps({"origin": head.origin, "files": state}, indent=1)
    disk.replace_file(copy.path / "backup.json", text.encode() + b"\n")
    return Backup(copied, unchanged, size, report)


def _read_state(copy: Layout, head: Checkpoint) -> dict[str, list[int]]:
    """Size and time of the files that were copied whole, as they were then."""
    try:
        state = json.loads((copy.path / "backup.json").read_bytes())
        origin, files = str(state["origin"]), dict(state["files"])
    except (ValueError, LookupError, TypeError, RecursionError):
        raise BrainError(
            f"'{copy.path / 'backup.json'}' is damaged: it does not say what it is a backup of; "
            "name another directory",
            ErrorCode.ALREADY_EXISTS,
        ) from None
    except FileNotFoundError:
        if copy.path.is_dir() and any(copy.path.iterdir()):
            raise BrainError(
                f"target '{copy.path}' is not empty and not a backup; name another directory",
                ErrorCode.ALREADY_EXISTS,
            ) from None
        return {}
    if origin != head.origin:
        raise BrainError(
            f"target '{copy.path}' is a backup of {origin}, not of {head.origin}",
            ErrorCode.ALREADY_EXISTS,
        )
    return files


def _until_head(
    source: Layout, segment: SegmentFile, data: bytes, head: Checkpoint
) -> tuple[str, bytes]:
    """Name and content of the segment that the head is in, up to the seal that it names.

    It may have grown since the head was read, and been compressed with what came later.
    """
    whole = data if segment.suffix == RAW else load(segment)
    offset, frame = frames.SEGMENT_HEADER_SIZE, None
    while frame is None or frame.form != frames.SEAL or frame.sequence != head.size:
        frame = frames.parse(whole, offset)
        offset += frame.size
    if segment.suffix != RAW and offset == len(whole):
        return segment.path.name, data
    return source.segment(segment.first, RAW).name, whole[:offset]


def _heads(source: Layout) -> tuple[bytes, Checkpoint | None]:
    """The file `checkpoints` up to its newest head, and that; older ones may go at any time."""
    try:
        data = source.checkpoints.read_bytes()
    except FileNotFoundError:
        return b"", None
    checkpoints, rest = read_checkpoints(data)
    return data[: len(data) - len(rest)], checkpoints[-1] if checkpoints else None


def _opened(source: Layout, segment: SegmentFile) -> tuple[SegmentFile, os.stat_result, BinaryIO]:
    """The segment in the form it has now: a consolidation or a prune may change that meanwhile."""
    while True:
        try:
            file = segment.path.open("rb")
            return segment, os.fstat(file.fileno()), file
        except FileNotFoundError:
            again = [each for each in source.segments() if each.first == segment.first]
            if again in ([], [segment]):
                raise
            segment = again[0]


def _drop_other_forms(copy: Layout, first: int, place: str) -> None:
    """The same segment in the form it had before (uncompressed) is of no use any more."""
    for path in copy.log.glob(f"{first:016d}.*"):
        if path.name != place:
            disk.remove_file(path)


def _verify_restored(copy: Layout, head: Checkpoint) -> Report:
    """Restore the backup beside itself and verify what comes out."""
    with tempfile.TemporaryDirectory(dir=copy.path.parent, prefix=".restore-") as directory:
        report = restore(copy.path, Path(directory), copy.path.name)
    if not report.verified or report.root != head.root.hex():
        raise BrainError(
            f"the backup in '{copy.path}' does not verify: {report.problem or 'another root'}",
            ErrorCode.LEDGER_REFUSED,
        )
    return report


def restore(backup: Path, root: Path, name: str) -> Report:
    """Restore a backup as stream `name` under `root`, purges replayed, and verify it.

    Without the private key in it the stream can be read and verified, not continued.

    Raises BrainError (NOT_FOUND, ALREADY_EXISTS, LEDGER_REFUSED where it does not verify; nothing
    is left then), OSError.
    """
    source, target = find(Path(backup)), Layout(Path(root) / name)
    if target.path.exists():
        raise BrainError(
            f"'{target.path}' exists; move it away before restoring there",
            ErrorCode.ALREADY_EXISTS,
        )
    fresh = Layout(target.path.with_name(target.path.name + ".restoring"))
    shutil.rmtree(fresh.path, ignore_errors=True)
    disk.make_directory(fresh.log)
    try:
        for path in sorted([*source.log.iterdir(), source.checkpoints, source.keys, source.key]):
            if path.exists():
                place = fresh.path / path.relative_to(source.path)
                mode = 0o600 if path == source.key else 0o644
                disk.replace_file(place, path.read_bytes(), mode)
        report = bring_up(fresh).report()
        disk.replace(fresh.path, target.path)
        disk.sync_directory(target.path.parent)
    except BaseException:
        shutil.rmtree(fresh.path, ignore_errors=True)
        raise
    return report._replace(stream=name)


def bring_up(layout: Layout) -> Audit:
    """Verify a copied stream, replay its purges, derive what is derived from the log alone.

    Raises BrainError (LEDGER_REFUSED) where it does not verify.
    """
    segments = layout.segments()
    audit = Audit(layout).run()
    if audit.purged - set(audit.walk.erased):
        erasure.redo(layout, audit.purged, set(audit.walk.erased))
        audit = Audit(layout).run()
    report = audit.report()
    if not (report.verified and segments):
        problem = report.problem or "it holds no log"
        raise BrainError(f"the copy does not verify: {problem}", ErrorCode.LEDGER_REFUSED)
    rotation.keep_history(layout, audit.key_history)
    stream_id = read_header(segments[0]).stream_id
    tiles = Tiles(layout, writable=True)
    try:
        rebuild_tiles(segments, stream_id, tiles)
    finally:
        tiles.close()
    return audit
