"""Which genome is in use, which were before it, and which are barred; rebuilt from the ledger.

Each genome lies in a file named by its hash (`genomes/<hash>.msgpack`), written once and verified
when read; the ledger's events cite the hash. Every change is recorded before it is made. After it a
summary is kept, which is enough to go on from where the events before it were pruned. When the
history is full, the files of genomes that are not in it are deleted: nothing goes back to them.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.genome_sync.evolution import Generation, Strategy
from brainos_ros.genome_sync.genome import Genome
from brainos_ros.ledger import disk

SUMMARY = "summary"
MOST_ENTRIES = 1_000
MOST_SUMMED_UP = 100
Record = Callable[[str, Mapping[str, Any]], int]
Keep = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One activation of a genome. `stamp` is in nanoseconds of the node's clock."""

    genome_hash: str
    generation: int
    fitness_score: float
    stamp: int
    origin: str


class Lineage:
    """The genomes of one robot up to the one in use: the last MOST_ENTRIES; the ledger has all.

    `keep(summary)` stores the newest summary where pruning does not reach it.
    """

    def __init__(self, folder: Path, record: Record, keep: Keep = lambda _: None) -> None:
        self._folder = folder / "genomes"
        self._record = record
        self._keep = keep
        self.entries: list[Entry] = []
        self.barred: set[str] = set()
        self._strategies: dict[str, Strategy] = {}
        self._genome: Genome | None = None

    def restore(
        self, records: Iterable[tuple[int, str, Mapping[str, Any]]], default: Genome, now: int
    ) -> None:
        """Replay the ledger's events; with none, begin with `default`. A `SUMMARY` among them
        replaces what came before.

        Raises GENOME_REJECTED if the genome in use is missing or its file was changed.
        """
        for _, kind, body in records:
            self._apply(kind, body)
        if not self.entries:
            self._save(default)
            self._do("genome.activated", _entry(default.hash, 0, 0.0, now, "default"))
        self._genome = self.load(self.active.genome_hash)
        self._keep(self.summary())

    def summary(self) -> dict[str, Any]:
        """The newest entries, all bars, and what evolution learned with the genome in use."""
        learned = self._strategies.get(self.active.genome_hash)
        return {
            "entries": [asdict(entry) for entry in self.entries[-MOST_SUMMED_UP:]],
            "barred": sorted(self.barred),
            "strategy": learned.to_json() if learned else None,
        }

    @property
    def active(self) -> Entry:
        """The entry of the genome in use."""
        return self.entries[-1]

    @property
    def genome(self) -> Genome:
        """The genome in use."""
        assert self._genome is not None, "restore comes first"
        return self._genome

    def strategy(self, offspring: int) -> Strategy:
        """What evolution learned with the genome in use; fresh if it fits nothing."""
        size = self.genome.vector().size
        held = self._strategies.get(self.active.genome_hash)
        return held if held and held.path.size == size else Strategy.fresh(size, offspring)

    def evolved(self, outcome: Generation, seed: int, now: int) -> None:
        """Take in the outcome of a generation bred from the genome in use."""
        parent = self.active
        body: dict[str, Any] = {
            "parent": parent.genome_hash,
            "seed": seed,
            "evaluated": outcome.evaluated,
            "improved": outcome.improved,
            "fitness_before": outcome.fitness_before,
            "fitness_after": outcome.fitness_after,
            "strategy": outcome.strategy.to_json(),
            "begun_anew": outcome.begun_anew,
        }
        if outcome.improved:
            self._save(outcome.genome)
        generation = parent.generation + 1 if outcome.improved else parent.generation
        origin = "evolve" if outcome.improved else parent.origin
        stamp = now if outcome.improved else parent.stamp
        self._do(
            "genome.evolved",
            body | _entry(outcome.genome.hash, generation, outcome.fitness_after, stamp, origin),
        )
        self._genome = outcome.genome

    def rollback(self, genome_hash: str, reason: str, now: int) -> None:
        """Go back to an earlier genome (empty: the one used before) and bar the one in use."""
        current = self.active.genome_hash
        if not genome_hash:
            genome_hash = next(
                (
                    entry.genome_hash
                    for entry in reversed(self.entries)
                    if entry.genome_hash != current and entry.genome_hash not in self.barred
                ),
                "",
            )
            if not genome_hash:
                raise BrainError("there is no earlier genome to go back to", ErrorCode.NOT_FOUND)
        target = self._find(genome_hash)
        if genome_hash == current:
            raise BrainError(f"genome_hash {genome_hash[:12]} is in use: give an earlier one")
        if genome_hash in self.barred:
            raise BrainError(
                f"genome_hash {genome_hash[:12]} is barred: release it first",
                ErrorCode.GENOME_REJECTED,
            )
        genome = self.load(genome_hash)
        entry = _entry(genome_hash, target.generation, target.fitness_score, now, "rollback")
        self._do("genome.rolled_back", entry | {"barred": current, "reason": reason})
        self._genome = genome

    def release(self, genome_hash: str, reason: str) -> None:
        """Let a barred genome be used again."""
        if genome_hash not in self.barred:
            raise BrainError(f"genome_hash {genome_hash[:12]!r} is not barred", ErrorCode.NOT_FOUND)
        self._do("genome.activated", {"released": genome_hash, "reason": reason})

    def load(self, genome_hash: str) -> Genome:
        """Read a genome of the history from its file; raises GENOME_REJECTED if it is not that."""
        path = self._path(genome_hash)
        try:
            genome = Genome.decode(path.read_bytes())
        except OSError as error:
            raise BrainError(f"{path} cannot be read: {error}", ErrorCode.GENOME_REJECTED) from None
        if genome.hash != genome_hash:
            raise BrainError(f"{path} was changed: its hash differs", ErrorCode.GENOME_REJECTED)
        return genome

    def _find(self, genome_hash: str) -> Entry:
        for entry in reversed(self.entries):
            if entry.genome_hash == genome_hash:
                return entry
        raise BrainError(
            f"genome_hash {genome_hash[:12]!r} is not among the last {MOST_ENTRIES} genomes used",
            ErrorCode.NOT_FOUND,
        )

    def _do(self, kind: str, body: Mapping[str, Any]) -> None:
        self._record(kind, body)
        self._apply(kind, body)
        self._keep(self.summary())
        if len(self.entries) == MOST_ENTRIES:
            self._sweep()

    def _sweep(self) -> None:
        """Delete the files of genomes that are not in the history; one that stays is tried again.

        Not before the history is full: a ledger that was lost, and is restored from a backup later,
        still finds the genome that it says is in use.
        """
        held = {entry.genome_hash for entry in self.entries}
        for path in self._folder.glob("*.msgpack"):
            if path.stem not in held:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _apply(self, kind: str, body: Mapping[str, Any]) -> None:
        if kind == SUMMARY:
            self.entries = [Entry(**entry) for entry in body["entries"]]
            self.barred = set(body["barred"])
            if body["strategy"]:
                learned = Strategy.from_json(body["strategy"])
                self._strategies = {self.active.genome_hash: learned}
        elif kind == "genome.activated" and "released" in body:
            self.barred.discard(body["released"])
        elif kind in ("genome.activated", "genome.evolved", "genome.rolled_back"):
            entry = Entry(*(body[name] for name in Entry.__slots__))
            if kind == "genome.evolved":
                self._strategies.pop(entry.genome_hash, None)
                self._strategies[entry.genome_hash] = Strategy.from_json(body["strategy"])
                if len(self._strategies) > MOST_SUMMED_UP:
                    del self._strategies[next(iter(self._strategies))]
                if not body["improved"]:
                    self.entries[-1] = entry
                    return
            if kind == "genome.rolled_back":
                self.barred.add(body["barred"])
            self.entries.append(entry)
            del self.entries[:-MOST_ENTRIES]

    def _path(self, genome_hash: str) -> Path:
        return self._folder / f"{genome_hash}.msgpack"

    def _save(self, genome: Genome) -> None:
        """Durable before the ledger cites it: a citation without its file ends the next start."""
        disk.make_directory(self._folder)
        disk.replace_file(self._path(genome.hash), genome.encode())


def _entry(
    genome_hash: str, generation: int, fitness: float, stamp: int, origin: str
) -> dict[str, Any]:
    return {
        "genome_hash": genome_hash,
        "generation": generation,
        "fitness_score": fitness,
        "stamp": stamp,
        "origin": origin,
    }
