"""Several processes find in a stream what one finds, in the same words, whatever is wrong."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filled import SMALL, fill, prune_all

from brainos_ros.cli import ledger as verb
from brainos_ros.ledger import Stream, verify, workers
from brainos_ros.ledger.backup import back_up
from brainos_ros.ledger.doctor import Doctor
from brainos_ros.ledger.housekeeping import consolidate
from brainos_ros.ledger.layout import PRUNED, Layout, SegmentFile
from brainos_ros.ledger.notes import Checkpoint
from brainos_ros.ledger.proof import latest_head
from brainos_ros.ledger.verify import Audit

walk_alone, walk_segment = workers._walk_alone, Audit._walk_segment


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first records of the segments that no worker walked."""
    firsts: list[int] = []

    def walk(audit: Audit, segment: SegmentFile, tiles: Any) -> SegmentFile:
        firsts.append(segment.first)
        return walk_segment(audit, segment, tiles)

    monkeypatch.setattr(workers, "FEWEST", 2)
    monkeypatch.setattr(Audit, "_walk_segment", walk)
    return firsts


def everything(path: Path, count: int, derived: bool, kept: Checkpoint | None) -> dict[str, Any]:
    """All that an audit by `count` workers knows at its end, and its progress."""
    progress: list[int] = []
    audit = Audit(Layout(path), kept, progress.append, derived, count).run()
    state: dict[str, Any] = {**vars(audit), "_progress": progress, "report": audit.report()}
    del state["_workers"], state["_layout"]
    state["keys"] = [(start, str(key)) for start, key in audit.keys]
    state["walk"] = {**vars(audit.walk), "mountain": vars(audit.walk.mountain)}
    return state


def same(path: Path, walked: list[int], kept: Checkpoint | None = None) -> tuple[Any, list[int]]:
    """What both ways find, and the segments that the parent of the workers walked itself."""
    for derived in (False, True):
        alone = everything(path, 1, derived, kept)
        walked.clear()
        assert everything(path, 2, derived, kept) == alone
    return alone, walked


def filled(root: Path) -> Stream:
    stream = Stream.open(root, "memory", segment_bytes=SMALL)
    fill(stream)
    return stream


def write_operations(root: Path) -> None:
    with filled(root) as stream:
        for number in range(20):
            stream.put(f"a/{number}", b"body" * number)
        stream.move("a/1", "b")
        stream.delete("a/2")
        stream.purge("a/3", "asked for")
        stream.rotate_key()
        fill(stream, 30)


def write_compressed(root: Path) -> None:
    with filled(root) as stream:
        consolidate(stream)
        fill(stream, 30)


def write_pruned(root: Path) -> None:
    with filled(root) as stream:
        consolidate(stream)
        fill(stream, 30)
        back_up(stream.path, root / "copy")
        assert len(prune_all(stream, root / "copy")) > 3
        fill(stream, 30)


def write_torn(root: Path) -> None:
    stream = Stream.open(root, "memory", window_s=3600.0, segment_bytes=SMALL)
    fill(stream)
    stream.event("note", b"torn apart by a power cut")
    end = stream._offset
    stream._release()
    os.truncate(Layout(stream.path).segments()[-1].path, end - 5)


SOUND = {
    "events": lambda root: filled(root).close(),
    "operations": write_operations,
    "compressed": write_compressed,
    "pruned": write_pruned,
    "torn": write_torn,
}


@pytest.mark.parametrize("what", SOUND)
def test_sound_streams(tmp_path: Path, walked: list[int], what: str) -> None:
    SOUND[what](tmp_path)
    path = tmp_path / "memory"
    segments = Layout(path).segments()
    assert len(segments) > 4
    alone, by_parent = same(path, walked, latest_head(path))
    assert alone["report"].verified == (what != "torn")
    assert alone["torn"] == (what == "torn")
    pruned = [each.first for each in segments if each.suffix == PRUNED]
    assert (len(pruned) > 3) == (what == "pruned")
    assert by_parent == ([segments[-1].first] if what == "torn" else pruned)


def test_a_live_stream(tmp_path: Path, walked: list[int]) -> None:
    with Stream.open(tmp_path, "memory", window_s=3600.0, segment_bytes=SMALL) as stream:
        fill(stream)
        assert stream.size > stream.durable_size
        alone, by_parent = same(stream.path, walked)
        assert alone["report"].verified
        assert by_parent == []


def test_a_purge_beside_a_walk(tmp_path: Path, walked: list[int]) -> None:
    with filled(tmp_path) as stream:
        done: list[int] = []

        def purge(size: int) -> None:
            if not done:
                done.append(stream.purge_events([1, 50], "asked for"))

        assert Audit(Layout(stream.path), progress=purge, workers=2).run().problems == []
        assert done
    assert verify(stream.path, workers=2).verified


