"""The stored nodes of a stream's tree and the offsets of its records; all derived from the log.

`tiles/<level>` is an array of 32-byte hashes: the roots of the complete subtrees of 8**level
leaves, in order, so level 0 holds the leaf hashes. `offsets` is an array of 4-byte offsets, one
for each record, into the record's segment.
"""

import os
import sys
from array import array
from contextlib import suppress

from brainos_ros.ledger import disk
from brainos_ros.ledger.frames import Damage
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.merkle import HASH_SIZE, TILE_WIDTH, Mountain

#: A number of leaves, and of the newest of them the nodes per level and the packed offsets.
Derived = tuple[int, list[bytearray], bytes]


def pack_offsets(offsets: "array[int]") -> bytes:
    """Offsets as the file `offsets` holds them."""
    packed = offsets[:]
    if sys.byteorder == "little":
        packed.byteswap()
    return packed.tobytes()


class Tiles:
    """Reads, and for the writer extends, the stored nodes; close it when done."""

    def __init__(self, layout: Layout, writable: bool = False) -> None:
        self._layout = layout
        self._flags = (os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY) | os.O_CLOEXEC
        self._levels: list[int] = []
        self._offsets = -1
        if writable:
            disk.make_directory(layout.tiles)
            self._offsets = disk.open_file(layout.offsets, self._flags, 0o644)

    def _level(self, level: int) -> int:
        while len(self._levels) <= level:
            path = self._layout.tiles / str(len(self._levels))
            self._levels.append(disk.open_file(path, self._flags, 0o644))
        return self._levels[level]

    def run(self, level: int, start: int, count: int) -> bytes:
        """`count` hashes of `level` from `start` on. Raises Damage where they are not there."""
        if not count:
            return b""
        data = self.stored(level, start, count)
        if len(data) != count * HASH_SIZE:
            raise Damage(f"tiles/{level} ends before node {start + count}")
        return data

    def stored(self, level: int, start: int, count: int) -> bytes:
        """As `run`, but as far as they are there."""
        try:
            return os.pread(self._level(level), count * HASH_SIZE, start * HASH_SIZE)
        except FileNotFoundError:
            return b""

    def stored_offsets(self, start: int, end: int) -> bytes:
        """The offsets of the records [start, end), as far as they are there."""
        try:
            if self._offsets < 0:
                self._offsets = disk.open_file(self._layout.offsets, self._flags)
        except FileNotFoundError:
            return b""
        return os.pread(self._offsets, 4 * (end - start), 4 * start)

    def extend(self, size: int, fresh: list[bytearray], offsets: bytes) -> None:
        """Store the nodes and offsets made since the last call; the tree now has `size` leaves."""
        for level, hashes in enumerate(fresh):
            if hashes:
                start = size // TILE_WIDTH**level * HASH_SIZE - len(hashes)
                disk.write_all(self._level(level), hashes, start)
        if offsets:
            disk.write_all(self._offsets, offsets, 4 * size - len(offsets))

    def differing(self, size: int, fresh: list[bytearray], offsets: bytes) -> list[str]:
        """The files that hold other nodes or offsets than these, which `extend` would store.

        They may lag behind.
        """
        found = []
        for level, hashes in enumerate(fresh):
            count = len(hashes) // HASH_SIZE
            start = size // TILE_WIDTH**level - count
            if not hashes.startswith(self.stored(level, start, count)):
                found.append(f"tiles/{level}")
        if not offsets.startswith(self.stored_offsets(size - len(offsets) // 4, size)):
            found.append("offsets")
        return found

    def cut(self, size: int) -> None:
        """Forget what lies beyond `size` leaves."""
        level = 0
        while (self._layout.tiles / str(level)).exists():
            _shorten(self._level(level), size // TILE_WIDTH**level * HASH_SIZE)
            level += 1
        _shorten(self._offsets, 4 * size)

    def sync(self) -> None:
        """Make them durable, so that the next opening need not look at sealed segments."""
        for fd in [*self._levels, self._offsets]:
            disk.fdatasync(fd)

    def mountain(self, size: int) -> Mountain:
        """The mountain range of the first `size` leaves. Raises Damage."""
        return Mountain.load(size, self.run)

    def close(self) -> None:
        """Close the files."""
        fds = [*self._levels, *([self._offsets] if self._offsets >= 0 else [])]
        self._levels, self._offsets = [], -1
        for fd in fds:
            with suppress(OSError):
                disk.close(fd)


def _shorten(fd: int, length: int) -> None:
    if os.fstat(fd).st_size > length:
        disk.ftruncate(fd, length)
