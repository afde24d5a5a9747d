"""SQLite files that are projections of a ledger stream: a damaged one is kept, and built anew."""

import sqlite3
import time
from pathlib import Path


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file itself is broken: no database, or malformed."""
    return type(error) is sqlite3.DatabaseError


def set_aside(path: Path) -> Path:
    """Move a file and its log out of the way; return where it is now. Raises OSError.

    No connection to it may be open: its end would take the next file's log with it.
    """
    kept = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for suffix in ("-wal", "-shm", ""):
        if (given := Path(f"{path}{suffix}")).exists():
            given.replace(f"{kept}{suffix}")
    return kept
