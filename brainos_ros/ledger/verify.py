"""Full verification of a stream: every byte of the log, the chain, the tree and the heads."""

import json
import os
from base64 import b64decode
from collections.abc import Callable
from contextlib import closing, suppress
from operator import index
from pathlib import Path
from typing import NamedTuple

from brainos_ros.ledger import erasure, frames, kinds, rotation
from brainos_ros.ledger.frames import Damage, Frame
from brainos_ros.ledger.layout import PRUNED, Layout, SegmentFile, find
from brainos_ros.ledger.log import content, frames_from, read_header
from brainos_ros.ledger.merkle import Mountain, range_root
from brainos_ros.ledger.notes import Checkpoint, PublicKey, read_checkpoints, rotation_text
from brainos_ros.ledger.recovery import walk_segment
from brainos_ros.ledger.tiles import Tiles
from brainos_ros.ledger.walk import Walk, later_seals
from brainos_ros.ledger.workers import Ahead, walk_ahead

#: What reading a payload that is JSON, but not what it must be, raises.
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


class Report(NamedTuple):
    """What verification found in one stream.

    Attributes:
        stream: its name.
        verified: whether everything verified.
        records: records found, or promised by its newest head.
        verified_records: those whose hash and place in chain and tree verified.
        root: Merkle root over the verified records, in hex; empty if there are none.
        problem: what is wrong, one sentence; empty if verified.
    """

    stream: str
    verified: bool
    records: int
    verified_records: int
    root: str
    problem: str


