"""The QoS profiles of every door, by what flows through it."""

from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)


def _profile(
    depth: int, reliability: ReliabilityPolicy, durability: DurabilityPolicy
) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=reliability,
        durability=durability,
    )


_RELIABLE, _VOLATILE = ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE

STATE = _profile(1, _RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
"""What is so now: late joiners get the last one (service level, safety state, world state)."""

COMMAND = _profile(1, _RELIABLE, _VOLATILE)
"""What to do now: only the newest counts (cmd_vel)."""

HEARTBEATS = _profile(64, ReliabilityPolicy.BEST_EFFORT, _VOLATILE)
"""Heartbeats: one that comes late is worth nothing; depth for every writer."""

EVENT = _profile(1000, _RELIABLE, _VOLATILE)
"""What happened: each one counts (episodes, decisions, evaluations, observations)."""

WATCHED = _profile(200, ReliabilityPolicy.BEST_EFFORT, _VOLATILE)
"""Outputs that are looked at now and then: each message since the last look counts."""

SENSOR = qos_profile_sensor_data
"""Scans, odometry, tracked people: the newest matters, a lost one does not."""

SERVICE = _profile(1000, _RELIABLE, _VOLATILE)
"""Services: depth for a crowd; with the default of 10, callers of a burst wait for ever."""


def fleet_state(robots: int) -> QoSProfile:
    """`STATE` for a topic with one writer per robot: a reader of depth 1 would lose all but one."""
    return _profile(max(robots, 1), _RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
