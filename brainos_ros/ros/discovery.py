"""How processes of the brain find each other; call `prepare` before the first rclpy.init."""

import os
from pathlib import Path

PROFILE_VARIABLES = (
    "FASTRTPS_DEFAULT_PROFILES_FILE",  # Jazzy
    "FASTDDS_DEFAULT_PROFILES_FILE",  # Kilted and later
)


def prepare() -> None:
    """Let Fast DDS read config/fastdds.xml, unless the user named a profile. Other middleware
    ignores it."""
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        return
    installed = [Path(prefix) / "share/brainos_ros"
                 for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)]
    for root in (Path(__file__).resolve().parents[2], *installed):
        profile = root / "config/fastdds.xml"
        if profile.is_file():
            os.environ.update(dict.fromkeys(PROFILE_VARIABLES, str(profile)))
            return
