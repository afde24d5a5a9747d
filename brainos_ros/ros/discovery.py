"""How processes of the brain find each other; call `prepare` before the first rclpy.init."""

import os
from pathlib import Path

from brainos_ros.errors import BrainError
from brainos_ros.shipped import shipped

PROFILE_VARIABLES = (
    "FASTRTPS_DEFAULT_PROFILES_FILE",  # Jazzy
    "FASTDDS_DEFAULT_PROFILES_FILE",  # Kilted and later
)

RECEIVE_BUFFER = 1 << 20  # bytes, as both profiles ask for
_LIMIT = Path("/proc/sys/net/core/rmem_max")


def prepare() -> None:
    """Let Fast DDS read config/fastdds.xml, unless the user named a profile.

    Where discovery is limited to this machine, fastdds_localhost.xml limits it: rmw_fastrtps
    would add shared memory to any profile. Other middleware ignores both.
    """
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        return
    try:
        profile = shipped("fastdds_localhost.xml" if _is_local() else "fastdds.xml")
    except BrainError:
        return
    os.environ.update(dict.fromkeys(PROFILE_VARIABLES, str(profile)))
    if _is_local() and "rmw_fastrtps" in os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp"):
        os.environ.pop("ROS_LOCALHOST_ONLY", None)
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SYSTEM_DEFAULT"


def advice() -> str:
    """What a person should change for nodes to find each other at once; empty if nothing."""
    try:
        limit = int(_LIMIT.read_text())
    except OSError:
        return ""
    if limit >= RECEIVE_BUFFER:
        return ""
    return (f"the kernel's limit for receive buffers is {limit >> 10} KiB, so a restarted node may "
            f"be found up to a second late; allow more: sysctl -w net.core.rmem_max="
            f"{RECEIVE_BUFFER}")


def _is_local() -> bool:
    """Whether to stay on this machine; with static peers rmw does what is needed."""
    asked = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST"
    only = os.environ.get("ROS_LOCALHOST_ONLY") == "1"
    return (asked or only) and not os.environ.get("ROS_STATIC_PEERS")
