"""Recalling: episodes found by words, time, attributes and reward, and scored."""

import json
import math
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from brainos_ros.errors import BrainError
from brainos_ros.memory.episodes import TIERS, Episode, split_words
from brainos_ros.memory.patterns import Pattern, mine
from brainos_ros.memory.scoring import (
    FADE_NS,
    RECENCY,
    REWARD,
    WORDS,
    heat,
    oldest_ns,
    relevance,
    worth,
)
from brainos_ros.memory.store import COLUMNS, canonical, to_episode
from brainos_ros.values import check_values

NEWEST = 100
MOST_RESULTS = 1000
MINED_STEPS = 5000
_FOREVER_NS = 2**63 - 1
FIELDS = frozenset({"action", "outcome", "objective"})
"""What a filter means an episode's own field by, which is text."""
_REST = f"({RECENCY} * exp(min(ended - ?, 0) / {FADE_NS}) + {REWARD} * (reward + 1.0) / 2.0)"
"""What `relevance` adds to the words; its value is now [ns]."""
_KINDS = ", ".join(f"'{kind}'" for kind in TIERS)


@dataclass(frozen=True, slots=True)
class Hit:
    """An episode recalled: how well it fits (0 to 1), why, and hot, warm or cold."""

    episode: Episode
    score: float
    why: str
    heat: str


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked for.

    Raises BrainError on a limit over 1000, a start after the end, and what nothing can be like: a
    filter that is bytes or not finite, or no text where it is for one of FIELDS, and a `min_reward`
    that is no number.

    Attributes:
        query: words; empty matches everything.
        limit: at most so many; 0 is 10.
        start_ns, end_ns: wall clock [ns since the Unix epoch]; 0 is no start, no end.
        filters: all of these in context or metadata, or among the episode's FIELDS.
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
        if math.isnan(self.min_reward):
            raise BrainError("min_reward: is nan, must be a number")
        filters = self.filters or {}
        check_values("filters", filters)
        for key in FIELDS & filters.keys():
            if not isinstance(filters[key], str):
                raise BrainError(f"filters: `{key}` is {filters[key]!r}, must be text")


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
        self._path = path
        self.open()

    def open(self) -> None:
        """Open the file again after `close`."""
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA query_only=ON")
        try:
            self._db.execute("SELECT exp(0)")
        except sqlite3.OperationalError:  # an SQLite without mathematics
            self._db.create_function("exp", 1, math.exp, deterministic=True)

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
            rows = self._search(known, question, limit, now_ns)
        scored = []
        for place, episode, hits, used, ended, text in rows:
            have = set(text.split())
            found = [word for word in known if word in have]
            score, why = relevance(known, found, now_ns - ended, episode.reward)
            value = worth(now_ns - used, hits, episode.protected)
            scored.append((place, Hit(episode, score, why, heat(value))))
        scored.sort(key=lambda each: -each[1].score)
        return scored

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
        self, words: Sequence[str], question: Question, limit: int, now_ns: int
    ) -> list[tuple[int, Episode, int, int, int, str]]:
        """(place, episode, hits, used, ended, text) of the `limit` that score highest."""
        find = partial(self._with_words, words) if words else self._without_words
        places = find(question, limit, now_ns)
        rows = self._db.execute(
            f"SELECT place, {COLUMNS}, hits, used, ended, text FROM episodes"
            " JOIN words ON words.rowid = place WHERE place IN (SELECT value FROM json_each(?))"
            " ORDER BY stamp DESC, place DESC",
            (json.dumps(places),),
        )
        return [(row[0], to_episode(row[1:11]), *row[11:]) for row in rows]

    def _with_words(
        self, words: Sequence[str], question: Question, limit: int, now_ns: int
    ) -> list[int]:
        where, values = _conditions(question)
        among = f"AND +words.rowid IN (SELECT place FROM episodes WHERE {where})" if where else ""
        rows = self._db.execute(
            "SELECT place FROM (SELECT words.rowid AS place, count(*) AS found"
            " FROM json_each(?) AS word, words"
            f" WHERE words MATCH word.value {among} GROUP BY words.rowid)"
            " JOIN episodes USING(place)"
            f" ORDER BY {WORDS} * found / ? + {_REST} DESC, stamp DESC, place DESC LIMIT ?",
            (json.dumps([f'"{word}"' for word in words]), *values, len(words), now_ns, limit),
        )
        return [row[0] for row in rows]

    def _without_words(self, question: Question, limit: int, now_ns: int) -> list[int]:
        """Look at the newest, and then no further back than a better one can be."""
        where, values = _conditions(question)
        where = where or "1"
        newest = self._db.execute(
            f"SELECT {_REST}, place FROM episodes WHERE {where}"
            " ORDER BY stamp DESC, place DESC LIMIT ?",
            (now_ns, *values, NEWEST + limit),
        ).fetchall()
        best = sorted(newest, reverse=True)[:limit]
        if len(newest) < NEWEST + limit:
            return [place for _, place in best]
        since_ns = now_ns - oldest_ns(best[-1][0])
        if not question.end_ns:  # `by_stamp` leads to less then
            where += f" AND kind IN ({_KINDS}) AND protected IN (0, 1)"
        rows = self._db.execute(
            f"SELECT place FROM episodes WHERE {where} AND ended >= ?"
            f" ORDER BY {_REST} DESC, stamp DESC, place DESC LIMIT ?",
            (*values, since_ns, now_ns, limit),
        )
        return [row[0] for row in rows]


def _conditions(question: Question) -> tuple[str, list[Any]]:
    """What an episode must fulfil, as SQL (empty: nothing) and its values."""
    where: list[str] = []
    values: list[Any] = []
    if question.min_reward > -1.0:
        where.append("reward >= ?")
        values.append(question.min_reward)
    if question.start_ns or question.end_ns:
        where.append("stamp BETWEEN ? AND ?")
        values += [question.start_ns, question.end_ns or _FOREVER_NS]
    for key, value in (question.filters or {}).items():
        if key in FIELDS:
            where.append(f"{key} = ?")
            values.append(value)
        else:
            where.append("place IN (SELECT place FROM attributes WHERE key=? AND value=?)")
            values += [key, canonical(value)]
    return " AND ".join(where), values
