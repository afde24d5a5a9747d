"""What is wrong with a stream is found, told apart, and stops the writer."""

import io
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from brainos_ros.errors import BrainError
from brainos_ros.ledger import Frozen, Stream, frames, housekeeping, kinds, verify
from brainos_ros.ledger.auditing import statistics, view, write_csv
from brainos_ros.ledger.backup import back_up
from brainos_ros.ledger.doctor import Doctor, state
from brainos_ros.ledger.exchange import export
from brainos_ros.ledger.frames import Damage
from brainos_ros.ledger.housekeeping import consolidate, prune
from brainos_ros.ledger.layout import Layout, SegmentFile
from brainos_ros.ledger.notes import Checkpoint, SigningKey, sign_checkpoint
from brainos_ros.ledger.proof import latest_head, prove


@pytest.fixture
def whole(memory_path: Path) -> Path:
    """A small closed stream with every file a stream can have, in two segments."""
    with Stream.open(memory_path, "memory", segment_bytes=640) as stream:
        stream.put("a/b", b"one")
        stream.event("episode", {"n": 1})
        stream.put("c", b"two")
        stream.purge("c", "asked for")
        stream.rotate_key()
        consolidate(stream)
    assert len(Layout(memory_path / "memory").segments()) >= 2
    return memory_path / "memory"


def verdicts(path: Path) -> set[str]:
    return {check.name for check in Doctor(path).examine().checks if check.verdict == "FAIL"}


