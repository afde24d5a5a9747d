"""Consolidate, prune, back up, restore, export, import, and figures for auditors."""

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import tarfile
import threading
from pathlib import Path

import pytest

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Stream, disk, housekeeping, verify
from brainos_ros.ledger.archive import compress
from brainos_ros.ledger.auditing import COLUMNS, statistics, write_csv
from brainos_ros.ledger.backup import back_up, restore
from brainos_ros.ledger.doctor import Doctor
from brainos_ros.ledger.exchange import export, import_archive
from brainos_ros.ledger.frames import decode_operation, encode
from brainos_ros.ledger.housekeeping import consolidate, prune
from brainos_ros.ledger.kinds import CREATED, IMPORT
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.notes import SigningKey
from brainos_ros.ledger.verifier import verify_bundle

SMALL = 2048


def fill(stream: Stream, count: int = 60) -> None:
    for number in range(count):
        stream.event("episode", {"n": number, "text": "as often as it takes " * 4})


def suffixes(path: Path) -> list[str]:
    return [segment.suffix for segment in Layout(path).segments()]


def failed(path: Path) -> list[str]:
    return [check.name for check in Doctor(path).examine().checks if check.verdict == "FAIL"]


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
    with pytest.raises(BrainError, match="the key is gone"):
        Stream.open(tmp_path / "elsewhere", "memory")
    with pytest.raises(BrainError, match="exists; move it away"):
        restore(tmp_path / "copy", tmp_path / "elsewhere", "memory")


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


def prune_all(stream: Stream, copy: Path) -> list[int]:
    """Everything that may be pruned, whatever its age."""
    if not copy.exists():
        (copy / "log").mkdir(parents=True)
        gone = prune(stream, -1.0, copy)
        shutil.rmtree(copy)
        return gone
    return prune(stream, -1.0, copy)


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


def test_an_export_is_the_same_bytes_however_the_stream_is_kept(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=SMALL) as stream:
        fill(stream)
        stream.put("a", b"kept")
        stream.checkpoint()
        head, digest = export(stream.path, tmp_path / "one.tar")
        assert head.size == stream.size
        consolidate(stream)
        assert export(stream.path, tmp_path / "two.tar")[1] == digest
    shutil.copytree(tmp_path / "memory", tmp_path / "other/memory")
    (tmp_path / "other/memory/key").unlink()
    export(tmp_path / "other/memory", tmp_path / "three.tar")
    contents = {(tmp_path / f"{n}.tar").read_bytes() for n in ("one", "two", "three")}
    assert len(contents) == 1
    assert hashlib.sha256(contents.pop()).hexdigest() == digest
    with tarfile.open(tmp_path / "one.tar") as archive:
        names = archive.getnames()
    assert names[:2] == ["memory/checkpoints", "memory/keys.json"]
    assert all(name.startswith("memory/log/") for name in names[2:])


def test_an_export_does_not_go_into_the_stream(tmp_path: Path) -> None:
    Stream.open(tmp_path, "memory").close()
    with pytest.raises(BrainError, match="lies inside the stream"):
        export(tmp_path / "memory", tmp_path / "memory/log/out.tar")


@pytest.fixture
def foreign(tmp_path: Path) -> tuple[Path, str]:
    """An export of another robot's stream, and its first key."""
    with Stream.open(tmp_path / "theirs", "memory", segment_bytes=SMALL) as stream:
        key = stream.public_key
        stream.put("maps/hall", b"a hall")
        stream.put("maps/yard", b"a yard")
        stream.put("notes/x", b"not asked for")
        stream.rotate_key()
        fill(stream)
        stream.delete("maps/yard")
        stream.checkpoint()
        export(stream.path, tmp_path / "theirs.tar")
    return tmp_path / "theirs.tar", key


def test_an_import_brings_origin_and_proof(foreign: tuple[Path, str], tmp_path: Path) -> None:
    archive, key = foreign
    with Stream.open(tmp_path, "memory") as stream:
        done = import_archive(stream, archive, key, "maps/")
        assert (done.put, done.unchanged) == (1, 0)
        (live,) = stream.live("imported/")
        assert live.path.startswith("imported/memory-")
        assert live.path.endswith("/maps/hall")
        assert stream.view(live.path) == b"a hall"
        record = stream.read(live.sequence)
        origin = decode_operation(IMPORT, record.payload).origin
        proven = verify_bundle(json.loads(origin), key)
        assert proven.origin == done.origin
        assert proven.payload
        assert proven.payload.endswith(b"a hall")
        again = import_archive(stream, archive, key, "maps/")
        assert (again.put, again.unchanged) == (0, 1)
    assert verify(tmp_path / "memory").verified


