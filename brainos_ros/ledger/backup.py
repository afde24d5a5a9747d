"""Incremental backup of a stream, verified by restoring it; and the restoration.

A backup is a directory like a stream's, without the lock and what is derived, and without the
private key unless asked for. It may be taken while the stream is being written.

The new backup is made beside the old one, in `backup.new`; once it verifies it is `backup.next`,
and is then the backup, wherever a crash leaves the rest: its files are given their places, and it
is removed.
"""

import json
import os
import shutil
from pathlib import Path
from typing import BinaryIO, NamedTuple

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import disk, erasure, frames, rotation
from brainos_ros.ledger.frames import Damage
from brainos_ros.ledger.layout import PRUNED, RAW, Layout, SegmentFile, find
from brainos_ros.ledger.log import load, read_header
from brainos_ros.ledger.merkle import HASH_SIZE
from brainos_ros.ledger.notes import Checkpoint, SigningKey, read_checkpoints
from brainos_ros.ledger.recovery import rebuild_tiles
from brainos_ros.ledger.tiles import Tiles
from brainos_ros.ledger.verify import Audit, Report

_STATE, _STAGED, _VERIFIED = "backup.json", "backup.new", "backup.next"
_PARTS = ("log", "tiles", "checkpoints", "keys.json", "key", "key.next", _STATE)


class Backup(NamedTuple):
    """What a backup did: files copied and left alone, bytes copied, and its verification."""

    copied: int
    unchanged: int
    bytes: int
    report: Report


def back_up(path: Path, target: Path, with_key: bool = False) -> Backup:
    """Bring the backup in `target` up to date with the stream in `path`, and verify it.

    Segments that did not change since are not copied again, and the old backup stays until the new
    one verifies. It ends at the newest head. A private key that is in the backup is kept up to
    date.

    Raises:
        BrainError: NOT_FOUND where there is no stream or no head; ALREADY_EXISTS where `target`
            holds something else; LEDGER_REFUSED where the copy does not verify.
        OSError, Damage.
    """
    source, copy = find(Path(path)), Layout(Path(target).resolve())
    heads = _heads(source)
    try:
        return _renew(source, copy, heads, with_key)
    except BrainError as error:
        newer = _heads(source)
        if error.code is not ErrorCode.LEDGER_REFUSED or newer == heads:
            raise
    return _renew(source, copy, newer, with_key)  # a purge came between the heads and the log


def _renew(
    source: Layout, copy: Layout, heads: tuple[bytes, Checkpoint | None], with_key: bool
) -> Backup:
    """Make the new backup, verify it, and put it in place of the old one."""
    head = heads[1]
    if head is None:
        raise BrainError(f"stream '{source.path}' has no signed head yet", ErrorCode.NOT_FOUND)
    known = _read_state(copy, head)
    _settle(copy)
    fresh = Layout(copy.path / _STAGED)
    disk.make_directory(fresh.log)
    try:
        state, copied, unchanged, size = _copy_log(source, copy, fresh, head, known)
        disk.replace_file(fresh.checkpoints, heads[0])
        rotation.keep_history(fresh, rotation.history(source))
        if with_key or (copy.key.exists() and source.key.exists()):
            if source.next_key.exists():
                disk.replace_file(fresh.next_key, source.next_key.read_bytes(), 0o600)
            disk.replace_file(fresh.key, source.key.read_bytes(), 0o600)
        report = _verify_restored(fresh, head)
        text = json.dumps({"origin": head.origin, "files": state}, indent=1)
        disk.replace_file(fresh.path / _STATE, text.encode() + b"\n")
    except BaseException:
        shutil.rmtree(fresh.path, ignore_errors=True)
        raise
    disk.replace(fresh.path, copy.path / _VERIFIED)
    disk.sync_directory(copy.path)
    _settle(copy)
    return Backup(copied, unchanged, size, report._replace(stream=copy.path.name))


def standing(path: Path) -> Path:
    """Where the files of the backup in `path` are: a crash may have come before they were moved."""
    verified = path / _VERIFIED
    return verified if verified.is_dir() else path


def _settle(copy: Layout) -> None:
    """Give a verified backup its place, and remove what is left of others. Raises OSError."""
    verified, staged = copy.path / _VERIFIED, copy.path / _STAGED
    if verified.is_dir():
        for name in _PARTS:
            old = copy.path / name
            if old.is_dir():
                disk.remove_tree(old)
            else:
                disk.remove_file(old)
        for path in sorted(verified.rglob("*")):
            place = copy.path / path.relative_to(verified)
            if path.is_dir():
                disk.make_directory(place)
            else:
                disk.link_file(path, place)
        for directory in (copy.log, copy.tiles, copy.path):
            if directory.is_dir():
                disk.sync_directory(directory)
        disk.replace(verified, staged)
        disk.sync_directory(copy.path)
    if staged.is_dir():
        disk.remove_tree(staged)


def _copy_log(
    source: Layout, copy: Layout, fresh: Layout, head: Checkpoint, known: dict[str, list[int]]
) -> tuple[dict[str, list[int]], int, int, int]:
    """Put the segments up to the head into `fresh`, from the old backup where they are the same.

    Returns the size and time of those that are whole, how many were copied, how many are the same,
    and how many bytes were copied.
    """
    state: dict[str, list[int]] = {}
    copied = unchanged = size = 0
    wanted = [each for each in source.segments() if each.first < head.size]
    old = {segment.first: segment for segment in copy.segments()}
    for each in wanted:
        segment, status, file = _opened(source, each)
        with file:
            place, now = segment.path.name, [status.st_size, status.st_mtime_ns]
            kept = old.get(segment.first)
            if segment.suffix == PRUNED:
                data = file.read()
                if kept and data[frames.SEGMENT_HEADER_SIZE :] in load(kept):
                    segment = kept
                    disk.link_file(kept.path, fresh.log / kept.path.name)
                else:
                    disk.replace_file(fresh.log / place, data)
                    copied, size = copied + 1, size + len(data)
                if segment.suffix == PRUNED:
                    _copy_leaves(source, fresh, segment.first, data)
                continue
            if known.get(place) == now and kept and kept.path.name == place:
                disk.link_file(kept.path, fresh.log / place)
                state[place] = now
                unchanged += 1
                continue
            data = whole = file.read()
        if each == wanted[-1]:
            place, data = _until_head(source, segment, whole, head)
        if data == whole:
            state[place] = now
        disk.replace_file(fresh.log / place, data)
        copied, size = copied + 1, size + len(data)
    disk.sync_directory(fresh.log)
    return state, copied, unchanged, size


