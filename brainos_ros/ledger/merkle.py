"""The Merkle tree over a stream's records, as in RFC 6962: roots and proofs.

A stream's tree only ever grows, so it is kept as a mountain range: the complete subtrees
("peaks") of the leaves so far, largest first. Bagging the peaks from the right gives the very
Merkle Tree Hash of RFC 6962 section 2.1. Nodes are kept at every third height ("tiles" of 8);
the heights between are computed when they are needed.
"""

from collections.abc import Callable
from hashlib import sha256

TILE_HEIGHT = 3
TILE_WIDTH = 1 << TILE_HEIGHT
HASH_SIZE = 32
TILE_SIZE = TILE_WIDTH * HASH_SIZE
EMPTY_ROOT = sha256(b"").digest()

#: `run(level, start, count)`: `count` concatenated hashes from `start` on, of the complete
#: subtrees of 8**level leaves each.
Run = Callable[[int, int, int], bytes]


def leaf_hash(entry: bytes) -> bytes:
    """The leaf hash of a log entry (RFC 6962 section 2.1)."""
    return sha256(b"\x00" + entry).digest()


def fold(hashes: bytes) -> bytes:
    """The root of a complete subtree from its concatenated leaves, a power of two of them."""
    size = len(hashes)
    if size == 2 * HASH_SIZE:
        return sha256(b"\x01" + hashes).digest()
    if size == HASH_SIZE:
        return hashes
    size //= 2
    return sha256(b"\x01" + fold(hashes[:size]) + fold(hashes[size:])).digest()


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

    Hashes are concatenated. `edge[level]` holds those of the complete subtrees of 8**level leaves
    that do not fill a tile of 8 yet; `fresh[level]` collects every hash made since `take_fresh`.
    """

    def __init__(self) -> None:
        self.size = 0
        self.edge: list[bytes] = [b""]
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
            mountain.edge.append(run(level, start, count - start))
            count //= TILE_WIDTH
            level += 1
        mountain.fresh = [bytearray() for _ in mountain.edge]
        return mountain

    def add(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        self.size += 1
        self.fresh[0] += leaf
        edge = self.edge[0] = self.edge[0] + leaf
        if len(edge) == TILE_SIZE:
            self._close_tile()

    def extend(self, leaves: bytes) -> None:
        """Append concatenated leaf hashes; the same as `add` for each."""
        self.size += len(leaves) // HASH_SIZE
        self.fresh[0] += leaves
        leaves = self.edge[0] + leaves
        last = len(leaves) - len(leaves) % TILE_SIZE
        for at in range(0, last, TILE_SIZE):
            self.edge[0] = leaves[at : at + TILE_SIZE]
            self._close_tile()
        self.edge[0] = leaves[last:]

    def _close_tile(self) -> None:
        level = 0
        while len(self.edge[level]) == TILE_SIZE:
            node = fold(self.edge[level])
            self.edge[level] = b""
            level += 1
            if level == len(self.edge):
                self.edge.append(b"")
                self.fresh.append(bytearray())
            self.edge[level] += node
            self.fresh[level] += node

    def peaks(self) -> list[bytes]:
        """The roots of the complete subtrees, largest first."""
        peaks = []
        for hashes in reversed(self.edge):
            start, size = 0, TILE_SIZE // 2
            while start < len(hashes):
                if len(hashes) & size:
                    peaks.append(fold(hashes[start : start + size]))
                    start += size
                size //= 2
        return peaks

    def root(self) -> bytes:
        """The Merkle Tree Hash of all leaves so far."""
        return bag(self.peaks())

    def take_fresh(self) -> list[bytearray]:
        """The hashes made since the last call, per level, one after the other."""
        fresh = self.fresh
        self.fresh = [bytearray() for _ in self.edge]
        return fresh


def subtree(height: int, index: int, run: Run) -> bytes:
    """The root of the `index`-th complete subtree of 2**height leaves."""
    level, above = divmod(height, TILE_HEIGHT)
    return fold(run(level, index << above, 1 << above))


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
            path.append(fold(tile[start : start + size]))
            position >>= 1
            size *= 2
    return path


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
