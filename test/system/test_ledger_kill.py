"""Writers killed with SIGKILL at random moments, a full disk, a read-only disk."""

import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disk import fill as leave_no_room
from small_disk import small_disk

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Stream, verify
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.log import frames_from, to_record

KILLS = 500
SEGMENT = 16 << 10


def write_until_killed(root: Path, pipe: int, seed: int) -> None:
    """Append for ever; say through the pipe which record is the last, then each one accepted."""
    chance = random.Random(seed)
    with Stream.open(root, "pfc", window_s=0.001, segment_bytes=SEGMENT) as stream:
        os.write(pipe, b"%d\n" % (stream.size - 1))
        while True:
            length = chance.randrange(600)
            if chance.random() < 0.1:
                sequence = stream.put(f"p/{chance.randrange(5)}", os.urandom(length))
            else:
                body = b"%d" % stream.size * (length // 3)
                sequence = stream.event("note", body, durable=chance.random() < 0.05)
            os.write(pipe, b"%d\n" % sequence)


def kill_one(root: Path, seed: int) -> list[int]:
    """Let a writer work, kill it at a random moment; returns what it said."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            write_until_killed(root, write_end, seed)
        finally:
            os._exit(1)
    os.close(write_end)
    chance = random.Random(-seed)
    if chance.random() < 0.8:
        select.select([read_end], [], [])
    time.sleep(chance.random() * 0.014)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status), f"the writer ended by itself: {status}"
    said = b""
    while part := os.read(read_end, 1 << 16):
        said += part
    os.close(read_end)
    return [int(number) for number in said.split(b"\n")[:-1]]


def test_a_writer_killed_500_times_loses_nothing_it_accepted(tmp_path: Path) -> None:
    accepted = opened = 0
    for seed in range(1, KILLS + 1):
        said = kill_one(tmp_path, seed)
        if said:
            assert said[0] >= accepted, f"opened after kill {seed - 1} without record {accepted}"
            accepted = max(said)
            opened += 1
    assert opened > KILLS / 4
    with Stream.open(tmp_path, "pfc", segment_bytes=SEGMENT) as stream:
        assert stream.size > accepted > 1000
        notes = 0
        for frame in frames_from(Layout(tmp_path / "pfc"), 0):
            record = to_record(frame)
            if record.kind == "note":
                number = b"%d" % record.sequence
                assert record.body == number * (len(record.body) // len(number))
                notes += 1
        assert notes > 1000
    report = verify(tmp_path / "pfc")
    assert report.verified, report.problem
    assert len(Layout(tmp_path / "pfc").segments()) > 10


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "1m") as place:
        yield place


def fill(stream: Stream, accepted: list[int]) -> BrainError:
    """Append until it is refused."""
    while True:
        try:
            accepted.append(stream.event("note", b"x" * 1000))
        except BrainError as refusal:
            return refusal


def test_a_full_disk_refuses_and_loses_nothing(disk: Path) -> None:
    accepted: list[int] = []
    with Stream.open(disk, "pfc", segment_bytes=64 << 10) as stream:
        refusal = fill(stream, accepted)
        assert "No space left on device" in str(refusal)
        assert refusal.code is ErrorCode.LEDGER_REFUSED
        assert len(accepted) > 100
        for sequence in accepted:
            assert stream.read(sequence).body == b"x" * 1000
        size = stream.size
    (disk / "ballast").write_bytes(b"")
    assert verify(disk / "pfc").records == size


def test_a_full_disk_that_is_emptied_goes_on(disk: Path) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(600 << 10))
    with Stream.open(disk, "pfc", segment_bytes=64 << 10) as stream:
        fill(stream, [])
        size = stream.size
        ballast.unlink()
        assert stream.event("note", b"again") == size
    assert verify(disk / "pfc").verified


@pytest.mark.parametrize("killed", [True, False])
def test_a_full_disk_opens_what_is_there(disk: Path, killed: bool) -> None:
    """With no room for a head, for nodes of the tree nor, after an orderly end, for a record."""
    stream = Stream.open(disk, "pfc", segment_bytes=64 << 10, window_s=3600.0)
    head = 0
    while 4096 - (stream.path / "checkpoints").stat().st_size % 4096 > head:
        before = (stream.path / "checkpoints").stat().st_size
        stream.event("note", b"x")
        stream.checkpoint()
        head = (stream.path / "checkpoints").stat().st_size - before
    leave_no_room(disk)
    for _ in range(200):
        stream.event("note", b"x")
    size = stream.size
    if killed:
        stream._release()
    else:
        stream.close()
    ballast = leave_no_room(disk)
    with Stream.open(disk, "pfc", segment_bytes=64 << 10) as stream:
        assert stream.size == size
        if not killed:
            with pytest.raises(BrainError, match="No space left on device"):
                stream.event("note", b"x" * 4096)
        ballast.unlink()
        assert stream.event("note", b"again") == size
        assert stream.checkpoint().size == size + 1
    assert verify(disk / "pfc").verified


def test_a_read_only_disk_is_named_as_such(disk: Path) -> None:
    with Stream.open(disk, "pfc", segment_bytes=64 << 10) as stream:
        stream.event("note", b"before")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(BrainError, match="Read-only file system") as refusal:
        Stream.open(disk, "pfc")
    assert refusal.value.code is ErrorCode.LEDGER_REFUSED
    report = verify(disk / "pfc")
    assert report.verified
    assert report.records == 2
    assert not (disk / "pfc/frozen").exists()