def _copy_leaves(source: Layout, fresh: Layout, first: int, rest: bytes) -> None:
    """Copy the leaf hashes of a pruned segment, which nothing else leads to."""
    count = frames.parse(rest, frames.SEGMENT_HEADER_SIZE).sequence - first
    tiles = Tiles(source)
    try:
        leaves = tiles.run(0, first, count)
    finally:
        tiles.close()
    disk.make_directory(fresh.tiles)
    fd = disk.open_file(fresh.tiles / "0", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        disk.write_all(fd, leaves, first * HASH_SIZE)
        disk.fsync(fd)
    finally:
        disk.close(fd)


def _read_state(copy: Layout, head: Checkpoint) -> dict[str, list[int]]:
    """Size and time of the files that were copied whole, as they were then."""
    place = standing(copy.path) / _STATE
    try:
        state = json.loads(place.read_bytes())
        origin, files = str(state["origin"]), dict(state["files"])
    except (ValueError, LookupError, TypeError, RecursionError):
        raise BrainError(
            f"'{place}' is damaged: it does not say what it is a backup of; name another directory",
            ErrorCode.ALREADY_EXISTS,
        ) from None
    except FileNotFoundError:
        if copy.path.is_dir() and {each.name for each in copy.path.iterdir()} - {_STAGED}:
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


def _verify_restored(copy: Layout, head: Checkpoint) -> Report:
    """Restore the backup inside itself and verify what comes out."""
    report = restore(copy.path, copy.path, "restored")
    disk.remove_tree(copy.path / "restored")
    if report.root != head.root.hex():
        raise BrainError(
            f"the backup in '{copy.path}' does not verify: another root", ErrorCode.LEDGER_REFUSED
        )
    return report


def restore(backup: Path, root: Path, name: str) -> Report:
    """Restore a backup as stream `name` under `root`, purges replayed, and verify it.

    Without the private key in it the stream can be read and verified, not continued.

    Raises BrainError (INVALID_ARGUMENT for a bad name, NOT_FOUND, ALREADY_EXISTS, LEDGER_REFUSED
    where it does not verify or the private key is not the one that signs; nothing is left then),
    OSError.
    """
    if "/" in frames.check_path(name, "name"):
        raise BrainError(f"name '{name}' is not allowed; give one path component")
    source, target = find(standing(Path(backup))), Layout(Path(root) / name)
    if target.path.exists():
        raise BrainError(
            f"'{target.path}' exists; move it away before restoring there",
            ErrorCode.ALREADY_EXISTS,
        )
    fresh = Layout(target.path.with_name(target.path.name + ".restoring"))
    shutil.rmtree(fresh.path, ignore_errors=True)
    disk.make_directory(fresh.log)
    try:
        private = (source.key, source.next_key)
        derived = (source.keys, source.tiles / "0")
        for path in sorted([*source.log.iterdir(), source.checkpoints, *derived, *private]):
            if path.exists():
                place = fresh.path / path.relative_to(source.path)
                disk.make_directory(place.parent)
                disk.replace_file(place, path.read_bytes(), 0o600 if path in private else 0o644)
        audit = bring_up(fresh)
        _check_key(fresh, str(audit.keys[-1][1]))
        disk.replace(fresh.path, target.path)
        disk.sync_directory(target.path.parent)
    except BaseException:
        shutil.rmtree(fresh.path, ignore_errors=True)
        raise
    return audit.report()._replace(stream=name)


def _check_key(layout: Layout, signing: str) -> None:
    """The private key, where it is there, must be the one that signs, or hand over to it."""
    if not layout.key.exists():
        return
    keys = [each.read_bytes() for each in (layout.key, layout.next_key) if each.exists()]
    if all(str(SigningKey.parse(each).public) != signing for each in keys):
        raise BrainError(
            "the private key 'key' in the backup is not the one that signs the stream: back it up "
            "again, or remove 'key' to restore what can be read and verified, not continued",
            ErrorCode.LEDGER_REFUSED,
        )


def bring_up(layout: Layout) -> Audit:
    """Verify a copied stream, replay its purges, derive what is derived from the log alone.

    Raises BrainError (LEDGER_REFUSED) where it does not verify.
    """
    segments = layout.segments()
    try:
        if not segments:
            raise Damage("it holds no log")
        tiles = Tiles(layout, writable=True)
        try:
            rebuild_tiles(segments, read_header(segments[0]).stream_id, tiles)
        finally:
            tiles.close()
        audit = Audit(layout).run()
        if audit.purged - set(audit.walk.erased):
            erasure.redo(layout, audit.purged, set(audit.walk.erased))
            audit = Audit(layout).run()
        if audit.problems:
            raise Damage(audit.problems[0][1])
    except Damage as damage:
        raise BrainError(
            f"the copy does not verify: {damage}", ErrorCode.LEDGER_REFUSED
        ) from None
    rotation.keep_history(layout, audit.key_history)
    return audit
