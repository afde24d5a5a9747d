"""Appending, reading, opening again: what a room relies on."""

import os
import subprocess
import sys
import threading
from itertools import chain
from pathlib import Path

import pytest

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Frozen, Stream, verify
from brainos_ros.ledger.exchange import export
from brainos_ros.ledger.kinds import CODES, EVENTS, NAMES, OPERATIONS
from brainos_ros.ledger.layout import Layout

SMALL = 4096


def test_events_come_back_as_they_went_in(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "pfc") as stream:
        first = stream.event("decision", {"b": [1, 2.5, None], "a": "ä"})
        second = stream.event("note", b"\x00raw")
        assert (first, second) == (1, 2)
        record = stream.read(first)
        assert record.kind == "decision"
        assert record.body == '{"a":"ä","b":[1,2.5,null]}'.encode()
        assert stream.read(second).body == b"\x00raw"
        assert stream.read(0).kind == "stream.created"
    report = verify(tmp_path / "pfc")
    assert report.verified, report.problem
    assert report.records == report.verified_records == 3


def test_events_are_never_merged(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "pfc") as stream:
        numbers = [stream.event("note", b"same") for _ in range(5)]
    assert numbers == [1, 2, 3, 4, 5]


def test_numbers_that_json_does_not_have_are_kept_as_words(tmp_path: Path) -> None:
    body = {"x": float("nan"), "deep": [{"y": float("inf")}, -float("inf")]}
    with Stream.open(tmp_path, "conscience") as stream:
        written = stream.read(stream.event("evaluation", body)).body
    assert written == b'{"deep":[{"y":"Infinity"},"-Infinity"],"x":"NaN"}'


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("decisoin", {}, "kind 'decisoin' is not in the ledger's schema"),
        ("put", {}, "kind 'put'"),
        ("note", {"a": object()}, "cannot be stored as JSON"),
        ("note", bytes((4 << 20) + 1), "larger than a record may be"),
    ],
    ids=["unknown", "operation", "unstorable", "too large"],
)
def test_what_the_schema_does_not_have_is_refused_and_changes_nothing(
    tmp_path: Path, kind: str, body: dict[str, object] | bytes, words: str
) -> None:
    with Stream.open(tmp_path, "pfc") as stream:
        with pytest.raises(BrainError, match=words) as refusal:
            stream.event(kind, body)
        assert refusal.value.code is ErrorCode.INVALID_ARGUMENT
        assert stream.size == 1


@pytest.mark.parametrize("path", ["", "/etc/x", "../x", "a/../b", "a//b", "./a", "a\\b", "a\nb"])
def test_paths_do_not_leave_the_stream(tmp_path: Path, path: str) -> None:
    with Stream.open(tmp_path, "memory") as stream:
        with pytest.raises(BrainError, match="is not allowed"):
            stream.put(path, b"x")
        stream.put("a", b"x")
        with pytest.raises(BrainError, match="target"):
            stream.move("a", path)
        assert stream.size == 2


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a"])
def test_stream_names_are_one_component(tmp_path: Path, name: str) -> None:
    with pytest.raises(BrainError, match="not allowed"):
        Stream.open(tmp_path, name)


