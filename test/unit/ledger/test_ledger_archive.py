"""Compressed segments: the seekable format, and changing a few bytes of it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainos_ros.ledger.archive import CHUNK, Archive, compress
from brainos_ros.ledger.frames import Damage

CONTENT = random.Random(1).randbytes(1000) * (3 * CHUNK // 1000) + b"the end"


@contextmanager
def archive(path: Path, packed: bytes) -> Iterator[Archive]:
    path.write_bytes(packed)
    opened = Archive(path)
    try:
        yield opened
    finally:
        opened.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    patches=st.lists(
        st.tuples(st.integers(0, len(CONTENT) - 300), st.binary(min_size=1, max_size=300)),
        max_size=5,
    ),
    across=st.sampled_from([[], [(CHUNK - 100, b"x" * 200)], [(CHUNK - 1, b"y" * (CHUNK + 2))]]),
)
def test_patched_content_reads_as_if_written_so(
    tmp_path: Path, patches: list[tuple[int, bytes]], across: list[tuple[int, bytes]]
) -> None:
    expected = bytearray(CONTENT)
    for offset, data in [*patches, *across]:
        expected[offset : offset + len(data)] = data
    with archive(tmp_path / "segment", compress(CONTENT)) as opened:
        changed = opened.patched([*patches, *across])
    with archive(tmp_path / "changed", changed) as opened:
        assert opened.load() == expected
        assert opened.read(CHUNK - 50, 100) == expected[CHUNK - 50 : CHUNK + 50]


def test_only_the_chunks_concerned_change(tmp_path: Path) -> None:
    packed = compress(CONTENT)
    with archive(tmp_path / "segment", packed) as opened:
        changed = opened.patched([(2 * CHUNK + 5, b"z")])
        end = opened._starts[2]
    assert changed[:end] == packed[:end]
    assert changed[end:] != packed[end:]


def test_what_is_damaged_is_not_patched_into_something_whole(tmp_path: Path) -> None:
    packed = bytearray(compress(CONTENT))
    packed[10] ^= 1
    with archive(tmp_path / "segment", bytes(packed)) as opened, pytest.raises(Damage, match="CRC"):
        opened.patched([(2 * CHUNK, b"z")])