def test_every_flipped_byte_is_detected(whole: Path) -> None:
    assert verdicts(whole) == set()
    files = [p for p in sorted(whole.rglob("*")) if p.is_file() and p.name != "lock"]
    files = [p for p in files if not p.name.startswith("paths.sqlite")]
    names = {str(p.relative_to(whole)).partition("/")[0] for p in files}
    assert names == {"checkpoints", "key", "keys.json", "log", "manifest.json", "offsets", "tiles"}
    assert any(p.suffix == ".zst" for p in files)
    missed = []
    for path in files:
        data = path.read_bytes()
        for at in range(len(data)):
            path.write_bytes(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
            try:
                if verify(whole).verified and not verdicts(whole):  # the doctor asks it as well
                    missed.append((path.name, at))
            except BrainError:
                pass
        path.write_bytes(data)
    assert missed == []
    assert verdicts(whole) == set()


def test_every_flipped_byte_of_an_uncompressed_log_is_detected_by_verify(memory_path: Path) -> None:
    with Stream.open(memory_path, "pfc", segment_bytes=512) as stream:
        for number in range(6):
            stream.event("note", {"n": number})
    missed = []
    for segment in Layout(memory_path / "pfc").segments():
        data = segment.path.read_bytes()
        for at in range(len(data)):
            segment.path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            if verify(memory_path / "pfc").verified:
                missed.append(at)
        segment.path.write_bytes(data)
    assert missed == []
    assert verify(memory_path / "pfc").verified


def events(root: Path, count: int, segment_bytes: int = 1 << 16) -> Checkpoint:
    with Stream.open(root, "pfc", segment_bytes=segment_bytes) as stream:
        for number in range(count):
            stream.event("note", {"n": number})
        return stream.checkpoint()


def newest(root: Path) -> Path:
    return Layout(root / "pfc").segments()[-1].path


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def lose_the_log(root: Path) -> None:
    shutil.rmtree(root / "pfc/log")
    (root / "pfc/log").mkdir()


def lose_the_newest_segment(root: Path) -> None:
    newest(root).unlink()


def replace_the_key(root: Path) -> None:
    key = Layout(root / "pfc").key
    key.write_bytes(SigningKey(SigningKey.parse(key.read_bytes()).public.name).pack())


def sign_something_else(root: Path) -> None:
    layout = Layout(root / "pfc")
    head = latest_head(layout.path)
    assert head
    key = SigningKey.parse(layout.key.read_bytes())
    false = sign_checkpoint(head.origin, head.size, bytes(32), head.seal, [key])
    layout.checkpoints.write_text(false.note + "\n")


def shorten(root: Path) -> None:
    os.truncate(newest(root), 300)


FREEZING = {
    "damage before the head": (lambda root: flip(newest(root), 200), "the CRC of a frame is wrong"),
    "history cut short": (shorten, "only"),
    "the whole log gone": (lose_the_log, "the log is gone, but a head over 21 records is kept"),
    "newest segment gone": (lose_the_newest_segment, "records"),
    "key replaced": (replace_the_key, "the key was replaced or the head was changed"),
    "another root signed": (sign_something_else, "has another root than they have"),
    "heads gone": (
        lambda root: Layout(root / "pfc").checkpoints.unlink(),
        "there are 21 records, but no head is kept",
    ),
}


@pytest.mark.parametrize("what", FREEZING)
def test_what_was_signed_and_is_not_there_freezes_the_stream(tmp_path: Path, what: str) -> None:
    damage, words = FREEZING[what]
    events(tmp_path, 20, segment_bytes=900 if "segment" in what else 1 << 16)
    damage(tmp_path)
    with pytest.raises(Frozen, match=words) as frozen:
        Stream.open(tmp_path, "pfc")
    assert frozen.value.state == "FROZEN_HUMAN"
    assert "restore the last backup" in str(frozen.value)
    assert "writer-lock" in verdicts(tmp_path / "pfc")
    with pytest.raises(Frozen, match=words):
        Stream.open(tmp_path, "pfc")
    diagnosis = Doctor(tmp_path / "pfc").repair()
    assert diagnosis.state == "FROZEN_HUMAN", diagnosis
    assert (tmp_path / "pfc/frozen").exists()


def zero(path: Path, at: int) -> None:
    path.write_bytes(path.read_bytes()[:at].ljust(path.stat().st_size, b"\0"))


@pytest.mark.parametrize("segment", [0, -1])
@pytest.mark.parametrize(
    ("harm", "at"),
    [(flip, 130), (zero, 92), (zero, 130), (os.truncate, 0), (os.truncate, 92), (os.truncate, 130)],
)
def test_reading_says_that_the_log_breaks_off_before_its_head(
    tmp_path: Path, segment: int, harm: Callable[[Path, int], None], at: int
) -> None:
    with Stream.open(tmp_path, "pfc", window_s=3600.0, segment_bytes=900) as stream:
        for number in range(40):
            stream.event("note", {"n": number})
    layout = Layout(stream.path)
    assert layout.segments()[-1].first < 39
    assert write_csv(layout.path, io.StringIO()) == 41
    harm(layout.segments()[segment].path, at)
    with pytest.raises(Damage):
        write_csv(layout.path, io.StringIO())


def test_reading_ends_where_a_writer_is(tmp_path: Path) -> None:
    events(tmp_path, 20)
    with newest(tmp_path).open("ab") as file:
        file.write(b"\1" * 40)
    assert write_csv(tmp_path / "pfc", io.StringIO()) == 21


def test_the_doctor_has_a_verdict_where_a_purge_comes_after_damage(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "pfc") as stream:
        for number in range(20):
            stream.event("note", {"n": number})
        stream.purge_events([3], "asked for")
        flip(newest(tmp_path), 700)
        assert "frame-crc" in verdicts(stream.path)
        flip(newest(tmp_path), 700)


def test_a_person_who_undoes_the_damage_opens_the_stream_again(tmp_path: Path) -> None:
    events(tmp_path, 20)
    flip(newest(tmp_path), 200)
    with pytest.raises(Frozen):
        Stream.open(tmp_path, "pfc")
    flip(newest(tmp_path), 200)
    diagnosis = Doctor(tmp_path / "pfc").repair()
    assert diagnosis.state == "READY"
    assert diagnosis.repaired == ["opened the frozen stream: everything verifies"]
    with Stream.open(tmp_path, "pfc") as stream:
        assert stream.size == 21


@pytest.mark.parametrize("cut", [1, 40, 60])
def test_a_torn_tail_is_cut_kept_and_recorded(tmp_path: Path, cut: int) -> None:
    events(tmp_path, 5)
    stream = Stream.open(tmp_path, "pfc", window_s=3600.0)
    stream.event("note", b"whole")
    stream.event("note", b"torn apart by a power cut")
    end = stream._offset
    stream._release()
    os.truncate(newest(tmp_path), end - cut)
    report = verify(tmp_path / "pfc")
    assert not report.verified
    assert report.problem.startswith("torn tail: ")
    assert "opening the stream cuts it off" in report.problem
    assert Doctor(tmp_path / "pfc").examine().state == "READY"
    with Stream.open(tmp_path, "pfc") as stream:
        assert stream.torn
        kept = (tmp_path / "pfc" / stream.torn.file).read_bytes()
        assert len(kept) == stream.torn.bytes > 0
        assert stream.read(6).body == b"whole"
        assert stream.read(7).kind == "log.recovered"
    assert verify(tmp_path / "pfc").verified


def test_damage_under_two_synced_groups_is_no_torn_tail(tmp_path: Path) -> None:
    events(tmp_path, 1)
    stream = Stream.open(tmp_path, "pfc", window_s=3600.0)
    start = stream._offset
    for _ in range(3):
        stream.event("note", b"group", durable=True)
    stream._release()
    flip(newest(tmp_path), start + 30)
    with pytest.raises(Frozen, match="and sealed records follow"):
        Stream.open(tmp_path, "pfc")


def test_only_a_head_kept_elsewhere_tells_that_all_was_replaced(tmp_path: Path) -> None:
    kept = events(tmp_path, 9)
    shutil.copytree(tmp_path / "pfc", tmp_path / "old/pfc")
    events(tmp_path, 9)
    newer = latest_head(tmp_path / "pfc")
    assert verify(tmp_path / "pfc", kept).verified
    assert newer
    report = verify(tmp_path / "old/pfc", newer)
    assert report.problem.startswith("the history was truncated: the head over 19 records kept")
    shutil.rmtree(tmp_path / "pfc")
    events(tmp_path, 30)
    assert verify(tmp_path / "pfc").verified
    assert "kept elsewhere is not of this stream" in verify(tmp_path / "pfc", kept).problem


@pytest.mark.parametrize("derived", ["tiles", "offsets", "keys.json", "manifest.json"])
def test_what_is_derived_is_rebuilt(tmp_path: Path, derived: str) -> None:
    with Stream.open(tmp_path, "pfc", segment_bytes=900) as stream:
        for number in range(40):
            stream.event("note", {"n": number})
        consolidate(stream)
    path = tmp_path / "pfc" / derived
    flip(path / "0" if path.is_dir() else path, 35)
    assert len(verdicts(tmp_path / "pfc")) == 1
    diagnosis = Doctor(tmp_path / "pfc").repair()
    assert diagnosis.state == "READY"
    assert diagnosis.repaired
    assert verdicts(tmp_path / "pfc") == set()


@pytest.mark.parametrize("derived", ["tiles", "offsets", "keys.json"])
def test_opening_rebuilds_what_is_derived_and_missing(tmp_path: Path, derived: str) -> None:
    events(tmp_path, 40, segment_bytes=900)
    path = tmp_path / "pfc" / derived
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with Stream.open(tmp_path, "pfc") as stream:
        assert [stream.read(i).sequence for i in range(41)] == list(range(41))
        stream.prove(3)
    if derived != "offsets":
        assert verdicts(tmp_path / "pfc") == set()


def test_foreign_files_are_pointed_out(tmp_path: Path) -> None:
    events(tmp_path, 2)
    (tmp_path / "pfc/log/notes.txt").write_text("hello")
    assert verdicts(tmp_path / "pfc") == {"canonical-layout"}
    (tmp_path / "pfc/log/notes.txt").unlink()
    (tmp_path / "pfc/export.tar").write_text("")
    assert verdicts(tmp_path / "pfc") == {"exports-excluded"}
    (tmp_path / "pfc/export.tar").unlink()
    (tmp_path / "pfc/torn").symlink_to("/tmp")
    assert verdicts(tmp_path / "pfc") == {"canonical-layout"}


def test_the_doctor_has_a_verdict_where_no_key_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainos_ros.ledger.stream.check_name", str)
    with Stream.open(tmp_path, "a+b") as stream:  # as could be made once
        stream.event("note", b"x")
    assert "schema" in verdicts(stream.path)


def test_a_record_larger_than_one_may_be_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "MAX_PAYLOAD", 8 << 20)
    with Stream.open(tmp_path, "pfc") as stream:
        stream.event("note", bytes(5 << 20))
    monkeypatch.undo()
    assert verdicts(stream.path) == {"frame-crc", "no-rewind"}


