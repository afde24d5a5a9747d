"""Segments in more than one form, and what a purge, a walk and a pruning make of them."""

import errno
import os
import threading
from pathlib import Path

import pytest
from filled import SMALL, failed, fill, prune_all

from brainos_ros.errors import BrainError
from brainos_ros.ledger import (
    Frozen,
    Stream,
    disk,
    erasure,
    housekeeping,
    log,
    recovery,
    verify,
)
from brainos_ros.ledger.archive import compress
from brainos_ros.ledger.backup import back_up
from brainos_ros.ledger.doctor import Doctor
from brainos_ros.ledger.exchange import export
from brainos_ros.ledger.housekeeping import consolidate
from brainos_ros.ledger.layout import Layout, SegmentFile
from brainos_ros.ledger.verify import Audit


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


def test_a_walk_beside_a_purge_is_not_misled(tmp_path: Path) -> None:
    """The purge comes when its record's segment is walked already."""
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream, 30)
        done: list[int] = []

        def purge(size: int) -> None:
            if not done:
                done.append(stream.purge_events([1], "asked for"))

        audit = Audit(Layout(stream.path), progress=purge).run()
        assert done
        assert audit.problems == []
        assert audit.purged == {1}
        assert audit.walk.erased == []
        assert verify(stream.path).verified


def test_a_walk_sees_purges_of_segments_that_began_meanwhile(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream, 30)
        second = Layout(stream.path).segments()[1].first
        done: list[int] = []

        def purge(size: int) -> None:
            if not done:
                fill(stream)
                done.append(stream.purge_events([second + 1], "asked for"))

        audit = Audit(Layout(stream.path), progress=purge).run()
        assert audit.walk.erased == [second + 1]
        assert audit.size < done[0]
        assert audit.problems == []


def test_a_walk_that_finds_a_purge_announced_waits_for_it(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream, 30)
        done: list[str] = []

        def walk_beside(layout: Layout, targets: list[erasure.Target]) -> None:
            audit = Audit(layout, progress=lambda _: perform(layout, targets)).run()
            done.extend(text for _, text in audit.problems)

        perform = erasure.perform
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(erasure, "perform", walk_beside)
            stream.purge_events([1], "asked for")
        assert done == []
        assert verify(stream.path).verified


@pytest.mark.parametrize("writing", [False, True])
def test_a_purge_that_was_undone_is_found_though_segments_were_pruned(
    tmp_path: Path, writing: bool
) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream)
        gone = stream.size - 40
        stream.purge_events([gone], "asked for")
        number = stream.event("note", b"forget-this-and-only-this")
        stream.put("late", b"live")
        fill(stream)
        back_up(stream.path, tmp_path / "copy")
        assert prune_all(stream, tmp_path / "copy")
        with pytest.raises(BrainError, match="were pruned"):
            stream.read(gone)
        before = {each.path: each.path.read_bytes() for each in Layout(stream.path).segments()}
        assert verify(stream.path).verified
        stream.purge_events([number], "asked for")
    changed = min(path for path, data in before.items() if path.read_bytes() != data)
    changed.write_bytes(before[changed])
    if writing:
        with Stream.open(tmp_path, "memory", segment_bytes=SMALL):
            report = verify(tmp_path / "memory")
    else:
        report = verify(tmp_path / "memory")
    assert report.problem == f"record {number} was purged, but is still there"
    assert Doctor(stream.path).repair().repaired == ["erased 1 records that were purged"]
    assert verify(stream.path).verified


def test_an_announcement_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory") as stream:
        stream.event("note", b"x")
    Layout(stream.path).erasing.write_text("{}")
    assert failed(stream.path) == ["body-hashes"]
    with pytest.raises(Frozen, match="'erasing' cannot be read"):
        Stream.open(tmp_path, "memory")


@pytest.mark.parametrize("zeros", [1, 3, 5, 5000])
def test_a_sealed_segment_that_kept_its_preallocated_zeros_is_like_any_other(
    tmp_path: Path, zeros: int
) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream)
        stream.checkpoint()
        _, digest = export(stream.path, tmp_path / "before.tar")
        second = Layout(stream.path).segments()[1]
        with second.path.open("ab") as file:
            file.write(bytes(zeros))
        assert export(stream.path, tmp_path / "after.tar")[1] == digest
        assert [record.sequence for record in stream.records(0)] == list(range(stream.size))
        back_up(stream.path, tmp_path / "copy")
        assert second.first in prune_all(stream, tmp_path / "copy")
    assert failed(stream.path) == []


@pytest.mark.parametrize("again", [False, True])
def test_a_walk_beside_a_purge_looks_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """The file was read while a frame was half overwritten, once or for good."""
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream)
        stream.checkpoint()
        first, torn, real = Layout(stream.path).segments()[0], [], log.load

        def load(segment: SegmentFile) -> bytes:
            data = real(segment)
            if segment != first or (torn and not again):
                return data
            torn.append(segment)
            return data[:900] + bytes(40) + data[940:]

        monkeypatch.setattr(log, "load", load)
        monkeypatch.setattr(recovery, "load", load)
        report = verify(stream.path)
    assert report.verified is not again
    assert ("the CRC of a frame is wrong" in report.problem) is again
    assert ("0000000000000000.seg, byte " in report.problem) is again
