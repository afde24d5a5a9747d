"""What the ledger does where the disk failed or is full, and other processes use it too."""

import os
from pathlib import Path

import pytest

from brainos_ros.ledger import Stream
from brainos_ros.ledger.doctor import Doctor


def test_a_repair_reads_log_and_heads_from_the_disk_and_not_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stream.open(tmp_path, "pfc") as stream:
        stream.event("note", b"x")
    dropped: list[tuple[str, int]] = []

    def advise(fd: int, offset: int, length: int, advice: int) -> None:
        assert (offset, length) == (0, 0)
        dropped.append((Path(f"/proc/self/fd/{fd}").readlink().name, advice))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    assert Doctor(stream.path).repair().state == "READY"
    assert dropped == [
        (name, os.POSIX_FADV_DONTNEED) for name in ("0000000000000000.seg", "checkpoints")
    ]
