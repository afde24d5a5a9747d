"""A backup is replaced by a better one or not at all, and what it holds can go on."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filled import SMALL, failed, fill, prune_all

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Stream, backup, disk
from brainos_ros.ledger.backup import back_up, restore
from brainos_ros.ledger.housekeeping import prune
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.notes import Checkpoint


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    """A stream of several segments with a backup in `copy`."""
    stream = Stream.open(tmp_path, "memory", segment_bytes=SMALL)
    fill(stream)
    stream.checkpoint()
    back_up(stream.path, tmp_path / "copy")
    return stream


def content(path: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()
    }


def test_a_backup_of_a_damaged_stream_leaves_the_good_one(stream: Stream, tmp_path: Path) -> None:
    before = content(tmp_path / "copy")
    stream.close()
    segment = Layout(stream.path).segments()[2].path
    data = bytearray(segment.read_bytes())
    data[500] ^= 1
    segment.write_bytes(data)
    with pytest.raises(BrainError, match="does not verify"):
        back_up(stream.path, tmp_path / "copy")
    assert content(tmp_path / "copy") == before
    assert restore(tmp_path / "copy", tmp_path, "again").verified


def test_a_backup_can_begin_after_a_pruning(stream: Stream, tmp_path: Path) -> None:
    assert len(prune_all(stream, tmp_path / "copy")) > 3
    stream.checkpoint()
    for _ in range(2):
        assert back_up(stream.path, tmp_path / "second").report.root == stream.root.hex()
    stream.close()
    assert restore(tmp_path / "second", tmp_path, "again").verified
    assert failed(tmp_path / "again") == []


def test_a_backup_that_is_behind_a_pruning_catches_up(stream: Stream, tmp_path: Path) -> None:
    back_up(stream.path, tmp_path / "behind")
    kept = {each.name for each in (tmp_path / "behind/log").iterdir()}
    fill(stream)
    stream.checkpoint()
    back_up(stream.path, tmp_path / "copy")
    assert prune_all(stream, tmp_path / "copy")
    assert back_up(stream.path, tmp_path / "behind").report.root == stream.root.hex()
    names = {each.name for each in (tmp_path / "behind/log").iterdir()}
    assert len(kept - names) <= 1  # the one that the backup had only the beginning of
    assert any(name.endswith(".pruned") for name in names)
    assert restore(tmp_path / "behind", tmp_path, "again").verified
    assert failed(tmp_path / "again") == []


def test_a_purge_beside_a_backup_is_in_it(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = backup._heads

    def then_a_purge(source: Layout) -> tuple[bytes, Checkpoint | None]:
        monkeypatch.undo()
        read = heads(source)
        stream.purge_events([3], "asked for")
        return read

    monkeypatch.setattr(backup, "_heads", then_a_purge)
    assert back_up(stream.path, tmp_path / "copy").report.root == stream.root.hex()
    assert restore(tmp_path / "copy", tmp_path, "again").verified


def test_a_first_backup_that_was_interrupted_can_be_begun_again(
    stream: Stream, tmp_path: Path
) -> None:
    half = Layout(tmp_path / "new/backup.new").segment(0)
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    assert back_up(stream.path, tmp_path / "new").report.verified
    assert not (tmp_path / "new/backup.new").exists()


def test_a_verified_backup_counts_before_it_has_its_place(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(stream)
    stream.checkpoint()

    def fail(*_: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "link_file", _fail_after(disk.replace, fail, patch))
        with pytest.raises(OSError, match="Input/output"):
            back_up(stream.path, tmp_path / "copy")
    assert (tmp_path / "copy/backup.next").is_dir()
    assert restore(tmp_path / "copy", tmp_path, "again").root == stream.root.hex()
    assert prune(stream, 3600.0, tmp_path / "copy") == []
    done = back_up(stream.path, tmp_path / "copy")
    assert done.copied <= 1
    assert content(tmp_path / "copy").keys() >= {"backup.json", "checkpoints", "keys.json"}


def _fail_after(
    real: Callable[..., None], fail: Callable[..., Any], patch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """`disk.link_file` that fails once the verified backup has its name."""
    committed = []

    def replace(source: Path, target: Path) -> None:
        real(source, target)
        committed.extend([target] * (Path(target).name == "backup.next"))

    link_file = disk.link_file
    patch.setattr(disk, "replace", replace)
    return lambda *names: fail() if committed else link_file(*names)


def test_where_files_have_one_name_only_they_are_copied(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(disk, "link", refuse)
    stream.rotate_key()
    assert back_up(stream.path, tmp_path / "copy", with_key=True).unchanged > 3
    assert (tmp_path / "copy/key").stat().st_mode & 0o777 == 0o600
    assert restore(tmp_path / "copy", tmp_path, "again").verified


def test_a_file_that_the_backup_lost_is_copied_again(stream: Stream, tmp_path: Path) -> None:
    Layout(tmp_path / "copy").segments()[1].path.unlink()
    assert back_up(stream.path, tmp_path / "copy").report.verified


def test_the_key_in_a_backup_is_the_one_that_signs(stream: Stream, tmp_path: Path) -> None:
    back_up(stream.path, tmp_path / "copy", with_key=True)
    stale = (tmp_path / "copy/key").read_bytes()
    stream.rotate_key()
    back_up(stream.path, tmp_path / "copy")
    stream.close()
    restore(tmp_path / "copy", tmp_path / "elsewhere", "memory")
    with Stream.open(tmp_path / "elsewhere", "memory") as again:
        again.event("note", b"goes on")
    (tmp_path / "copy/key").write_bytes(stale)
    with pytest.raises(BrainError, match="'key' in the backup is not the one") as refusal:
        restore(tmp_path / "copy", tmp_path / "other", "memory")
    assert refusal.value.code is ErrorCode.LEDGER_REFUSED
    assert not (tmp_path / "other/memory").exists()
    (tmp_path / "copy/key").unlink()
    assert restore(tmp_path / "copy", tmp_path / "other", "memory").verified


def test_a_backup_amid_a_rotation_goes_on(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes, offset: int) -> int:
        if fd == stream._checkpoints_fd:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.pwrite(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "pwrite", full)
        with pytest.raises(BrainError, match="the head was not kept"):
            stream.rotate_key()
    back_up(stream.path, tmp_path / "before", with_key=True)
    stream.event("note", b"x")
    stream.checkpoint()
    back_up(stream.path, tmp_path / "after", with_key=True)
    for name in ("before", "after"):
        restore(tmp_path / name, tmp_path / "elsewhere" / name, "memory")
        with Stream.open(tmp_path / "elsewhere" / name, "memory") as again:
            again.event("note", b"goes on")
        assert failed(again.path) == []
    stream.close()


@pytest.mark.parametrize("name", ["../escaped", "a/b", "", ".."])
def test_a_restored_stream_lies_where_streams_lie(
    stream: Stream, tmp_path: Path, name: str
) -> None:
    with pytest.raises(BrainError, match="name") as refusal:
        restore(tmp_path / "copy", tmp_path / "ledger", name)
    assert refusal.value.code is ErrorCode.INVALID_ARGUMENT
    assert not (tmp_path / "escaped").exists()
