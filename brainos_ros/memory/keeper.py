"""The memory: the ledger first, which is the truth, then SQLite, which answers questions."""

import json
import sqlite3
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, wraps
from itertools import islice
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from brainos_ros.clock import Unstepped
from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Record, Stream
from brainos_ros.ledger.frames import MAX_PAYLOAD
from brainos_ros.memory.episodes import TIERS, Episode, complete
from brainos_ros.memory.recall import Hit, Question, Recall
from brainos_ros.memory.scoring import worth
from brainos_ros.memory.store import Store
from brainos_ros.projection import is_damage

EVICT_SHARE = 0.05
EVICT_BYTES = 1 << 16
CHOICE = 4
EXPIRE_MOST = 100
BREATH_S = 0.001
_MANY = 500
_DONE = object()


@dataclass(frozen=True, slots=True)
class Tier:
    """How full one kind of memory is; `hit_rate` since start."""

    name: str
    entries: int
    size_bytes: int
    max_bytes: int
    hit_rate: float


_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def _alone(
    method: Callable[Concatenate["Keeper", _Given], _Result],
) -> Callable[Concatenate["Keeper", _Given], _Result]:
    """Let one thread at a time into the SQLite file."""

    @wraps(method)
    def alone(self: "Keeper", /, *args: _Given.args, **more: _Given.kwargs) -> _Result:
        with self._lock:
            return method(self, *args, **more)

    return alone


