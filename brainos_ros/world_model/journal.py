"""Keeps a world: every change is recorded before it is made, and a restart replays the records.

Two files carry the state. The ledger stream holds the events and is the truth; `world.json` in the
room's folder is a checkpoint of it (its sequence number and the whole world), so that a restart
replays the tail only. A checkpoint that is missing or unreadable costs time, nothing else.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.world_model.entities import Entity, Observation
from brainos_ros.world_model.world import Event, World

Record = Callable[[str, Mapping[str, Any]], int]
Read = Callable[[int], Iterable[tuple[int, str, Mapping[str, Any]]]]

KINDS = frozenset({"entity", "entity.deleted", "relation", "observation", "note"})
FORMAT = 1
VERSIONS = 100_000
CHECKPOINT_EVERY = 1_000
TRANSIENT_NS = 10_000_000_000


class Journal:
    """A world and its records.

    `record(kind, body)` appends to the ledger and returns the sequence number, or raises, and then
    nothing changes. What streams in at a rate (`stream`, `live`) is applied at once; of it only
    what outlives 10 s is recorded, one record per entity and `flush`, so that a sensor cannot fill
    the disk.
    """

    def __init__(self, folder: Path, record: Record, max_entities: int = 10_000) -> None:
        self.world = World(max_entities)
        self._path = folder / "world.json"
        self._record = record
        self._stream = ""
        self._sequence = -1
        self._reserved = 0
        self._since_checkpoint = 0
        self._dirty: set[str] = set()
        self._live: set[str] = set()

    def restore(self, read: Read, head: int, now: int, stream: str = "") -> int:
        """Rebuild the world from the checkpoint and the records after it; return their number.

        `read(first)` yields (sequence number, kind, body) of the stream from `first` on, `head` is
        the last sequence number in it (-1: empty), `stream` its id. A checkpoint of another stream,
        or beyond the head, is passed over.
        """
        self._stream = stream
        self._load_checkpoint(head)
        replayed = 0
        for sequence, kind, body in read(self._sequence + 1):
            self._sequence = sequence
            replayed += 1
            self._reserved = max(self._reserved, body.get("versions_until", 0))
            self.world.expire(body.get("at", 0))
            self.world.apply(Event(kind, body))
        self.world.expire(now)
        self.world.version = self.world.floor = max(self._reserved, self.world.version)
        self._reserve()
        return replayed

    def commit(self, event: Event | None, now: int) -> None:
        """Record an event, then apply it (None: nothing to do); refused, it changes nothing."""
        if event is None:
            return
        self._write(event.kind, {**event.body, "at": now})
        self.world.apply(event)
        self._settle()

    def observe(self, observation: Observation, now: int) -> None:
        """Take in one observation for good: recorded before it is applied."""
        self.commit(self.world.plan_observe(observation, now), now)

    def stream(self, observation: Observation, now: int) -> None:
        """Take in an observation from a stream of them: applied now, recorded by `flush`."""
        event = self.world.plan_observe(observation, now)
        if event is None:
            return
        if observation.event_type == "removed":
            self.commit(event, now)
            return
        self.world.apply(event)
        entity = self.world.entities[observation.target_entity_id]
        if all(ttl == 0 or ttl > TRANSIENT_NS for ttl in (observation.ttl, entity.ttl)):
            self._dirty.add(entity.entity_id)
        self._settle()

    def live(self, entity: Entity) -> None:
        """Put a sensor's own entity (a tracked person) in the world, or its news of one that is
        there (where the robot is); never recorded."""
        if entity.entity_id not in self.world.entities:
            self._live.add(entity.entity_id)
        self.world.apply(Event("entity", {"entity": entity.to_json()}))
        self._settle()

    def flush(self, now: int) -> None:
        """Record what streamed in since the last flush and still exists.

        Raises INVALID_ARGUMENT for entities that no record can hold, when all others are recorded
        (those are in the next checkpoint only); LEDGER_REFUSED if the ledger takes nothing, and
        then the next flush tries again.
        """
        self._live &= self.world.entities.keys()
        refused = []
        for entity_id in sorted(self._dirty):
            entity = self.world.entities.get(entity_id)
            try:
                if entity is not None:
                    self._write("entity", {"entity": entity.to_json(), "at": now})
            except BrainError as error:
                if error.code is not ErrorCode.INVALID_ARGUMENT:
                    raise
                refused.append(f"{entity_id!r} ({error})")
            self._dirty.discard(entity_id)
        if self._since_checkpoint >= CHECKPOINT_EVERY:
            self.checkpoint()
        if refused:
            raise BrainError(f"entities that cannot be recorded: {', '.join(refused)}")

    def close(self, now: int) -> None:
        """Record the last, and write the checkpoint whatever comes of that; raises as `flush`."""
        try:
            self.flush(now)
        finally:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Write the world to `world.json`, atomically; a crash leaves the one before."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        body = {
            "format": FORMAT,
            "stream": self._stream,
            "sequence": self._sequence,
            "reserved": self._reserved,
            **self.world.to_json(without=self._live),
        }
        draft = self._path.with_suffix(".tmp")
        with draft.open("w") as file:
            json.dump(body, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        self._since_checkpoint = 0

    def _load_checkpoint(self, head: int) -> None:
        try:
            body = json.loads(self._path.read_text())
            if body["format"] != FORMAT or body["sequence"] > head:
                return
            if body.get("stream", self._stream) != self._stream:
                return
            self.world.load(body)
            self._sequence, self._reserved = body["sequence"], body["reserved"]
        except (OSError, ValueError, KeyError, TypeError):
            self.world = World(self.world.max_entities)

    def _write(self, kind: str, body: Mapping[str, Any]) -> None:
        self._sequence = self._record(kind, body)
        self._since_checkpoint += 1

    def _settle(self) -> None:
        if self.world.version >= self._reserved:
            self._reserve()

    def _reserve(self) -> None:
        """Reserve the next versions in the ledger, so that a version never comes twice."""
        until = self.world.version + VERSIONS
        self._write("note", {"versions_until": until})
        self._reserved = until
