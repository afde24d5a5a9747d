"""put, move, delete and purge against a plain dictionary."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Stream, disk, log, verify
from brainos_ros.ledger.frames import Damage
from brainos_ros.ledger.layout import SegmentFile
from brainos_ros.ledger.verifier import verify_bundle

PATHS = st.sampled_from(["a", "b", "c/d", "c/e", "é"])
MEMORY = Path("/dev/shm")
BODIES = st.sampled_from([b"", b"one", b"two", b"x" * 400])


class Operations(RuleBasedStateMachine):
    """Every operation does to the stream what it does to a dictionary, also across crashes."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(
            tempfile.mkdtemp(prefix="ledger-", dir=MEMORY if MEMORY.is_dir() else None)
        )
        self.stream = Stream.open(self.root, "memory", segment_bytes=2048)
        self.model: dict[str, bytes] = {}
        self.written: dict[int, bytes | None] = {}
        self.ended: set[str] = set()

    def teardown(self) -> None:
        self.stream.close()
        report = verify(self.stream.path)
        assert report.verified, report.problem
        shutil.rmtree(self.root)

    @rule(path=PATHS, body=BODIES)
    def put(self, path: str, body: bytes) -> None:
        size = self.stream.size
        sequence = self.stream.put(path, body)
        if self.model.get(path) == body:
            assert self.stream.size == size
        else:
            assert sequence == self.stream.size - 1 == size
            self.written[sequence] = body
        assert self.stream.read(sequence).body == body
        self.model[path] = body

    @rule(path=PATHS, to=PATHS)
    def move(self, path: str, to: str) -> None:
        size = self.stream.size
        if path in self.model and to not in self.model:
            self.stream.move(path, to)
            self.model[to] = self.model.pop(path)
        else:
            with pytest.raises(BrainError) as refusal:
                self.stream.move(path, to)
            missing = path not in self.model
            expected = ErrorCode.NOT_FOUND if missing else ErrorCode.ALREADY_EXISTS
            assert refusal.value.code is expected
            assert self.stream.size == size

    @rule(path=PATHS)
    def delete(self, path: str) -> None:
        if path in self.model:
            self.stream.delete(path)
            del self.model[path]
            self.ended.add(path)
        else:
            with pytest.raises(BrainError, match="nothing is live"):
                self.stream.delete(path)

    @rule(path=PATHS)
    def purge(self, path: str) -> None:
        bodies_elsewhere = {body for other, body in self.model.items() if other != path}
        if path not in self.model and path not in self.ended:
            with pytest.raises(BrainError, match="nothing was ever put"):
                self.stream.purge(path, "asked for")
            return
        purge = self.stream.purge(path, "asked for")
        self.ended.discard(path)
        self.model.pop(path, None)
        for sequence in json.loads(self.stream.read(purge).body)["sequences"]:
            record = self.stream.read(sequence)
            assert record.erased
            assert record.payload == b""
            self.written.pop(sequence, None)
        assert bodies_elsewhere == set(self.model.values())

    @rule(body=BODIES)
    def event(self, body: bytes) -> None:
        self.written[self.stream.event("note", body)] = body

    @rule()
    def close_and_open(self) -> None:
        self.stream.close()
        self.stream = Stream.open(self.root, "memory", segment_bytes=2048)

    @rule()
    def crash_and_open(self) -> None:
        self.stream._release()
        self.stream = Stream.open(self.root, "memory", segment_bytes=2048)

    @rule()
    def lose_the_index(self) -> None:
        self.stream.close()
        (self.stream.path / "paths.sqlite").unlink(missing_ok=True)
        self.stream = Stream.open(self.root, "memory", segment_bytes=2048)

    @rule(data=st.data())
    def prove(self, data: st.DataObject) -> None:
        sequence = data.draw(st.integers(0, self.stream.size - 1))
        proven = verify_bundle(self.stream.prove(sequence), self.stream.public_key)
        assert (proven.sequence, proven.size) == (sequence, self.stream.size)

    @invariant()
    def lives_what_the_dictionary_has(self) -> None:
        assert [live.path for live in self.stream.live()] == sorted(self.model)
        for path, body in self.model.items():
            assert self.stream.view(path) == body

    @invariant()
    def every_record_is_as_written(self) -> None:
        for sequence, body in self.written.items():
            assert self.stream.read(sequence).body == body


