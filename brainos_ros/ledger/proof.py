"""Proof bundles: a record, its audit path and a signed head; or that one head extends another.

`verifier.py` checks them with nothing but a public key.
"""

from base64 import b64encode
from pathlib import Path
from typing import Any

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import frames, rotation
from brainos_ros.ledger.frames import Damage
from brainos_ros.ledger.layout import Layout, find, streams
from brainos_ros.ledger.log import LogReader
from brainos_ros.ledger.merkle import (
    Run,
    bag,
    consistency_path,
    leaf_hash,
    path_in_mountain,
    range_root,
    subtree,
)
from brainos_ros.ledger.notes import Checkpoint, last_checkpoint
from brainos_ros.ledger.tiles import Tiles
from brainos_ros.ledger.verifier import CONSISTENCY, INCLUSION, Head, extends, root_of


class Prover:
    """Audit paths in the tree of one size; the peaks are looked up once."""

    def __init__(self, size: int, run: Run) -> None:
        self._run = run
        self._starts: list[int] = []
        self._heights: list[int] = []
        self._peaks: list[bytes] = []
        start = 0
        while start < size:
            height = (size - start).bit_length() - 1
            self._starts.append(start)
            self._heights.append(height)
            self._peaks.append(subtree(height, start >> height, run))
            start += 1 << height
        self.size = size
        self.root = bag(self._peaks)
        self._right = [bag(self._peaks[i + 1 :]) for i in range(len(self._peaks))]

    def path(self, index: int) -> list[bytes]:
        """The audit path of leaf `index` (RFC 6962 section 2.1.1). Raises ValueError, Damage."""
        if not 0 <= index < self.size:
            raise ValueError(f"leaf {index} is not in a tree of {self.size}")
        mountain = 0
        while index >= self._starts[mountain] + (1 << self._heights[mountain]):
            mountain += 1
        path = path_in_mountain(index, self._heights[mountain], self._run)
        if mountain + 1 < len(self._peaks):
            path.append(self._right[mountain])
        return path + self._peaks[:mountain][::-1]


def prove(path: Path, sequence: int) -> dict[str, Any]:
    """The bundle that proves record `sequence` of the stream in the directory `path`.

    It is checked before it is returned. Raises BrainError (NOT_FOUND, UNAVAILABLE where no head
    covers the record yet or its segment was pruned), Damage.
    """
    layout = find(Path(path))
    head = latest_head(layout.path)
    if head is None or head.size <= sequence or sequence < 0:
        covered = head.size if head else 0
        raise BrainError(
            f"sequence {sequence} is not under a signed head yet; the newest is over {covered} "
            "records",
            ErrorCode.NOT_FOUND if sequence < 0 else ErrorCode.UNAVAILABLE,
        )
    tiles, reader = Tiles(layout), LogReader(layout)
    try:
        frame = reader.frame(sequence)
        audit_path = Prover(head.size, _nodes(tiles)).path(sequence)
    finally:
        reader.close()
        tiles.close()
    leaf = leaf_hash(frame.entry)
    if root_of(leaf, sequence, head.size, audit_path) != head.root:
        raise _unsound(f"record {sequence} does not lead to the head's root")
    bundle: dict[str, Any] = {
        "format": INCLUSION,
        "stream": layout.path.name,
        "sequence": sequence,
        "header": frame.header.hex(),
        "path": b64encode(b"".join(audit_path)).decode(),
        "checkpoint": head.note,
        "keys": rotation.history(layout),
    }
    if frame.form == frames.ERASED:
        bundle["commitment"] = b64encode(frame.commitment).decode()
    else:
        bundle["salt"] = b64encode(frame.region[: frames.SALT_SIZE]).decode()
        bundle["payload"] = b64encode(frame.payload).decode()
    return bundle


def prove_growth(path: Path, kept: Checkpoint) -> dict[str, Any]:
    """The bundle that proves that the stream's newest head extends `kept`, an older one.

    It is checked before it is returned. Raises BrainError (INVALID_ARGUMENT) where it does not:
    the history was changed or truncated; Damage.
    """
    layout = find(Path(path))
    head = latest_head(layout.path)
    if head is None or head.size < kept.size:
        raise BrainError(
            f"the kept head is over {kept.size} records, the stream has only "
            f"{head.size if head else 0}: its history was truncated"
        )
    tiles = Tiles(layout)
    try:
        run = _nodes(tiles)
        root = range_root(0, kept.size, run)
        audit_path = consistency_path(kept.size, head.size, run)
    finally:
        tiles.close()
    if not extends(Head("", kept.size, root), Head("", head.size, head.root), audit_path):
        raise _unsound(f"the first {kept.size} records do not lead to the head's root")
    if root != kept.root:
        raise BrainError(f"the first {kept.size} records are not those of the kept head")
    return {
        "format": CONSISTENCY,
        "stream": layout.path.name,
        "old": kept.note,
        "new": head.note,
        "path": b64encode(b"".join(audit_path)).decode(),
        "keys": rotation.history(layout),
    }


def _nodes(tiles: Tiles) -> Run:
    """The stored nodes; where they are not there it is said what builds them."""

    def run(level: int, start: int, count: int) -> bytes:
        try:
            return tiles.run(level, start, count)
        except Damage as damage:
            raise _unsound(str(damage)) from None

    return run


def _unsound(what: str) -> Damage:
    remedy = "run 'brainos ledger doctor --repair', which builds the stored nodes anew"
    return Damage(f"{what}; {remedy}", "leaf-count")


def latest_head(path: Path) -> Checkpoint | None:
    """The newest head kept for the stream in the directory `path`. Raises Damage."""
    try:
        return last_checkpoint(Layout(path).checkpoints)[0]
    except FileNotFoundError:
        return None


def heads(root: Path) -> dict[str, str]:
    """The newest head (a signed note) of every stream under `root`, by the stream's name."""
    found = {path.name: latest_head(path) for path in streams(root)}
    return {name: head.note for name, head in found.items() if head}
