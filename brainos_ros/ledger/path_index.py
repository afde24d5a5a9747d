"""The index of paths as an open stream uses it: loaded when first needed, rebuilt when it fails."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import disk
from brainos_ros.ledger.frames import Operation
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.log import frames_from

if TYPE_CHECKING:
    from brainos_ros.ledger.paths import Paths

T = TypeVar("T")


class PathIndex:
    """Keeps `paths.sqlite` level with the log. The caller holds the stream's lock."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._paths: Paths | None = None
        self._changed = False

    def check(self, size: int) -> None:
        """At opening: an index that has seen more than the log's `size` records is dropped."""
        if not self._layout.paths.exists():
            return
        import sqlite3

        try:
            ahead = self._load(0).applied > size
            self.close()
        except sqlite3.Error:
            ahead = True
        if ahead:
            self.drop()

    def ask(self, size: int, question: "Callable[[Paths], T]") -> T:
        """The answer of the index to a question, the log having `size` records.

        Raises BrainError (UNAVAILABLE) where the index does not work even when built anew.
        """
        import sqlite3

        try:
            return question(self._load(size))
        except sqlite3.Error:
            self.drop()
        try:
            return question(self._load(size))
        except sqlite3.Error as error:
            self.drop()
            raise BrainError(
                f"the index of paths does not work: {error}", ErrorCode.UNAVAILABLE
            ) from error

    def change(self, kind: int, sequence: int, operation: Operation) -> None:
        """Take the operation into account that was just accepted as record `sequence`."""
        import sqlite3

        try:
            if self._paths:
                self._paths.change(kind, sequence, operation)
                self._changed = True
        except sqlite3.Error:
            self.drop()

    def commit(self, size: int) -> None:
        """Keep what changed; the log has `size` records."""
        if not self._changed or not self._paths:
            return
        import sqlite3

        self._changed = False
        try:
            self._paths.commit(size)
        except sqlite3.Error:
            self.drop()

    def drop(self) -> None:
        """Remove the index; it is built again from the log when it is needed."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            path = self._layout.paths.with_name(self._layout.paths.name + suffix)
            if path.exists():
                disk.unlink(path)

    def close(self) -> None:
        """Close the index."""
        if self._paths:
            self._paths.close()
            self._paths = None

    def _load(self, size: int) -> "Paths":
        from brainos_ros.ledger.paths import Paths

        if self._paths is None:
            paths = Paths(self._layout.paths)
            try:
                applied = paths.applied
                for frame in frames_from(self._layout, applied) if applied < size else ():
                    paths.apply(frame)
                if applied < size:
                    paths.commit(size)
            except BaseException:
                paths.close()
                raise
            self._paths = paths
        return self._paths
