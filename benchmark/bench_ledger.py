"""What does a provable record cost, beside stores that prove nothing?

Records of 256 bytes, one thread, alternating rounds: the ledger's stream; SQLite in WAL mode with
synchronous=FULL, committing each record, and committing what came in 5 ms; LMDB committing what
came in 5 ms. Grouped, all three promise the same: a power cut loses at most the window. Then, at
1,000,000 records: reads, proofs (beside pymerkle), full verification, opening, memory and size.
pymerkle is GPL and used here only; it and lmdb are left out, saying so, where they are missing
(pip install lmdb pymerkle).
"""

import importlib.util
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

sys.path.insert(0, str(Path(__file__).parent))
from report import Figure, percentile, report

from brainos_ros.ledger import Stream, prove, verifier, verify
from brainos_ros.ledger.auditing import statistics
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.proof import Prover
from brainos_ros.ledger.tiles import Tiles
from brainos_ros.ledger.verifier import verify_bundle

BODY, WINDOW_S = 256, 0.005
ROUNDS, APPENDS, COMMITS = 7, 60_000, 1_500
MILLION, READS, PROOFS, MERKLE = 1_000_000, 20_000, 2_000, 100_000
clock = time.perf_counter


def timed(act: Callable[[Any], object], bodies: list[Any]) -> tuple[list[float], float]:
    """Each call's duration [µs], and calls per second over all of them."""
    durations = []
    began = clock()
    for body in bodies:
        start = clock()
        act(body)
        durations.append((clock() - start) * 1e6)
    return durations, len(bodies) / (clock() - began)


class Sqlite:
    """A table in WAL mode, synchronous=FULL; commits each record, or what came in the window."""

    def __init__(self, path: Path, window_s: float) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE log (seq INTEGER PRIMARY KEY, time INTEGER, body BLOB)")
        self._window_s, self._until = window_s, 0.0

    def append(self, body: bytes) -> None:
        if self._window_s and not self._db.in_transaction:
            self._db.execute("BEGIN")
            self._until = clock() + self._window_s
        self._db.execute("INSERT INTO log (time, body) VALUES (?, ?)", (time.time_ns(), body))
        if self._window_s and clock() >= self._until:
            self._db.execute("COMMIT")

    def read(self, key: int) -> bytes:
        row = self._db.execute("SELECT body FROM log WHERE seq = ?", (key,)).fetchone()
        return bytes(row[0])

    def close(self) -> None:
        if self._db.in_transaction:
            self._db.execute("COMMIT")
        self._db.close()


class Lmdb:
    """An LMDB environment that commits, and syncs, what came in the window."""

    def __init__(self, path: Path, window_s: float) -> None:
        import lmdb

        self._env = lmdb.open(str(path), map_size=4 << 30)
        self._txn: Any = None
        self._window_s, self._until, self._key = window_s, 0.0, 0

    def append(self, body: bytes) -> None:
        if self._txn is None:
            self._txn = self._env.begin(write=True)
            self._until = clock() + self._window_s
        self._key += 1
        self._txn.put(self._key.to_bytes(8, "big"), body, append=True)
        if clock() >= self._until:
            self._txn.commit()
            self._txn = None

    def close(self) -> None:
        if self._txn is not None:
            self._txn.commit()
        self._env.close()


def available(package: str) -> bool:
    """Whether a peer is installed; says so where not."""
    try:
        __import__(package)
    except ImportError:
        print(f"{package} is not installed: its figures are left out (pip install {package})")
        return False
    return True


def appending(place: Path, bodies: list[bytes]) -> list[Figure]:
    """Accepted appends, round by round, each store in turn."""
    stream = Stream.open(place, "bench")
    single, grouped = Sqlite(place / "single.db", 0.0), Sqlite(place / "grouped.db", WINDOW_S)
    lmdb = Lmdb(place / "lmdb", WINDOW_S) if available("lmdb") else None
    durations: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    stores: list[tuple[str, Callable[[bytes], object], int]] = [
        ("ledger", lambda body: stream.event("note", body), APPENDS),
        ("SQLite each", single.append, COMMITS),
        ("SQLite 5 ms", grouped.append, APPENDS),
    ]
    if lmdb:
        stores.append(("LMDB 5 ms", lmdb.append, APPENDS))
    for _ in range(ROUNDS):
        for name, act, count in stores:
            each, rate = timed(act, bodies[:count])
            durations.setdefault(name, []).extend(each)
            rates.setdefault(name, []).append(rate)
    stream.close()
    for store in (single, grouped, lmdb):
        if store:
            store.close()
    n = ROUNDS * APPENDS
    figures = []
    for share, word, limit in ((0.5, "p50", 8), (0.99, "p99", 50)):
        ours = percentile(durations["ledger"], share)
        for name, _, _ in stores[1:]:
            peer = percentile(durations[name], share)
            goal = f"ours <= {limit}"
            if name == "SQLite each":
                goal += " and ratio <= 1.0"
            goal = goal if name == "SQLite each" else ""
            figures.append(
                Figure(f"accepted append {word}", "µs", ours, n, goal, peer=peer, peer_name=name)
            )
    ours = percentile(rates["ledger"], 0.5)
    for name, _, _ in stores[1:]:
        goal = "ours >= 120000" if name == "SQLite each" else ""
        peer = percentile(rates[name], 0.5)
        figures.append(Figure("accepted appends", "1/s", ours, n, goal, peer=peer, peer_name=name))
    return figures


