"""What the world is made of: entities with facts that age, relations, and observations of them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import UUID, uuid4

from brainos_ros.errors import BrainError, ErrorCode

Value: TypeAlias = bool | int | float | str | list[Any]

MAX_NAME = 255
MAX_ATTRIBUTES = 256
MAX_TEXT = 65_536
MAX_BYTES = 1 << 20
"""What the attributes of an entity may take as JSON, well within a record of the ledger [bytes]."""
MAX_RANK = 10
UNIT_TOLERANCE = 0.01
TRACKED = "tracked/"
"""How the names of the people begin that the robot's own sensors see."""


def _bad(message: str) -> BrainError:
    return BrainError(message, ErrorCode.INVALID_ARGUMENT)


def check_name(name: str, field_name: str) -> str:
    """Return `name` if it is 1 to 255 printable characters; else raise INVALID_ARGUMENT."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise _bad(f"{field_name} is {name[:40]!r}: give 1 to {MAX_NAME} printable characters")
    return name


def check_attributes(attributes: Mapping[str, Value], field_name: str) -> dict[str, Value]:
    """Return a copy of `attributes` if names, sizes and numbers are in bounds, else raise."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise _bad(f"{field_name} has {len(attributes)} entries: at most {MAX_ATTRIBUTES} are held")
    for key, value in attributes.items():
        check_name(key, f"{field_name}.key")
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, bytes | Mapping):
                raise _bad(f"{field_name}.{key} holds bytes: give numbers, text or booleans")
            if isinstance(item, float) and not math.isfinite(item):
                raise _bad(f"{field_name}.{key} is {item}: give a finite number")
            if isinstance(item, str) and len(item) > MAX_TEXT:
                raise _bad(
                    f"{field_name}.{key} is {len(item)} characters long: {MAX_TEXT} is the limit"
                )
    return dict(attributes)


