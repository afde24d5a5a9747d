"""The Merkle tree over a stream's records, as in RFC 6962: roots and proofs.

A stream's tree only ever grows, so it is kept as a mountain range: the complete subtrees
("peaks") of the leaves so far, largest first. Bagging the peaks from the right gives the very
Merkle Tree Hash of RFC 6962 section 2.1. Nodes are kept at every fourth height ("tiles" of 16);
the heights between are computed when they are needed.
"""

from collections.abc import Callable
from hashlib import sha256

TILE_HEIGHT = 4
TILE_WIDTH = 1 << TILE_HEIGHT
HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()

#: `run(level, start, count)`: `count` concatenated hashes from `start` on, of the complete
#: subtrees of 16**level leaves each.
Run = Callable[[int, int, int], bytes]


def leaf_hash(entry: bytes) -> bytes:
    """The leaf hash of a log entry (RFC 6962 section 2.1)."""
    return sha256(b"\x00" + entry).digest()


def fold(hashes: list[bytes]) -> bytes:
    """The root of a complete subtree from its leaves; their number must be a power of two."""
    while len(hashes) > 1:
        pairs = iter(hashes)
        hashes = [sha256(b"\x01" + a + b).digest() for a, b in zip(pairs, pairs, strict=True)]
    return hashes[0]


def bag(peaks: list[bytes]) -> bytes:
    """The root over a mountain range, its peaks given largest first."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = sha256(b"\x01" + peak + root).digest()
    return root


class Mountain:
    """A growing tree: `add` leaf hashes, ask for the `root`.

    `edge[level]` holds the hashes of the complete subtrees of 16**level leaves that do not fill
    a tile of 16 yet; `fresh[level]` collects every hash made since `take_fresh`,
    one after the other.
    """

    def __init__(self) -> None:
        self.size = 0
        self.edge: list[list[bytes]] = [[]]
        self.fresh: list[bytearray] = [bytearray()]

    @classmethod
    def load(cls, size: int, run: Run) -> "Mountain":
        """The mountain range of the first `size` leaves, from stored nodes."""
        mountain = cls()
        mountain.size = size
        mountain.edge = []
        level, count = 0, size
        while count or level == 0:
            start = count - count % TILE_WIDTH
            mountain.edge.append(split(run(level, start, count - start)))
            count //= TILE_WIDTH
            level += 1
        mountain.fresh = [bytearray() for _ in mountain.edge]
        return mountain

    def add(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        self.size += 1
        self.fresh[0] += leaf
        edge = self.edge[0]
        edge.append(leaf)
        if len(edge) == TILE_WIDTH:
            self._close_tile()

    def extend(self, leaves: list[bytes]) -> None:
        """Append leaf hashes; the same as `add` for each."""
        self.size += len(leaves)
        self.fresh[0] += b"".join(leaves)
        edge = self.edge[0]
        start = TILE_WIDTH - len(edge)
        edge += leaves[:start]
        if len(edge) < TILE_WIDTH:
            return
        self._close_tile()
        last = start + (len(leaves) - start) // TILE_WIDTH * TILE_WIDTH
        for at in range(start, last, TILE_WIDTH):
            self.edge[0] = leaves[at : at + TILE_WIDTH]
            self._close_tile()
        self.edge[0] = leaves[last:]

    def _close_tile(self) -> None:
        level = 0
        while len(self.edge[level]) == TILE_WIDTH:
            node = fold(self.edge[level])
            self.edge[level] = []
            level += 1
            if level == len(self.edge):
                self.edge.append([])
                self.fresh.append(bytearray())
            self.edge[level].append(node)
            self.fresh[level] += node

    def peaks(self) -> list[bytes]:
        """The roots of the complete subtrees, largest first."""
        peaks = []
        for hashes in reversed(self.edge):
            start = 0
            for width in (8, 4, 2, 1):
                if len(hashes) & width:
                    peaks.append(fold(hashes[start : start + width]))
                    start += width
        return peaks

    def root(self) -> bytes:
        """The Merkle Tree Hash of all leaves so far."""
        return bag(self.peaks())

    def take_fresh(self) -> list[bytearray]:
        """The hashes made since the last call, per level, one after the other."""
        fresh = self.fresh
        self.fresh = [bytearray() for _ in self.edge]
        return fresh


def split(hashes: bytes) -> list[bytes]:
    """Concatenated hashes as a list."""
    return [hashes[i : i + HASH_SIZE] for i in range(0, len(hashes), HASH_SIZE)]


def subtree(height: int, index: int, run: Run) -> bytes:
    """The root of the `index`-th complete subtree of 2**height leaves."""
    level, above = divmod(height, TILE_HEIGHT)
    return fold(split(run(level, index << above, 1 << above)))


def range_root(start: int, end: int, run: Run) -> bytes:
    """The Merkle Tree Hash of the leaves [start, end); `start` is as aligned as RFC 6962 cuts."""
    peaks = []
    while start < end:
        height = (end - start).bit_length() - 1
        peaks.append(subtree(height, start >> height, run))
        start += 1 << height
    return bag(peaks)


def path_in_mountain(index: int, height: int, run: Run) -> list[bytes]:
    """The siblings of leaf `index` inside its complete subtree of `height`, a tile at a time."""
    path = []
    for level in range((height + TILE_HEIGHT - 1) // TILE_HEIGHT):
        steps = min(TILE_HEIGHT, height - level * TILE_HEIGHT)
        position = index >> (level * TILE_HEIGHT)
        width = 1 << steps
        tile = run(level, position - position % width, width)
        position %= width
        size = HASH_SIZE
        for _ in range(steps):
            start = (position ^ 1) * size
            path.append(_fold_packed(tile[start : start + size]))
            position >>= 1
            size *= 2
    return path


def _fold_packed(hashes: bytes) -> bytes:
    """As `fold`, for concatenated hashes."""
    while len(hashes) > HASH_SIZE:
        starts = range(0, len(hashes), 2 * HASH_SIZE)
        hashes = b"".join([sha256(b"\x01" + hashes[i : i + 64]).digest() for i in starts])
    return hashes


def consistency_path(old: int, new: int, run: Run) -> list[bytes]:
    """The proof that the tree of `new` leaves extends that of `old` (RFC 6962 section 2.1.2).

    Raises ValueError unless 0 < old <= new.
    """
    if not 0 < old <= new:
        raise ValueError(f"no consistency proof from {old} to {new} leaves")
    path: list[bytes] = []
    start, end, whole = 0, new, True
    while old < end:
        cut = 1 << (end - start - 1).bit_length() - 1
        if old - start <= cut:
            path.append(range_root(start + cut, end, run))
            end = start + cut
        else:
            path.append(subtree(cut.bit_length() - 1, start // cut, run))
            start += cut
            whole = False
    if not whole:
        path.append(range_root(start, end, run))
    return path[::-1]
