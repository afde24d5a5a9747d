"""Recalling: episodes found by words, time, attributes and reward, and scored."""

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainos_ros.errors import BrainError
from brainos_ros.memory.episodes import Episode, split_words
from brainos_ros.memory.patterns import Pattern, mine
from brainos_ros.memory.scoring import heat, relevance, worth
from brainos_ros.memory.store import COLUMNS, canonical, to_episode

CANDIDATES = 200
MOST_RESULTS = 1000
MINED_STEPS = 5000
_FOREVER_NS = 2**63 - 1
_COLUMN_FILTERS = {"action", "outcome", "objective", "kind", "decision_id"}


@dataclass(frozen=True, slots=True)
class Hit:
    """An episode recalled: how well it fits (0 to 1), why, and hot, warm or cold."""

    episode: Episode
    score: float
    why: str
    heat: str


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked for. Raises BrainError on a limit over 1000 or a start after the end.

    Attributes:
        query: words; empty matches everything.
        limit: at most so many; 0 is 10.
        start_ns, end_ns: wall clock [ns since the Unix epoch]; 0 is no start, no end.
        filters: all of these in context or metadata, or among the episode's own fields.
        min_reward: only rewards at or above.
    """

    query: str = ""
    limit: int = 0
    start_ns: int = 0
    end_ns: int = 0
    filters: Mapping[str, Any] | None = None
    min_reward: float = -1.0

    def __post_init__(self) -> None:
        check_limit(self.limit)
        if self.end_ns and self.start_ns > self.end_ns:
            raise BrainError("start: is after end")


def check_limit(limit: int) -> int:
    """`limit`, 10 where it is 0. Raises BrainError over 1000."""
    if limit > MOST_RESULTS:
        raise BrainError(f"limit: is {limit}, must be at most {MOST_RESULTS}")
    return limit or 10


class Recall:
    """Reads the file of a `Store`, on a connection of its own: a long search holds up no writer.

    Attributes:
        lock: held while it reads; with it held, nothing of it is left in SQLite's log.
    """

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA query_only=ON")

    def close(self) -> None:
        with self.lock:
            self._db.close()

    def find(self, question: Question, now_ns: int) -> list[tuple[int, Hit]]:
        """(place, hit) of what fits, best first. Words that no episode has count against none."""
        limit = check_limit(question.limit)
        asked = list(dict.fromkeys(split_words(question.query)))
        with self.lock:
            known = [word for word in asked if self._known(word)]
            if asked and not known:
                return []
            rows = self._search(known, question, max(CANDIDATES, limit))
        scored = []
        for place, episode, hits, used, ended, text in rows:
            have = set(text.split()) if known else set()
            found = [word for word in known if word in have]
            score, why = relevance(known, found, now_ns - ended, episode.reward)
            value = worth(now_ns - used, hits, episode.protected)
            scored.append((place, Hit(episode, score, why, heat(value))))
        scored.sort(key=lambda each: -each[1].score)
        return scored[:limit]

    def patterns(self, limit: int = 0) -> list[Pattern]:
        """Sequences of actions that keep coming back, best first; raises as `Question`."""
        limit = check_limit(limit)
        with self.lock:
            rows = self._db.execute(
                "SELECT stamp, action, reward FROM episodes"
                " ORDER BY stamp DESC, place DESC LIMIT ?",
                (MINED_STEPS,),
            ).fetchall()
        return mine(rows[::-1])[:limit]

    def _known(self, word: str) -> bool:
        """Whether any episode has this word."""
        row = self._db.execute("SELECT 1 FROM words WHERE words MATCH ? LIMIT 1", (f'"{word}"',))
        return row.fetchone() is not None

    def _search(
        self, words: Sequence[str], question: Question, limit: int
    ) -> list[tuple[int, Episode, int, int, int, str]]:
        """(place, episode, hits, used, ended, text) of what may fit, likeliest first.

        By words that is bm25, without them the newest.
        """
        where = ["stamp BETWEEN ? AND ?", "reward >= ?"]
        values: list[Any] = [
            question.start_ns,
            question.end_ns or _FOREVER_NS,
            question.min_reward,
        ]
        for key, value in (question.filters or {}).items():
            if key in _COLUMN_FILTERS:
                where.append(f"{key} = ?")
                values.append(value)
            else:
                where.append("place IN (SELECT place FROM attributes WHERE key=? AND value=?)")
                values += [key, canonical(value)]
        if words:
            values.insert(0, " OR ".join(f'"{word}"' for word in words))
            select = (
                f"SELECT place, {COLUMNS}, hits, used, ended, text FROM words"
                f" JOIN episodes ON place = words.rowid WHERE words MATCH ? AND"
                f" {' AND '.join(where)} ORDER BY rank, stamp DESC LIMIT ?"
            )
        else:
            select = (
                f"SELECT place, {COLUMNS}, hits, used, ended, '' FROM episodes"
                f" WHERE {' AND '.join(where)} ORDER BY stamp DESC, place DESC LIMIT ?"
            )
        rows = self._db.execute(select, (*values, limit)).fetchall()
        return [(row[0], to_episode(row[1:11]), *row[11:]) for row in rows]