class Keeper:
    """Writes, recalls and forgets episodes; `forget` and `retrieve` on threads of their own.

    Args:
        path: the SQLite file; deleted, it is built again from the ledger.
        max_bytes: limit of each kind of episode (working, episodic, skill) [bytes].
        ttl_s: how long a kind is kept [s]; 0 or absent is for ever.
        now_ns: wall clock [ns since the Unix epoch]; a step of it, until the next start, neither
            ages an episode nor makes it younger.
        steady_ns: steady clock [ns].

    Attributes:
        damaged: where files are that SQLite could not read; this one was built anew.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: Mapping[str, int],
        ttl_s: Mapping[str, float],
        now_ns: Callable[[], int] = time.time_ns,
        steady_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._store = Store(path)
        self.recall = Recall(path)
        self.damaged = self._store.damaged
        self._max_bytes, self._ttl_s, self._now_ns = max_bytes, ttl_s, now_ns
        self._clock = Unstepped(now_ns, steady_ns)
        self._recalls = 0
        self._hits: Counter[str] = Counter()
        self._unfinished: set[int] = set()  # records of forgets under way, or that failed
        # (record, what it means for SQLite), not done there yet
        self._late: list[tuple[int, Callable[[], None]]] = []
        self._lock = threading.RLock()  # after recall.lock, where both are held

    def close(self) -> None:
        with self.recall.lock, self._lock:
            self.recall.close()
            self._store.close()

    # ---------------------------------------------------------------- writing

    @_alone
    def write(self, episodes: Sequence[Episode], ledger: Stream) -> list[Episode]:
        """Keep episodes, all or none, and return them completed (id, time, kind).

        What is there already with the same content is left as it is. What the ledger took is kept,
        though SQLite may take it later; until then nothing more is. Raises BrainError: a malformed
        episode, ALREADY_EXISTS for an id with other content, MEMORY_FULL, LEDGER_REFUSED,
        UNAVAILABLE.
        """
        if not episodes:
            raise BrainError("episodes: is empty; at least one is needed")
        self._settle()
        known: dict[str, Episode] = {}
        result = []
        fresh: dict[str, Episode] = {}
        for place, given in enumerate(episodes):
            given.episode_id = given.episode_id.lower()
            try:
                episode = self._same(given, known)
                if episode is None:
                    episode = complete(given, self._now_ns())
                    known[episode.episode_id] = episode
                    fresh[f"episodes[{place}]" if len(episodes) > 1 else "episode"] = episode
            except BrainError as error:
                where = f"episodes[{place}]." if len(episodes) > 1 else ""
                raise BrainError(f"{where}{error}", error.code) from None
            result.append(episode)
        if fresh:
            self._append(fresh, ledger)
        return result

    def _same(self, given: Episode, known: Mapping[str, Episode]) -> Episode | None:
        """The episode kept under this id, or None. Raises BrainError if it is another one."""
        if not given.episode_id:
            return None
        kept = known.get(given.episode_id)
        if kept is None:
            found = self._store.find(given.episode_id)
            kept = found[1] if found else None
        if kept is None:
            return None
        told, stored = given.to_dict(), kept.to_dict()
        told["stamp_ns"] = told["stamp_ns"] or stored["stamp_ns"]
        told["kind"] = told["kind"] or stored["kind"]
        if told != stored:
            differs = next(key for key in told if told[key] != stored[key])
            raise BrainError(
                f"episode_id: {given.episode_id} is kept with another {differs}",
                ErrorCode.ALREADY_EXISTS,
            )
        return kept

    def _append(self, fresh: Mapping[str, Episode], ledger: Stream) -> None:
        """All or none: what the ledger has no room for is refused before it has any."""
        batch, count, episodes = str(uuid.uuid4()), len(fresh), list(fresh.values())
        bodies = []
        for index, (where, episode) in enumerate(fresh.items()):
            body = episode.to_dict()
            if count > 1:
                body["batch"] = [batch, index, count]
            packed = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
            most = min(MAX_PAYLOAD, self._max_bytes[episode.kind])
            if len(packed) > most:
                raise BrainError(
                    f"{where}: takes {len(packed)} bytes, in {episode.tier} memory at most {most}"
                )
            bodies.append(packed)
        self._make_room(episodes, [len(body) for body in bodies], ledger)
        places = [ledger.event("episode", body) for body in bodies]
        self._late = [
            (place, partial(self._store.add, place, episode, len(packed), self._ended(episode)))
            for place, episode, packed in zip(places, episodes, bodies, strict=True)
        ]
        with suppress(BrainError):  # it is accepted; `expire` and the next write try again
            self._settle()

    def _settle(self) -> None:
        """Do in SQLite what the ledger took. Raises BrainError (UNAVAILABLE)."""
        if not self._late:
            return
        try:
            with self._store.transaction():
                for _, do in self._late:
                    do()
                if not self._unfinished:
                    self._store.advance(self._late[-1][0] + 1)
        except sqlite3.Error as error:
            raise BrainError(
                f"memory.db does not take what the ledger has: {error}", ErrorCode.UNAVAILABLE
            ) from error
        self._late = []

    def _ended(self, episode: Episode) -> int:
        """When it ended, on the keeper's clock; not in the future."""
        return min(episode.stamp_ns - self._clock.skew(), self._clock.now())

    def _advance(self, end: int) -> None:
        """Not past a record whose work is not done: the next start takes it up again."""
        if not (self._unfinished or self._late):
            self._store.advance(end)

    def _make_room(self, episodes: Sequence[Episode], sizes: Sequence[int], ledger: Stream) -> None:
        needed: Counter[str] = Counter()
        for episode, size in zip(episodes, sizes, strict=True):
            needed[episode.kind] += size
        going: list[int] = []
        for kind, size in needed.items():
            over = self._store.usage(kind)[1] + size - self._max_bytes[kind]
            if over > 0:
                going += self._least_worth(kind, min(over, size + EVICT_BYTES))
        self._let_go(going, "evicted", ledger)

    def _least_worth(self, kind: str, needed: int) -> list[int]:
        """Places of what may go for `needed` bytes and a few more, so that it is not every time.

        Chosen by worth among those unused for longest, never among all: there may be many.
        """
        limit = self._max_bytes[kind]
        wanted = needed + min(int(limit * EVICT_SHARE), EVICT_BYTES)
        now, found, freed = self._clock.now(), 0, 0
        candidates: list[tuple[float, int, int]] = []
        for place, used, hits, size in self._store.evictable(kind):
            candidates.append((worth(now - used, hits, False), place, size))
            found += size
            if found >= CHOICE * wanted:
                break
        going: list[int] = []
        for _, place, size in sorted(candidates):
            if freed >= wanted:
                break
            going.append(place)
            freed += size
        if freed < needed:
            raise BrainError(
                f"{TIERS[kind]} memory is full of protected episodes ({limit} bytes); "
                "forget some or raise its limit",
                ErrorCode.MEMORY_FULL,
            )
        return going

    def _let_go(self, places: Sequence[int], why: str, ledger: Stream) -> None:
        for start in range(0, len(places), _MANY):
            some = places[start : start + _MANY]
            body = {"episodes": self._store.ids(some), "why": why}
            record = ledger.event("retention", body)
            self._late = [(record, partial(self._store.remove, some))]
            self._settle()

    @_alone
    def expire(self, ledger: Stream) -> int:
        """Let go of the oldest that outlived their kind's time; return how many.

        Raises BrainError (LEDGER_REFUSED, UNAVAILABLE).
        """
        self._settle()
        going: list[int] = []
        for kind, ttl_s in self._ttl_s.items():
            if ttl_s > 0:
                going += self._store.older(kind, self._clock.now() - int(ttl_s * 1e9), EXPIRE_MOST)
        self._let_go(going, "outlived", ledger)
        return len(going)

    def forget(self, episode_id: str, purge: bool, reason: str, ledger: Stream) -> None:
        """Forget an episode; with `purge` its content is erased from the ledger too.

        A purge also reaches what was forgotten or let go before; of a record that was pruned,
        content is left in its backup only. Cut short, it is finished at the next start. Raises
        BrainError (NOT_FOUND; INVALID_ARGUMENT for a purge without a reason).
        """
        episode_id = episode_id.lower()
        if purge and not reason.strip():
            raise BrainError("reason: is empty; a purge needs one, it is kept for ever")
        with self._lock:
            self._settle()
            found = self._store.find(episode_id)
            places = [found[0]] if found else []
            if purge:
                places += self._store.gone(episode_id)
            if not places:
                raise BrainError(
                    f"episode_id: {episode_id!r} is not in memory", ErrorCode.NOT_FOUND
                )
            body = {"episode_id": episode_id, "purge": purge, "reason": reason}
            record = ledger.event("forget", body, durable=purge)
            self._unfinished.add(record)
        if purge:
            _purge(places, reason, ledger)
        with self._lock, self._store.transaction():
            self._store.remove(places)
        if purge:
            self._erase_traces()
        with self._lock:
            if record in self._unfinished:  # else `catch_up` finished it meanwhile
                self._unfinished.remove(record)
                self._advance(record + 1)

    def _erase_traces(self) -> None:
        steps = self._store.erase_traces()
        while True:
            with self.recall.lock, self._lock:
                if next(steps, _DONE) is _DONE:
                    return
            time.sleep(BREATH_S)  # let the others in

    # ---------------------------------------------------------------- recalling

    def retrieve(self, question: Question) -> list[Hit]:
        """Recall what fits, best first, and count it as used if the disk has room for that.

        Others may write meanwhile.
        """
        now = self._clock.now()
        found = self.recall.find(question, now)
        hits = [hit for _, hit in found]
        with self._lock:
            with suppress(sqlite3.Error):
                self._store.touch([place for place, _ in found], now)
            self._recalls += 1
            self._hits.update({hit.episode.tier for hit in hits})
        return hits

    @_alone
    def tiers(self) -> list[Tier]:
        """How full working, episodic and long_term memory are."""
        return [
            Tier(
                name,
                *self._store.usage(kind),
                self._max_bytes[kind],
                self._hits[name] / self._recalls if self._recalls else 0.0,
            )
            for kind, name in TIERS.items()
        ]

    # ---------------------------------------------------------------- the ledger is the truth

    def catch_up(self, ledger: Stream) -> int:
        """Apply what the ledger has and SQLite lacks; return the number of records looked at.

        After a crash that is what lay between the two writes; without the file, or with one that is
        damaged or another stream's, everything. A
        `forget` may still be under way on its thread: it is finished here, and there once more.
        """
        with self.recall.lock, self._lock:
            try:
                return self._replay(ledger)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
            self.recall.close()
            self._store.begin_anew()
            self.recall.open()
            return self._replay(ledger)

    def _replay(self, ledger: Stream) -> int:
        if not self._store.is_of(ledger.origin) or self._store.end > ledger.size:
            self._store.clear(ledger.origin)
        start, size = self._store.end, ledger.size
        records = ledger.records(start)
        while some := list(islice(records, _MANY)):
            self._catch_up(some, ledger)
        self._store.advance(size)
        self._unfinished, self._late = set(), []
        return size - start

    def _catch_up(self, records: Sequence[Record], ledger: Stream) -> None:
        """Apply records and advance, so that a try that is cut short was not in vain."""
        purges: list[tuple[list[int], str]] = []
        with self._store.transaction():
            for record in records:
                self._apply(record, ledger, purges)
        for places, reason in purges:
            _purge(places, reason, ledger)
        if purges:
            self._erase_traces()
        self._store.advance(records[-1].sequence + 1)

    def _apply(self, record: Record, ledger: Stream, purges: list[tuple[list[int], str]]) -> None:
        if record.erased or record.kind not in ("episode", "forget", "retention"):
            return
        body = json.loads(record.body)
        if record.kind == "episode":
            if _is_whole(record.sequence, body.pop("batch", None), ledger):
                episode = Episode(**body)
                if self._store.find(episode.episode_id) is None:
                    size = len(record.body)
                    self._store.add(record.sequence, episode, size, self._ended(episode))
            return
        for name in body.get("episodes") or [body["episode_id"]]:
            found = self._store.find(name)
            if found and found[0] < record.sequence:
                self._store.remove([found[0]])
            if body.get("purge"):
                before = [place for place in self._store.gone(name) if place < record.sequence]
                if before:
                    purges.append((before, body["reason"]))


def _purge(places: Sequence[int], reason: str, ledger: Stream) -> None:
    remaining = []
    for place in places:
        try:
            if not ledger.read(place).erased:
                remaining.append(place)
        except BrainError as error:
            if error.code is not ErrorCode.UNAVAILABLE:
                raise
    if remaining:
        ledger.purge_events(remaining, reason)


def _is_whole(sequence: int, batch: list[Any] | None, ledger: Stream) -> bool:
    """Whether all of a record's batch was accepted: whether its last one is there."""
    if batch is None:
        return True
    name, index, count = batch
    last = sequence + count - 1 - index
    if last >= ledger.size:
        return False
    try:
        record = ledger.read(last)
    except BrainError as error:
        if error.code is not ErrorCode.UNAVAILABLE:
            raise
        return True  # pruned
    if record.erased:
        return True
    return record.kind == "episode" and json.loads(record.body).get("batch", [""])[0] == name