Operations.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestOperations = Operations.TestCase


def test_a_put_is_repeated_only_where_it_would_change_nothing(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory") as stream:
        first = stream.put("a", b"1")
        assert stream.put("a", b"1") == first
        second = stream.put("a", b"2")
        third = stream.put("a", b"1")
        assert first < second < third
        stream.delete("a")
        assert stream.put("a", b"1") > third


def test_mapping_bodies_are_canonical(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory") as stream:
        first = stream.put("a", {"x": 1, "b": 2})
        assert stream.put("a", {"b": 2, "x": 1}) == first
        assert stream.view("a") == b'{"b":2,"x":1}'


def test_a_purge_follows_what_was_moved(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory") as stream:
        stream.put("people/alice", b"secret 1")
        stream.put("people/alice", b"secret 2")
        stream.move("people/alice", "people/gone")
        stream.put("people/alice", b"another alice")
        stream.delete("people/gone")
        stream.purge("people/gone", "erasure request 7")
        assert [live.path for live in stream.live()] == ["people/alice"]
    content = b"".join(p.read_bytes() for p in (tmp_path / "memory").rglob("*") if p.is_file())
    assert b"secret" not in content
    assert b"people/gone" not in content
    assert b"another alice" in content
    assert verify(tmp_path / "memory").verified


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_purge_needs_a_reason(tmp_path: Path, reason: str) -> None:
    with Stream.open(tmp_path, "memory") as stream:
        stream.put("a", b"1")
        with pytest.raises(BrainError, match="say why"):
            stream.purge("a", reason)
        assert stream.view("a") == b"1"


def test_a_purge_with_what_is_no_text_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory") as stream:
        number = stream.event("note", b"x")
        with pytest.raises(BrainError, match=r"body cannot be stored as JSON: .* of Unicode"):
            stream.purge_events([number], "von M\udcfcller")
        with pytest.raises(BrainError, match="is not allowed"):
            stream.purge("\udcff", "asked for")
        with pytest.raises(BrainError, match="is not allowed"):
            stream.view("\udcff")
        with pytest.raises(BrainError, match="body cannot be stored"):
            stream.event("note", {"a": "\udcff"})
        assert not (stream.path / "erasing").exists()
        assert stream.size == 2


def test_what_the_stream_stands_on_cannot_be_purged(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory") as stream:
        with pytest.raises(BrainError, match="sequence 0 is no event"):
            stream.purge_events([0], "no")
        event = stream.event("episode", {"seen": "a face"})
        stream.purge_events([event], "erasure request 8")
        assert stream.read(event).erased
        proven = verify_bundle(stream.prove(event), stream.public_key)
        assert proven.payload is None


def test_a_purge_reaches_into_sealed_segments(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=2048) as stream:
        number = stream.event("episode", b"find-me-and-forget-me")
        before = stream.prove(number)
        for _ in range(50):
            stream.event("note", b"z" * 100)
        stream.purge_events([number], "because")
        assert len(list((tmp_path / "memory/log").iterdir())) > 2
        assert verify_bundle(before, stream.public_key).payload == b"find-me-and-forget-me"
        assert verify_bundle(stream.prove(number), stream.public_key).payload is None
    content = b"".join(p.read_bytes() for p in (tmp_path / "memory").rglob("*") if p.is_file())
    assert b"find-me-and-forget-me" not in content
    assert verify(tmp_path / "memory").verified


@pytest.fixture
def purged_without_a_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Stream, pytest.MonkeyPatch]]:
    """A stream in which the purge of `a` is accepted, while no head that says so finds room."""
    with Stream.open(tmp_path, "memory", window_s=3600.0) as stream:
        stream.put("a", b"1", durable=True)

        def write(fd: int, data: bytes, offset: int) -> int:
            if fd == stream._checkpoints_fd:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return os.pwrite(fd, data, offset)

        with monkeypatch.context() as full:
            full.setattr(disk, "pwrite", write)
            with pytest.raises(BrainError, match=r"not kept.*purge 2 stands") as refusal:
                stream.purge("a", "asked for")
            assert refusal.value.code is ErrorCode.LEDGER_REFUSED
            with pytest.raises(BrainError, match="purge 2 stands"):
                stream.put("a", b"1", durable=True)
            yield stream, full


def test_a_put_after_a_purge_that_stands_is_no_repetition(
    purged_without_a_head: tuple[Stream, pytest.MonkeyPatch],
) -> None:
    stream, full = purged_without_a_head
    full.undo()
    assert stream.put("a", b"1", durable=True) == 3
    assert stream.view("a") == b"1"
    assert stream.read(1).erased
    stream.close()
    with Stream.open(stream.path.parent, "memory") as stream:
        assert stream.view("a") == b"1"


def test_a_purge_that_stands_is_finished_by_whatever_asks_for_a_path(
    purged_without_a_head: tuple[Stream, pytest.MonkeyPatch],
) -> None:
    stream, full = purged_without_a_head
    full.undo()
    with stream.reshaping, ThreadPoolExecutor() as other:
        with pytest.raises(BrainError, match="compressed or pruned; purge 2 stands") as refusal:
            other.submit(stream.view, "a").result()
        assert refusal.value.code is ErrorCode.UNAVAILABLE
        assert stream.live() == []
    event = stream.event("note", b"x")
    stream.purge_events([event], "asked for")
    assert [stream.read(each).erased for each in (1, event)] == [True, True]
    assert verify(stream.path).verified


def test_a_purge_that_stands_is_finished_by_the_next_opening(
    purged_without_a_head: tuple[Stream, pytest.MonkeyPatch],
) -> None:
    stream, full = purged_without_a_head
    full.undo()
    stream.close()
    with Stream.open(stream.path.parent, "memory") as stream:
        assert stream.live() == []
        assert stream.read(1).erased


def test_more_records_than_a_purge_can_name_are_several_purges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainos_ros.ledger.keeper.PURGED_AT_ONCE", 4)
    with Stream.open(tmp_path, "memory", segment_bytes=2048) as stream:
        for number in range(10):
            stream.put("pose", b"secret %d" % number)
        last = stream.purge("pose", "asked for")
        named = [json.loads(stream.read(each).body)["sequences"] for each in (11, 12, last)]
        assert named == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
        assert all(stream.read(number).erased for number in range(1, 11))
        assert stream.live() == []
    assert verify(stream.path).verified


@pytest.mark.parametrize("reason", ["x" * (4 << 20), "\udcff"], ids=["long", "no text"])
def test_a_purge_whose_reason_cannot_be_kept_announces_nothing(tmp_path: Path, reason: str) -> None:
    with Stream.open(tmp_path, "memory") as stream:
        stream.put("a", b"1")
        with pytest.raises((BrainError, UnicodeEncodeError)):
            stream.purge("a", reason)
        assert not (stream.path / "erasing").exists()
        assert stream.view("a") == b"1"


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "many"), Damage("rot")])
def test_an_index_whose_building_failed_half_way_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=2048) as stream:
        stream.put("early", b"1")
        for _ in range(50):
            stream.event("note", b"z" * 100)
        stream.put("late", b"2")
        with stream._paths_lock:
            stream._paths.drop()
        real, left = log.load, [2]

        def load(segment: SegmentFile) -> bytes:
            left[0] -= 1
            if not left[0]:
                raise error
            return real(segment)

        monkeypatch.setattr(log, "load", load)
        with pytest.raises(type(error)):
            stream.view("late")
        size = stream.size
        assert stream.view("late") == b"2"
        assert (stream.put("late", b"2"), stream.size) == (size - 1, size)
