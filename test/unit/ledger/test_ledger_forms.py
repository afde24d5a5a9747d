"""Segments in more than one form, and what a purge, a walk and a pruning make of them."""

import errno
import os
import threading
from pathlib import Path

import pytest
from filled import SMALL, failed, fill, prune_all

from brainos_ros.ledger import Stream, disk, housekeeping, verify
from brainos_ros.ledger.archive import compress
from brainos_ros.ledger.backup import back_up
from brainos_ros.ledger.doctor import Doctor
from brainos_ros.ledger.housekeeping import consolidate
from brainos_ros.ledger.layout import Layout


@pytest.fixture
def twofold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Stream, int]:
    """A stream whose first segment was compressed and not removed; a secret record of it."""
    stream = Stream.open(tmp_path, "memory", segment_bytes=SMALL)
    number = stream.event("episode", b"forget-this-and-only-this")
    fill(stream)

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "unlink", fail)
        with pytest.raises(OSError, match="Input/output"):
            consolidate(stream)
    assert files_of_the_first(stream.path) == [".seg", ".seg.zst"]
    return stream, number


def files_of_the_first(path: Path) -> list[str]:
    return sorted(each.name[16:] for each in (path / "log").glob("0000000000000000.*"))


def has_the_secret(path: Path) -> bool:
    from brainos_ros.ledger.log import load

    return any(b"forget-this" in load(form) for forms in Layout(path)._forms().values()
               for form in forms)  # fmt: skip


def test_a_purge_erases_in_every_form_of_a_segment(twofold: tuple[Stream, int]) -> None:
    stream, number = twofold
    with stream:
        stream.purge_events([number], "asked for")
        assert not has_the_secret(stream.path)
        assert files_of_the_first(stream.path) == [".seg"]
        assert verify(stream.path).verified
        assert consolidate(stream).compressed > 3
    assert failed(stream.path) == []
    assert not has_the_secret(stream.path)


def test_opening_removes_second_forms(twofold: tuple[Stream, int], tmp_path: Path) -> None:
    stream, number = twofold
    stream._release()
    assert failed(stream.path) == ["canonical-layout"]
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        assert files_of_the_first(stream.path) == [".seg"]
        assert stream.read(number).body == b"forget-this-and-only-this"
    assert failed(stream.path) == []


def test_the_doctor_removes_second_forms(twofold: tuple[Stream, int]) -> None:
    stream, _ = twofold
    stream._release()
    assert Doctor(stream.path).repair().repaired == ["removed second forms of 1 segments"]
    assert files_of_the_first(stream.path) == [".seg"]
    assert failed(stream.path) == []


def test_a_pruned_segment_does_not_come_back(twofold: tuple[Stream, int], tmp_path: Path) -> None:
    stream, _ = twofold
    with stream:
        fill(stream)
        stream.checkpoint()
        back_up(stream.path, tmp_path / "copy")
        second = Layout(stream.path).segments()[1]
        Layout(stream.path).segment(second.first, ".seg.zst").write_bytes(b"stale")
        assert second.first in prune_all(stream, tmp_path / "copy")
        assert [each.suffix for each in Layout(stream.path)._forms()[second.first]] == [".pruned"]
    assert failed(stream.path) == []


def test_a_purge_waits_for_a_consolidation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        number = stream.event("episode", b"forget-this-and-only-this")
        fill(stream)
        purge = threading.Thread(target=lambda: stream.purge_events([number], "asked for"))

        def compress_beside_a_purge(data: bytes) -> bytes:
            if purge.ident is None:
                purge.start()
                purge.join(0.3)
                assert purge.is_alive()
            return compress(data)

        monkeypatch.setattr(housekeeping, "compress", compress_beside_a_purge)
        consolidate(stream)
        purge.join(30)
        assert stream.read(number).erased
        assert not has_the_secret(stream.path)
    assert failed(tmp_path / "memory") == []
