"""Pruning takes nothing that is not safe elsewhere, nor what a later purge has to find."""

import os
import shutil
from pathlib import Path

import pytest
from filled import SMALL, fill, prune_all

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Stream, verify
from brainos_ros.ledger.backup import back_up, restore
from brainos_ros.ledger.layout import Layout


@pytest.mark.parametrize("inside", ["", "torn/.."])
def test_a_stream_is_not_its_own_backup(tmp_path: Path, inside: str) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream)
        (stream.path / "torn").mkdir()
        with pytest.raises(BrainError, match="is the stream itself") as refusal:
            prune_all(stream, stream.path / inside)
        assert refusal.value.code is ErrorCode.INVALID_ARGUMENT
        assert stream.read(1).body
    assert verify(stream.path).verified


@pytest.mark.parametrize("how", ["segments", "directory"])
def test_a_segment_that_is_the_same_file_is_not_backed_up(tmp_path: Path, how: str) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream)
        (tmp_path / "copy").mkdir()
        if how == "segments":
            shutil.copytree(stream.path / "log", tmp_path / "copy/log", copy_function=os.link)
        else:
            (tmp_path / "copy/log").symlink_to(stream.path / "log")
        assert prune_all(stream, tmp_path / "copy") == []
        assert stream.read(1).body


def test_a_purge_finds_every_version_also_after_a_pruning(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream, 20)
        stream.put("person/eva", b"SECRET")
        fill(stream)
        stream.put("person/eva", b"newer")
        stream.put("other", b"1")
        fill(stream)
        stream.checkpoint()
        back_up(stream.path, tmp_path / "copy")
        assert prune_all(stream, tmp_path / "copy")
        stream.purge("other", "the index is built anew after this")
        stream.purge("person/eva", "asked for")
        back_up(stream.path, tmp_path / "copy")
        assert b"SECRET" not in b"".join(p.read_bytes() for p in (tmp_path / "copy/log").iterdir())
    assert restore(tmp_path / "copy", tmp_path / "again", "memory").verified


def test_what_is_erased_may_be_pruned(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream)
        stream.put("a", b"1")
        fill(stream)
        stream.purge("a", "asked for")
        stream.checkpoint()
        back_up(stream.path, tmp_path / "copy")
        gone = prune_all(stream, tmp_path / "copy")
        firsts = [segment.first for segment in Layout(stream.path).segments()]
        assert max(first for first in firsts if first <= 61) in gone
    assert verify(stream.path).verified
