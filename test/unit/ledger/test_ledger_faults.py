"""Every system call that changes a disk made to fail in turn, or to be the last thing done.

The scenario runs once to count its calls; then once for each call and each fault. Whatever fails,
the stream opens again with every record it accepted, or is frozen and says why.
"""

import errno
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

from brainos_ros.errors import BrainError
from brainos_ros.ledger import Frozen, Stream, disk, verify
from brainos_ros.ledger.backup import back_up, restore
from brainos_ros.ledger.doctor import Doctor
from brainos_ros.ledger.exchange import export, export_csv
from brainos_ros.ledger.housekeeping import consolidate, prune
from brainos_ros.ledger.layout import Layout

CALLS = ("open_file", "close", "pwrite", "fdatasync", "fsync", "ftruncate", "allocate", "replace",
         "unlink", "mkdir", "link", "remove_tree")  # fmt: skip
REAL = {name: getattr(disk, name) for name in CALLS}
KILL = -1
SMALL = 700


class Faults:
    """Counts the calls of `disk`, and makes the one with number `at` fail with `error`."""

    def __init__(self, at: int, error: int) -> None:
        self.count, self._at, self._error = 0, at, error
        self.name = ""

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.count += 1
            if self.count != self._at:
                return real(*arguments)
            self.name = name
            if self._error == KILL:
                if name == "pwrite":
                    fd, data, offset = arguments
                    real(fd, data[: len(data) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
            if name == "pwrite" and self._error == errno.ENOSPC and len(arguments[1]) > 1:
                fd, data, offset = arguments
                real(fd, data[: len(data) // 2], offset)
            if name == "close":
                real(*arguments)
            raise OSError(self._error, os.strerror(self._error))

        return call


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], Faults]]:
    def install(at: int, error: int) -> Faults:
        injected = Faults(at, error)
        for name in CALLS:
            monkeypatch.setattr(disk, name, injected.wrap(name, REAL[name]))
        return injected

    yield install
    monkeypatch.undo()


class Log:
    """What the scenario was told is accepted, also if its process is killed: one line each."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def accepted(self, sequence: int, body: bytes) -> None:
        os.write(self._fd, b"%d %s\n" % (sequence, body.hex().encode()))

    def erased(self, sequence: int) -> None:
        os.write(self._fd, b"%d erased\n" % sequence)

    def close(self) -> None:
        os.close(self._fd)


def quietly(act: Callable[..., Any], *arguments: Any) -> bool:
    """Whether it was done; a refusal is an answer, not a failure of the test."""
    try:
        act(*arguments)
    except (BrainError, OSError):
        return False
    return True


def opened(root: Path) -> Stream | None:
    with suppress(BrainError):
        return Stream.open(root, "memory", window_s=3600.0, segment_bytes=SMALL)
    return None


def write_and_seal(root: Path, log: Log) -> None:
    """Records of different sizes over several segments, synced in between, closed."""
    stream = opened(root)
    if stream is None:
        return
    for number in range(8):
        body = b"%d" % number * (20 * number)
        with suppress(BrainError):
            log.accepted(stream.event("note", body), body)
        if number % 3 == 2:
            quietly(stream.sync)
    quietly(stream.close)


def purge(root: Path, log: Log) -> None:
    """Erase a record of the newest segment and one of a compressed one."""
    stream = opened(root)
    if stream is None:
        return
    with suppress(BrainError):
        stream.purge_events([1], "asked for")
        log.erased(1)
    with suppress(BrainError):
        stream.purge_events([7], "asked for")
        log.erased(7)
    quietly(stream.close)


def rotate(root: Path, log: Log) -> None:
    stream = opened(root)
    if stream is None:
        return
    quietly(stream.rotate_key)
    with suppress(BrainError):
        log.accepted(stream.event("note", b"after"), b"after")
    quietly(stream.close)


def compress(root: Path, log: Log) -> None:
    stream = opened(root)
    if stream is None:
        return
    quietly(consolidate, stream)
    quietly(stream.close)


def just_open(root: Path, log: Log) -> None:
    """Finish what was interrupted."""
    stream = opened(root)
    if stream is not None:
        quietly(stream.close)


def export_and_back_up(root: Path, log: Log) -> None:
    path = root / "memory"
    if quietly(export, path, root / "out.tar"):
        assert (root / "out.tar").stat().st_size > 0
    if quietly(export_csv, path, root / "out.csv"):
        assert (root / "out.csv").read_bytes().endswith(b"\r\n")
    quietly(back_up, path, root / "copy")


def back_up_again(root: Path, log: Log) -> None:
    quietly(back_up, root / "memory", root / "copy")


SCENARIOS = {
    "write and seal": (write_and_seal, ""),
    "purge": (purge, "compressed"),
    "rotate the key": (rotate, "compressed"),
    "consolidate": (compress, "compressed"),
    "export and back up": (export_and_back_up, "compressed"),
    "back up again": (back_up_again, "backed up"),
    "finish a purge": (just_open, "purging"),
    "finish a rotation": (just_open, "rotating"),
}


class Killed(BaseException):
    """Ends what a stream is doing as a kill would."""


def kill_before_the_sync(stream: Stream, act: Callable[[Stream], object], number: int = 1) -> None:
    """`act`, killed when its record is accepted and not durable, or at a later `fdatasync`."""
    left = [number]

    def kill(fd: int) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise Killed
        os.fdatasync(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "fdatasync", kill)
        with pytest.raises(Killed):
            act(stream)
        stream._release()


@pytest.fixture(scope="module")
def prepared(memory_root: Path) -> dict[str, Path | None]:
    """What the scenarios find: nothing, a compressed segment, something interrupted."""
    root = prepare(memory_root / "prepared")
    purging, rotating = memory_root / "purging", memory_root / "rotating"
    for place in (purging, rotating):
        shutil.copytree(root, place)
    stream = opened(purging)
    assert stream
    kill_before_the_sync(stream, lambda stream: stream.purge_events([1, 7], "asked for"))
    log = Log(purging / "log")
    log.erased(1)
    log.erased(7)
    log.close()
    stream = opened(rotating)
    assert stream
    kill_before_the_sync(stream, lambda stream: stream.rotate_key())
    old = memory_root / "backed up"
    shutil.copytree(root, old)
    grow_over_a_backup(old)
    return {"": None, "compressed": root, "purging": purging, "rotating": rotating,
            "backed up": old}  # fmt: skip


def grow_over_a_backup(root: Path) -> None:
    """A backup with the key, begun after a pruning; then what changes the rest of its files."""
    (root / "log").unlink()
    back_up(root / "memory", root / "first")
    stream = opened(root)
    assert stream
    with stream:
        assert prune(stream, -1.0, root / "first")
        shutil.rmtree(root / "first")
        back_up(stream.path, root / "copy", with_key=True)
        stream.rotate_key()
        stream.purge_events([stream.event("note", b"x")], "asked for")
        for number in range(3):
            stream.event("note", b"%d" % number * 200)


def prepare(root: Path) -> Path:
    root.mkdir()
    log = Log(root / "log")
    write_and_seal(root, log)
    stream = opened(root)
    assert stream
    consolidate(stream)
    stream.close()
    log.close()
    return root


def fresh(place: Path, prepared: Path | None) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    if prepared:
        shutil.copytree(prepared, place)
    else:
        place.mkdir()
    return place


def check(root: Path, what: str) -> None:
    """Every accepted record is there; a stream that is frozen says why and can be opened again."""
    accepted: dict[int, str] = {}
    for line in (root / "log").read_text().splitlines():
        sequence, content = line.split(" ", 1) if " " in line else (line, "")
        accepted[int(sequence)] = content
    if Layout(root / "memory").freeze_reason():
        with pytest.raises(Frozen, match="run 'brainos ledger doctor --repair'"):
            Stream.open(root, "memory")
        diagnosis = Doctor(root / "memory").repair()
        failed = [check for check in diagnosis.checks if check.verdict == "FAIL"]
        assert diagnosis.state == "READY", (what, failed)
    stream = Stream.open(root, "memory", segment_bytes=SMALL)
    with stream:
        for sequence, content in accepted.items():
            record = stream.read(sequence)
            if content == "erased":
                assert record.erased, what
            else:
                gone = record.erased and sequence in (1, 7)
                assert gone or record.body.hex() == content, (what, sequence)
        stream.event("note", b"and goes on")
    report = verify(root / "memory")
    assert report.verified, (what, report)
    left = [each for name in ("*.new", "erasing", "key.next")
            for each in (root / "memory").rglob(name)]  # fmt: skip
    assert left == [], what


def check_backup(root: Path, what: str) -> None:
    """The old backup or the new one can be restored; it can be continued."""
    assert restore(root / "copy", root, "again").verified, what
    assert back_up(root / "memory", root / "copy").report.verified, what
    names = {each.name for each in (root / "copy").iterdir()}
    assert not names & {"backup.new", "backup.next"}, what


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_any_call_may_fail(
    memory_path: Path,
    prepared: dict[str, Path | None],
    faults: Callable[[int, int], Faults],
    name: str,
    error: int,
) -> None:
    scenario, needs = SCENARIOS[name]
    place, at = memory_path / "root", 0
    while True:
        at += 1
        root = fresh(place, prepared[needs])
        log = Log(root / "log")
        injected = faults(at, error)
        scenario(root, log)
        log.close()
        faults(0, 0)
        if injected.count < at:
            break
        what = f"{name}: {injected.name}, call {at}, {os.strerror(error)}"
        (check_backup if needs == "backed up" else check)(root, what)
    assert at > 20


@pytest.mark.parametrize("name", SCENARIOS)
def test_any_call_may_be_the_last(
    memory_path: Path,
    prepared: dict[str, Path | None],
    faults: Callable[[int, int], Faults],
    name: str,
) -> None:
    scenario, needs = SCENARIOS[name]
    place, at, ended = memory_path / "root", 0, False
    while not ended:
        at += 1
        root = fresh(place, prepared[needs])
        child = os.fork()
        if child == 0:
            faults(at, KILL)
            scenario(root, Log(root / "log"))
            os._exit(0)
        ended = os.waitpid(child, 0)[1] == 0
        if needs == "backed up":
            check_backup(root, f"{name}: killed at call {at}")
        elif (root / "memory/lock").exists():
            check(root, f"{name}: killed at call {at}")
        if name == "export and back up":
            assert back_up(root / "memory", root / "copy").report.verified
    assert at > 20


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The calls of `disk`, each with the name of the file that it is about."""
    made: list[tuple[str, str]] = []

    def recorder(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            target = arguments[1] if name == "replace" else arguments[0]
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target
            made.append((name, Path(path).name))
            return real(*arguments)

        return call

    for name in CALLS:
        monkeypatch.setattr(disk, name, recorder(name, getattr(disk, name)))
    return made


def test_opening_acts_on_nothing_that_is_not_durable(
    memory_path: Path, calls: list[tuple[str, str]]
) -> None:
    """A purge that erased, a key that took over and a second seal outlive a power cut."""
    acts: list[tuple[Callable[[Stream], object], int]] = [
        (lambda stream: stream.purge_events([1], "asked for"), 1),
        (lambda stream: stream.rotate_key(), 1),
        (lambda stream: stream.rotate_key(), 2),
        (lambda stream: stream.event("note", b"sealed", durable=True), 1),
    ]
    for number, (act, syncs) in enumerate(acts):
        root = memory_path / str(number)
        with Stream.open(root, "memory", window_s=3600.0, segment_bytes=SMALL) as stream:
            for _ in range(20):
                stream.event("note", b"x" * 30)
        stream = Stream.open(root, "memory", window_s=3600.0, segment_bytes=SMALL)
        kill_before_the_sync(stream, act, syncs)
        newest = Layout(stream.path).segments()[-1].path.name
        calls.clear()
        Stream.open(root, "memory", window_s=3600.0, segment_bytes=SMALL).close()
        needed = [("fdatasync", newest), ("fdatasync", "checkpoints"), ("fsync", "log")]
        synced = max(calls.index(each) for each in needed)
        changed = [name for name, file in calls[:synced] if name in ("pwrite", "replace", "unlink")
                   and (".seg" in file or file in ("key", "key.next", "erasing"))]  # fmt: skip
        assert changed == [], number
        assert verify(stream.path).verified


def test_a_log_that_cannot_be_made_durable_again_stops_the_stream(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stream.open(memory_path, "memory") as stream:
        stream.event("note", b"x")

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "fdatasync", fail)
        with pytest.raises(Frozen, match="could not be made durable"):
            Stream.open(memory_path, "memory")
    with pytest.raises(Frozen, match="FROZEN_RECOVERABLE"):
        Stream.open(memory_path, "memory")


def test_a_stream_whose_disk_syncs_nothing_any_more_stays_stopped(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream.open(memory_path, "memory", window_s=3600.0)
    stream.event("note", b"x")

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "fdatasync", fail)
        patch.setattr(disk, "fsync", fail)
        with pytest.raises(Frozen, match="fdatasync failed"):
            stream.sync()
        stream._release()
    with pytest.raises(Frozen, match="FROZEN_RECOVERABLE: fdatasync failed"):
        Stream.open(memory_path, "memory")
    assert Doctor(stream.path).repair().state == "READY"


@pytest.fixture
def half_rotated(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Stream, str]]:
    """A stream whose new key is recorded, while no head that says so finds room; its first key."""
    stream = Stream.open(memory_path, "memory", window_s=3600.0, segment_bytes=SMALL)
    first = stream.public_key

    def write(fd: int, data: bytes, offset: int) -> int:
        if fd == stream._checkpoints_fd:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.pwrite(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "pwrite", write)
        with pytest.raises(BrainError, match="the head was not kept"):
            stream.rotate_key()
        for _ in range(30):
            stream.event("note", b"x" * 30)
    assert len(Layout(stream.path).segments()) > 2
    return stream, first


def test_a_rotation_is_finished_by_an_opening_after_the_segment_ended(
    half_rotated: tuple[Stream, str], memory_path: Path
) -> None:
    stream, first = half_rotated
    second = stream.public_key
    stream._release()
    with Stream.open(memory_path, "memory", segment_bytes=SMALL) as stream:
        assert stream.public_key == second != first
        stream.event("note", b"under the new key")
    assert not Layout(stream.path).next_key.exists()
    diagnosis = Doctor(stream.path).examine()
    assert [check for check in diagnosis.checks if check.verdict == "FAIL"] == []


def test_a_rotation_is_finished_by_the_next_one(
    half_rotated: tuple[Stream, str], memory_path: Path
) -> None:
    stream, first = half_rotated
    second = stream.public_key
    assert stream.rotate_key() == second
    third = stream.rotate_key()
    stream.close()
    assert len({first, second, third}) == 3
    with Stream.open(memory_path, "memory", segment_bytes=SMALL) as stream:
        assert stream.public_key == third
    assert verify(stream.path).verified


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


def test_an_index_that_cannot_be_kept_or_removed_does_not_end_the_syncing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stream.open(tmp_path, "memory", window_s=0.001) as stream:
        stream.put("a", b"1")
        stream.live()
        wait_for(lambda: not stream._paths._changed)
        with monkeypatch.context() as broken:
            broken.setattr(stream._paths._paths, "commit", failing(sqlite3.OperationalError("io")))
            broken.setattr(disk, "unlink", failing(OSError(errno.EIO, "io")))
            stream.put("b", b"2")
            wait_for(lambda: stream._paths._paths is None)
        stream.put("c", b"3")
        wait_for(lambda: stream.durable_size == stream.size)
        assert [each.path for each in stream.live()] == ["a", "b", "c"]


def test_what_ends_the_syncing_stops_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream.open(tmp_path, "memory", window_s=0.001)
    monkeypatch.setattr(stream, "sync", failing(ZeroDivisionError("wrong")))
    with suppress(BrainError):  # it may have stopped already
        stream.put("a", b"1")
    wait_for(lambda: not stream._flusher.is_alive())
    with pytest.raises(BrainError, match="the thread that syncs failed: ZeroDivisionError"):
        stream.put("b", b"2")
    stream.close()