def test_an_import_that_does_not_verify_is_refused(
    foreign: tuple[Path, str], tmp_path: Path
) -> None:
    archive, key = foreign
    with Stream.open(tmp_path, "memory") as stream:
        with pytest.raises(BrainError, match="not by the key given") as refusal:
            import_archive(stream, archive, stream.public_key)
        assert refusal.value.code is ErrorCode.UNAUTHORISED
        data = bytearray(archive.read_bytes())
        data[data.index(b"a hall")] ^= 1
        (tmp_path / "changed.tar").write_bytes(data)
        with pytest.raises(BrainError, match="does not verify"):
            import_archive(stream, tmp_path / "changed.tar", key)
        (tmp_path / "text.tar").write_text("no archive")
        with pytest.raises(BrainError, match="is not an exported stream"):
            import_archive(stream, tmp_path / "text.tar", key)
        assert stream.size == 1


def forge(root: Path, victim: str, beyond: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive by somebody without the victim's key, under the name of the victim's stream."""
    layout, false = Layout(root / "memory"), SigningKey(victim.partition("+")[0])
    layout.path.mkdir(parents=True)
    layout.key.write_bytes(false.pack())
    with monkeypatch.context() as patch:
        if beyond:
            patch.setattr(Stream, "public_key", victim)
        stream = Stream.open(root, "memory", segment_bytes=SMALL)
    with stream:
        if beyond == "a second beginning":
            body = {"format": 1, "stream": "memory", "key": str(false.public)}
            stream._append(CREATED, encode(body))
        stream.put("maps/hall", b"a trap")
        fill(stream)
        stream.checkpoint()
        export(stream.path, root / "honest.tar")
    with tarfile.open(root / "honest.tar") as honest, tarfile.open(root / "forged.tar", "w") as out:
        for member in honest:
            content = honest.extractfile(member)
            assert content
            data = content.read()
            if member.name.endswith("keys.json"):
                data = json.dumps([{"key": victim}]).encode()
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return root / "forged.tar"


@pytest.mark.parametrize("beyond", ["", "the first record", "a second beginning"])
def test_an_import_believes_no_list_of_keys_but_the_log(
    tmp_path: Path, beyond: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stream.open(tmp_path / "victim", "memory") as victim:
        key = victim.public_key
    archive = forge(tmp_path / "forger", key, beyond, monkeypatch)
    with Stream.open(tmp_path, "memory") as stream:
        with pytest.raises(BrainError, match=r"not by the key given|does not verify") as refusal:
            import_archive(stream, archive, key)
        assert refusal.value.code in (ErrorCode.UNAUTHORISED, ErrorCode.LEDGER_REFUSED)
        assert stream.size == 1


def test_an_import_takes_the_history_of_keys_from_the_log(
    foreign: tuple[Path, str], tmp_path: Path
) -> None:
    archive, key = foreign
    with tarfile.open(archive) as whole, tarfile.open(tmp_path / "bare.tar", "w") as bare:
        for member in whole:
            if not member.name.endswith("keys.json"):
                bare.addfile(member, whole.extractfile(member))
    with Stream.open(tmp_path, "memory") as stream:
        assert import_archive(stream, tmp_path / "bare.tar", key).put == 2
        (live, _) = stream.live("imported/")
        origin = decode_operation(IMPORT, stream.read(live.sequence).payload).origin
        assert len(json.loads(origin)["keys"]) == 2
        assert verify_bundle(json.loads(origin), key).payload


def test_an_import_holds_nothing_that_its_head_does_not_cover(
    foreign: tuple[Path, str], tmp_path: Path
) -> None:
    root = tmp_path / "theirs"
    with Stream.open(root, "memory", window_s=3600.0, segment_bytes=SMALL) as stream:
        key = json.loads(Layout(stream.path).keys.read_bytes())[0]["key"]
        heads = Layout(stream.path).checkpoints.read_bytes()
        stream.put("maps/late", b"late")
    Layout(root / "memory").checkpoints.write_bytes(heads)
    with tarfile.open(tmp_path / "long.tar", "w") as archive:
        for path in [root / "memory/checkpoints", *sorted((root / "memory/log").iterdir())]:
            archive.add(path, f"memory/{path.relative_to(root / 'memory')}")
    with Stream.open(tmp_path, "memory") as stream:
        with pytest.raises(BrainError, match="that its head does not cover") as refusal:
            import_archive(stream, tmp_path / "long.tar", key)
        assert refusal.value.code is ErrorCode.LEDGER_REFUSED
        assert stream.size == 1


@pytest.mark.parametrize("name", ["memory/../../evil", "memory/log/evil.sh", "/etc/evil"])
def test_an_import_writes_nothing_an_export_would_not_hold(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        for member in ("memory/checkpoints", name):
            entry = tarfile.TarInfo(member)
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"evil"))
    stream = Stream.open(tmp_path, "memory")
    with stream, pytest.raises(BrainError, match="is not part of an export"):
        import_archive(stream, tmp_path / "evil.tar", stream.public_key)


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
