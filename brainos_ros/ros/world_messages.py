"""Between the world model's entities and messages, markers included."""

import math
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

from brainos_msgs import msg
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, PoseStamped, PoseWithCovariance, Quaternion, Vector3
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from brainos_ros.ros.conversions import (
    attributes_to_dict,
    dict_to_attributes,
    ns_to_time,
    time_to_ns,
)
from brainos_ros.world_model.entities import Entity, Observation, Pose, Relation
from brainos_ros.world_model.world import Snapshot, World

SECOND = 1_000_000_000
COLOURS = {
    "robot": (0.1, 0.4, 0.9),
    "person": (0.9, 0.3, 0.1),
    "station": (0.1, 0.7, 0.3),
}
OTHER_COLOUR = (0.6, 0.6, 0.6)


def pose_from(frame_id: str, pose: PoseWithCovariance) -> Pose | None:
    """A pose as the room knows it; None without a frame."""
    if not frame_id:
        return None
    p, q = pose.pose.position, pose.pose.orientation
    return Pose.checked(frame_id, (p.x, p.y, p.z), (q.x, q.y, q.z, q.w), pose.covariance.tolist())


def observation_from(message: msg.Observation, now: int, skew: int) -> Observation:
    """An observation as the room knows it, seen `now` if its stamp is zero.

    Here and below `skew` is how far the clock of the messages is ahead of the room's [ns].
    """
    stamp = time_to_ns(message.stamp)
    return Observation.checked(
        message.event_type,
        message.target_entity_id,
        stamp - skew if stamp else now,
        message.observation_id,
        message.target_entity_type,
        message.source_entity_id,
        attributes_to_dict(message.data, "data"),
        pose_from(message.frame_id, message.pose),
        time_to_ns(message.ttl, "ttl"),
    )


def entity_to(entity: Entity, skew: int) -> msg.Entity:
    """An entity as a message."""
    message = msg.Entity(
        entity_id=entity.entity_id,
        entity_type=entity.entity_type,
        rank=entity.rank,
        attributes=dict_to_attributes(entity.attributes),
        created_at=ns_to_time(entity.created_at + skew),
        last_updated=ns_to_time(entity.last_updated + skew),
        ttl=Duration(sec=entity.ttl // SECOND, nanosec=entity.ttl % SECOND),
    )
    where = entity.where
    if where:
        message.frame_id = where.frame_id
        set_pose(message.pose.pose, where)
        if any(where.covariance):
            message.pose.covariance = where.covariance
    return message


def set_pose(pose: Any, where: Pose) -> None:
    """Fill a geometry_msgs/Pose."""
    pose.position = Point(**dict(zip("xyz", where.position, strict=True)))
    pose.orientation = Quaternion(**dict(zip("xyzw", where.orientation, strict=True)))


def stamped(entity: Entity, skew: int) -> PoseStamped:
    """Where an entity is and since when; frame_id empty if unknown."""
    message = PoseStamped()
    if entity.where and entity.pose:
        message.header.frame_id = entity.where.frame_id
        message.header.stamp = ns_to_time(entity.pose.stamp + skew)
        set_pose(message.pose, entity.where)
    return message


def relation_to(relation: Relation) -> msg.Relation:
    """A relation as a message."""
    return msg.Relation(
        source_id=relation.source_id,
        relation_type=relation.relation_type,
        target_id=relation.target_id,
    )


def counts_to(counts: Mapping[str, int]) -> list[msg.TypeCount]:
    """Counts by type as messages."""
    return [msg.TypeCount(type=name, count=count) for name, count in counts.items()]


def state_to(
    world: World, robot: Entity | None, nearest_m: float, people: int | None, now: int, skew: int
) -> msg.WorldState:
    """The latched summary of the world; `people` is None where nobody tells of them."""
    return msg.WorldState(
        stamp=ns_to_time(now + skew),
        version=world.version,
        total_entities=len(world.entities),
        entities_by_type=counts_to(world.count()),
        robot_pose=stamped(robot, skew) if robot else PoseStamped(),
        nearest_obstacle_m=nearest_m,
        people=people or 0,
        people_known=people is not None,
    )


def fill_snapshot(response: Any, snapshot: Snapshot, now: int, skew: int) -> None:
    """Put a snapshot into a GetSnapshot response."""
    response.snapshot_id, response.stamp = str(uuid4()), ns_to_time(now + skew)
    response.version, response.total_entities = snapshot.version, snapshot.total_entities
    response.entities_by_type = counts_to(snapshot.entities_by_type)
    response.entities = [entity_to(entity, skew) for entity in snapshot.entities]
    response.relations = list(map(relation_to, snapshot.relations))
    response.removed = snapshot.removed


def draw(world: World, before: set[str]) -> tuple[MarkerArray, set[str]]:
    """Markers of all that is somewhere, the end of those drawn `before`, and what is drawn now."""
    shown = {key: entity for key, entity in world.entities.items() if entity.where}
    ended = [Marker(ns=key, action=Marker.DELETE) for key in sorted(before - shown.keys())]
    return MarkerArray(markers=[*ended, *map(marker_of, shown.values())]), set(shown)


def marker_of(entity: Entity) -> Marker:
    """What rviz shows for an entity: a cylinder in the colour of its type."""
    where = entity.where
    assert where
    radius = entity.attributes.get("radius_m", 0.25)
    width = 2.0 * radius if isinstance(radius, float) else 0.5
    height = 1.7 if entity.entity_type == "person" else 0.4
    red, green, blue = COLOURS.get(entity.entity_type, OTHER_COLOUR)
    marker = Marker(
        ns=entity.entity_id,
        type=Marker.CYLINDER,
        action=Marker.ADD,
        scale=Vector3(x=width, y=width, z=height),
        color=ColorRGBA(r=red, g=green, b=blue, a=0.8),
    )
    if entity.ttl:
        marker.lifetime = Duration(sec=entity.ttl // SECOND, nanosec=entity.ttl % SECOND)
    marker.header.frame_id = where.frame_id
    set_pose(marker.pose, where)
    marker.pose.position.z += height / 2.0
    return marker


def entity_from(message: msg.Entity, now: int) -> Entity:
    """A new entity as the room knows it."""
    return Entity.new(
        message.entity_type,
        now,
        message.entity_id,
        message.rank,
        attributes_to_dict(message.attributes, "attributes"),
        pose_from(message.frame_id, message.pose),
        time_to_ns(message.ttl, "ttl"),
    )


def people_from(tracked: msg.TrackedPeople) -> Iterator[tuple[int, Pose, float, float]]:
    """(tracker's id, pose, speed [m/s], radius [m]) of each tracked person that is somewhere; of
    speed and radius either may be not finite."""
    for person in tracked.people:
        at, moving = person.position, person.velocity
        if all(map(math.isfinite, (at.x, at.y, at.z))):
            where = Pose(tracked.header.frame_id, (at.x, at.y, at.z))
            yield person.id, where, math.hypot(moving.x, moving.y), person.radius_m
