"""What tests of whole streams share: filling one, pruning it, asking the doctor."""

import shutil
from pathlib import Path

from brainos_ros.ledger import Stream
from brainos_ros.ledger.doctor import Doctor
from brainos_ros.ledger.housekeeping import prune

SMALL = 2048


def fill(stream: Stream, count: int = 60) -> None:
    for number in range(count):
        stream.event("episode", {"n": number, "text": "as often as it takes " * 4})


def failed(path: Path) -> list[str]:
    return [check.name for check in Doctor(path).examine().checks if check.verdict == "FAIL"]


def prune_all(stream: Stream, copy: Path) -> list[int]:
    """Everything that may be pruned, whatever its age."""
    if not copy.exists():
        (copy / "log").mkdir(parents=True)
        gone = prune(stream, -1.0, copy)
        shutil.rmtree(copy)
        return gone
    return prune(stream, -1.0, copy)
