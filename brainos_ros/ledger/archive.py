"""Sealed segments, compressed so that one record can be read without the rest.

The zstd seekable format: independent frames of 64 KiB of content, and at the end a skippable frame
with the size of each (zstd, contrib/seekable_format/zstd_seekable_compression_format.md). Any zstd
tool decompresses the file whole. Between the two stands a skippable frame of our own with the
CRC-32 of everything before it, because zstd itself does not notice every flipped bit.
"""

import os
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from zlib import crc32

from brainos_ros.ledger.frames import Damage

CHUNK = 64 << 10
_ENTRY = struct.Struct("<II")
_FOOTER = struct.Struct("<IBI")
_SKIPPABLE, _SEEKABLE = 0x184D2A5E, 0x8F92EAB1
_CHECK = struct.Struct("<III")
_CHECK_MAGIC = 0x184D2A50


def compress(data: bytes) -> bytes:
    """`data` in the seekable format."""
    pack = _packer()
    chunks = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
    return _assemble([pack(chunk) for chunk in chunks], [len(chunk) for chunk in chunks])


def _packer() -> Callable[[bytes], bytes]:
    import zstandard

    return zstandard.ZstdCompressor(level=6, write_checksum=True).compress


def _assemble(packed: Sequence[bytes], sizes: Iterable[int]) -> bytes:
    table = b"".join(
        _ENTRY.pack(len(chunk), size) for chunk, size in zip(packed, sizes, strict=True)
    )
    table += _FOOTER.pack(len(packed), 0, _SEEKABLE)
    content = b"".join(packed)
    check = _CHECK.pack(_CHECK_MAGIC, 4, crc32(content))
    return content + check + _ENTRY.pack(_SKIPPABLE, len(table)) + table


class Archive:
    """Random access to a compressed segment.

    Opening it reads only the table; the chunk read last stays in memory. Raises Damage where the
    file is not in the format.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._read_table(os.fstat(self._fd).st_size)
        except BaseException:
            os.close(self._fd)
            raise
        self._chunk = -1
        self._data = b""

    def _read_table(self, size: int) -> None:
        if size < _FOOTER.size + _ENTRY.size:
            raise Damage("the compressed segment is too short")
        footer = os.pread(self._fd, _FOOTER.size, size - _FOOTER.size)
        count, descriptor, magic = _FOOTER.unpack(footer)
        length = count * _ENTRY.size + _FOOTER.size
        start = size - length - _ENTRY.size
        if magic != _SEEKABLE or descriptor or start < 0:
            raise Damage("the compressed segment has no seek table")
        table = os.pread(self._fd, size - start, start)
        if _ENTRY.unpack_from(table) != (_SKIPPABLE, length):
            raise Damage("the seek table of the compressed segment is damaged")
        entries = list(_ENTRY.iter_unpack(table[_ENTRY.size : -_FOOTER.size]))
        self._starts: list[int] = list(accumulate((entry[0] for entry in entries), initial=0))
        self._contents: list[int] = list(accumulate((entry[1] for entry in entries), initial=0))
        if self._starts[-1] != start - _CHECK.size:
            raise Damage("the seek table of the compressed segment does not add up")

    def load(self) -> bytes:
        """The whole content, the file's CRC checked first. Raises Damage."""
        self._packed()
        return self.read(0, self.size)

    def patched(self, patches: Iterable[tuple[int, bytes]]) -> bytes:
        """What the file is with (offset, bytes) of its content replaced; its CRC is checked first.

        Only the chunks they lie in are compressed anew. Raises Damage.
        """
        content = self._packed()
        packed = [content[start:end] for start, end in pairwise(self._starts)]
        fresh: dict[int, bytearray] = {}
        for offset, data in patches:
            while data:
                chunk = bisect_right(self._contents, offset) - 1
                if chunk not in fresh:
                    fresh[chunk] = bytearray(self._load(chunk))
                start = offset - self._contents[chunk]
                part = data[: len(fresh[chunk]) - start]
                fresh[chunk][start : start + len(part)] = part
                offset, data = offset + len(part), data[len(part) :]
        pack = _packer()
        for chunk, changed in fresh.items():
            packed[chunk] = pack(bytes(changed))
        return _assemble(packed, (end - start for start, end in pairwise(self._contents)))

    def _packed(self) -> bytes:
        """All compressed chunks, once their CRC is seen to be right. Raises Damage."""
        end = self._starts[-1]
        packed = os.pread(self._fd, end + _CHECK.size, 0)
        if packed[end:] != _CHECK.pack(_CHECK_MAGIC, 4, crc32(packed[:end])):
            raise Damage("the CRC of the compressed segment is wrong")
        return packed[:end]

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self._contents[-1]

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes of content from `offset` on; fewer at the end. Raises Damage."""
        parts = []
        while length > 0 and offset < self.size:
            chunk = bisect_right(self._contents, offset) - 1
            part = self._load(chunk)[offset - self._contents[chunk] :][:length]
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    def _load(self, chunk: int) -> bytes:
        if chunk == self._chunk:
            return self._data
        import zstandard

        start, end = self._starts[chunk], self._starts[chunk + 1]
        size = self._contents[chunk + 1] - self._contents[chunk]
        try:
            data = zstandard.ZstdDecompressor().decompress(
                os.pread(self._fd, end - start, start), max_output_size=CHUNK
            )
        except zstandard.ZstdError as error:
            raise Damage(f"the compressed segment is damaged: {error}") from None
        if len(data) != size:
            raise Damage("a chunk of the compressed segment has another size than its table says")
        self._chunk, self._data = chunk, data
        return data

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
