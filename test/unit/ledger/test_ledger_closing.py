"""Closing a stream while other threads are about to use it."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Stream, log, verify
from brainos_ros.ledger.notes import Checkpoint


def test_heads_are_not_thinned_once_the_stream_is_another_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainos_ros.ledger.writer.CHECKPOINT_BYTES", 0)
    monkeypatch.setattr("brainos_ros.ledger.writer.CHECKPOINT_RECORDS", 1)
    first = Stream.open(tmp_path, "pfc", window_s=3600.0)
    first.event("note", b"x")
    first.sync()
    checkpoint = first.checkpoint
    successors: list[Stream] = []

    def sign_and_be_closed() -> Checkpoint:
        monkeypatch.setattr(first, "checkpoint", checkpoint)
        signed = checkpoint()
        first.close()
        successors.append(Stream.open(tmp_path, "pfc", window_s=3600.0))
        return signed

    monkeypatch.setattr(first, "checkpoint", sign_and_be_closed)
    with suppress(BrainError):
        first._sign_when_due()
    with successors[0] as second:
        second.event("note", b"goes on")
        head = second.checkpoint()
    assert verify(tmp_path / "pfc", head).verified
    assert head.note in (tmp_path / "pfc/checkpoints").read_text()


def test_a_read_under_way_keeps_its_files_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream.open(tmp_path, "pfc", window_s=3600.0)
    number = stream.event("note", b"x")
    stream.sync()
    closer = threading.Thread(target=stream.close)
    read = log._Raw.read

    def closed_meanwhile(file: log._Raw, offset: int, length: int) -> bytes:
        monkeypatch.undo()
        closer.start()
        assert stream._released.wait(10.0)
        closer.join(0.2)
        return read(file, offset, length)

    monkeypatch.setattr(log._Raw, "read", closed_meanwhile)
    assert stream.read(number).body == b"x"
    closer.join()


@pytest.mark.parametrize(
    "use",
    [
        lambda stream: stream.read(0),
        lambda stream: stream.view("a"),
        lambda stream: stream.live(),
        lambda stream: stream.put("a", b"x"),
        lambda stream: stream.move("a", "b"),
        lambda stream: stream.delete("a"),
        lambda stream: stream.purge("a", "a test"),
    ],
    ids=["read", "view", "live", "put", "move", "delete", "purge"],
)
def test_a_closed_stream_refuses_and_opens_no_file(
    tmp_path: Path, use: Callable[[Stream], object]
) -> None:
    stream = Stream.open(tmp_path, "pfc")
    stream.put("a", b"x")
    stream.view("a")
    stream.close()
    with pytest.raises(BrainError, match="is closed") as refusal:
        use(stream)
    assert refusal.value.code is ErrorCode.LEDGER_REFUSED
    held = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert [path for path in held if path.is_relative_to(tmp_path)] == []