class Audit:
    """One walk over a whole stream, and everything it found.

    `progress`, where given, is called after each segment with the number of records verified;
    with `derived` the stored nodes and offsets are compared too. More than one of `workers` are
    processes that share a long log and find the same; a node, whose robot needs its CPUs, has one.

    Attributes:
        problems: (invariant, sentence) of each thing that is wrong, in the order found.
        walk: the walk, at the end of what verified.
        checkpoints: the heads kept.
        keys: the verifier keys, each with the number of records from which on it signs.
        purged: the records that purge records name.
        seals: number of seals.
        pruned: number of records whose segments were pruned.
        bytes: size of the log on the disk [bytes].
        torn: whether the log ends in a torn tail, which opening cuts off.
        stale: what is stored, is derived, and differs from what the log says.
        key_history: what `keys.json` must hold.
    """

    def __init__(
        self,
        layout: Layout,
        kept: Checkpoint | None = None,
        progress: Callable[[int], None] | None = None,
        derived: bool = False,
        workers: int = 1,
    ) -> None:
        self.problems: list[tuple[str, str]] = []
        self.walk = Walk(Mountain())
        self.checkpoints: list[Checkpoint] = []
        self.keys: list[tuple[int, PublicKey]] = []
        self.purged: set[int] = set()
        self.seals = self.pruned = self.bytes = 0
        self.torn = False
        self.stale: list[str] = []
        self.key_history: list[dict[str, str]] = []
        self._layout = layout
        self._kept = kept
        self._progress = progress
        self._derived = derived
        self._workers = workers
        self._live = is_locked(layout)
        self._confirmed: set[int] = set()
        self._gone: list[range] = []
        self._named: set[int] = set()
        self._pending: set[int] = set()

    def run(self) -> "Audit":
        """Walk everything. Raises OSError."""
        self._read_checkpoints()
        self._read_announced()
        tiles = Tiles(self._layout)
        try:
            self._walk(tiles)
        finally:
            tiles.close()
        self._check_heads()
        self._check_erasures()
        for code in sorted(self.walk.kinds - set(kinds.NAMES)):
            self._problem("closed-operations", f"kind {code} is not in the schema")
        return self

    @property
    def size(self) -> int:
        """Number of records verified."""
        return self.walk.mountain.size

    def report(self) -> Report:
        """The short form."""
        return Report(
            self._layout.path.name,
            not self.problems,
            max(self.size, self._promised),
            self.size,
            self.walk.mountain.root().hex() if self.size else "",
            self.problems[0][1] if self.problems else "",
        )

    @property
    def _promised(self) -> int:
        return max((checkpoint.size for checkpoint in self.checkpoints), default=0)

    def covers(self, checkpoint: Checkpoint) -> bool:
        """Whether it is a head of this stream, kept or not: its signature and its root are good."""
        keys = [key for start, key in self.keys if start <= checkpoint.size]
        if not (keys and checkpoint.size <= self.size and checkpoint.origin == keys[-1].name):
            return False
        tiles = Tiles(self._layout)
        try:
            root = range_root(0, checkpoint.size, tiles.run)
        finally:
            tiles.close()
        return root == checkpoint.root and self._signed(checkpoint, keys)

    def _heads(self) -> list[Checkpoint]:
        return [*self.checkpoints, *([self._kept] if self._kept else [])]

    def _problem(self, check: str, text: str) -> None:
        self.problems.append((check, text))

    def _read_checkpoints(self) -> None:
        try:
            self.checkpoints, rest = read_checkpoints(self._layout.checkpoints.read_bytes())
        except FileNotFoundError:
            return
        except Damage as damage:
            self._problem("head-signature", str(damage))
        else:
            if rest and not self._live:
                self._problem("head-signature", "the newest head is cut short")

    def _read_announced(self) -> None:
        """What is being erased, after the heads: a purge under one of them is done or in here."""
        try:
            announced = erasure.announced(self._layout)
        except Damage as damage:
            self._problem(damage.check, str(damage))
        else:
            self._pending.update(target.sequence for target in (announced or (0, []))[1])

    def _walk(self, tiles: Tiles) -> None:
        segments = self._layout.segments()
        ahead = walk_ahead(self._layout, segments, self._derived, self._workers)
        with closing(ahead):
            for segment, found in zip(segments, ahead, strict=False):
                start = self.size
                try:
                    if not (found and self._join(found, segment)):
                        segment = self._walk_segment(segment, tiles)
                    if segment.suffix == PRUNED:
                        self._confirm_by_nodes(start, tiles)
                except Damage as damage:
                    self._judge(damage, segment, segment == segments[-1])
                    return
                finally:
                    self._compare_stored(segment, tiles)
                    self._take(segment, start)
                if self._progress:
                    self._progress(self.size)

    def _confirm_by_nodes(self, start: int, tiles: Tiles) -> None:
        """Heads over a pruned segment: their seals are gone, the roots are not."""
        for checkpoint in self._heads():
            inside = start < checkpoint.size < self.size
            if inside and range_root(0, checkpoint.size, tiles.run) == checkpoint.root:
                self._confirmed.add(checkpoint.size)

    def _judge(self, damage: Damage, segment: SegmentFile, newest: bool) -> None:
        """Damage at the newest end is a write in progress, or was one when the writer died."""
        tail = newest and self.walk.offset and self._promised <= self.size
        if tail and later_seals(segment.path.read_bytes(), self.walk.offset) < 2:
            if self._live:
                return
            self.torn = True
            self._problem(
                "frame-crc", f"torn tail: {damage}; opening the stream cuts it off and keeps it"
            )
        else:
            self._problem(damage.check, str(damage))

    def _join(self, found: Ahead, segment: SegmentFile) -> bool:
        """Whether a worker began where this walk stands, which then goes on behind it."""
        try:
            self.walk.join(found.header, self._stream_id(segment), found.walk)
        except (Damage, OSError):
            return False
        self.stale += found.stale
        return True

    def _walk_segment(self, segment: SegmentFile, tiles: Tiles) -> SegmentFile:
        """Walk a segment; returns it in the form that was walked."""
        try:
            walk_segment(segment, self.walk, self._stream_id(segment), tiles)
        except FileNotFoundError:
            again = [s for s in self._layout.segments() if s.first == segment.first]
            if not again:
                raise Damage(f"{segment.path.name} has vanished", "chain-continuity") from None
            segment = again[0]
            walk_segment(segment, self.walk, self._stream_id(segment), tiles)
        except Damage:
            if not self._live or segment.suffix == PRUNED or not self.walk.offset:
                raise
            self._walk_on(segment)
        return segment

    def _walk_on(self, segment: SegmentFile) -> None:
        """Walk on where the writer was at work, a purge or an append, while the file was read."""
        try:
            self.walk.walk(content(self._layout, segment))
        except Damage as damage:
            where = f"{segment.path.name}, byte {self.walk.offset}"
            raise Damage(f"{where}: {damage}", damage.check) from None

    def _stream_id(self, segment: SegmentFile) -> bytes:
        """The id in the first key's name; in the first segment, the id it says it has."""
        if self.keys:
            return bytes.fromhex(self.keys[0][1].name.rpartition("/")[2])
        return read_header(segment).stream_id

    def _take(self, segment: SegmentFile, start: int) -> None:
        """What there is to keep of the segment walked last."""
        seals = {seal.size: seal for seal in self.walk.seals}
        self.seals += max(0, len(self.walk.seals) - 1)
        for checkpoint in self._heads():
            seal = seals.get(checkpoint.size)
            if seal and (seal.root, seal.hash) == (checkpoint.root, checkpoint.seal):
                self._confirmed.add(checkpoint.size)
        operations, self.walk.operations = self.walk.operations, []
        for frame in operations:
            try:
                if frame.form != frames.ERASED:
                    self._take_operation(frame)
            except _UNREADABLE as error:
                self._problem("schema", f"record {frame.sequence} cannot be read: {error}")
            except Damage as damage:
                self._problem(damage.check, f"record {frame.sequence}: {damage}")
        if segment.suffix == PRUNED:
            self.pruned += self.size - start
            self._gone.append(range(start, self.size))
        if segment.path.exists():
            self.bytes += segment.path.stat().st_size

    def _compare_stored(self, segment: SegmentFile, tiles: Tiles) -> None:
        """Stored nodes and offsets may lag behind the log, but not differ from it."""
        made = self.walk.take_derived()
        if self._derived and segment.suffix != PRUNED:
            self.stale += tiles.differing(*made)

    def _take_operation(self, frame: Frame) -> None:
        if frame.kind == kinds.CREATED:
            if frame.sequence:
                raise Damage("only the first record names a key by itself", "head-signature")
            key = PublicKey.parse(json.loads(frame.payload)["key"])
            bytes.fromhex(key.name.rpartition("/")[2])  # the id of the stream
            self.keys.append((0, key))
            self.key_history.append(rotation.entry(frame.payload))
        elif frame.kind == kinds.KEY_ROTATED:
            body = json.loads(frame.payload)
            old, new = self.keys[-1][1], PublicKey.parse(body["key"])
            if not old.verify(b64decode(body["signature"]), rotation_text(old, new)):
                raise Damage("the key before it did not sign this key", "head-signature")
            self.keys.append((frame.sequence + 1, new))
            self.key_history.append(rotation.entry(frame.payload))
        elif frame.kind == kinds.PRUNED:
            self._named.update(json.loads(frame.payload)["segments"])
        elif frame.kind == kinds.PURGE:
            named = json.loads(frame.payload)["sequences"]
            self.purged.update(map(index, named))
            if self._live and frame.sequence >= self._promised:
                self._pending.update(named)
        elif frame.kind in (kinds.PUT, kinds.MOVE, kinds.DELETE, kinds.IMPORT):
            operation = frames.decode_operation(frame.kind, frame.payload)
            if not frames.is_path(operation.path) or (
                frame.kind == kinds.MOVE and not frames.is_path(operation.target)
            ):
                raise Damage(f"'{operation.path}' is no path it may carry", "no-traversal")

    def _check_heads(self) -> None:
        previous = 0
        for checkpoint in self.checkpoints:
            if checkpoint.size < previous:
                text = f"the head over {checkpoint.size} records comes after one over {previous}"
                self._problem("no-rewind", text)
            previous = checkpoint.size
            self._check_head(checkpoint, f"the head over {checkpoint.size} records")
        if self._kept:
            self._check_head(self._kept, f"the head over {self._kept.size} records kept elsewhere")
        if self.size > 1 and not self.checkpoints:
            self._problem("head-signature", f"there are {self.size} records, but no head is kept")

    def _check_head(self, checkpoint: Checkpoint, what: str) -> None:
        keys = [key for start, key in self.keys if start <= checkpoint.size]
        if not keys or checkpoint.origin != keys[-1].name:
            self._problem("head-signature", f"{what} is not of this stream")
        elif not self._signed(checkpoint, keys):
            self._problem("head-signature", f"{what} is not signed by the stream's key")
        elif checkpoint.size > self.size:
            text = f"the history was truncated: {what} says more than the {self.size} there are"
            self._problem("no-rewind", text)
        elif checkpoint.size not in self._confirmed:
            self._problem("peaks-against-chain", f"{what} is not what the log has there")

    def _signed(self, checkpoint: Checkpoint, keys: list[PublicKey]) -> bool:
        """Whether the newest of `keys` signed it, and nobody who is not one of them."""
        try:
            signers = {key_id for _, key_id, _ in checkpoint.signatures()}
            good = {key.id for key in keys if key.id in signers and checkpoint.signed_by(key)}
        except Damage:
            return False
        return signers == good and keys[-1].id in good

    def _check_erasures(self) -> None:
        erased = set(self.walk.erased)
        unnamed = sorted(erased - self.purged)
        if unnamed and self._live:
            unnamed = sorted(erased - self.purged - self._purged_since())
        if unnamed:
            self._problem("body-hashes", f"record {unnamed[0]} is erased, but no purge names it")
        unfinished = sorted(
            sequence
            for sequence in self.purged - erased - self._pending
            if not any(sequence in gone for gone in self._gone)
        )
        if unfinished and not self.problems:
            text = f"record {unfinished[0]} was purged, but is still there"
            self._problem("body-hashes", text)
        for first in sorted({gone.start for gone in self._gone} - self._named):
            text = f"the segment from record {first} on is gone, but no record says it was pruned"
            self._problem("chain-continuity", text)

    def _purged_since(self) -> set[int]:
        """What is named by purge records that came after the walk."""
        named: set[int] = set()
        with suppress(Damage, *_UNREADABLE):
            for frame in frames_from(self._layout, self.size):
                if frame.kind == kinds.PURGE:
                    named.update(json.loads(frame.payload)["sequences"])
        return named


def verify(path: Path, kept: Checkpoint | None = None, workers: int = 1) -> Report:
    """Verify the stream in the directory `path`, also while it is being written.

    A head `kept` elsewhere is held against it too: only such a head can tell that the whole
    stream was replaced. `workers` are as in `Audit`. Raises BrainError (NOT_FOUND) where there is
    no stream, OSError where it cannot be read.
    """
    return Audit(find(Path(path)), kept, workers=workers).run().report()


def is_locked(layout: Layout) -> bool:
    """Whether a process is writing the stream, seen without touching its lock."""
    try:
        inode = os.stat(layout.lock).st_ino
        with open("/proc/locks") as locks:
            return any(f":{inode} " in line and " FLOCK " in line for line in locks)
    except OSError:
        return False
