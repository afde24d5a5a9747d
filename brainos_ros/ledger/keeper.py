"""What an open stream does to its past: reads it, erases in it, and changes the key that signs."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import erasure, frames, kinds, rotation
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.log import LogReader, Record
from brainos_ros.ledger.notes import SigningKey
from brainos_ros.ledger.path_index import PathIndex
from brainos_ros.ledger.writer import Writer

if TYPE_CHECKING:
    from brainos_ros.ledger.paths import Paths

T = TypeVar("T")

#: Records that one purge names: with numbers of 19 digits it is still no larger than a record.
PURGED_AT_ONCE = 200_000


class Keeper(Writer):
    """A writer that can also read and purge what it wrote, and hand over to a new key.

    Attributes:
        reshaping: held while sealed segments are compressed, pruned or erased in.
    """

    def __init__(self, layout: Layout, key: SigningKey, segment_bytes: int) -> None:
        super().__init__(layout, key, segment_bytes)
        self._reader: LogReader | None = None
        self._reader_lock = threading.Lock()
        self.reshaping = threading.RLock()  # before _paths_lock
        self._paths_lock = threading.RLock()  # before _sync_lock, which is before _lock
        self._paths = PathIndex(layout)
        self._purging: int | None = None  # the purge that is accepted and not carried out

    def read(self, sequence: int) -> Record:
        """Record `sequence`.

        Raises BrainError (NOT_FOUND, UNAVAILABLE where it was pruned, LEDGER_REFUSED once the
        stream is closed), Damage.
        """
        with self._reader_lock:
            self._refuse_closed()
            if self._reader is None:
                self._reader = LogReader(self._layout)
            return self._reader.record(sequence)

    def _ask(self, question: "Callable[[Paths], T]") -> T:
        """The answer of the index of paths; the caller holds its lock.

        A purge that was accepted is carried out before. Raises as `read`, and as `event`.
        """
        self._refuse_closed()
        if self._purging is not None:
            self._finish_purge(self._purging)
        return self._paths.ask(self.size, question)

    def _refuse_closed(self) -> None:
        if self._stopped and self._released.is_set():
            raise self._stopped

    def purge(self, path: str, reason: str) -> int:
        """Erase what is at `path`, live or deleted: every version, its name and its salt.

        Every proof stays valid. Returns the sequence number of the purge record; raises
        BrainError (NOT_FOUND, INVALID_ARGUMENT for no path or no reason, UNAVAILABLE where a
        segment was pruned), and as `event`. A refusal that says so leaves a purge that stands. More
        than `PURGED_AT_ONCE` records are several purges, of the oldest records first: after a crash
        ask again.
        """
        with self.reshaping, self._paths_lock, self._sync_lock, self._lock:
            sequences = self._ask(lambda paths: paths.history(frames.check_path(path)))
            if not sequences:
                raise BrainError(f"nothing was ever put at path '{path}'", ErrorCode.NOT_FOUND)
            return self._erase(sequences, reason)

    def purge_events(self, sequences: list[int], reason: str) -> int:
        """Erase events by their sequence numbers; as `purge`."""
        with self.reshaping, self._paths_lock, self._sync_lock, self._lock:
            for sequence in sequences:
                if self.read(sequence).kind in kinds.OPERATIONS:
                    raise BrainError(
                        f"sequence {sequence} is no event; purge the path it is about, or leave it"
                    )
            return self._erase(sequences, reason)

    def _erase(self, sequences: list[int], reason: str) -> int:
        """Purge `sequences`, the oldest first; returns the number of the last purge record."""
        if not reason.strip():
            raise BrainError("reason '' is not allowed; say why and by whose order")
        purge = -1
        for start in range(0, len(sequences) or 1, PURGED_AT_ONCE):
            purge = self._erase_some(sequences[start : start + PURGED_AT_ONCE], reason)
        return purge

    def _erase_some(self, sequences: list[int], reason: str) -> int:
        payload = frames.encode({"sequences": sequences, "reason": reason})
        if len(payload) > frames.MAX_PAYLOAD:
            raise BrainError(f"reason of {len(reason)} characters is too long; put it into a file")
        self.sync()
        if self._purging is not None:
            self._finish_purge(self._purging)
        erasure.finish(self._layout, self.size)
        reader = LogReader(self._layout)
        try:
            targets = [erasure.locate(self._layout, reader, each) for each in sequences]
        finally:
            reader.close()
        try:
            erasure.announce(self._layout, self.size, targets)
        except OSError as error:
            raise self._stop(f"a purge could not be announced: {error}") from error
        purge = self._purging = self._append(kinds.PURGE, payload)
        self._finish_purge(purge)
        return purge

    def _finish_purge(self, purge: int) -> None:
        """Carry out the purge that record `purge` decided, once a head says so.

        Raises BrainError: LEDGER_REFUSED where that head finds no room, UNAVAILABLE while another
        thread changes sealed segments. What was decided stands, and is tried again.
        """
        stands = f"purge {purge} stands: the next use of a path, or the next opening, finishes it"
        if not self.reshaping.acquire(blocking=False):
            text = f"the log is being compressed or pruned; {stands}"
            raise BrainError(text, ErrorCode.UNAVAILABLE)
        try:
            with self._sync_lock, self._lock:
                self.checkpoint()
                self._paths.drop()
                erasure.finish(self._layout, self.size)
                self._purging = None
                with self._reader_lock:
                    if self._reader:
                        self._reader.refresh()
        except OSError as error:
            raise self._stop(f"a purge could not be finished: {error}") from error
        except BrainError as error:
            raise self._stopped or BrainError(f"{error}; {stands}", error.code) from error
        finally:
            self.reshaping.release()

    def rotate_key(self) -> str:
        """Sign with a new key from now on; returns its verifier key. Raises as `event`.

        Should the disk fail in between, the next call or the next opening finishes it; until then
        both keys sign.
        """
        with self._sync_lock, self._lock:
            self.sync()
            try:
                if self._handing_over is None:
                    new = SigningKey(self.origin)
                    rotation.keep_next(self._layout, new)
                    self._append(kinds.KEY_ROTATED, rotation.statement(self._key, new.public))
                    self._key, self._handing_over = new, self._key
                self._hand_over(self._handing_over)
            except OSError as error:
                raise self._stop(f"the key could not be changed: {error}") from error
            return self.public_key

    def _hand_over(self, old: SigningKey) -> None:
        """Let the new key sign alone, once a head says so with both signatures."""
        self.sync()
        known = rotation.history(self._layout)
        if all(entry["key"] != self.public_key for entry in known):
            statement = rotation.statement(old, self._key.public)
            rotation.keep_history(self._layout, [*known, rotation.entry(statement)])
        self.checkpoint()
        rotation.take_over(self._layout)
        self._handing_over = None

    def record_pruning(self, segments: list[int]) -> None:
        """Record durably that the segments with these first records are about to be pruned."""
        self._append(kinds.PRUNED, frames.encode({"segments": segments}))
        self.checkpoint()

    def _release(self) -> None:
        with self._paths_lock, self._sync_lock, self._lock:
            super()._release()
            with self._reader_lock:
                if self._reader:
                    self._reader.close()
            self._paths.close()
