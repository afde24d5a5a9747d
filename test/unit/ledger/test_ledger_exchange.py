"""Export of a stream, and import of another's with its proof."""

import errno
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from filled import SMALL, fill

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Stream, disk, verify
from brainos_ros.ledger.exchange import export, export_csv, import_archive
from brainos_ros.ledger.frames import Damage, decode_operation, encode
from brainos_ros.ledger.housekeeping import consolidate
from brainos_ros.ledger.kinds import CREATED, IMPORT, KEY_ROTATED, PRUNED, PURGE
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.notes import SigningKey
from brainos_ros.ledger.verifier import verify_bundle


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


@pytest.mark.parametrize("write", [export, export_csv])
@pytest.mark.parametrize("place", ["log/out.tar", "checkpoints", "key"])
def test_an_export_does_not_go_into_the_stream(
    tmp_path: Path, write: Callable[[Path, Path], object], place: str
) -> None:
    Stream.open(tmp_path, "memory").close()
    with pytest.raises(BrainError, match="lies inside the stream"):
        write(tmp_path / "memory", tmp_path / "memory" / place)
    assert verify(tmp_path / "memory").verified


@pytest.mark.parametrize("write", [export, export_csv])
def test_an_export_through_a_link_replaces_the_file_and_not_the_link(
    tmp_path: Path, write: Callable[[Path, Path], object]
) -> None:
    Stream.open(tmp_path, "memory").close()
    link, file = tmp_path / "link", tmp_path / "file"
    file.write_text("old")
    link.symlink_to(file)
    write(tmp_path / "memory", link)
    assert link.is_symlink()
    assert file.read_bytes() != b"old"


@pytest.mark.parametrize("write", [export, export_csv])
def test_an_export_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, Path], object]
) -> None:
    Stream.open(tmp_path, "memory").close()
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path / "out")
    for target in (Path(), tmp_path / "out", tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(BrainError, match="is no regular file; name a file") as refusal:
            write(tmp_path / "memory", target)
        assert refusal.value.code is ErrorCode.INVALID_ARGUMENT
    assert {each.name for each in tmp_path.iterdir()} == {"memory", "out", "pipe"}


def test_a_table_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory") as stream:
        stream.event("note", "ä\n".encode())
    assert export_csv(stream.path, tmp_path / "out.csv") == 2
    table = (tmp_path / "out.csv").read_bytes()
    assert table.endswith('"ä\n"\r\n'.encode())
    segment = Layout(stream.path).segments()[0].path
    segment.rename(segment.with_name(f"{0:016d}.seg.zst"))
    with pytest.raises(Damage):
        export_csv(stream.path, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == table
    assert not (tmp_path / "out.csv.new").exists()


def test_an_unfinished_rotation_does_not_change_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stream.open(tmp_path, "memory", window_s=3600.0) as stream:
        stream.event("note", b"x")
        stream.checkpoint()
        before = export(stream.path, tmp_path / "before.tar")

        def full(fd: int, data: bytes, offset: int) -> int:
            if fd == stream._checkpoints_fd:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return os.pwrite(fd, data, offset)

        with monkeypatch.context() as patch:
            patch.setattr(disk, "pwrite", full)
            with pytest.raises(BrainError, match="the head was not kept"):
                stream.rotate_key()
        assert export(stream.path, tmp_path / "between.tar") == before
        stream.rotate_key()
        assert export(stream.path, tmp_path / "after.tar") != before
    with tarfile.open(tmp_path / "after.tar") as archive:
        keys = archive.extractfile("memory/keys.json")
        assert keys
        assert len(json.load(keys)) == 2


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


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (PURGE, b'{"sequences":["a",1],"reason":"x"}'),
        (PURGE, b'{"sequences":"ab","reason":"x"}'),
        (PURGE, b"[" * 100_000),
        (KEY_ROTATED, b'{"key":5,"signature":"x"}'),
        (PRUNED, b'{"segments":[[1]]}'),
        (PRUNED, b"5"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_an_archive_with_what_cannot_be_read_is_refused(
    tmp_path: Path, kind: int, payload: bytes
) -> None:
    with Stream.open(tmp_path / "theirs", "memory") as stream:
        key = stream.public_key
        stream._append(kind, payload)
    export(stream.path, tmp_path / "out.tar")
    assert not verify(stream.path).verified
    with Stream.open(tmp_path, "ours") as ours:
        with pytest.raises(BrainError, match="does not verify: record 1 cannot be read"):
            import_archive(ours, tmp_path / "out.tar", key)
        assert ours.size == 1


@pytest.mark.parametrize(
    ("path", "size", "words"),
    [
        ("b/" * 511 + "xx", 5, "is not allowed; give a relative path"),
        ("b/map", 2_000_000, "the body of 2000000 bytes for .* a record may have 4194304; give a"),
    ],
    ids=["path", "body"],
)
def test_an_import_that_does_not_fit_puts_nothing(
    tmp_path: Path, path: str, size: int, words: str
) -> None:
    with Stream.open(tmp_path / "theirs", "memory") as stream:
        key = stream.public_key
        stream.put("a/small", b"hello")
        stream.put(path, bytes(size))
    export(stream.path, tmp_path / "out.tar")
    with Stream.open(tmp_path, "ours") as ours:
        with pytest.raises(BrainError, match=words):
            import_archive(ours, tmp_path / "out.tar", key)
        assert ours.size == 1
        assert import_archive(ours, tmp_path / "out.tar", key, "a/").put == 1


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