def test_a_list_of_keys_without_keys_is_not_believed(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "pfc") as stream:
        first = stream.public_key
    keys = tmp_path / "pfc/keys.json"
    keys.write_bytes(keys.read_bytes().replace(b'"key"', b'"kew"'))
    assert state(tmp_path / "pfc")["keys"] == [first]
    with Stream.open(tmp_path, "pfc") as stream:
        second = stream.rotate_key()
    with Stream.open(tmp_path, "pfc") as stream:
        assert stream.public_key == second
    assert state(tmp_path / "pfc")["keys"] == [first, second]
    Doctor(tmp_path / "pfc").repair()
    assert verdicts(tmp_path / "pfc") == set()


def test_a_state_without_readable_keys_says_what_is_damaged(tmp_path: Path) -> None:
    events(tmp_path, 20)
    (tmp_path / "pfc/keys.json").unlink()
    flip(newest(tmp_path), 200)
    told = state(tmp_path / "pfc")
    assert (told["state"], told["keys"]) == ("FROZEN_HUMAN", [])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("unreadable", "expected"), [((), set()), (("paths.sqlite",), {"index-coverage"})]
)
def test_an_auditor_who_may_not_read_the_key_nor_write_gets_a_verdict(
    unreadable: tuple[str, ...], expected: set[str]
) -> None:
    with tempfile.TemporaryDirectory() as home:
        with Stream.open(Path(home), "memory") as stream:
            stream.put("a", b"1")
            stream.live()
        os.chmod(home, 0o755)
        for name in unreadable:
            (stream.path / name).chmod(0o600)
        child = os.fork()
        if not child:
            try:
                os.setgid(65534)
                os.setuid(65534)
                os._exit(int(view(stream.path, "a") != b"1" or verdicts(stream.path) != expected))
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0


