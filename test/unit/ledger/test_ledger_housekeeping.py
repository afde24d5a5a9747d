"""Consolidate, prune, back up, restore, and figures for auditors."""

import csv
import io
from pathlib import Path

import pytest
from filled import SMALL, failed, fill, prune_all

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Stream, verify
from brainos_ros.ledger.auditing import COLUMNS, statistics, write_csv
from brainos_ros.ledger.backup import back_up, restore
from brainos_ros.ledger.housekeeping import consolidate, prune
from brainos_ros.ledger.layout import Layout, SegmentFile
from brainos_ros.ledger.verifier import verify_bundle


def suffixes(path: Path) -> list[str]:
    return [segment.suffix for segment in Layout(path).segments()]


def test_consolidation_makes_it_smaller_and_changes_nothing_else(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        stream.put("a", b"kept")
        fill(stream)
        root, before = stream.root, [stream.read(i) for i in range(stream.size)]
        done = consolidate(stream)
        assert done.compressed == len(suffixes(stream.path)) - 1 > 3
        assert done.bytes_after < done.bytes_before
        assert stream.root == root
        assert [stream.read(i) for i in range(stream.size)] == before
        assert verify_bundle(stream.prove(3), stream.public_key).sequence == 3
        stream.event("note", b"after")
        assert consolidate(stream).compressed == 0
    assert set(suffixes(tmp_path / "memory")) == {".seg", ".seg.zst"}
    assert failed(tmp_path / "memory") == []
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        assert stream.view("a") == b"kept"
        assert stream.size == 63


def test_consolidation_refuses_what_does_not_verify(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream)
        first = Layout(stream.path).segments()[0].path
        data = bytearray(first.read_bytes())
        data[500] ^= 1
        first.write_bytes(data)
        with pytest.raises(BrainError, match="does not verify, so nothing was changed"):
            consolidate(stream)
        assert ".seg.zst" not in suffixes(stream.path)


def test_a_manifest_outlives_the_head_it_names(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream, 30)
        named = consolidate(stream).checkpoint
        stream.event("note", b"x")
        stream.checkpoint()
        stream.thin_checkpoints()
        assert named.note not in Layout(stream.path).checkpoints.read_text()
    assert failed(stream.path) == []
    manifest = Layout(stream.path).manifest
    manifest.write_text(manifest.read_text().replace("brainos/memory/", "brainos/memory/0"))
    assert failed(stream.path) == ["manifest-against-head"]


def test_heads_between_the_segments_are_thinned(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        for _ in range(30):
            stream.event("note", b"x" * 100)
            stream.checkpoint()
        old = stream.checkpoint()
        stream.rotate_key()
        consolidate(stream)
        stream.event("note", b"goes on")
    assert (tmp_path / "memory/checkpoints").read_text().count("seal ") < 12
    assert failed(tmp_path / "memory") == []
    assert verify(tmp_path / "memory", old).verified


def test_a_purge_reaches_into_compressed_segments(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        number = stream.event("episode", b"forget-this-and-only-this")
        fill(stream)
        consolidate(stream)
        root = stream.root
        purge = stream.purge_events([number], "asked for")
        assert stream.read(number).erased
        assert stream.read(number + 1).payload
        assert verify(stream.path).verified
        assert root != stream.root
        assert stream.read(purge).kind == "purge"
    restored = Layout(tmp_path / "memory").segments()[0]
    from brainos_ros.ledger.log import load

    assert b"forget-this" not in load(restored)


def test_a_backup_is_incremental_and_comes_back(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        stream.put("a", b"kept")
        fill(stream)
        stream.checkpoint()
        first = back_up(stream.path, tmp_path / "copy")
        assert first.report.verified
        assert first.unchanged == 0
        fill(stream, 20)
        stream.checkpoint()
        second = back_up(stream.path, tmp_path / "copy")
        assert second.unchanged >= first.copied - 1
        assert second.copied < first.copied
        root = stream.root.hex()
    report = restore(tmp_path / "copy", tmp_path / "elsewhere", "memory")
    assert (report.verified, report.root, report.stream) == (True, root, "memory")
    assert failed(tmp_path / "elsewhere/memory") == []
    with pytest.raises(BrainError, match="is gone, the log is not"):
        Stream.open(tmp_path / "elsewhere", "memory")
    with pytest.raises(BrainError, match="exists; move it away"):
        restore(tmp_path / "copy", tmp_path / "elsewhere", "memory")


@pytest.mark.parametrize("state", [b"{", b"{}", b"\xff", b"[]", b'{"origin": "x", "files": 5}'])
def test_a_backup_that_does_not_say_what_it_is_of_is_left_alone(
    tmp_path: Path, state: bytes
) -> None:
    with Stream.open(tmp_path, "memory") as stream:
        stream.checkpoint()
    back_up(stream.path, tmp_path / "copy")
    (tmp_path / "copy/backup.json").write_bytes(state)
    with pytest.raises(BrainError, match=r"copy/backup.json' is damaged: .* another directory"):
        back_up(stream.path, tmp_path / "copy")
    assert (tmp_path / "copy/backup.json").read_bytes() == state


@pytest.mark.parametrize("listed", [False, True])
def test_a_backup_beside_a_consolidation_ends_at_its_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream)
        stream.checkpoint()
        size, root = stream.size, stream.root.hex()
        segments = Layout.segments

        def grown_and_consolidated(layout: Layout) -> list[SegmentFile]:
            monkeypatch.undo()
            before = segments(layout)
            fill(stream)
            assert consolidate(stream).compressed > 3
            return before if listed else segments(layout)

        monkeypatch.setattr(Layout, "segments", grown_and_consolidated)
        first = back_up(stream.path, tmp_path / "copy")
        assert (first.report.verified, first.report.records, first.report.root) == (
            True, size, root)
        second = back_up(stream.path, tmp_path / "copy")
        assert second.report.root == stream.root.hex()
        assert suffixes(tmp_path / "copy") == suffixes(stream.path)


@pytest.mark.parametrize("listed", [False, True])
def test_a_segment_that_a_backup_cut_at_its_head_is_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream, 20)
        head = stream.checkpoint()
        segments = Layout.segments

        def grown_over_its_end(layout: Layout) -> list[SegmentFile]:
            monkeypatch.undo()
            before = segments(layout)
            fill(stream, 20)
            assert len(segments(layout)) > len(before)
            return before if listed else segments(layout)

        monkeypatch.setattr(Layout, "segments", grown_over_its_end)
        first = back_up(stream.path, tmp_path / "copy")
        assert (first.report.records, first.unchanged) == (head.size, 0)
        stream.checkpoint()
        second = back_up(stream.path, tmp_path / "copy")
        assert (second.report.root, second.unchanged) == (stream.root.hex(), first.copied - 1)
        third = back_up(stream.path, tmp_path / "copy")
        assert (third.copied, third.unchanged) == (1, second.copied + second.unchanged - 1)


def test_a_backup_with_its_key_goes_on(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        stream.put("a", b"kept")
        fill(stream, 20)
        stream.checkpoint()
        back_up(stream.path, tmp_path / "copy", with_key=True)
    restore(tmp_path / "copy", tmp_path / "elsewhere", "memory")
    assert (tmp_path / "elsewhere/memory/key").stat().st_mode & 0o777 == 0o600
    with Stream.open(tmp_path / "elsewhere", "memory") as stream:
        assert stream.view("a") == b"kept"
        stream.event("note", b"and on")
    assert verify(tmp_path / "elsewhere/memory").verified


def test_restoring_replays_the_purges(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        number = stream.event("episode", b"forget-this-and-only-this")
        fill(stream)
        stream.checkpoint()
        back_up(stream.path, tmp_path / "copy")
        old = (tmp_path / "copy/log/0000000000000000.seg").read_bytes()
        stream.purge_events([number], "asked for")
        back_up(stream.path, tmp_path / "copy")
    assert b"forget-this" not in (tmp_path / "copy/log/0000000000000000.seg").read_bytes()
    (tmp_path / "copy/log/0000000000000000.seg").write_bytes(old)
    report = restore(tmp_path / "copy", tmp_path / "elsewhere", "memory")
    assert report.verified
    back = tmp_path / "elsewhere/memory/log/0000000000000000.seg"
    assert b"forget-this" not in back.read_bytes()


def test_a_damaged_backup_is_not_restored(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream)
        stream.checkpoint()
        back_up(stream.path, tmp_path / "copy")
    segment = tmp_path / "copy/log/0000000000000000.seg"
    data = bytearray(segment.read_bytes())
    data[700] ^= 4
    segment.write_bytes(data)
    with pytest.raises(BrainError, match="does not verify") as refusal:
        restore(tmp_path / "copy", tmp_path / "elsewhere", "memory")
    assert refusal.value.code is ErrorCode.LEDGER_REFUSED
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_backup_goes_only_where_its_like_is(tmp_path: Path) -> None:
    for name in ("memory", "pfc"):
        with Stream.open(tmp_path, name) as stream:
            stream.event("note", b"x")
    back_up(tmp_path / "memory", tmp_path / "copy")
    with pytest.raises(BrainError, match="is a backup of brainos/memory/"):
        back_up(tmp_path / "pfc", tmp_path / "copy")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(BrainError, match="not empty and not a backup"):
        back_up(tmp_path / "pfc", tmp_path / "full")


def test_pruned_segments_leave_every_proof_good(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream, 30)
        kept = stream.checkpoint()
        fill(stream, 30)
        stream.put("late", b"live")
        fill(stream, 20)
        stream.checkpoint()
        assert prune_all(stream, tmp_path / "copy") == []
        back_up(stream.path, tmp_path / "copy")
        assert prune(stream, 3600.0, tmp_path / "copy") == []
        gone = prune_all(stream, tmp_path / "copy")
        assert len(gone) > 3
        assert 0 not in gone
        assert stream.view("late") == b"live"
        with pytest.raises(BrainError, match="pruned") as refusal:
            stream.read(gone[0])
        assert refusal.value.code is ErrorCode.UNAVAILABLE
        last = stream.event("note", b"still provable")
        assert verify_bundle(stream.prove(last), stream.public_key).sequence == last
    assert ".pruned" in suffixes(tmp_path / "memory")
    assert failed(tmp_path / "memory") == []
    assert verify(tmp_path / "memory", kept).verified
    with Stream.open(tmp_path, "memory") as stream:
        assert stream.view("late") == b"live"
        stream.event("note", b"opens")
    marker = Layout(tmp_path / "memory").segment(gone[0], ".pruned")
    marker.write_bytes(marker.read_bytes()[:-1])
    assert failed(tmp_path / "memory") != []


def test_records_are_what_can_still_be_read(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream, 40)
        stream.purge_events([38], "asked for")
        consolidate(stream)
        back_up(stream.path, tmp_path / "copy")
        gone = prune_all(stream, tmp_path / "copy")
        stream.event("note", b"newest")
        there = list(stream.records(0))
        readable = [number for number in range(stream.size) if is_readable(stream, number)]
        assert gone
        assert [record.sequence for record in there] == readable
        assert there == [stream.read(number) for number in readable]
        assert [record.sequence for record in there if record.erased] == [38]
        assert there[-1].body == b"newest"
        assert list(stream.records(37)) == there[readable.index(37) :]
        assert list(stream.records(stream.size)) == []


def is_readable(stream: Stream, number: int) -> bool:
    try:
        stream.read(number)
    except BrainError:
        return False
    return True


def test_records_end_where_the_stream_did_and_outlive_a_consolidation(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream)
        expected = [stream.read(number) for number in range(stream.size)]
        records = stream.records(0)
        first = next(records)
        assert consolidate(stream).compressed > 3
        stream.event("note", b"too late")
        assert [first, *records] == expected


def test_a_segment_that_vanished_without_a_record_is_missed(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream)
    segment = Layout(tmp_path / "memory").segments()[2]
    data = segment.path.read_bytes()
    segment.path.unlink()
    assert "chain-continuity" in failed(tmp_path / "memory")
    Layout(tmp_path / "memory").segment(segment.first, ".pruned").write_bytes(
        data[:92] + data[-91:]
    )
    assert failed(tmp_path / "memory") == ["chain-continuity"]
    assert "no record says it was pruned" in verify(tmp_path / "memory").problem


def test_figures_and_csv_for_auditors(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream, 30)
        stream.event("note", b"\xff\x00binary")
        stream.event("note", b"=1+1")
        stream.put("a", b"body")
        stream.move("a", "b")
        consolidate(stream)
    figures = statistics(tmp_path / "memory")
    assert figures.records == 35
    assert figures.by_kind == {
        "episode": 30, "note": 2, "stream.created": 1, "put": 1, "move": 1
    }  # fmt: skip
    assert 0 < figures.earliest_ns <= figures.latest_ns
    file = io.StringIO()
    assert write_csv(tmp_path / "memory", file) == 35
    rows = list(csv.reader(io.StringIO(file.getvalue())))
    assert tuple(rows[0]) == COLUMNS
    texts = [row[5] for row in rows[-4:]]
    assert texts == ["base64:/wBiaW5hcnk=", "'=1+1", "a: body", "a -> b"]
    assert rows[5][1].endswith("Z")


def test_heads_are_thinned_without_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainos_ros.ledger.writer.CHECKPOINT_BYTES", 4000)
    monkeypatch.setattr("brainos_ros.ledger.writer.CHECKPOINT_RECORDS", 1)
    with Stream.open(tmp_path, "memory", window_s=3600.0) as stream:
        for _ in range(60):
            stream.event("note", b"x")
            stream.sync()
            stream._sign_when_due()
        newest = stream.checkpoint()
    heads = (tmp_path / "memory/checkpoints").read_text()
    assert heads.endswith(newest.note + "\n")
    assert 2 <= heads.count("seal ") < 20
    assert failed(tmp_path / "memory") == []
    with Stream.open(tmp_path, "memory") as stream:
        assert stream.size == 61
