"""Where the files that come with BrainOS lie: in the source tree, or installed."""

import os
from collections.abc import Iterator
from pathlib import Path

from brainos_ros.errors import BrainError, ErrorCode


def places() -> Iterator[Path]:
    """Folders that may hold `config/`: the source tree, then each prefix ROS knows."""
    yield Path(__file__).resolve().parents[1]
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix:
            yield Path(prefix) / "share" / "brainos_ros"


def shipped(name: str) -> Path:
    """The file `config/<name>`. Raises BrainError (NOT_FOUND)."""
    for place in places():
        if (path := place / "config" / name).is_file():
            return path
    raise BrainError(f"config/{name} is not installed; build and source brainos_ros",
                     ErrorCode.NOT_FOUND)
