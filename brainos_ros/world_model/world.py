"""The world: a graph of entities that only events change, so that replaying them rebuilds it."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.values import same
from brainos_ros.world_model.entities import (
    TRACKED,
    Entity,
    Fact,
    Observation,
    Relation,
    Value,
    check_name,
    check_size,
)

MAX_REMEMBERED = 10_000
MAX_AHEAD_NS = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """One change, as it is recorded: its kind and a body of JSON values."""

    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The world, or what changed in it, at one version."""

    version: int
    total_entities: int
    entities_by_type: dict[str, int]
    entities: list[Entity]
    relations: list[Relation]
    removed: list[str]


class World:
    """Entities and relations. `plan_…` checks a request and returns the event that carries it out
    (None if there is nothing to change); `apply` changes the world by it and never fails on an
    event that was planned against the same state. All times are nanoseconds on one clock.
    `expire` first, then plan, then apply: a replay that does the same ends in the same world.
    """

    def __init__(self, max_entities: int = 10_000, version: int = 0) -> None:
        self.max_entities = max_entities
        self.robot = ""
        """Id of the entity that no request removes; empty for none."""
        self.version = self.floor = version
        self.entities: dict[str, Entity] = {}
        self._links: dict[str, set[Relation]] = {}
        self._removed: OrderedDict[str, int] = OrderedDict()
        self._seen: set[str] = set()
        self._seen_order: deque[str] = deque()
        self._next_expiry: int | None = None

    @property
    def latest(self) -> int:
        """The last time that anything in it was seen [ns]; 0 for an empty world."""
        return max((entity.last_updated for entity in self.entities.values()), default=0)

    # -- questions ---------------------------------------------------------------------------

    def get(self, entity_id: str, field_name: str = "entity_id") -> Entity:
        """Return an entity; raise NOT_FOUND if there is none of that id."""
        entity = self.entities.get(entity_id)
        if entity is None:
            raise BrainError(f"{field_name} {entity_id!r} is not in the world", ErrorCode.NOT_FOUND)
        return entity

    def relations_of(self, entity_id: str) -> list[Relation]:
        """Every relation from or to an entity, sorted."""
        return sorted(self._links.get(entity_id, ()))

    def select(
        self,
        entity_type: str = "",
        filters: Mapping[str, Value] | None = None,
        limit: int = 0,
        after: str = "",
    ) -> tuple[list[Entity], int]:
        """Entities by id, those after `after` and at most `limit` (0: 1000), and how many match."""
        if not 0 <= limit <= 10_000:
            raise BrainError(f"limit is {limit}: give 1 to 10000, or 0 for 1000")
        wanted = filters or {}
        matching = sorted(
            entity_id
            for entity_id, entity in self.entities.items()
            if entity_type in ("", entity.entity_type)
            and all(key in entity.facts and same(entity.facts[key].value, value)
                    for key, value in wanted.items())
        )  # fmt: skip
        page = [entity_id for entity_id in matching if entity_id > after][: limit or 1000]
        return [self.entities[entity_id] for entity_id in page], len(matching)

    def snapshot(self, entity_types: Iterable[str] = (), since: int = 0) -> Snapshot:
        """The world as it is now, of these types (none: all), or what changed after `since`.

        With `since`, the relations are all those of the entities that changed: they replace what
        the caller held for them. Raises INVALID_ARGUMENT for a version this world cannot answer
        from: ask with 0 then.
        """
        if since and not self.floor <= since <= self.version:
            raise BrainError(
                f"since_version is {since}: this world can answer from {self.floor} to "
                f"{self.version}, or with 0 for everything"
            )
        types = set(entity_types)
        chosen = {
            entity.entity_id: entity
            for entity in self.entities.values()
            if (not types or entity.entity_type in types) and entity.version > since
        }
        relations = {
            relation
            for entity_id in chosen
            for relation in self._links.get(entity_id, ())
            if since or {relation.source_id, relation.target_id} <= chosen.keys()
        }
        return Snapshot(
            self.version,
            len(self.entities),
            self.count(),
            [chosen[key] for key in sorted(chosen)],
            sorted(relations),
            sorted(k for k, version in self._removed.items() if version > since) if since else [],
        )

    def count(self) -> dict[str, int]:
        """How many entities there are of each type, by name of the type."""
        counts: dict[str, int] = {}
        for entity in self.entities.values():
            counts[entity.entity_type] = counts.get(entity.entity_type, 0) + 1
        return dict(sorted(counts.items()))

    def impact(
        self, entity_id: str, relation_types: Iterable[str] = (), max_depth: int = 0
    ) -> list[tuple[str, int]]:
        """What depends on an entity, nearest first: (id, steps).

        A relation makes its source depend on its target, so the search goes from target to
        source, breadth first; cycles are walked once. `relation_types` restricts the relations
        followed (none: all), `max_depth` the steps (0: no limit).
        """
        self.get(entity_id)
        types = set(relation_types)
        depths = {entity_id: 0}
        queue = deque([entity_id])
        while queue:
            current = queue.popleft()
            if max_depth and depths[current] == max_depth:
                continue
            for relation in self.relations_of(current):
                follows = relation.target_id == current and (
                    not types or relation.relation_type in types
                )
                if follows and relation.source_id not in depths:
                    depths[relation.source_id] = depths[current] + 1
                    queue.append(relation.source_id)
        return sorted(
            ((key, depth) for key, depth in depths.items() if depth),
            key=lambda item: (item[1], item[0]),
        )

    # -- requests ----------------------------------------------------------------------------

    def plan_create(self, entity: Entity) -> Event | None:
        """Plan a new entity; nothing if the very same is there already.

        Raises ALREADY_EXISTS if the id is taken by something different, INVALID_ARGUMENT if it is
        one of a tracked person or its attributes are too large, UNAVAILABLE if the world is full.
        """
        held = self.entities.get(entity.entity_id)
        if held:
            told, known = entity.attributes, held.attributes
            if (held.entity_type, held.rank, held.where, held.ttl, known.keys()) == (
                entity.entity_type, entity.rank, entity.where, entity.ttl, told.keys(),
            ) and all(same(known[key], told[key]) for key in told):  # fmt: skip
                return None
            raise BrainError(
                f"entity_id {entity.entity_id!r} is taken by another {held.entity_type}",
                ErrorCode.ALREADY_EXISTS,
            )
        self._check_new(entity.entity_id)
        check_size(entity.entity_id, entity.attributes)
        return Event("entity", {"entity": entity.to_json()})

    def plan_delete(self, entity_id: str) -> Event:
        """Plan to remove an entity and its relations.

        Raises NOT_FOUND if it is not there, INVALID_ARGUMENT if it is the robot's own.
        """
        self._check_removal(entity_id, "entity_id")
        return Event("entity.deleted", {"entity_id": entity_id})

    def plan_relate(self, relation: Relation) -> Event | None:
        """Plan a relation; nothing if it is there already."""
        check_name(relation.relation_type, "relation.relation_type")
        self.get(relation.source_id, "relation.source_id")
        self.get(relation.target_id, "relation.target_id")
        if relation.source_id == relation.target_id:
            raise BrainError(
                f"relation joins {relation.source_id!r} to itself: give two entities",
                ErrorCode.WORLD_MODEL_RELATION_INVALID,
            )
        if relation in self._links.get(relation.source_id, ()):
            return None
        return Event("relation", {"relation": relation.to_json(), "removed": False})

    def plan_unrelate(self, relation: Relation) -> Event:
        """Plan to remove a relation; raises NOT_FOUND if it is not there."""
        if relation not in self._links.get(relation.source_id, ()):
            raise BrainError(
                f"relation {' '.join(relation.to_json())!r} is not in the world",
                ErrorCode.NOT_FOUND,
            )
        return Event("relation", {"relation": relation.to_json(), "removed": True})

    def plan_observe(self, observation: Observation, now: int) -> Event | None:
        """Plan what an observation changes; nothing if its id was seen before.

        Raises INVALID_ARGUMENT if it says nothing, lies ahead of the clock, has expired already,
        names a new entity without its type or as a tracked person, would give its entity more
        attributes than it may hold, or removes the robot's own entity; NOT_FOUND if it removes what
        is not there.
        """
        if observation.observation_id in self._seen:
            return None
        target = observation.target_entity_id
        if observation.stamp > now + MAX_AHEAD_NS:
            ahead = (observation.stamp - now) / 1e9
            raise BrainError(f"stamp is {ahead:.1f} s ahead of this node's clock: give 0 for now")
        if observation.ttl and observation.stamp + observation.ttl <= now:
            raise BrainError(f"observation of {target!r} has expired: its stamp plus ttl is past")
        if observation.event_type == "removed":
            self._check_removal(target, "target_entity_id")
        elif target not in self.entities:
            if not observation.target_entity_type:
                raise BrainError(
                    f"target_entity_type is empty and {target!r} is new: give its type"
                )
            self._check_new(target)
        elif not observation.data and observation.pose is None and observation.event_type in (
            "pose", "attribute",
        ):  # fmt: skip
            raise BrainError(
                f"event_type is {observation.event_type!r} but data and pose are empty"
            )
        held = self.entities.get(target)
        if observation.data and observation.event_type != "removed":
            check_size(target, {**(held.attributes if held else {}), **observation.data})
        known = [held.entity_type, held.ttl] if held else None
        return Event("observation", {"observation": observation.to_json(), "held": known})

    def _check_removal(self, entity_id: str, field_name: str) -> None:
        self.get(entity_id, field_name)
        if entity_id == self.robot:
            raise BrainError(
                f"{field_name} is {entity_id!r}: that is the robot itself, which its world always "
                "holds: name another entity"
            )

    def _check_new(self, entity_id: str) -> None:
        if entity_id.startswith(TRACKED):
            raise BrainError(
                f"entity_id is {entity_id!r}: names that begin with {TRACKED!r} are for the people "
                "that sensors track and are forgotten with them: choose another"
            )
        if len(self.entities) >= self.max_entities:
            raise BrainError(
                f"the world holds {self.max_entities} entities, its limit: delete some first",
                ErrorCode.UNAVAILABLE,
            )

    # -- changes -----------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Change the world by an event. What a replay makes void (an end of a relation that has
        expired since) is passed over; an unknown kind is too, so that newer records can be read.
        """
        body = event.body
        match event.kind:
            case "entity":
                self._put(Entity.from_json(body["entity"]))
            case "entity.deleted":
                self._remove(body["entity_id"])
            case "relation" if body["removed"]:
                self._unrelate(Relation(*body["relation"]))
            case "relation":
                self._relate(Relation(*body["relation"]))
            case "observation":
                seen = Observation.from_json(body["observation"])
                self._observe(seen, *(body.get("held") or (seen.target_entity_type, seen.ttl)))

    def expire(self, now: int) -> bool:
        """Drop what has run out: facts, and entities not observed for their ttl. True if any."""
        if self._next_expiry is None or now < self._next_expiry:
            return False
        before, self._next_expiry = self.version, None
        for entity in list(self.entities.values()):
            if entity.until is not None and entity.until <= now:
                self._remove(entity.entity_id)
                continue
            kept = {
                key: fact
                for key, fact in entity.facts.items()
                if fact.until is None or fact.until > now
            }
            pose = entity.pose if _holds(entity.pose, now) else None
            if len(kept) != len(entity.facts) or pose is not entity.pose:
                self._put(replace(entity, facts=kept, pose=pose))
            else:
                self._watch(entity)
        return self.version != before

    def remember(self, observation_id: str) -> None:
        """Count an observation id as seen; the last 10,000 are known."""
        if observation_id in self._seen:
            return
        self._seen.add(observation_id)
        self._seen_order.append(observation_id)
        if len(self._seen_order) > MAX_REMEMBERED:
            self._seen.discard(self._seen_order.popleft())

    def to_json(self, without: AbstractSet[str] = frozenset()) -> dict[str, Any]:
        """Everything a checkpoint must hold, but for the entities `without`."""
        relations = {relation for links in self._links.values() for relation in links}
        kept = [entity for key, entity in self.entities.items() if key not in without]
        return {
            "entities": [entity.to_json() for entity in kept],
            "relations": [relation.to_json() for relation in sorted(relations)],
            "seen": list(self._seen_order),
        }

    def load(self, body: Mapping[str, Any]) -> None:
        """Take in what `to_json` wrote, into an empty world."""
        for entity in body["entities"]:
            self._put(Entity.from_json(entity))
        for relation in body["relations"]:
            self._relate(Relation(*relation))
        for observation_id in body["seen"]:
            self.remember(observation_id)

    def _bump(self) -> int:
        self.version += 1
        return self.version

    def _put(self, entity: Entity) -> None:
        self.entities[entity.entity_id] = replace(entity, version=self._bump())
        self._removed.pop(entity.entity_id, None)
        self._watch(entity)

    def _watch(self, entity: Entity) -> None:
        facts = [*entity.facts.values(), *([entity.pose] if entity.pose else [])]
        ends = [fact.until for fact in facts if fact.until is not None]
        if entity.until is not None:
            ends.append(entity.until)
        if ends:
            first = min(ends)
            held = self._next_expiry
            self._next_expiry = first if held is None else min(first, held)

    def _touch(self, entity_id: str) -> None:
        self.entities[entity_id] = replace(self.entities[entity_id], version=self._bump())

    def _remove(self, entity_id: str) -> None:
        if self.entities.pop(entity_id, None) is None:
            return
        for relation in self._links.pop(entity_id, set()):
            other = relation.target_id if relation.source_id == entity_id else relation.source_id
            self._links[other].discard(relation)
            self._touch(other)
        self._removed[entity_id] = self._bump()
        if len(self._removed) > MAX_REMEMBERED:
            _, self.floor = self._removed.popitem(last=False)

    def _relate(self, relation: Relation) -> None:
        ends = (relation.source_id, relation.target_id)
        if all(end in self.entities for end in ends):
            for end in ends:
                self._links.setdefault(end, set()).add(relation)
                self._touch(end)

    def _unrelate(self, relation: Relation) -> None:
        for end in (relation.source_id, relation.target_id):
            if relation in self._links.get(end, ()):
                self._links[end].discard(relation)
                self._touch(end)

    def _observe(self, seen: Observation, entity_type: str, ttl: int) -> None:
        """What was seen of an entity of this type and ttl, which may be missing in a replay."""
        self.remember(seen.observation_id)
        target = seen.target_entity_id
        held = self.entities.get(target)
        if seen.event_type == "removed":
            self._remove(target)
            return
        if held is None:
            held = Entity.new(entity_type or "unknown", seen.stamp, target, ttl=ttl)
        until = seen.stamp + seen.ttl if seen.ttl else None
        facts = dict(held.facts)
        for key, value in seen.data.items():
            if key not in facts or facts[key].stamp <= seen.stamp:
                facts[key] = Fact(value, seen.stamp, until)
        pose = held.pose
        if seen.pose and (pose is None or pose.stamp <= seen.stamp):
            pose = Fact(seen.pose, seen.stamp, until)
        last = max(held.last_updated, seen.stamp)
        self._put(replace(held, facts=facts, pose=pose, last_updated=last))


def _holds(fact: Fact | None, now: int) -> bool:
    return fact is None or fact.until is None or fact.until > now
