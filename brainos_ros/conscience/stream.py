"""The conscience's own stream, read back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.log import frames_from, to_record

WANTED = ("evaluation", "refusals", "rules.loaded")


def events(home: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(sequence, kind, body) of the verdicts and rule sets a robot recorded, oldest first.

    Raises BrainError NOT_FOUND if there is no such stream.
    """
    path = home / "ledger" / "conscience"
    if not path.is_dir():
        raise BrainError(f"{path} is not there: nothing was recorded", ErrorCode.NOT_FOUND)
    for frame in frames_from(Layout(path), 0):
        record = to_record(frame)
        if record.kind in WANTED and not record.erased:
            yield record.sequence, record.kind, json.loads(record.payload)
