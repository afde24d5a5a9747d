"""What the PFC keeps over a restart: its decisions and their outcomes, in SQLite.

The ledger stream is the truth and this file a projection of it: a row's `place` is the sequence
number of its record, so `Store.end` says from where `Store.replay` has to catch up after a crash.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Stream
from brainos_ros.pfc.engine import Decision
from brainos_ros.pfc.learning import SUCCESS, Learning
from brainos_ros.projection import Projection, is_damage

BEGAN, LEFT_BEHIND = "began", "; left behind"
"""Of a pursuit's record: the phase it begins with, and how one ends that leaves it under way."""
REMEMBERED = 2_000
KEPT = 100_000
_BATCH = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions(
    place INTEGER PRIMARY KEY, decision_id TEXT UNIQUE, body TEXT);
CREATE TABLE IF NOT EXISTS outcomes(
    place INTEGER PRIMARY KEY, episode_id TEXT UNIQUE, decision_id TEXT,
    objective TEXT, action TEXT, context TEXT, outcome TEXT, reward REAL);
CREATE INDEX IF NOT EXISTS outcome_of ON outcomes(decision_id);
CREATE TABLE IF NOT EXISTS under_way(decision_id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS owed(episode_id TEXT PRIMARY KEY, episode BLOB);
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT);
"""
_DECISION = "INSERT OR IGNORE INTO decisions(place, decision_id, body) VALUES (?, ?, ?)"
_OUTCOME = (
    "INSERT OR IGNORE INTO outcomes(place, episode_id, decision_id, objective, action,"
    " context, outcome, reward) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_BEGAN = "INSERT OR IGNORE INTO under_way VALUES (?)"
_ENDED = "DELETE FROM under_way WHERE decision_id=?"
_OWED = "INSERT OR IGNORE INTO owed VALUES (?, ?)"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an action: `outcome` success, partial or failure, `reward` in [-1, 1]."""

    episode_id: str
    decision_id: str
    objective: str
    action: str
    context: Mapping[str, Any]
    outcome: str
    reward: float

    def __post_init__(self) -> None:
        if self.outcome not in SUCCESS:
            raise BrainError(f"outcome: is {self.outcome!r}, must be one of {', '.join(SUCCESS)}")
        if not -1.0 <= self.reward <= 1.0:
            raise BrainError(f"reward: is {self.reward}, must be in -1..1")
        if not (self.objective.strip() and self.action.strip() and self.episode_id):
            raise BrainError("objective, action and episode_id: must not be empty")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Store(Projection):
    """Decisions and outcomes in one SQLite file.

    The last KEPT of each; the ledger has the older ones.
    """

    def _open(self) -> None:
        super()._open()
        self._fresh: list[tuple[str, tuple[Any, ...]]] = []
        self._added = 0
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self.flush()
        self._db.close()

    def add_decision(self, place: int, decision_id: str, body: bytes) -> None:
        """Keep a decision, `body` its JSON; on disk with the next `flush` (the ledger has it)."""
        self._fresh.append((_DECISION, (place, decision_id, body.decode())))

    def flush(self) -> None:
        """Write what was added, all or none: `end` counts up to the last of it."""
        if self._fresh:
            with self._db:
                self._db.execute("BEGIN")
                for insert, values in self._fresh:
                    self._db.execute(insert, values)
            added, self._fresh = len(self._fresh), []
            self._trim(added)

    def _trim(self, added: int) -> None:
        self._added += added
        if self._added >= _BATCH:
            self._added = 0
            for table in ("decisions", "outcomes"):
                newest = f"SELECT place FROM {table} ORDER BY place DESC LIMIT 1 OFFSET ?"
                self._db.execute(f"DELETE FROM {table} WHERE place <= ({newest})", (KEPT,))

    def begin_action(self, decision_id: str) -> None:
        """Note that the decision is being acted on, so that a crash leaves a trace."""
        self.flush()
        self._db.execute(_BEGAN, (decision_id,))

    def end_action(self, decision_id: str) -> None:
        """It is over; on disk with the next `flush` (until then it counts as interrupted)."""
        self._fresh.append((_ENDED, (decision_id,)))

    def interrupted(self) -> list[str]:
        """The decisions whose action was under way when a process ended; each until it ends."""
        self.flush()
        rows = self._db.execute("SELECT decision_id FROM under_way ORDER BY rowid")
        return [row[0] for row in rows]

    def add_outcome(self, place: int, outcome: Outcome) -> None:
        """Keep an outcome, as `add_decision` does; of one episode id the first counts."""
        values = (
            place,
            outcome.episode_id,
            outcome.decision_id,
            outcome.objective,
            outcome.action,
            json.dumps(outcome.context),
            outcome.outcome,
            outcome.reward,
        )
        self._fresh.append((_OUTCOME, values))

    def owe(self, episode_id: str, episode: bytes) -> None:
        """Keep an episode until the memory has it (`settle`).

        It is on disk when this returns; where that fails, with the next `flush` that does not.
        """
        self._fresh.append((_OWED, (episode_id, episode)))
        self.flush()

    def owed(self) -> tuple[str, bytes] | None:
        """The longest kept episode that the memory may not have: (episode_id, episode)."""
        row = self._db.execute("SELECT episode_id, episode FROM owed ORDER BY rowid LIMIT 1")
        found: tuple[str, bytes] | None = row.fetchone()
        return found

    def unlearnt(self) -> list[bytes]:
        """The episodes that are owed and whose outcomes are not known."""
        self.flush()
        rows = self._db.execute(
            "SELECT episode FROM owed WHERE NOT EXISTS (SELECT 1 FROM outcomes"
            " WHERE outcomes.episode_id = owed.episode_id) ORDER BY rowid"
        )
        return [row[0] for row in rows]

    def settle(self, episode_id: str) -> None:
        """The memory has it."""
        self._db.execute("DELETE FROM owed WHERE episode_id=?", (episode_id,))

    def action_of(self, decision_id: str) -> str | None:
        """What a decision recommended (empty: nothing); None if it is not known."""
        self.flush()
        row = self._db.execute(
            "SELECT body FROM decisions WHERE decision_id=?", (decision_id,)
        ).fetchone()
        return str(json.loads(row[0])["recommended_action"]) if row else None

    def knows_episode(self, episode_id: str) -> bool:
        self.flush()
        row = self._db.execute("SELECT 1 FROM outcomes WHERE episode_id=?", (episode_id,))
        return row.fetchone() is not None

    def learning(self) -> Learning:
        """Learn again from the last REMEMBERED outcomes, in their order."""
        self.flush()
        learning = Learning()
        rows = self._db.execute(
            "SELECT objective, action, context, outcome, reward FROM (SELECT * FROM outcomes"
            " ORDER BY place DESC LIMIT ?) ORDER BY place",
            (REMEMBERED,),
        )
        for objective, action, context, outcome, reward in rows:
            learning.learn(objective, action, json.loads(context), outcome, reward)
        return learning

    def explain(self, decision_id: str = "") -> tuple[Decision, str, float]:
        """Return a decision (the last if no id), its outcome and reward (empty, 0 if unknown).

        Raises BrainError (NOT_FOUND).
        """
        self.flush()
        where = "decision_id=?" if decision_id else "1 OR ? ORDER BY place DESC LIMIT 1"
        row = self._db.execute(
            f"SELECT decision_id, body FROM decisions WHERE {where}", (decision_id,)
        ).fetchone()
        if row is None:
            what = f"`{decision_id}` is not among the last {KEPT} decisions of this robot"
            raise BrainError(
                f"decision_id: {what if decision_id else 'nothing was decided yet'}",
                ErrorCode.NOT_FOUND,
            )
        outcome = self._db.execute(
            "SELECT outcome, reward FROM outcomes WHERE decision_id=? ORDER BY place DESC LIMIT 1",
            (row[0],),
        ).fetchone()
        return (Decision.from_dict(json.loads(row[1])), *(outcome or ("", 0.0)))

    def end(self) -> int:
        """The sequence number after the last record applied; 0 if none is."""
        self.flush()
        row = self._db.execute(
            "SELECT max((SELECT ifnull(max(place), -1) FROM decisions),"
            " (SELECT ifnull(max(place), -1) FROM outcomes))"
        ).fetchone()
        return int(row[0]) + 1

    def is_of(self, stream: str) -> bool:
        """Whether it is of this stream, as one that never said of which becomes."""
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('stream', ?)", (stream,))
        row = self._db.execute("SELECT value FROM meta WHERE name='stream'").fetchone()
        return bool(row[0] == stream)

    def clear(self, stream: str) -> None:
        """Forget decisions and outcomes, to be replayed from `stream`; not what is under way or
        owed."""
        self._db.executescript("DELETE FROM decisions; DELETE FROM outcomes;")
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('stream', ?)", (stream,))

    def catch_up(self, ledger: Stream) -> tuple[Learning, bool]:
        """Bring it up to the ledger; what follows from it, and whether it was another ledger's.

        A file found damaged meanwhile is begun anew. Raises sqlite3.Error, and as the ledger.
        """
        try:
            return self._catch_up(ledger)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
        self.begin_anew()
        return self._catch_up(ledger)

    def _catch_up(self, ledger: Stream) -> tuple[Learning, bool]:
        foreign = not self.is_of(ledger.origin) or self.end() > ledger.size
        if foreign:
            self.clear(ledger.origin)
        self.replay(
            (record.sequence, record.kind, record.payload)
            for record in ledger.records(0 if foreign else self.end())
            if not record.erased
        )
        return self.learning(), foreign

    def replay(self, events: Iterable[tuple[int, str, bytes]]) -> None:
        """Apply (sequence, kind, JSON) records of the ledger stream, in order."""
        for place, kind, payload in events:
            if kind == "decision":
                self.add_decision(place, json.loads(payload)["decision_id"], payload)
            elif kind == "outcome":
                self.add_outcome(place, Outcome(**json.loads(payload)))
            elif kind == "pursuit":
                body = json.loads(payload)
                if body["phase"] == BEGAN:
                    self._fresh.append((_BEGAN, (body["decision_id"],)))
                elif not body["phase"].endswith(LEFT_BEHIND):
                    self.end_action(body["decision_id"])
            if len(self._fresh) >= _BATCH:
                self.flush()  # so that a replay cut short has got somewhere
        self.flush()