def test_the_doctor_lists_fifteen_invariants(whole: Path) -> None:
    checks: list[str] = [check.name for check in Doctor(whole).examine().checks]
    assert len(checks) == len(set(checks)) == 15
    examine: Callable[[], object] = Doctor(whole).examine
    assert examine() == examine()


def test_nodes_that_a_power_cut_took_are_computed_again(tmp_path: Path) -> None:
    """Nodes are synced after a segment is begun: those of the one before may be missing."""
    events(tmp_path, 60, segment_bytes=900)
    segments = Layout(tmp_path / "pfc").segments()
    leaves = tmp_path / "pfc/tiles/0"
    data = bytearray(leaves.read_bytes())
    data[32 * segments[-2].first : 32 * segments[-1].first] = bytes(
        32 * (segments[-1].first - segments[-2].first)
    )
    leaves.write_bytes(data)
    assert verdicts(tmp_path / "pfc") == {"leaf-count"}
    with Stream.open(tmp_path, "pfc", segment_bytes=900) as stream:
        stream.prove(segments[-2].first)
    assert verdicts(tmp_path / "pfc") == set()


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """A closed stream with an index: paths put twice, moved, deleted, and one purged."""
    with Stream.open(tmp_path, "memory") as stream:
        stream.put("a", b"1")
        stream.put("a", b"2")
        stream.put("b", b"3")
        stream.put("é", b"4")
        stream.move("b", "c")
        stream.delete("c")
        stream.put("secret", b"5")
        stream.purge("secret", "asked for")
        stream.live()
        stream.put("d", b"6")
        stream.event("note", b"x")
    assert verdicts(stream.path) == set()
    return stream.path


BENT_INDEXES = {
    "path missing": (
        "DELETE FROM objects WHERE path = 'a'",
        "path 'a' is live, but not in the index",
    ),
    "last path missing": (
        "DELETE FROM objects WHERE path = 'é'",
        "path 'é' is live, but not in the index",
    ),
    "not live": ("UPDATE objects SET live = 0 WHERE path = 'a'", "path 'a' is live, but not"),
    "too much live": (
        "UPDATE objects SET live = 1 WHERE path = 'c'",
        "path 'c' is indexed as live",
    ),
    "another body": ("UPDATE objects SET digest = x'00'", "path 'a' is indexed with another body"),
    "older body": (
        "UPDATE objects SET sequence = 1 WHERE path = 'a'",
        "'a' is indexed with another",
    ),
    "history missing": ("DELETE FROM history WHERE sequence = 1", "record 1 is about 'a', but not"),
    "deleted path's history": (
        "DELETE FROM history WHERE sequence = 6",
        "record 6 is about 'c', but not in the index",
    ),
    "history too long": ("INSERT INTO history VALUES (1, 3)", "record 3 is indexed as about 'a'"),
    "of no stream": ("UPDATE applied SET size = 1", "path 'a' is indexed as live, but is not"),
}


