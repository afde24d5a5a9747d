"""What the ledger does where the disk failed or is full, and other processes use it too."""

import errno
import os
from pathlib import Path

import pytest

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Frozen, Stream, disk, verify
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


@pytest.mark.parametrize("sealed", [False, True])
def test_room_that_somebody_else_takes_from_a_full_disk_refuses_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    stream = Stream.open(tmp_path, "pfc", window_s=3600.0)
    stream.event("note", b"before", durable=sealed)

    def write_half(fd: int, data: bytes, offset: int) -> int:
        os.pwrite(fd, data[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def allocate(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as full:
        full.setattr(disk, "pwrite", write_half)
        full.setattr(disk, "allocate", allocate)
        for _ in range(3):
            with pytest.raises(BrainError) as refusal:
                stream.event("note", b"refused")
            assert refusal.value.code is ErrorCode.LEDGER_REFUSED
            assert not isinstance(refusal.value, Frozen)
    assert stream.event("note", b"after") == 2
    stream.close()
    with Stream.open(tmp_path, "pfc") as again:
        assert [record.body for record in again.records(1)] == [b"before", b"after"]
    assert verify(stream.path).verified
