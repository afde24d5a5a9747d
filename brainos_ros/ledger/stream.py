"""An open stream: what a room writes to, and its owner reads, moves, deletes and purges in."""

import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import disk, erasure, frames, kinds, rotation
from brainos_ros.ledger.frames import Operation
from brainos_ros.ledger.keeper import Keeper
from brainos_ros.ledger.layout import Layout, check_name
from brainos_ros.ledger.log import Record, frames_from, to_record
from brainos_ros.ledger.notes import SigningKey
from brainos_ros.ledger.opening import load_key, take_lock, unopened
from brainos_ros.ledger.proof import prove
from brainos_ros.ledger.recovery import Frozen, Recovered, Torn, recover
from brainos_ros.ledger.writer import CHECKPOINT_S

if TYPE_CHECKING:
    from brainos_ros.ledger.paths import Live

SEGMENT_BYTES = 8 << 20
WINDOW_S = 0.005

_open_streams: "weakref.WeakSet[Stream]" = weakref.WeakSet()


class Stream(Keeper):
    """An open stream, the only writer of its directory. Safe to use from several threads.

    Use `Stream.open`. Every append returns after `write(2)`: a killed process loses nothing it
    was told is accepted. `fdatasync` follows within the group window, or before the append
    returns with `durable=True`.

    Attributes:
        path: the stream's directory.
        torn: what recovery cut off, and this opening recorded; None where the log ended cleanly.
        syncs: number of `fdatasync` of the log since opening.
    """

    def __init__(
        self, layout: Layout, lock_fd: int, key: SigningKey, window_s: float, segment_bytes: int
    ) -> None:
        super().__init__(layout, key, segment_bytes)
        self.torn: Torn | None = None
        self._lock_fd = lock_fd
        self._window_s = window_s
        self._flusher = threading.Thread(target=self._flush, daemon=True, name="ledger")

    @classmethod
    def open(
        cls,
        root: Path,
        name: str,
        *,
        window_s: float = WINDOW_S,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> "Stream":
        """Open the stream `name` under `root` for writing; create it where it is not there.

        Args:
            root: directory of all streams, `<home>/ledger`.
            name: the stream's name, as `layout.check_name` has it.
            window_s: how long appends are gathered before one `fdatasync` [s].
            segment_bytes: size at which a file of the log is sealed [bytes].

        Raises:
            BrainError: INVALID_ARGUMENT for a bad name; UNAVAILABLE where another process writes
                the stream; LEDGER_REFUSED where the disk is read-only, failing or too full.
            Frozen: the log is not what it was when it was accepted.
        """
        check_name(name)
        layout = Layout(Path(root) / name)
        lock_fd = -1
        stream: Stream | None = None
        try:
            disk.make_directory(layout.path)
            lock_fd = take_lock(layout)
            reason = layout.freeze_reason()
            if reason:
                raise Frozen(name, reason["state"], reason["reason"])
            stream = cls(layout, lock_fd, load_key(layout), window_s, segment_bytes)
            stream._start()
        except BaseException as error:
            if stream:
                stream._release()
            elif lock_fd >= 0:
                os.close(lock_fd)
            if isinstance(error, OSError):
                raise unopened(layout, error) from error
            raise
        return stream

    def _start(self) -> None:
        layout = self._layout
        disk.make_directory(layout.log)
        for leftover in layout.path.glob("**/*.new"):
            disk.unlink(leftover)
        recovered = recover(layout, self._stream_id, self._key.public, self._tiles)
        self._checkpoints_fd = disk.open_file(
            layout.checkpoints, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
        if recovered:
            self._continue(recovered)
        else:
            self._begin_segment(self._segment_bytes)
        disk.ftruncate(self._checkpoints_fd, self._checkpoints_end)
        if recovered:
            self._finish(recovered)
        if not self.size:
            body = {"format": 1, "stream": self.path.name, "key": self.public_key}
            self._append(kinds.CREATED, frames.encode(body))
        for self.torn in recovered.torn if recovered else ():
            cut = {"bytes_cut": self.torn.bytes, "file": self.torn.file}
            self._append(kinds.RECOVERED, frames.encode(cut))
        disk.sync_directory(layout.path)
        # more than one record without any head would be damage to the next opening
        (self._sign_if_possible if self._checkpoint else self.checkpoint)()
        if not layout.keys.exists():
            rotation.keep_history(layout, rotation.history(layout))
        _open_streams.add(self)
        self._flusher.start()

    def _finish(self, recovered: Recovered) -> None:
        """Finish what a crash interrupted."""
        following = rotation.accepted(self._layout, recovered.checkpoint)
        if following:
            self._key, self._handing_over = following, self._key
            self._hand_over(self._handing_over)
        erasure.drop_spares(self._layout)
        erasure.finish(self._layout, self.size)
        self._paths.check(self.size)

    # Appending

    def event(self, kind: str, body: Mapping[str, Any] | bytes, *, durable: bool = False) -> int:
        """Append an event; events are never merged.

        Args:
            kind: one of `kinds.EVENTS`.
            body: bytes, or a mapping, stored as canonical JSON.
            durable: wait for `fdatasync`.

        Returns:
            The record's sequence number.

        Raises:
            BrainError: INVALID_ARGUMENT for an unknown kind or a body that cannot be stored;
                LEDGER_REFUSED where the disk does not accept it or the stream has stopped.
        """
        sequence = self._append(kinds.event_code(kind), frames.encode(body))
        if durable:
            self.sync()
        return sequence

    def put(self, path: str, body: Mapping[str, Any] | bytes, *, durable: bool = False) -> int:
        """Put `body` at `path`; nothing is written if that body is live there already.

        Returns the sequence number of the record that holds it; raises as `event`.
        """
        operation = Operation(frames.check_path(path), body=frames.encode(body))
        return self._operate(kinds.PUT, operation, durable)

    def move(self, path: str, target: str, *, durable: bool = False) -> int:
        """Move what is live at `path` to `target`, where nothing may be live.

        Returns the record's sequence number; raises as `event`, and BrainError (NOT_FOUND,
        ALREADY_EXISTS).
        """
        operation = Operation(frames.check_path(path), frames.check_path(target, "target"))
        return self._operate(kinds.MOVE, operation, durable)

    def delete(self, path: str, *, durable: bool = False) -> int:
        """Delete what is live at `path`: a tombstone; the records stay (see `purge`).

        Returns the record's sequence number; raises as `event`, and BrainError (NOT_FOUND).
        """
        return self._operate(kinds.DELETE, Operation(frames.check_path(path)), durable)

    def put_foreign(self, path: str, origin: bytes, body: bytes) -> int:
        """Put a record of another stream, with the JSON that says where it is from and proves it.

        Returns and raises as `put`.
        """
        operation = Operation(frames.check_path(path), origin=origin, body=body)
        return self._operate(kinds.IMPORT, operation, False)

    def _operate(self, kind: int, operation: Operation, durable: bool) -> int:
        with self._paths_lock:
            sequence = self._accept(kind, operation)
        if durable:
            self.sync()
        return sequence

    def _accept(self, kind: int, operation: Operation) -> int:
        live = self._live(operation.path)
        if kind in (kinds.PUT, kinds.IMPORT):
            if live and live.digest == sha256(operation.body).digest():
                return live.sequence
        elif not live:
            raise BrainError(f"nothing is live at path '{operation.path}'", ErrorCode.NOT_FOUND)
        if kind == kinds.MOVE and self._live(operation.target):
            raise BrainError(
                f"target '{operation.target}' is live already; delete it first",
                ErrorCode.ALREADY_EXISTS,
            )
        sequence = self._append(kind, frames.encode_operation(kind, operation))
        self._paths.change(kind, sequence, operation)
        return sequence

    def _live(self, path: str) -> "Live | None":
        return self._ask(lambda paths: paths.get(path))

    # Reading

    def records(self, start: int) -> Iterator[Record]:
        """What can still be read of the records from `start` on that are accepted by now.

        Those of pruned segments are left out; erased ones are not. Raises Damage.
        """
        size = self.size
        for frame in frames_from(self._layout, start):
            if frame.sequence >= size:
                return
            yield to_record(frame)

    def prove(self, sequence: int) -> dict[str, Any]:
        """The proof bundle of record `sequence`, under a head signed now if need be.

        Raises BrainError (NOT_FOUND, UNAVAILABLE), Damage.
        """
        if not 0 <= sequence < self.size:
            raise BrainError(
                f"sequence {sequence} is not in stream '{self.path.name}'", ErrorCode.NOT_FOUND
            )
        self.checkpoint()
        return prove(self.path, sequence)

    def view(self, path: str) -> bytes:
        """The body that is live at `path`. Raises as `read`, and BrainError for no path."""
        with self._paths_lock:
            live = self._live(frames.check_path(path))
            if not live:
                raise BrainError(f"nothing is live at path '{path}'", ErrorCode.NOT_FOUND)
            return self.read(live.sequence).body

    def live(self, prefix: str = "") -> "list[Live]":
        """Every live path that begins with `prefix`, in order.

        Raises BrainError (UNAVAILABLE, LEDGER_REFUSED once the stream is closed).
        """
        with self._paths_lock:
            return self._ask(lambda paths: list(paths.walk(prefix)))

    # The thread that syncs

    def _flush(self) -> None:
        """The thread that syncs a window after an append, and signs a head now and then."""
        wait: float | None = None
        while True:
            if self._wake.wait(wait):
                self._wake.clear()
                self._released.wait(self._window_s)
            if self._stopped:
                return
            try:
                self.sync()
                with self._paths_lock:
                    self._paths.commit(self.size)
                self._roll_early()
                wait = self._sign_when_due()
            except (BrainError, OSError):  # what is derived can wait; else the stream is stopped
                wait = CHECKPOINT_S
            except Exception as error:
                self._stop(f"the thread that syncs failed: {error!r}")
                return

    # The end

    def close(self) -> None:
        """Make everything durable, sign the head and let go of the stream.

        A head that a full disk does not take is signed by the next opening. Raises BrainError
        (LEDGER_REFUSED) where the disk fails; the stream is let go of all the same.
        """
        if self._lock_fd < 0:
            return
        with self._paths_lock, self._sync_lock, self._lock:
            if self._lock_fd < 0:
                return
            try:
                if not self._stopped:
                    self.sync()
                    self._sign_if_possible()
                    self._tiles.sync()
                    disk.ftruncate(self._fd, self._offset)
                    disk.fdatasync(self._fd)
                    self._paths.commit(self.size)
            except OSError as error:
                raise self._stop(f"closing failed: {error}") from error
            finally:
                self._release()
        if self._flusher.ident:
            self._flusher.join()

    def _disown(self) -> None:
        super()._disown()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _after_fork() -> None:
    """In a forked child: the parent's streams, and its locks, are not the child's."""
    for stream in list(_open_streams):
        stream._stopped = BrainError(
            "this stream belongs to the parent process; open streams after the fork",
            ErrorCode.LEDGER_REFUSED,
        )
        stream._disown()


os.register_at_fork(after_in_child=_after_fork)
