"""SQLite files that are projections of a ledger stream: a damaged one is kept, and built anew."""

import sqlite3
import time
from pathlib import Path


class Projection:
    """One SQLite file (WAL: a killed process loses nothing).

    Attributes:
        damaged: where files are that SQLite could not read; this one was begun anew.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.damaged: list[Path] = []
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.begin_anew()

    def begin_anew(self) -> None:
        """Keep the damaged file aside and have an empty one, to be replayed."""
        self._db.close()
        self.damaged.append(_set_aside(self._path))
        self._open()

    def _open(self) -> None:
        """Connect; a subclass makes its tables."""
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file itself is broken: no database, or malformed."""
    return type(error) is sqlite3.DatabaseError


def _set_aside(path: Path) -> Path:
    """Move a file and its log out of the way; return where it is now. Raises OSError.

    No connection to it may be open: its end would take the next file's log with it.
    """
    kept = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for suffix in ("-wal", "-shm", ""):
        if (given := Path(f"{path}{suffix}")).exists():
            given.replace(f"{kept}{suffix}")
    return kept
