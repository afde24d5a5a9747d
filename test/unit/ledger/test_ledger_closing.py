"""Closing a stream while other threads are about to use it."""

from contextlib import suppress
from pathlib import Path

import pytest

from brainos_ros.errors import BrainError
from brainos_ros.ledger import Stream, verify
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