@pytest.mark.parametrize("what", BENT_INDEXES)
def test_an_index_that_is_not_the_logs_is_found_and_rebuilt(indexed: Path, what: str) -> None:
    statement, words = BENT_INDEXES[what]
    index = sqlite3.connect(indexed / "paths.sqlite")
    with index:
        assert index.execute(statement).rowcount > 0
    index.close()
    found = [check for check in Doctor(indexed).examine().checks if check.verdict == "FAIL"]
    assert [check.name for check in found] == ["index-coverage"]
    assert words in found[0].detail
    assert "rebuilt tiles, offsets and the index of paths" in Doctor(indexed).repair().repaired
    assert verdicts(indexed) == set()


def test_an_index_may_lag_and_may_know_what_was_once_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_NEVER_PRUNED", {kinds.CREATED})  # puts were not among them
    with Stream.open(tmp_path, "memory", window_s=3600.0, segment_bytes=1024) as stream:
        for number in range(60):
            stream.put(f"p/{number % 3}", b"%d" % number * 9)
        stream.live()
        back_up(stream.path, tmp_path / "copy")
        assert prune(stream, -1.0, tmp_path / "copy")
        assert verdicts(stream.path) == set()
        stream.put("p/1", b"not in the index on disk yet")
        assert verdicts(stream.path) == set()
    assert verdicts(stream.path) == set()


NONSENSE = [b"", b"null", b"{}", b"[]", b"5", b'"x"', b'{"state": 1}', b"\xff\xfe"]


@pytest.mark.parametrize("content", NONSENSE)
def test_a_stream_whose_frozen_file_says_nothing_sensible_stays_frozen(
    tmp_path: Path, content: bytes
) -> None:
    events(tmp_path, 3)
    path = tmp_path / "pfc"
    (path / "frozen").write_bytes(content)
    assert (state(path)["state"], verdicts(path)) == ("FROZEN_HUMAN", {"writer-lock"})
    with pytest.raises(Frozen, match="FROZEN_HUMAN: the file 'frozen' is unreadable"):
        Stream.open(tmp_path, "pfc")


@pytest.mark.parametrize("content", NONSENSE)
@pytest.mark.parametrize("name", ["keys.json", "manifest.json"])
def test_published_files_that_say_nothing_sensible_are_found_and_not_believed(
    whole: Path, name: str, content: bytes
) -> None:
    told, proved = state(whole)["keys"], prove(whole, 1)
    (whole / name).write_bytes(content)
    assert verdicts(whole) == {"manifest-against-head"}
    assert state(whole)["keys"] == told
    assert prove(whole, 1) == proved
    Doctor(whole).repair()
    assert verdicts(whole) == set()


@pytest.mark.parametrize(
    "content",
    [
        b'{"purge": "3", "targets": []}',
        b'{"purge": 3.5, "targets": []}',
        b'{"purge": 1, "targets": [[1, 0.5, 5, "00"]]}',
    ],
)
def test_an_announcement_with_numbers_that_are_none_freezes(whole: Path, content: bytes) -> None:
    (whole / "erasing").write_bytes(content)
    with pytest.raises(Frozen, match="the file 'erasing' cannot be read"):
        Stream.open(whole.parent, whole.name)


def test_a_purge_is_not_finished_where_its_segment_is_not_there(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "pfc") as stream:
        stream.put("a", b"one")
        purge = stream.purge("a", "asked for")
    announced = f'{{"purge": {purge}, "targets": [[1, 7, 100, "{"00" * 32}"]]}}'
    (tmp_path / "pfc/erasing").write_text(announced)
    with pytest.raises(BrainError, match="no segment begins with record 7"):
        Stream.open(tmp_path, "pfc")
    assert (tmp_path / "pfc/erasing").exists()