def check_size(entity_id: str, attributes: Mapping[str, Value]) -> None:
    """Raise INVALID_ARGUMENT if an entity would have more of these than it may hold."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise _bad(
            f"entity {entity_id!r} would have {len(attributes)} attributes: "
            f"at most {MAX_ATTRIBUTES} are held"
        )
    size = len(json.dumps(attributes))
    if size > MAX_BYTES:
        raise _bad(
            f"the attributes of entity {entity_id!r} would take {size} bytes as JSON: "
            f"{MAX_BYTES} is the limit"
        )


def check_ttl(ttl_ns: int, field_name: str) -> int:
    """Return `ttl_ns` if it is not negative (zero means for good), else raise."""
    if ttl_ns < 0:
        raise _bad(f"{field_name} is {ttl_ns / 1e9:g} s: give 0 (for good) or more")
    return ttl_ns


@dataclass(frozen=True, slots=True)
class Pose:
    """Where something is.

    `position` is in metres in the frame `frame_id`, `orientation` a unit quaternion (x, y, z, w),
    `covariance` the row-major 6×6 matrix of (x, y, z, rotation about x, y, z) as REP 103 and
    geometry_msgs/PoseWithCovariance have it [m², m·rad, rad²].
    """

    frame_id: str
    position: tuple[float, ...]
    orientation: tuple[float, ...] = (0.0, 0.0, 0.0, 1.0)
    covariance: tuple[float, ...] = (0.0,) * 36

    @classmethod
    def checked(
        cls,
        frame_id: str,
        position: Sequence[float],
        orientation: Sequence[float],
        covariance: Sequence[float],
    ) -> "Pose":
        """Build a pose from what a caller sent; raise INVALID_ARGUMENT where it is none.

        An orientation of all zeros, which is what a message left alone holds, means no rotation.
        """
        check_name(frame_id, "frame_id")
        if len(position) != 3 or len(orientation) != 4 or len(covariance) != 36:
            raise _bad("pose needs 3 numbers of position, 4 of orientation and 36 of covariance")
        if not all(map(math.isfinite, (*position, *orientation, *covariance))):
            raise _bad("pose holds a number that is not finite")
        if not any(orientation):
            orientation = (0.0, 0.0, 0.0, 1.0)
        norm = math.hypot(*orientation)
        if abs(norm - 1.0) > UNIT_TOLERANCE:
            raise _bad(f"pose.orientation has length {norm:.3g}: give a unit quaternion")
        if any(covariance[i * 7] < 0.0 for i in range(6)):
            raise _bad("pose.covariance has a negative variance")
        return cls(frame_id, tuple(position), tuple(orientation), tuple(covariance))

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads; a covariance of all zeros is left out."""
        body: dict[str, Any] = {
            "frame_id": self.frame_id,
            "position": list(self.position),
            "orientation": list(self.orientation),
        }
        if any(self.covariance):
            body["covariance"] = list(self.covariance)
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Pose":
        """Read back what `to_json` wrote."""
        return cls(
            body["frame_id"],
            tuple(body["position"]),
            tuple(body["orientation"]),
            tuple(body.get("covariance", (0.0,) * 36)),
        )


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing known of an entity, when it was seen and until when it holds (None: for good)."""

    value: Value | Pose
    stamp: int
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Entity:
    """Something in the world.

    Times are nanoseconds of the node's clock. `ttl` is how long it is kept without being observed
    [ns], zero for good. `version` is the world's version at its last change.
    """

    entity_id: str
    entity_type: str
    rank: int = 0
    facts: Mapping[str, Fact] = field(default_factory=dict)
    pose: Fact | None = None
    created_at: int = 0
    last_updated: int = 0
    ttl: int = 0
    version: int = 0

    @property
    def attributes(self) -> dict[str, Value]:
        """The values of its facts by name."""
        return {
            key: fact.value for key, fact in self.facts.items() if not isinstance(fact.value, Pose)
        }

    @property
    def where(self) -> Pose | None:
        """Its pose, if it has one."""
        return self.pose.value if self.pose and isinstance(self.pose.value, Pose) else None

    @property
    def until(self) -> int | None:
        """When it is forgotten [ns], if ever."""
        return self.last_updated + self.ttl if self.ttl else None

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads, for the ledger and the checkpoint."""
        where = self.where
        return {
            "entity_id": self.entity_id,
            "entity_type": self.entity_type,
            "rank": self.rank,
            "facts": {k: [f.value, f.stamp, f.until] for k, f in self.facts.items()},
            "pose": [where.to_json(), self.pose.stamp, self.pose.until]
            if where and self.pose
            else None,
            "created_at": self.created_at,
            "last_updated": self.last_updated,
            "ttl": self.ttl,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Entity":
        """Read back what `to_json` wrote."""
        pose = body["pose"]
        return cls(
            body["entity_id"],
            body["entity_type"],
            body["rank"],
            {key: Fact(*fact) for key, fact in body["facts"].items()},
            Fact(Pose.from_json(pose[0]), pose[1], pose[2]) if pose else None,
            body["created_at"],
            body["last_updated"],
            body["ttl"],
        )

    @classmethod
    def new(
        cls,
        entity_type: str,
        now: int,
        entity_id: str = "",
        rank: int = 0,
        attributes: Mapping[str, Value] | None = None,
        pose: Pose | None = None,
        ttl: int = 0,
    ) -> "Entity":
        """Build an entity from what a caller sent; an empty `entity_id` gets a new UUIDv4.

        Raises INVALID_ARGUMENT naming the field that is out of bounds.
        """
        check_name(entity_type, "entity_type")
        if not 0 <= rank <= MAX_RANK:
            raise _bad(f"rank is {rank}: give 0 to {MAX_RANK}")
        values = check_attributes(attributes or {}, "attributes")
        return cls(
            check_name(entity_id, "entity_id") if entity_id else str(uuid4()),
            entity_type,
            rank,
            {key: Fact(value, now) for key, value in values.items()},
            Fact(pose, now) if pose else None,
            now,
            now,
            check_ttl(ttl, "ttl"),
        )


@dataclass(frozen=True, slots=True, order=True)
class Relation:
    """A typed, directed relation: the source depends on, is in, holds … the target."""

    source_id: str
    relation_type: str
    target_id: str

    def to_json(self) -> list[str]:
        """Return [source, type, target]."""
        return [self.source_id, self.relation_type, self.target_id]


@dataclass(frozen=True, slots=True)
class Observation:
    """Something that was seen of an entity. Times are nanoseconds; `ttl` zero means for good."""

    observation_id: str
    stamp: int
    event_type: str
    target_entity_id: str
    target_entity_type: str = ""
    source_entity_id: str = ""
    data: Mapping[str, Value] = field(default_factory=dict)
    pose: Pose | None = None
    ttl: int = 0

    @classmethod
    def checked(
        cls,
        event_type: str,
        target_entity_id: str,
        stamp: int,
        observation_id: str = "",
        target_entity_type: str = "",
        source_entity_id: str = "",
        data: Mapping[str, Value] | None = None,
        pose: Pose | None = None,
        ttl: int = 0,
    ) -> "Observation":
        """Build an observation from what a caller sent; raise INVALID_ARGUMENT naming the field."""
        check_name(event_type, "event_type")
        check_name(target_entity_id, "target_entity_id")
        for name, text in (
            ("target_entity_type", target_entity_type),
            ("source_entity_id", source_entity_id),
        ):
            if text:
                check_name(text, name)
        if observation_id:
            try:
                observation_id = str(UUID(observation_id))
            except ValueError:
                raise _bad(
                    f"observation_id is {observation_id[:40]!r}: give a UUID or leave it empty"
                ) from None
        if stamp < 0:
            raise _bad(f"stamp is {stamp / 1e9:g} s: give 0 (now) or a time after it")
        return cls(
            observation_id or str(uuid4()),
            stamp,
            event_type,
            target_entity_id,
            target_entity_type,
            source_entity_id,
            check_attributes(data or {}, "data"),
            pose,
            check_ttl(ttl, "ttl"),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {
            "observation_id": self.observation_id,
            "stamp": self.stamp,
            "event_type": self.event_type,
            "target_entity_id": self.target_entity_id,
            "target_entity_type": self.target_entity_type,
            "source_entity_id": self.source_entity_id,
            "data": dict(self.data),
            "pose": self.pose.to_json() if self.pose else None,
            "ttl": self.ttl,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Observation":
        """Read back what `to_json` wrote."""
        pose = body["pose"]
        return cls(**{**body, "pose": Pose.from_json(pose) if pose else None})