def durability(place: Path, bodies: list[bytes]) -> list[Figure]:
    """From the append to the disk, and syncs per second under full load, for each window."""
    figures = []
    for window_s, word in ((0.005, "5 ms"), (0.001, "1 ms"), (None, "durable=True")):
        with Stream.open(place, f"w{word[0]}", window_s=window_s or WINDOW_S) as stream:
            waits = []
            for body in bodies[:300]:
                start = clock()
                sequence = stream.event("note", body, durable=window_s is None)
                while stream.durable_size <= sequence:
                    time.sleep(0.0001)
                waits.append((clock() - start) * 1e3)
            for share, name in ((0.5, "p50"), (0.99, "p99")):
                value = percentile(waits, share)
                figures.append(Figure(f"durable after, {word}, {name}", "ms", value, len(waits)))
            syncs, start = stream.syncs, clock()
            count = 0
            while clock() - start < 1.0:
                stream.event("note", bodies[count % len(bodies)], durable=window_s is None)
                count += 1
            rate = (stream.syncs - syncs) / (clock() - start)
            figures.append(Figure(f"fsyncs per second, {word}", "1/s", rate, count))
    return figures


def at_a_million(place: Path, bodies: list[bytes]) -> list[Figure]:
    """Reads, proofs, verification, opening, memory and size at 1,000,000 records."""
    chance = random.Random(1)
    with Stream.open(place, "million") as stream:
        while stream.size < MILLION:
            stream.event("note", bodies[stream.size % len(bodies)])
    path = place / "million"
    opened = []
    for _ in range(5):
        start = clock()
        stream = Stream.open(place, "million")
        opened.append(clock() - start)
        stream.close()
    figures = [Figure("opening", "s", percentile(opened, 0.5), 5, "ours <= 1")]
    figures += reading(place, bodies, chance)
    figures += proving(path, bodies, chance)
    figures += verification(path)
    figures.append(Figure("resident per record", "bytes", resident(place), MILLION, "ours <= 16"))
    figures += sizes(path)
    return figures


def verification(path: Path) -> list[Figure]:
    """Walking the whole stream by one process, and by one for each CPU, in turn."""
    cpus = len(os.sched_getaffinity(0))
    speeds: dict[int, list[float]] = {1: [], cpus: []}
    for _ in range(3):
        for workers, found in speeds.items():
            start = clock()
            result = verify(path, workers=workers)
            found.append(result.verified_records / (clock() - start))
            assert result.verified, result.problem
    one, *several = [percentile(found, 0.5) for found in speeds.values()]
    goal = "ours >= 300000"
    figures = [Figure("full verification", "records/s", one, 3, "" if several else goal)]
    for speed in several:
        figures.append(Figure(f"full verification, {cpus} processes", "records/s", speed, 3, goal))
    return figures