@pytest.mark.parametrize("digits", ["\u00b2" * 16, "\uff11" * 16, "5", "0" * 17])
def test_a_segment_is_named_by_sixteen_digits(tmp_path: Path, digits: str) -> None:
    events(tmp_path, 3)
    (tmp_path / "pfc/log" / f"{digits}.seg").write_bytes(b"x")
    assert verify(tmp_path / "pfc").verified
    assert verdicts(tmp_path / "pfc") == {"canonical-layout"}


@pytest.mark.parametrize("index", [b"not a database", None])
def test_a_path_is_viewed_without_its_index(whole: Path, index: bytes | None) -> None:
    if index:
        (whole / "paths.sqlite").write_bytes(index)
    before = sorted(whole.rglob("*"))
    assert view(whole, "a/b") == b"one"
    with pytest.raises(BrainError, match="nothing is live at path 'c'"):
        view(whole, "c")
    assert sorted(whole.rglob("*")) == before


@pytest.mark.parametrize("applied", [2, 99])
def test_a_path_is_viewed_past_an_index_that_is_behind_or_ahead(
    indexed: Path, applied: int
) -> None:
    index = sqlite3.connect(indexed / "paths.sqlite")
    with index:
        index.execute("DELETE FROM objects WHERE path != 'd'")
        index.execute("UPDATE applied SET size = ?", (applied,))
    index.close()
    assert view(indexed, "a") == b"2"


def test_without_its_key_a_stream_is_read_and_refuses_to_be_written(whole: Path) -> None:
    (whole / "key").unlink()
    for _ in range(2):
        with pytest.raises(BrainError, match="the private key of stream 'memory' is gone") as no:
            Stream.open(whole.parent, "memory")
        assert not isinstance(no.value, Frozen)
    assert view(whole, "a/b") == b"one"
    assert not (whole / "frozen").exists()
    assert verdicts(whole) == set()


def test_figures_and_exports_are_read_beside_a_consolidation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Layout.segments
    with Stream.open(tmp_path, "pfc", segment_bytes=640) as stream:
        for number in range(20):
            stream.event("note", {"n": number})

        def overtaken(layout: Layout) -> list[SegmentFile]:
            found = listed(layout)
            monkeypatch.setattr(Layout, "segments", listed)
            consolidate(stream)
            return found

        monkeypatch.setattr(Layout, "segments", overtaken)
        assert statistics(stream.path).records >= 20
        for number in range(20):
            stream.event("note", {"n": number})
        monkeypatch.setattr(Layout, "segments", overtaken)
        assert state(stream.path)["state"] == "READY"
        for number in range(20):
            stream.event("note", {"n": number})
        stream.checkpoint()
        _, apart = export(stream.path, tmp_path / "apart.tar")
        monkeypatch.setattr(Layout, "segments", overtaken)
        assert export(stream.path, tmp_path / "beside.tar")[1] == apart


@pytest.mark.parametrize("size", [0, 1, 4])
def test_a_torn_tail_is_recorded_by_a_later_opening_where_its_own_had_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    stream = Stream.open(tmp_path, "pfc", window_s=3600.0)
    for _ in range(size - 1):
        stream.event("note", b"x")
    stream.close()
    segment, tail = Layout(stream.path).segments()[0].path, b"\1\2\3\4\1 half a frame"
    if not size:
        Layout(stream.path).checkpoints.unlink()
        os.truncate(segment, frames.SEGMENT_HEADER_SIZE)
    with segment.open("ab") as file:
        file.write(tail)
    append = Stream._append

    def refuse(stream: Stream, kind: int, payload: bytes) -> int:
        if kind == kinds.RECOVERED:
            raise BrainError("no space left")
        return append(stream, kind, payload)

    with monkeypatch.context() as full:
        full.setattr(Stream, "_append", refuse)
        for _ in range(2):
            with pytest.raises(BrainError, match="no space left"):
                Stream.open(tmp_path, "pfc")
    for _ in range(2):
        with Stream.open(tmp_path, "pfc") as stream:
            kinds_of_all = [record.kind for record in stream.records(0)]
            assert kinds_of_all.count("log.recovered") == 1
            cut = json.loads(stream.read(max(1, size)).body)
            assert cut == {"bytes_cut": len(tail), "file": f"torn/{size:016d}-0.torn"}
    assert (stream.path / cut["file"]).read_bytes() == tail
    assert stream.torn is None
