"""Questions to the ledger of the whole brain: every role's stream under one directory."""

import json
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Report, auditing, verify
from brainos_ros.ledger.layout import Layout, streams
from brainos_ros.ledger.log import frames_from, to_record


@dataclass(slots=True)
class Statistics:
    """Records of all streams; times in ns since the Unix epoch, 0 if there is none."""

    by_kind: Counter[str] = field(default_factory=Counter)
    earliest_ns: int = 0
    latest_ns: int = 0
    size_bytes: int = 0

    @property
    def total(self) -> int:
        return sum(self.by_kind.values())


def find_stream(root: Path, name: str) -> Path:
    """The directory of a stream. Raises BrainError (NOT_FOUND) naming those there are."""
    found = {path.name: path for path in streams(root)}
    if name not in found:
        known = ", ".join(found) or "none"
        raise BrainError(f"stream: there is no {name!r}; there are {known}", ErrorCode.NOT_FOUND)
    return found[name]


def verify_streams(root: Path, name: str = "") -> list[Report]:
    """Verify one stream, or all; also while they are being written."""
    paths = [find_stream(root, name)] if name else streams(root)
    return [verify(path) for path in paths]


def statistics(root: Path) -> Statistics:
    """Count the records of every stream. Raises OSError where one cannot be read."""
    result = Statistics()
    for path in streams(root):
        found = auditing.statistics(path)
        result.by_kind.update(found.by_kind)
        if found.records:
            earliest = result.earliest_ns or found.earliest_ns
            result.earliest_ns = min(earliest, found.earliest_ns)
        result.latest_ns = max(result.latest_ns, found.latest_ns)
        result.size_bytes += found.log_bytes
    return result


def not_on_record(root: Path, name: str, kind: str, key: str, ids: Set[str]) -> list[str]:
    """Those of `ids` that no record of this kind in a stream carries under `key`.

    Raises BrainError (NOT_FOUND) where there is no such stream.
    """
    records = map(to_record, frames_from(Layout(find_stream(root, name)), 0))
    kept = {json.loads(each.payload)[key]
            for each in records if each.kind == kind and not each.erased}
    return sorted(ids - kept)