def reading(place: Path, bodies: list[bytes], chance: random.Random) -> list[Figure]:
    """Random reads of a million records, beside SQLite by primary key."""
    database = Sqlite(place / "read.db", 1.0)
    for number in range(MILLION):
        database.append(bodies[number % len(bodies)])
    ours: list[float] = []
    peer: list[float] = []
    with Stream.open(place, "million") as stream:
        for _ in range(5):
            wanted = [chance.randrange(1, MILLION) for _ in range(READS // 5)]
            for act, into in ((stream.read, ours), (database.read, peer)):
                for number in wanted:
                    start = clock()
                    act(number)
                    into.append((clock() - start) * 1e6)
    database.close()
    return [
        Figure(f"read {word}", "µs", percentile(ours, share), READS, goal,
               peer=percentile(peer, share), peer_name="SQLite by key")
        for share, word, goal in ((0.5, "p50", "ours <= 5"), (0.99, "p99", ""))
    ]  # fmt: skip


def proving(path: Path, bodies: list[bytes], chance: random.Random) -> list[Figure]:
    """Audit paths, and checking bundles that come as they do from a file."""
    tiles = Tiles(Layout(path))
    prover = Prover(MILLION, tiles.run)
    peer = pymerkle_tree(bodies) if available("pymerkle") else None
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(10):
        for number in [chance.randrange(MILLION) for _ in range(PROOFS // 10)]:
            start = clock()
            prover.path(number)
            ours.append((clock() - start) * 1e6)
        for number in [chance.randrange(1, MERKLE) for _ in range(20 if peer else 0)]:
            start = clock()
            peer.prove_inclusion(number, MERKLE)
            theirs.append((clock() - start) * 1e6)
    tiles.close()
    with Stream.open(path.parent, "million") as stream:
        key = stream.public_key
    bare = Ed25519PublicKey.from_public_bytes(b64decode(key.split("+", 2)[2])[1:])
    plain = verifier_without_nacl()
    bundles = [prove(path, number) for number in chance.sample(range(MILLION), 500)]
    notes = [bundle["checkpoint"].partition("\n\n") for bundle in bundles]
    signed = [
        (b64decode(line.rpartition(" ")[2])[4:], text.encode() + b"\n") for text, _, line in notes
    ]
    checks: list[float] = []
    plainly: list[float] = []
    signatures: list[float] = []
    for start in range(0, 500, 50):
        part = slice(start, start + 50)
        checks += timed(lambda bundle: verify_bundle(bundle, key), bundles[part])[0]
        plainly += timed(lambda bundle: plain.verify_bundle(bundle, key), bundles[part])[0]
        signatures += timed(lambda pair: bare.verify(*pair), signed[part])[0]
    name = f"pymerkle at {MERKLE:,} in memory"
    return [
        Figure("inclusion proof p50", "µs", percentile(ours, 0.5), PROOFS, "ours <= 60",
               peer=percentile(theirs, 0.5) if theirs else None, peer_name=name),
        Figure("inclusion proof p99", "µs", percentile(ours, 0.99), PROOFS),
        Figure("proof and signature checked p50", "µs", percentile(checks, 0.5), 500,
               "ours <= 100", peer=percentile(signatures, 0.5),
               peer_name="the signature alone, by cryptography"),
        Figure("the same without PyNaCl p50", "µs", percentile(plainly, 0.5), 500),
    ]  # fmt: skip


def verifier_without_nacl() -> Any:
    """The verifier as it is where only `cryptography` is installed."""
    spec = importlib.util.spec_from_file_location("plain_verifier", verifier.__file__)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    with patch.dict(sys.modules, {"nacl.bindings": None}):
        spec.loader.exec_module(module)
    return module


def pymerkle_tree(bodies: list[bytes]) -> Any:
    """pymerkle's tree in memory; it hashes entries anew for each proof beyond its cache."""
    from pymerkle import InmemoryTree

    tree = InmemoryTree(algorithm="sha256")
    for number in range(MERKLE):
        tree.append_entry(bodies[number % len(bodies)])
    return tree


RESIDENT = """
import gc, sys
from pathlib import Path
from brainos_ros.ledger import Stream
def rss():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
Stream.open(Path(sys.argv[1]), "w5").read(1)
before = rss()
stream = Stream.open(Path(sys.argv[1]), "million")
for number in range(1, stream.size, 9973):
    stream.read(number)
print(rss() - before)
stream.close()
"""


def resident(place: Path) -> float:
    """What a process grows by when it opens the stream and reads all over it [bytes/record]."""
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT, str(place)], capture_output=True, text=True, check=True
    )
    return int(done.stdout) / MILLION


def sizes(path: Path) -> list[Figure]:
    """Everything on the disk beside the bodies, and what 100 million records would take."""
    figures = statistics(path)
    total = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    overhead = (total - figures.body_bytes) / figures.body_bytes * 100
    tiles = sum(file.stat().st_size for file in (path / "tiles").iterdir())
    per_record = figures.log_bytes / figures.records
    return [
        Figure("overhead at 256 bytes", "%", overhead, figures.records, "ours <= 35"),
        Figure("log per record", "bytes", per_record, figures.records),
        Figure("stored nodes per record", "bytes", tiles / figures.records, figures.records),
        Figure("log at 100 million (computed)", "GB", per_record / 10, figures.records),
        Figure("derived at 100 million (computed)", "GB", (tiles / figures.records + 4) / 10,
               figures.records),
    ]  # fmt: skip


def main() -> int:
    bodies = [os.urandom(BODY) for _ in range(APPENDS)]
    place = Path(tempfile.mkdtemp(prefix="bench-ledger-"))
    try:
        figures = appending(place, bodies)
        figures += durability(place, bodies)
        figures += at_a_million(place, bodies)
    finally:
        shutil.rmtree(place)
    load = f"{os.getloadavg()[0]:.1f}"
    return report("ledger", figures, {"sqlite": sqlite3.sqlite_version, "load average": load})


if __name__ == "__main__":
    raise SystemExit(main())
