"""Whether the index of paths says what the log says: the log is read into a second one."""

import tempfile
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.log import frames_from
from brainos_ros.ledger.paths import Paths


def compare(layout: Layout, pruned: bool) -> tuple[str, int]:
    """What is wrong with the index, empty if nothing is, and how many paths are live.

    Where segments were `pruned` the index may know of records that the log does not show any more.
    Raises sqlite3.Error where it cannot be read, Damage, OSError.
    """
    with tempfile.TemporaryDirectory(prefix="brainos-index-") as directory:
        stored = Paths(layout.paths, writable=False)
        built = Paths(Path(directory) / "paths.sqlite")
        try:
            applied = stored.applied
            for frame in frames_from(layout, 0):
                if frame.sequence >= applied:
                    break
                built.apply(frame)
            problem = _live_differ(stored, built) or _histories_differ(stored, built, pruned)
            return problem, sum(1 for _ in built.walk())
        finally:
            stored.close()
            built.close()


def _live_differ(stored: Paths, built: Paths) -> str:
    for one, other in zip_longest(stored.walk(), built.walk()):
        if one is None or (other and other.path < one.path):
            return f"path '{other.path}' is live, but not in the index"
        if other is None or one.path < other.path:
            return f"path '{one.path}' is indexed as live, but is not"
        if (one.sequence, one.digest) != (other.sequence, other.digest):
            return f"path '{one.path}' is indexed with another body"
    return ""


def _histories_differ(stored: Paths, built: Paths, pruned: bool) -> str:
    missing = _missing(built.histories(), stored.histories())
    if missing:
        return f"record {missing[0]} is about '{missing[1]}', but not in the index"
    extra = None if pruned else _missing(stored.histories(), built.histories())
    if extra:
        return f"record {extra[0]} is indexed as about '{extra[1]}', but is not"
    return ""


def _missing(
    wanted: Iterator[tuple[int, str]], there: Iterator[tuple[int, str]]
) -> tuple[int, str] | None:
    """The first of `wanted` that is not `there`; both are in order."""
    for each in wanted:
        other = next((one for one in there if one >= each), None)
        if other != each:
            return each
    return None