@pytest.mark.parametrize("at", [0, 30, 60, 100, 500, -1])
def test_a_flipped_byte_in_each_segment(memory_path: Path, walked: list[int], at: int) -> None:
    write_compressed(memory_path)
    path = memory_path / "memory"
    segments = Layout(path).segments()
    assert len({each.suffix for each in segments}) == 2
    problems = set()
    for segment in segments:
        data = bytearray(segment.path.read_bytes())
        data[at] ^= 0x10
        segment.path.write_bytes(data)
        alone, by_parent = same(path, walked)
        problems.update(alone["problems"])
        assert by_parent == ([] if alone["report"].verified else [segment.first])
        data[at] ^= 0x10
        segment.path.write_bytes(data)
    assert len(problems) >= len(segments) - 1


def flip_stored(path: Path) -> None:
    for file in (path / "offsets", *(path / "tiles").iterdir()):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)


def shorten_stored(path: Path) -> None:
    for file in (path / "offsets", *(path / "tiles").iterdir()):
        os.truncate(file, file.stat().st_size // 2)


def lose_stored(path: Path) -> None:
    shutil.rmtree(path / "tiles")
    (path / "offsets").unlink()


@pytest.mark.parametrize("harm", [flip_stored, shorten_stored, lose_stored])
def test_stored_nodes_are_not_believed(
    tmp_path: Path, walked: list[int], harm: Callable[[Path], None]
) -> None:
    write_operations(tmp_path)
    path = tmp_path / "memory"
    harm(path)
    alone, by_parent = same(path, walked)
    assert alone["report"].verified
    assert by_parent
    assert (alone["stale"] != []) == (harm == flip_stored)


def test_segments_of_another_history_do_not_join(tmp_path: Path, walked: list[int]) -> None:
    """They, and the stored nodes before them, are sound by themselves."""
    path, other = tmp_path / "memory", tmp_path / "other/memory"
    filled(tmp_path).close()
    shutil.copytree(path, other)
    parting = Layout(path).segments()[-1]
    for root, word in ((tmp_path, b"one way"), (tmp_path / "other", b"another")):
        with Stream.open(root, "memory", window_s=3600.0, segment_bytes=SMALL) as stream:
            for _ in range(200):
                stream.event("note", word)
    ours = parting.path.read_bytes()
    firsts = [each.first for each in Layout(path).segments()]
    shutil.rmtree(path)
    shutil.copytree(other, path)
    assert firsts == [each.first for each in Layout(path).segments()]
    assert parting.path.read_bytes() != ours
    parting.path.write_bytes(ours)
    alone, by_parent = same(path, walked)
    assert "its root is not that of the records before it" in alone["report"].problem
    assert by_parent == [firsts[firsts.index(parting.first) + 1]]


def die(layout: Layout, segment: SegmentFile, *rest: Any) -> Any:
    if segment.first > 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return walk_alone(layout, segment, *rest)


def run_out_of_memory(layout: Layout, segment: SegmentFile, *rest: Any) -> Any:
    if segment.first > 20:
        raise MemoryError
    return walk_alone(layout, segment, *rest)


@pytest.mark.parametrize("act", [die, run_out_of_memory])
def test_what_a_worker_leaves_undone_is_done_by_its_parent(
    tmp_path: Path, walked: list[int], monkeypatch: pytest.MonkeyPatch, act: Callable[..., Any]
) -> None:
    filled(tmp_path).close()
    path = tmp_path / "memory"
    monkeypatch.setattr(workers, "_walk_alone", act)
    alone, by_parent = same(path, walked)
    assert alone["report"].verified
    assert by_parent[-1] == Layout(path).segments()[-1].first
    newest = Layout(path).segments()[-1].path
    newest.write_bytes(newest.read_bytes()[:200] + b"\1" + newest.read_bytes()[201:])
    alone, _ = same(path, walked)
    assert not alone["report"].verified


WALK = """
import sys, time
from pathlib import Path
from brainos_ros.ledger import workers
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.verify import Audit
workers.FEWEST = 2
show = lambda size: (print(size, flush=True), time.sleep(60))
Audit(Layout(Path(sys.argv[1])), progress=show, workers=2).run()
"""


def test_no_worker_outlives_its_parent(tmp_path: Path) -> None:
    filled(tmp_path).close()
    command = [sys.executable, "-c", WALK, str(tmp_path / "memory")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and int(process.stdout.readline()) > 0
        process.kill()
        process.communicate(timeout=20)  # ends when nobody holds its pipes any more


def test_a_stream_of_few_segments_needs_no_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path).close()
    monkeypatch.delattr(workers, "ProcessPoolExecutor")
    assert len(Layout(tmp_path / "memory").segments()) < workers.FEWEST
    assert verify(tmp_path / "memory", workers=8).verified


def test_the_doctor_finds_the_same(tmp_path: Path, walked: list[int]) -> None:
    write_operations(tmp_path)
    path = tmp_path / "memory"
    assert Doctor(path, workers=2).examine() == Doctor(path).examine()
    flip_stored(path)
    assert Doctor(path, workers=2).examine() == Doctor(path).examine()
    assert Doctor(path, workers=2).repair().state == "READY"


def test_the_command_line_has_a_worker_for_each_cpu(
    tmp_path: Path, walked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "ledger").close()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    for what in ("doctor", "consolidate", "doctor"):
        assert verb.run(parser.parse_args([what, "memory", "--home", str(tmp_path)])) == 0
    assert walked == []
