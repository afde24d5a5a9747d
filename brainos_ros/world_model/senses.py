"""What the robot's own sensors say: where it is, the people around it, the nearest thing."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from brainos_ros.world_model.entities import TRACKED, Entity, Fact, Pose

PERSON_TTL_NS = 2_000_000_000
PERSON_RANK = 8
MOVED_M = 0.01
TURNED = 5e-3


def nearest_return(ranges: ArrayLike, range_min: float, range_max: float) -> float:
    """Distance of the nearest return of a scan [m].

    Follows REP 117: +Inf is free space, -Inf too close to measure (counted as `range_min`), NaN and
    what lies outside the sensor's limits no measurement. +Inf if nothing is near, NaN if the scan
    holds no measurement at all.
    """
    values = np.asarray(ranges, dtype=np.float64)
    values = np.where(np.isneginf(values), range_min, values)
    valid = np.isposinf(values) | ((values >= range_min) & (values <= range_max))
    return float(values[valid].min()) if bool(valid.any()) else math.nan


def moved(before: Pose | None, after: Pose) -> bool:
    """True if a pose changed by more than a centimetre or half a degree, or its frame did."""
    if before is None or before.frame_id != after.frame_id:
        return True
    turn = abs(sum(a * b for a, b in zip(before.orientation, after.orientation, strict=True)))
    return math.dist(before.position, after.position) > MOVED_M or turn < math.cos(TURNED)


def robot(held: Entity, pose: Pose | None, figures: Mapping[str, float], now: int) -> Entity | None:
    """The robot's entity brought up to date; None if nothing changed enough to say so.

    A figure that is not finite is not known: its fact is removed.
    """
    kept = {
        key: fact
        for key, fact in held.facts.items()
        if key not in figures or not _differ(fact.value, figures[key])
    }
    facts = _facts(figures, now) | kept
    has_moved = pose is not None and moved(held.where, pose)
    if facts == held.facts and not has_moved:
        return None
    return replace(
        held,
        facts=facts,
        pose=Fact(pose, now) if pose else held.pose,
        last_updated=now,
    )


def people(
    seen: Iterable[tuple[int, Pose, float, float]], held: Mapping[str, Entity], now: int
) -> list[Entity]:
    """The tracked people as entities that are forgotten 2 s after they were last seen.

    `seen` is (tracker's id, pose, speed [m/s], radius [m]) of each; a figure that is not finite is
    left out. What others observed of them is kept.
    """
    entities = []
    for number, pose, speed, radius in seen:
        entity_id = f"{TRACKED}{number}"
        known = held.get(entity_id)
        figures = {"speed_mps": round(speed, 3), "radius_m": round(radius, 3)}
        facts = known.facts.items() if known else ()
        others = {key: fact for key, fact in facts if key not in figures}
        entities.append(
            Entity(
                entity_id,
                "person",
                PERSON_RANK,
                others | _facts(figures, now),
                Fact(pose, now),
                known.created_at if known else now,
                now,
                PERSON_TTL_NS,
            )
        )
    return entities


def _facts(figures: Mapping[str, float], now: int) -> dict[str, Fact]:
    return {key: Fact(value, now) for key, value in figures.items() if math.isfinite(value)}


def _differ(before: object, after: float) -> bool:
    return not isinstance(before, float) or not abs(before - after) <= MOVED_M
