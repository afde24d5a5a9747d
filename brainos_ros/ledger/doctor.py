"""The doctor: fifteen invariants of a stream, each with a verdict and a figure; repair of what is
derived, and nothing else.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import disk, erasure, rotation
from brainos_ros.ledger.frames import Damage
from brainos_ros.ledger.layout import COMPRESSED, PRUNED, RAW, SegmentFile, find
from brainos_ros.ledger.log import read_header
from brainos_ros.ledger.manifest import pack_manifest
from brainos_ros.ledger.notes import Checkpoint, SigningKey
from brainos_ros.ledger.opening import take_lock
from brainos_ros.ledger.proof import latest_head
from brainos_ros.ledger.recovery import rebuild_tiles
from brainos_ros.ledger.tiles import Tiles
from brainos_ros.ledger.verify import Audit, Report, is_locked

PASS, FAIL, SKIP = "PASS", "FAIL", "SKIP"
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".csv", ".7z")


class Check(NamedTuple):
    """One invariant: its name, PASS, FAIL or SKIP, and the figure or what is wrong."""

    name: str
    verdict: str
    detail: str


class Diagnosis(NamedTuple):
    """What the doctor found.

    Attributes:
        state: READY, FROZEN_RECOVERABLE or FROZEN_HUMAN.
        checks: the fifteen invariants.
        report: the verification's short form.
        remedy: what a person can do; empty if READY.
        repaired: what was repaired.
    """

    state: str
    checks: list[Check]
    report: Report
    remedy: str
    repaired: list[str]


#: Invariants over files that are derived from the log.
DERIVED = ("leaf-count", "manifest-against-head", "index-coverage")


class Doctor:
    """Examines the stream in the directory `path`. Raises BrainError (NOT_FOUND).

    A head `kept` elsewhere is held against it; `progress` and `workers` are as in `Audit`.
    """

    def __init__(
        self,
        path: Path,
        kept: Checkpoint | None = None,
        progress: Callable[[int], None] | None = None,
        workers: int = 1,
    ) -> None:
        self._layout = find(Path(path))
        self._kept = kept
        self._progress = progress
        self._workers = workers

    def examine(self) -> Diagnosis:
        """Check every invariant; changes nothing. Raises OSError."""
        audit = self._audit(derived=True)
        self._check_key(audit)
        walk, size = audit.walk, audit.size
        figures = {
            "chain-continuity": f"{audit.seals} seals linked",
            "no-rewind": f"{size} sequence numbers, {len(audit.checkpoints)} heads in order",
            "frame-crc": f"{size + audit.seals - audit.pruned} frames, {audit.bytes} bytes",
            "closed-operations": f"{len(walk.kinds)} kinds, all in the schema",
            "no-traversal": "every path is relative and inside the stream",
            "body-hashes": f"{size - audit.pruned} commitments, {len(walk.erased)} erased by "
            "purges",
            "peaks-against-chain": f"{size} leaves lead to the root of every seal and head",
            "head-signature": f"{len(audit.checkpoints)} heads, {len(audit.keys)} keys",
            "schema": "every operation can be read",
        }
        checks = {name: Check(name, PASS, figure) for name, figure in figures.items()}
        for name, text in reversed(audit.problems):
            checks[name] = Check(name, FAIL, text)
        damaged = bool(audit.problems)
        for name, examine in {
            "canonical-layout": self._layout_is_canonical,
            "leaf-count": lambda: self._tiles_match(audit),
            "manifest-against-head": lambda: self._manifest_matches(audit),
            "index-coverage": lambda: self._index_matches(audit),
            "writer-lock": self._lock_is_sound,
            "exports-excluded": self._no_exports,
        }.items():
            if damaged and name in DERIVED:
                checks[name] = Check(name, SKIP, "the log itself is damaged")
                continue
            try:
                verdict, detail = examine()
            except (BrainError, ValueError, LookupError, TypeError) as error:
                verdict, detail = FAIL, str(error)
            checks[name] = Check(name, verdict, detail)
        only_torn = audit.torn and len(audit.problems) == 1
        return self._conclude(list(checks.values()), audit.report(), only_torn)

    def _audit(self, derived: bool = False) -> Audit:
        return Audit(self._layout, self._kept, self._progress, derived, self._workers).run()

    def _conclude(self, checks: list[Check], report: Report, only_torn: bool) -> Diagnosis:
        failed = {check.name for check in checks if check.verdict == FAIL}
        frozen = self._layout.freeze_reason()
        harmless = {*DERIVED, "canonical-layout", "exports-excluded", "writer-lock"}
        if failed - harmless and not only_torn:
            state = "FROZEN_HUMAN"
            remedy = (
                "restore the last backup ('brainos ledger backup --restore'), or move the "
                "directory away as evidence and let the robot begin a new stream"
            )
        elif frozen or failed & set(DERIVED):
            state = frozen["state"] if frozen else "READY"
            remedy = "run 'brainos ledger doctor --repair'"
            if frozen and not self._layout.key.exists():
                remedy = "put the private key back, from a backup taken with it; then " + remedy
        else:
            state = "READY"
            remedy = "see the invariants that failed" if failed else ""
        return Diagnosis(state, checks, report, remedy, [])

    def _check_key(self, audit: Audit) -> None:
        """The private key, where it is there and may be read, must be the one that signs."""
        try:
            key = SigningKey.parse(self._layout.key.read_bytes()).public
        except (FileNotFoundError, PermissionError):
            return
        except Damage as damage:
            audit.problems.append(("head-signature", str(damage)))
            return
        if self._layout.next_key.exists() or not audit.keys:
            return
        if str(audit.keys[-1][1]) != str(key):
            text = "the private key is not the one that signs this stream: it was replaced"
            audit.problems.append(("head-signature", text))

    def _layout_is_canonical(self) -> tuple[str, str]:
        known = {"lock", "key", "keys.json", "checkpoints", "log", "torn", "tiles", "offsets"}
        known |= {"manifest.json", "frozen", "erasing", "key.next"}
        known |= {f"paths.sqlite{suffix}" for suffix in ("", "-wal", "-shm")}
        count = 0
        for path in sorted(self._layout.path.rglob("*")):
            relative = path.relative_to(self._layout.path)
            top, name = relative.parts[0], path.name
            good = top in known or top.endswith(".new")
            if top == "log" and path != self._layout.log:
                good = SegmentFile.at(path) is not None
            elif top == "tiles" and path.is_file():
                good = name.isdigit()
            if not good and not name.endswith(_ARCHIVES):
                return FAIL, f"'{relative}' does not belong in a stream"
            if path.is_symlink():
                return FAIL, f"'{relative}' is a symbolic link"
            count += 1
        spares = [] if is_locked(self._layout) else self._layout.spares()
        if spares:
            return FAIL, f"'log/{spares[0].path.name}' is there in another form, which counts"
        return PASS, f"{count} files, all where they belong"

    def _no_exports(self) -> tuple[str, str]:
        for path in sorted(self._layout.path.rglob("*")):
            if path.name.endswith(_ARCHIVES):
                return FAIL, f"'{path.name}' lies inside the stream; exports belong elsewhere"
        return PASS, "no export or archive inside the stream"

    def _tiles_match(self, audit: Audit) -> tuple[str, str]:
        tiles = Tiles(self._layout)
        try:
            head = audit.checkpoints[-1].size if audit.checkpoints else 0
            tiles.mountain(head)
            leaves = os.stat(self._layout.tiles / "0").st_size // 32
        except FileNotFoundError:
            return FAIL, "the stored nodes are missing"
        finally:
            tiles.close()
        stale = [name for name in audit.stale if name != "offsets"]
        if stale:
            return FAIL, f"'{stale[0]}' is not what the log says"
        return PASS, f"{leaves} leaves stored for {audit.size} records"

    def _manifest_matches(self, audit: Audit) -> tuple[str, str]:
        layout = self._layout
        if layout.keys.exists() and layout.keys.read_bytes() != rotation.pack(audit.key_history):
            return FAIL, "'keys.json' is not what the log says"
        if not layout.manifest.exists():
            return SKIP, "never consolidated: there is no manifest"
        data = layout.manifest.read_bytes()
        told = json.loads(data)
        head = Checkpoint.parse(told["checkpoint"])
        known = {
            f"{segment.first:016d}{suffix}"
            for segment in layout.segments()
            for suffix in (RAW, COMPRESSED, PRUNED)
        }
        if not audit.covers(head):
            return FAIL, "the manifest's head is not one of this stream"
        keys, names = told["keys"], told["segments"]
        good = keys == audit.key_history[: len(keys)] and set(names) <= known
        good = good and all(a[:16] < b[:16] for a, b in pairwise(["", *names]))
        if not good or pack_manifest(layout, head, keys, names) != data:
            return FAIL, "the manifest is not what its head says"
        return PASS, f"the manifest's head over {head.size} records is the stream's"

    def _index_matches(self, audit: Audit) -> tuple[str, str]:
        if not self._layout.offsets.exists():
            return FAIL, "the offsets are missing"
        stored = self._layout.offsets.stat().st_size // 4
        if "offsets" in audit.stale:
            return FAIL, "'offsets' is not what the log says"
        head = audit.checkpoints[-1].size if audit.checkpoints else 0
        if stored < head:
            return FAIL, f"{head - stored} records have no offset"
        if not self._layout.paths.exists():
            return PASS, f"{stored} offsets; no path was put, or its index is not built yet"
        return self._paths_match(stored, bool(audit.pruned))

    def _paths_match(self, stored: int, pruned: bool) -> tuple[str, str]:
        """The index against the log; once more where a purge may have come between."""
        import sqlite3

        from brainos_ros.ledger.coverage import compare

        problem = ""
        for _ in range(2 if is_locked(self._layout) else 1):
            try:
                problem, live = compare(self._layout, pruned)
            except sqlite3.Error as error:
                problem = f"the index of paths cannot be read: {error}"
            if not problem:
                return PASS, f"{stored} offsets, {live} live paths, bodies re-hashed"
        return FAIL, problem

    def _lock_is_sound(self) -> tuple[str, str]:
        frozen = self._layout.freeze_reason()
        if frozen:
            return FAIL, f"{frozen['state']}: {frozen['reason']}"
        if is_locked(self._layout):
            return PASS, "one writer is at work"
        return PASS, "no writer"

    def repair(self) -> Diagnosis:
        """Rebuild what is derived, finish purges, and open a frozen stream that verifies again.

        Raises BrainError (UNAVAILABLE) while the stream is being written, OSError.
        """
        lock = take_lock(self._layout)
        try:
            self._drop_cached_pages()
            repaired = self._repair()
        finally:
            disk.close(lock)
        return self.examine()._replace(repaired=repaired)

    def _drop_cached_pages(self) -> None:
        """After a failed fsync the cache may hold what the disk does not: read the disk."""
        layout = self._layout
        for path in (*(segment.path for segment in layout.segments()), layout.checkpoints):
            with suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)

    def _repair(self) -> list[str]:
        repaired = []
        erasure.mend(self._layout)
        audit = self._audit()
        erased = set(audit.walk.erased)
        if audit.purged - erased:
            count = erasure.redo(self._layout, audit.purged, erased)
            if count:
                repaired.append(f"erased {count} records that were purged")
            audit = self._audit()
        self._check_key(audit)
        if audit.problems and not (audit.torn and len(audit.problems) == 1):
            return repaired
        spares = erasure.drop_spares(self._layout)
        if spares:
            repaired.append(f"removed second forms of {spares} segments")
        before = {check.name: check.verdict for check in self.examine().checks}
        if FAIL in (before["leaf-count"], before["index-coverage"]):
            self._rebuild()
            repaired.append("rebuilt tiles, offsets and the index of paths")
        if before["manifest-against-head"] == FAIL:
            disk.remove_file(self._layout.manifest)
            rotation.keep_history(self._layout, audit.key_history)
            repaired.append("wrote keys.json; removed the manifest, which consolidate writes anew")
        if self._layout.frozen.exists() and self._layout.key.exists():
            disk.remove_file(self._layout.frozen)
            repaired.append("opened the frozen stream: everything verifies")
        return repaired

    def _rebuild(self) -> None:
        layout = self._layout
        for suffix in ("", "-wal", "-shm"):
            disk.remove_file(layout.paths.with_name(layout.paths.name + suffix))
        segments = layout.segments()
        if not segments:
            return
        stream_id = read_header(segments[0]).stream_id
        tiles = Tiles(layout, writable=True)
        try:
            rebuild_tiles(segments, stream_id, tiles)
            tiles.sync()
        except Damage as damage:
            raise BrainError(str(damage), ErrorCode.LEDGER_REFUSED) from None
        finally:
            tiles.close()


def state(path: Path) -> dict[str, object]:
    """What is quickly known of a stream: state, size and head, without verifying it."""
    layout = find(Path(path))
    frozen = layout.freeze_reason()
    head: Checkpoint | None = None
    keys: list[str] = []
    try:
        keys = [entry["key"] for entry in rotation.history(layout)]
        head = latest_head(layout.path)
    except Damage as damage:
        frozen = frozen or {"state": "FROZEN_HUMAN", "reason": str(damage)}
    segments = layout.segments()
    return {
        "stream": layout.path.name,
        "state": frozen["state"] if frozen else "READY",
        "reason": frozen["reason"] if frozen else "",
        "writing": is_locked(layout),
        "signed_records": head.size if head else 0,
        "root": head.root.hex() if head else "",
        "segments": len(segments),
        "bytes": layout.log_bytes(),
        "keys": keys,
    }
