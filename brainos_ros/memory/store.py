"""Episodes in SQLite; `recall` finds them by words, time, attributes and reward.

A projection of the ledger: a row's `place` is the sequence number of its record, `meta` says how
far the ledger was applied, and the file can be deleted at any time. Only how often an episode was
recalled is not in the ledger, and starts at zero again. `stamp` is an episode's end as it was told,
`ended` the same on the keeper's clock, as is `used`.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from brainos_ros.memory.episodes import Episode
from brainos_ros.projection import Projection

_SCHEMA = """
CREATE TABLE IF NOT EXISTS episodes(
    place INTEGER PRIMARY KEY, episode_id TEXT UNIQUE, stamp INTEGER, objective TEXT,
    action TEXT, outcome TEXT, reward REAL, kind TEXT, decision_id TEXT, context TEXT,
    metadata TEXT, size INTEGER, protected INTEGER, hits INTEGER DEFAULT 0, used INTEGER);
CREATE INDEX IF NOT EXISTS by_stamp ON episodes(stamp);
DROP INDEX IF EXISTS by_kind;
CREATE INDEX IF NOT EXISTS by_use ON episodes(kind, protected, used);
CREATE TABLE IF NOT EXISTS attributes(
    key TEXT, value TEXT, place INTEGER, PRIMARY KEY(key, value, place)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS of_place ON attributes(place);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(text, tokenize="unicode61");
CREATE TABLE IF NOT EXISTS gone(
    episode_id TEXT, place INTEGER, PRIMARY KEY(episode_id, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value INTEGER);
INSERT OR IGNORE INTO meta VALUES ('end', 0);
"""
_ENDED = """
DROP INDEX IF EXISTS by_age;
ALTER TABLE episodes ADD COLUMN ended INTEGER;
UPDATE episodes SET ended = stamp;
CREATE INDEX by_end ON episodes(kind, protected, ended);
"""
_USAGE = """
CREATE TABLE usage(kind TEXT PRIMARY KEY, entries INTEGER, bytes INTEGER);
INSERT INTO usage SELECT kind, count(*), sum(size) FROM episodes GROUP BY kind;
CREATE TRIGGER came AFTER INSERT ON episodes BEGIN
    INSERT INTO usage VALUES (NEW.kind, 1, NEW.size)
    ON CONFLICT DO UPDATE SET entries = entries + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER went AFTER DELETE ON episodes BEGIN
    UPDATE usage SET entries = entries - 1, bytes = bytes - OLD.size WHERE kind = OLD.kind;
END;
"""
COLUMNS = (
    "episode_id, stamp, objective, context, action, outcome, reward, metadata, kind, decision_id"
)
MERGE_PAGES = 64


class Store(Projection):
    """Episodes in one SQLite file."""

    def _open(self) -> None:
        super()._open()
        self._db.execute("PRAGMA secure_delete=ON")
        self._db.executescript(_SCHEMA)
        names = {name for name, in self._db.execute("SELECT name FROM sqlite_master")}
        for name, script in (("by_end", _ENDED), ("usage", _USAGE)):
            if name not in names:
                self._db.executescript(f"BEGIN; {script} COMMIT;")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is done within."""
        self._db.execute("BEGIN")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # on a full disk SQLite may have rolled back itself
                self._db.execute("ROLLBACK")
            raise

    # ---------------------------------------------------------------- the ledger's projection

    @property
    def end(self) -> int:
        """The sequence number of the first record not applied yet."""
        return int(self._db.execute("SELECT value FROM meta WHERE name='end'").fetchone()[0])

    def advance(self, end: int) -> None:
        self._db.execute("UPDATE meta SET value=? WHERE name='end'", (end,))

    def is_of(self, stream: str) -> bool:
        """Whether it is of this stream, as one that never said of which becomes."""
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('stream', ?)", (stream,))
        row = self._db.execute("SELECT value FROM meta WHERE name='stream'").fetchone()
        return bool(row[0] == stream)

    def clear(self, stream: str) -> None:
        """Forget everything, to be replayed from `stream`."""
        with self.transaction():
            for table in ("episodes", "attributes", "words", "gone"):
                self._db.execute(f"DELETE FROM {table}")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('stream', ?)", (stream,))
            self.advance(0)

    # ---------------------------------------------------------------- episodes

    def add(self, place: int, episode: Episode, size: int, ended_ns: int) -> None:
        """Keep an episode whose ledger record is `place`, of `size` bytes."""
        body = episode.to_dict()
        context, metadata = json.dumps(body["context"]), json.dumps(body["metadata"])
        self._db.execute(
            f"INSERT INTO episodes({COLUMNS}, place, size, protected, used, ended)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                episode.episode_id,
                episode.stamp_ns,
                episode.objective,
                context,
                episode.action,
                episode.outcome,
                episode.reward,
                metadata,
                episode.kind,
                episode.decision_id,
                place,
                size,
                episode.protected,
                ended_ns,
                ended_ns,
            ),
        )
        pairs = [*episode.context.items(), *episode.metadata.items()]
        self._db.executemany(
            "INSERT OR IGNORE INTO attributes VALUES (?, ?, ?)",
            [(key, canonical(value), place) for key, value in pairs],
        )
        self._db.execute(
            "INSERT INTO words(rowid, text) VALUES (?, ?)", (place, " ".join(episode.words()))
        )

    def find(self, episode_id: str) -> tuple[int, Episode] | None:
        """(place, episode), or None."""
        row = self._db.execute(
            f"SELECT place, {COLUMNS} FROM episodes WHERE episode_id=?", (episode_id,)
        ).fetchone()
        return (row[0], to_episode(row[1:])) if row else None

    def gone(self, episode_id: str) -> list[int]:
        """The ledger records of an episode that was forgotten, evicted or outlived."""
        rows = self._db.execute("SELECT place FROM gone WHERE episode_id=?", (episode_id,))
        return [row[0] for row in rows]

    def ids(self, places: Iterable[int]) -> list[str]:
        find = "SELECT episode_id FROM episodes WHERE place=?"
        rows = (self._db.execute(find, (place,)).fetchone() for place in places)
        return [row[0] for row in rows if row]

    def remove(self, places: Iterable[int]) -> None:
        each = [(place,) for place in places]
        self._db.executemany(
            "INSERT OR IGNORE INTO gone SELECT episode_id, place FROM episodes WHERE place=?", each
        )
        self._db.executemany("DELETE FROM words WHERE rowid=?", each)
        self._db.executemany("DELETE FROM attributes WHERE place=?", each)
        self._db.executemany("DELETE FROM episodes WHERE place=?", each)

    def erase_traces(self) -> Iterator[None]:
        """After a purge: leave nothing of removed rows in the index or the write-ahead log.

        Done when the iterator ends; each step takes some hundredths of a second.
        """
        pages = -MERGE_PAGES  # negative: begin to merge all there is (FTS5, "merge" command)
        while self._merge(pages):
            yield
            pages = MERGE_PAGES
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _merge(self, pages: int) -> bool:
        """Merge some pages of the index, which drops what was deleted; False: nothing to do."""
        before = self._db.total_changes
        self._db.execute("INSERT INTO words(words, rank) VALUES ('merge', ?)", (pages,))
        return self._db.total_changes - before >= 2

    def touch(self, places: Iterable[int], now_ns: int) -> None:
        """Count a recall."""
        with self.transaction():
            self._db.executemany(
                "UPDATE episodes SET hits=hits+1, used=? WHERE place=?",
                [(now_ns, place) for place in places],
            )

    # ---------------------------------------------------------------- room

    def usage(self, kind: str) -> tuple[int, int]:
        """(episodes, bytes) of a kind."""
        row = self._db.execute("SELECT entries, bytes FROM usage WHERE kind=?", (kind,))
        return row.fetchone() or (0, 0)

    def evictable(self, kind: str) -> Iterator[tuple[int, int, int, int]]:
        """(place, used, hits, size) of what is not protected, longest unused first."""
        return self._db.execute(
            "SELECT place, used, hits, size FROM episodes WHERE kind=? AND protected=0"
            " ORDER BY used",
            (kind,),
        )

    def older(self, kind: str, before_ns: int, limit: int) -> list[int]:
        """Places of what ended before, unless protected; the oldest `limit`."""
        rows = self._db.execute(
            "SELECT place FROM episodes WHERE kind=? AND ended < ? AND protected=0"
            " ORDER BY ended LIMIT ?",
            (kind, before_ns, limit),
        )
        return [row[0] for row in rows]


def to_episode(row: Sequence[Any]) -> Episode:
    """From a row of the columns in `COLUMNS`."""
    episode = Episode(*row)
    episode.context, episode.metadata = json.loads(row[3]), json.loads(row[7])
    return episode


def canonical(value: Any) -> str:
    """A value as the index compares it: 1 and 1.0 are the same, 1 and true are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)
