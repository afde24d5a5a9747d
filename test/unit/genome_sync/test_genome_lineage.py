"""The history of genomes: activation, roll-back, bars, and the way back after a restart."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.genome_sync import lineage as lineage_module
from brainos_ros.genome_sync.evolution import Generation, Strategy
from brainos_ros.genome_sync.genome import Genome, scalar
from brainos_ros.genome_sync.lineage import SUMMARY, Lineage
from brainos_ros.ledger import disk


def genome(value: float) -> Genome:
    return Genome({"c": (scalar("speed", value, 0.0, 1.0),)})


class Stream:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.full = False

    def record(self, kind: str, body) -> int:
        if self.full:
            raise BrainError("no space", ErrorCode.LEDGER_REFUSED)
        self.lines.append((kind, json.dumps(body)))
        return len(self.lines) - 1

    def read(self):
        return [(i, kind, json.loads(body)) for i, (kind, body) in enumerate(self.lines)]


@pytest.fixture
def stream() -> Stream:
    return Stream()


def start(folder, stream: Stream) -> Lineage:
    lineage = Lineage(folder, stream.record)
    lineage.restore(stream.read(), genome(0.5), 1)
    return lineage


def better(value: float) -> Generation:
    return Generation(genome(value), Strategy.fresh(1, 4), True, 0.0, value, 4)


def test_it_begins_with_the_default(tmp_path, stream) -> None:
    lineage = start(tmp_path, stream)
    assert lineage.genome.hash == genome(0.5).hash
    assert (lineage.active.generation, lineage.active.origin) == (0, "default")


def test_a_restart_brings_back_everything(tmp_path, stream) -> None:
    lineage = start(tmp_path, stream)
    lineage.evolved(better(0.6), 7, 2)
    lineage.evolved(better(0.7), 8, 3)
    lineage.evolved(Generation(lineage.genome, Strategy.fresh(1, 2), False, 0.75, 0.75, 4), 9, 4)
    again = start(tmp_path, stream)
    assert again.entries == lineage.entries
    assert again.genome.hash == genome(0.7).hash
    assert (again.active.generation, again.active.fitness_score) == (2, 0.75)
    assert again.strategy(4).to_json() == lineage.strategy(4).to_json()


def test_it_is_recorded_that_evolution_began_anew(tmp_path, stream) -> None:
    lineage = start(tmp_path, stream)
    for begun_anew in (False, True):
        lineage.evolved(replace(better(0.6), begun_anew=begun_anew), 7, 2)
    recorded = [body["begun_anew"] for _, kind, body in stream.read() if kind == "genome.evolved"]
    assert recorded == [False, True]


def test_what_evolution_learned_is_held_for_the_newest_genomes_only(
    tmp_path, stream, monkeypatch
) -> None:
    monkeypatch.setattr(lineage_module, "MOST_SUMMED_UP", 3)
    lineage = start(tmp_path, stream)
    for step in range(9):
        lineage.evolved(better(step / 10), step, step)
    assert list(lineage._strategies) == [each.genome_hash for each in lineage.entries[-3:]]


def test_the_history_is_of_the_newest_genomes_only(tmp_path, stream, monkeypatch) -> None:
    monkeypatch.setattr(lineage_module, "MOST_ENTRIES", 3)
    lineage = start(tmp_path, stream)
    for step in range(5):
        lineage.evolved(better(0.6 + step / 100), step, step)
    assert [each.generation for each in lineage.entries] == [3, 4, 5]
    assert start(tmp_path, stream).entries == lineage.entries
    with pytest.raises(BrainError, match="not among the last 3 genomes used") as refused:
        lineage.rollback(genome(0.5).hash, "", 9)
    assert refused.value.code is ErrorCode.NOT_FOUND
    lineage.rollback("", "", 9)
    assert lineage.genome.hash == genome(0.63).hash


def test_files_of_genomes_that_nothing_goes_back_to_are_deleted(
    tmp_path, stream, monkeypatch
) -> None:
    monkeypatch.setattr(lineage_module, "MOST_ENTRIES", 3)
    files = tmp_path / "genomes"

    def held() -> set[str]:
        return {path.stem for path in files.iterdir()}

    lineage = start(tmp_path, stream)
    stream.full = True
    with pytest.raises(BrainError):
        lineage.evolved(better(0.1), 1, 1)
    stream.full = False
    lineage.evolved(better(0.6), 1, 1)
    assert held() == {genome(value).hash for value in (0.5, 0.1, 0.6)}
    for step in range(4):
        lineage.evolved(better(0.61 + step / 100), step, step)
    assert held() == {genome(value).hash for value in (0.62, 0.63, 0.64)}
    lineage.rollback(genome(0.62).hash, "", 9)
    lineage.evolved(better(0.7), 1, 9)
    assert held() == {genome(value).hash for value in (0.64, 0.62, 0.7)}
    for entry in start(tmp_path, stream).entries:
        assert lineage.load(entry.genome_hash)


def test_a_summary_is_enough_to_go_on(tmp_path, stream) -> None:
    kept: list[str] = []
    lineage = Lineage(tmp_path, stream.record, lambda body: kept.append(json.dumps(body)))
    lineage.restore(stream.read(), genome(0.5), 1)
    for step in range(120):
        lineage.evolved(better(0.6 + step / 1000), step, 2)
    bad = lineage.active.genome_hash
    lineage.rollback("", "it drove into a shelf", 3)
    lineage.evolved(Generation(lineage.genome, Strategy.fresh(1, 2), False, 0.7, 0.7, 4), 9, 4)
    again = Lineage(tmp_path, stream.record)
    again.restore([(0, SUMMARY, json.loads(kept[-1]))], genome(0.1), 5)
    assert again.active == lineage.active
    assert again.genome.hash == lineage.genome.hash
    assert again.entries == lineage.entries[-100:]
    assert again.barred == {bad}
    assert again.strategy(4).to_json() == lineage.strategy(4).to_json()


def test_rollback_bars_and_release_unbars(tmp_path, stream) -> None:
    lineage = start(tmp_path, stream)
    lineage.evolved(better(0.6), 7, 2)
    bad = lineage.active.genome_hash
    lineage.rollback("", "it drove into a shelf", 3)
    assert lineage.genome.hash == genome(0.5).hash
    assert lineage.active.origin == "rollback"
    assert lineage.barred == {bad}
    with pytest.raises(BrainError, match="barred") as refused:
        lineage.rollback(bad, "", 4)
    assert refused.value.code is ErrorCode.GENOME_REJECTED
    assert start(tmp_path, stream).barred == {bad}
    lineage.release(bad, "it was the floor")
    lineage.rollback(bad, "", 5)
    assert lineage.genome.hash == bad
    assert start(tmp_path, stream).entries == lineage.entries


def test_what_cannot_be_rolled_back_to(tmp_path, stream) -> None:
    lineage = start(tmp_path, stream)
    for genome_hash, code in (
        ("", ErrorCode.NOT_FOUND),
        ("0" * 64, ErrorCode.NOT_FOUND),
        (lineage.active.genome_hash, ErrorCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(BrainError) as refused:
            lineage.rollback(genome_hash, "", 2)
        assert refused.value.code is code
    with pytest.raises(BrainError):
        lineage.release("0" * 64, "")


def test_what_the_ledger_refuses_is_not_done(tmp_path, stream) -> None:
    lineage = start(tmp_path, stream)
    lineage.evolved(better(0.6), 7, 2)
    before = (list(lineage.entries), lineage.genome.hash, set(lineage.barred))
    stream.full = True
    for change in (
        lambda: lineage.evolved(better(0.7), 8, 3),
        lambda: lineage.rollback("", "", 3),
    ):
        with pytest.raises(BrainError):
            change()
        assert (lineage.entries, lineage.genome.hash, lineage.barred) == before


def test_a_genome_outlives_a_power_cut_before_the_ledger_cites_it(
    tmp_path: Path, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace, record = disk.fsync, disk.replace, stream.record

    def synced(fd: int) -> None:
        steps.append(f"synced {Path(f'/proc/self/fd/{fd}').readlink().name}")
        fsync(fd)

    def renamed(fresh: Path, path: Path) -> None:
        steps.append(f"renamed to {path.name}")
        replace(fresh, path)

    def cited(kind: str, body) -> int:
        steps.append(kind)
        return record(kind, body)

    monkeypatch.setattr(disk, "fsync", synced)
    monkeypatch.setattr(disk, "replace", renamed)
    monkeypatch.setattr(stream, "record", cited)
    lineage = start(tmp_path / "genome_sync", stream)
    name = f"{lineage.active.genome_hash}.msgpack"
    kept = [f"synced {name}.new", f"renamed to {name}", "synced genomes"]
    assert steps == [
        f"synced {tmp_path.name}", "synced genome_sync", *kept, "genome.activated"
    ]  # fmt: skip


def test_a_changed_or_missing_file_is_refused(tmp_path, stream) -> None:
    lineage = start(tmp_path, stream)
    path = tmp_path / "genomes" / f"{lineage.active.genome_hash}.msgpack"
    path.write_bytes(genome(0.9).encode())
    with pytest.raises(BrainError, match="changed"):
        start(tmp_path, stream)
    path.unlink()
    with pytest.raises(BrainError, match="cannot be read"):
        start(tmp_path, stream)
