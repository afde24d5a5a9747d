"""How processes of the brain find each other; call `prepare` before the first rclpy.init."""

import os
from pathlib import Path

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
    profile = _find("fastdds_localhost.xml" if _is_local() else "fastdds.xml")
    if profile is None:
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


def _find(name: str) -> Path | None:
    installed = [
        Path(prefix) / "share/brainos_ros"
        for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    ]
    for root in (Path(__file__).resolve().parents[2], *installed):
        profile = root / "config" / name
        if profile.is_file():
            return profile
    return None