@pytest.mark.parametrize(
    "name", ["my stream", "a+b", "a\tb", "a\xa0b", "a\\b", "n" * 129, "\udcff"]
)
def test_names_that_a_key_or_an_export_cannot_carry_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BrainError, match="is not allowed; give one path component of at most 128"):
        Stream.open(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_can_be_exported_and_opened_again(tmp_path: Path) -> None:
    for _ in range(2):
        with Stream.open(tmp_path, "é" * 64) as stream:
            stream.event("note", b"x", durable=True)
    assert export(stream.path, tmp_path / "out.tar")[0].size == 3
    assert verify(stream.path).verified


def test_opening_again_goes_on_where_it_ended(tmp_path: Path) -> None:
    for turn in range(4):
        with Stream.open(tmp_path, "pfc", segment_bytes=SMALL) as stream:
            assert stream.size == (1 + 30 * turn if turn else 1)
            for number in range(30):
                stream.event("note", {"turn": turn, "number": number, "text": "x" * 100})
            root = stream.root
    report = verify(tmp_path / "pfc")
    assert report.verified
    assert (report.records, report.root) == (121, root.hex())
    assert len(Layout(tmp_path / "pfc").segments()) > 3


def test_every_record_is_found_across_segments_and_without_an_index(tmp_path: Path) -> None:
    bodies = [os.urandom(size) for size in (0, 1, 15, 16, 17, 300, 5000, 20_000, 3)]
    with Stream.open(tmp_path, "pfc", segment_bytes=SMALL) as stream:
        numbers = [stream.event("note", body) for body in bodies]
        assert [stream.read(number).body for number in numbers] == bodies
        stream.sync()
        (tmp_path / "pfc/offsets").unlink()
        stream._reader = None
        assert [stream.read(number).body for number in numbers] == bodies
        with pytest.raises(BrainError, match="sequence 10 is not in stream 'pfc'"):
            stream.read(10)
        with pytest.raises(BrainError, match="sequence -1 is not in stream 'pfc'"):
            stream.read(-1)


@pytest.mark.parametrize("sequence", [-1, 1000, 2**61, 2**64])
def test_a_number_that_no_record_has_is_not_found(tmp_path: Path, sequence: int) -> None:
    with Stream.open(tmp_path, "memory") as stream:
        assert stream.read(0).kind == "stream.created"
        for ask in (stream.read, stream.prove, lambda number: stream.purge_events([number], "x")):
            with pytest.raises(BrainError) as refused:
                ask(sequence)
            assert refused.value.code is ErrorCode.NOT_FOUND


def test_durable_means_on_the_disk_before_the_call_returns(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "conscience", window_s=3600.0) as stream:
        number = stream.event("halt", {}, durable=True)
        assert stream.durable_size == number + 1
        stream.event("note", {})
        assert stream.durable_size == number + 1


def test_a_durable_put_of_what_is_live_already_is_durable_too(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", window_s=3600.0) as stream:
        number = stream.put("a", b"once")
        assert stream.durable_size == number
        assert stream.put("a", b"once", durable=True) == number
        assert stream.durable_size == stream.size == number + 1


def test_a_group_is_synced_once_and_without_being_asked(tmp_path: Path) -> None:
    synced = threading.Event()
    with Stream.open(tmp_path, "pfc") as stream:
        before, sync = stream.syncs, stream.sync

        def tell() -> None:
            sync()
            synced.set()

        stream.sync = tell  # type: ignore[method-assign]
        for _ in range(100):
            stream.event("note", b"x")
        assert synced.wait(30)
        assert stream.syncs - before < 100


def test_many_threads_write_one_stream(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "memory", segment_bytes=16 * SMALL) as stream:
        numbers: list[list[int]] = [[] for _ in range(4)]

        def write(mine: list[int], who: int) -> None:
            for count in range(200):
                durable = count % 50 == 0
                mine.append(stream.event("note", {"who": who, "count": count}, durable=durable))

        threads = [threading.Thread(target=write, args=(numbers[i], i)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for mine in numbers:
            assert mine == sorted(mine)
    assert sorted(chain.from_iterable(numbers)) == list(range(1, 801))
    assert verify(tmp_path / "memory").verified


def test_a_second_writer_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "pfc"):
        with pytest.raises(BrainError, match=f"written by process {os.getpid()}") as refusal:
            Stream.open(tmp_path, "pfc")
        assert refusal.value.code is ErrorCode.UNAVAILABLE
    Stream.open(tmp_path, "pfc").close()


def test_readers_neither_block_nor_are_blocked_by_the_writer(tmp_path: Path) -> None:
    with Stream.open(tmp_path, "pfc", segment_bytes=SMALL) as stream:
        for number in range(50):
            stream.event("note", b"y" * 100)
            assert verify(tmp_path / "pfc").verified, number
        assert Stream.open(tmp_path, "other").size == 1


def test_a_forked_child_cannot_write_the_parents_stream(tmp_path: Path) -> None:
    stream = Stream.open(tmp_path, "pfc")
    child = os.fork()
    if child == 0:
        try:
            stream.event("note", b"from the child")
        except BrainError as error:
            os._exit(0 if "belongs to the parent" in str(error) else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    stream.event("note", b"from the parent")
    stream.close()
    Stream.open(tmp_path, "pfc").close()
    assert verify(tmp_path / "pfc").records == 2


def test_a_closed_stream_refuses(tmp_path: Path) -> None:
    stream = Stream.open(tmp_path, "pfc")
    stream.close()
    stream.close()
    with pytest.raises(BrainError, match="is closed"):
        stream.event("note", b"")


def test_importing_the_ledger_is_cheap() -> None:
    code = (
        "import sys, brainos_ros.ledger; "
        "print([m for m in ('numpy', 'sqlite3', 'zstandard', 'rclpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_frozen_says_what_and_what_to_do(tmp_path: Path) -> None:
    Stream.open(tmp_path, "pfc").close()
    (tmp_path / "pfc/frozen").write_text('{"state": "FROZEN_RECOVERABLE", "reason": "a reason"}')
    with pytest.raises(Frozen, match=r"FROZEN_RECOVERABLE: a reason; run 'brainos ledger doctor"):
        Stream.open(tmp_path, "pfc")


def test_puts_events_syncs_and_rolls_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Every way to take the stream's locks at once, over many segments."""
    with Stream.open(tmp_path, "memory", window_s=0.0, segment_bytes=1024) as stream:

        def put() -> None:
            for number in range(150):
                stream.put(f"p/{number % 7}", b"%d" % number)
                stream.view(f"p/{number % 7}")

        def event() -> None:
            for number in range(150):
                stream.read(stream.event("note", b"%d" % number, durable=number % 10 == 0))

        def head() -> None:
            for _ in range(30):
                assert stream.checkpoint().size <= stream.size

        threads = [threading.Thread(target=work, daemon=True) for work in (put, event, head)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    report = verify(tmp_path / "memory")
    assert report.verified, report.problem
    assert report.records >= 301


def test_no_two_kinds_share_a_code() -> None:
    assert len(NAMES) == len(CODES) == len(OPERATIONS) + len(EVENTS)
    assert max(OPERATIONS.values()) < 16 <= min(EVENTS.values())
