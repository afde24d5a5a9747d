"""Which paths are live and what they hold: an index on disk, derived from the log.

An object begins with the first put of a path that is not live and keeps its identity when it
moves; `history` lists every record that is about it, which is what a purge erases.
"""

import os
import sqlite3
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from brainos_ros.ledger import frames, kinds
from brainos_ros.ledger.frames import Frame

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    object INTEGER PRIMARY KEY, path TEXT NOT NULL, live INTEGER NOT NULL,
    sequence INTEGER NOT NULL, digest BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS by_path ON objects (path, live);
CREATE TABLE IF NOT EXISTS history (
    object INTEGER NOT NULL, sequence INTEGER NOT NULL,
    PRIMARY KEY (object, sequence)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS applied (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER);
INSERT OR IGNORE INTO applied VALUES (1, 0);
"""

#: Kinds of the records that the index is about.
APPLIED = (kinds.PUT, kinds.IMPORT, kinds.MOVE, kinds.DELETE)


class Live(NamedTuple):
    """A live path.

    Attributes:
        object: number of the object's first record.
        path: where it is now.
        sequence: the record that holds its body.
        digest: SHA-256 of the body.
    """

    object: int
    path: str
    sequence: int
    digest: bytes


class Paths:
    """The index over one stream. Not safe to use from several threads without a lock.

    Raises sqlite3.DatabaseError where the file is damaged; delete it, and it is built again.
    """

    def __init__(self, path: Path, writable: bool = True) -> None:
        mode, wal = "rwc" if writable else "ro", path.with_name(path.name + "-wal")
        if not (writable or wal.exists() or os.access(path.parent, os.W_OK)):
            mode += "&immutable=1"  # nobody writes it, and SQLite could not make its log to read it
        self._db = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode={mode}",
            uri=True,
            check_same_thread=False,
            isolation_level=None,
        )
        if writable:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA secure_delete=ON")
            self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")

    @property
    def applied(self) -> int:
        """Number of the stream's records that the index has seen, at the last commit."""
        return int(self._db.execute("SELECT size FROM applied").fetchone()[0])

    def get(self, path: str) -> Live | None:
        """What is live at `path`."""
        row = self._db.execute(
            "SELECT object, path, sequence, digest FROM objects WHERE path = ? AND live = 1",
            (path,),
        ).fetchone()
        return Live(*row) if row else None

    def walk(self, prefix: str = "") -> Iterator[Live]:
        """Every live path that begins with `prefix`, in order."""
        rows = self._db.execute(
            "SELECT object, path, sequence, digest FROM objects"
            " WHERE live = 1 AND substr(path, 1, ?) = ? ORDER BY path",
            (len(prefix), prefix),
        )
        return (Live(*row) for row in rows)

    def histories(self) -> Iterator[tuple[int, str]]:
        """Each record that is about an object, and where the object is or ended; in order."""
        rows = self._db.execute(
            "SELECT history.sequence, path FROM history JOIN objects USING (object) ORDER BY 1, 2"
        )
        return ((int(sequence), str(path)) for sequence, path in rows)

    def apply(self, frame: Frame) -> None:
        """Take one record into account; an erased one says nothing. Raises Damage."""
        if frame.form == frames.ERASED or frame.kind not in APPLIED:
            return
        operation = frames.decode_operation(frame.kind, frame.payload)
        self.change(frame.kind, frame.sequence, operation)

    def change(self, kind: int, sequence: int, operation: frames.Operation) -> None:
        """Take an operation into account that was just written as record `sequence`."""
        live = self.get(operation.path)
        if kind in (kinds.PUT, kinds.IMPORT):
            digest = sha256(operation.body).digest()
            if live:
                self._db.execute(
                    "UPDATE objects SET sequence = ?, digest = ? WHERE object = ?",
                    (sequence, digest, live.object),
                )
            else:
                self._db.execute(
                    "INSERT INTO objects VALUES (?, ?, 1, ?, ?)",
                    (sequence, operation.path, sequence, digest),
                )
        elif live and kind == kinds.MOVE:
            self._db.execute(
                "UPDATE objects SET path = ? WHERE object = ?", (operation.target, live.object)
            )
        elif live and kind == kinds.DELETE:
            self._db.execute("UPDATE objects SET live = 0 WHERE object = ?", (live.object,))
        self._db.execute(
            "INSERT OR IGNORE INTO history VALUES (?, ?)",
            (live.object if live else sequence, sequence),
        )

    def history(self, path: str) -> list[int]:
        """Every record about the objects that are, or ended, at `path`."""
        rows = self._db.execute(
            "SELECT history.sequence FROM history JOIN objects USING (object)"
            " WHERE objects.path = ? ORDER BY 1",
            (path,),
        )
        return [row[0] for row in rows]

    def commit(self, size: int) -> None:
        """Keep the changes so far: the index has now seen `size` records."""
        self._db.execute("UPDATE applied SET size = ?", (size,))
        self._db.execute("COMMIT")
        self._db.execute("BEGIN")

    def close(self) -> None:
        """Close the index; changes since the last commit are dropped."""
        self._db.close()
