"""The writer of a stream: one process, one lock, appends that are never merged or reordered."""

import fcntl
import os
import threading
import time
import weakref
from array import array
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any
from zlib import crc32

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import disk, frames, kinds
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.log import LogReader, Record
from brainos_ros.ledger.merkle import Mountain
from brainos_ros.ledger.notes import (
    Checkpoint,
    SigningKey,
    pack_checkpoint,
    sign_checkpoint,
)
from brainos_ros.ledger.recovery import (
    HUMAN,
    RECOVERABLE,
    Frozen,
    Recovered,
    Torn,
    freeze,
    recover,
)
from brainos_ros.ledger.tiles import Tiles
from brainos_ros.ledger.walk import Seal

SEGMENT_BYTES = 8 << 20
WINDOW_S = 0.005
CHECKPOINT_S = 1.0
CHECKPOINT_RECORDS = 16384
_SALTS = 256

_open_streams: "weakref.WeakSet[Stream]" = weakref.WeakSet()


class Stream:
    """An open stream, the only writer of its directory. Safe to use from several threads.

    Use `Stream.open`. Every append returns after `write(2)`: a killed process loses nothing it
    was told is accepted. `fdatasync` follows within the group window, or before the append
    returns with `durable=True`.

    Attributes:
        path: the stream's directory.
        torn: what recovery cut off at opening; None where the log ended cleanly.
        syncs: number of `fdatasync` of the log since opening.
    """

    def __init__(self, layout: Layout, lock_fd: int, key: SigningKey, window_s: float) -> None:
        self.path = layout.path
        self.torn: Torn | None = None
        self.syncs = 0
        self._layout = layout
        self._lock_fd = lock_fd
        self._key = key
        self._window_s = window_s
        self._segment_bytes = SEGMENT_BYTES
        self._lock = threading.RLock()
        self._sync_lock = threading.RLock()
        self._wake = threading.Event()
        self._stopped: BrainError | None = None
        self._flusher: threading.Thread | None = None
        self._fd = self._checkpoints_fd = -1
        self._first = self._offset = self._capacity = 0
        self._mountain = Mountain()
        self._seal = self._durable = Seal(0, frames.NO_SEAL, self._mountain.root())
        self._checkpoint: Checkpoint | None = None
        self._checkpoints_end = 0
        self._checkpoint_due = 0.0
        self._dirty = False
        self._offsets: array[int] = array("I")
        self._backlog: list[tuple[int, list[list[bytes]], bytes]] = []
        self._salts: list[bytes] = []
        self._tiles = Tiles(layout, writable=True)
        self._reader: LogReader | None = None

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
            name: the stream's name, one path component.
            window_s: how long appends are gathered before one `fdatasync` [s].
            segment_bytes: size at which a file of the log is sealed [bytes].

        Raises:
            BrainError: INVALID_ARGUMENT for a bad name; UNAVAILABLE where another process writes
                the stream, or where the disk is full, read-only or failing.
            Frozen: the log is not what it was when it was accepted.
        """
        if "/" in frames.check_path(name, "name"):
            raise BrainError(f"name '{name}' is not allowed; give one path component")
        layout = Layout(Path(root) / name)
        lock_fd = -1
        try:
            disk.make_directory(layout.path)
            lock_fd = take_lock(layout)
            reason = layout.freeze_reason()
            if reason:
                raise Frozen(name, reason["state"], reason["reason"])
            key = _load_key(layout)
            stream = cls(layout, lock_fd, key, window_s)
        except OSError as error:
            if lock_fd >= 0:
                disk.close(lock_fd)
            raise _unavailable(layout, error) from error
        except BaseException:
            if lock_fd >= 0:
                disk.close(lock_fd)
            raise
        stream._segment_bytes = segment_bytes
        try:
            stream._start()
        except OSError as error:
            stream._release()
            raise _unavailable(layout, error) from error
        except BaseException:
            stream._release()
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
        if recovered is None:
            self._begin_segment(self._segment_bytes)
        else:
            self._continue(recovered)
        if not self.size:
            body = {"format": 1, "stream": self.path.name, "key": self.public_key}
            self._append(kinds.CREATED, frames.encode(body))
        if self.torn:
            self._append(
                kinds.RECOVERED,
                frames.encode({"bytes_cut": self.torn.bytes, "file": self.torn.file}),
            )
        disk.sync_directory(layout.path)
        self.checkpoint()
        _open_streams.add(self)
        self._flusher = threading.Thread(target=self._flush, daemon=True, name="ledger")
        self._flusher.start()

    def _continue(self, recovered: Recovered) -> None:
        walk = recovered.walk
        self.torn = recovered.torn
        self._mountain = walk.mountain
        self._seal = walk.seals[-1]
        self._durable = Seal(0, frames.NO_SEAL, b"")
        self._checkpoint = recovered.checkpoint
        self._checkpoints_end = recovered.checkpoints_end
        self._first = recovered.segment.first
        self._fd = disk.open_file(recovered.segment.path, os.O_RDWR | os.O_CLOEXEC)
        self._offset = walk.offset
        self._capacity = max(self._segment_bytes, walk.offset)
        disk.ftruncate(self._checkpoints_fd, self._checkpoints_end)
        disk.allocate(self._fd, 0, self._capacity)

    # What it says of itself

    @property
    def origin(self) -> str:
        """The log's name in its checkpoints: `brainos/<stream>/<id>`."""
        return self._key.public.name

    @property
    def _stream_id(self) -> bytes:
        return bytes.fromhex(self.origin.rpartition("/")[2])

    @property
    def public_key(self) -> str:
        """The verifier key of the key that signs now."""
        return str(self._key.public)

    @property
    def size(self) -> int:
        """Number of records accepted; the next record gets this sequence number."""
        return self._mountain.size

    @property
    def root(self) -> bytes:
        """Merkle Tree Hash over all records accepted."""
        with self._lock:
            return self._mountain.root()

    @property
    def durable_size(self) -> int:
        """Number of records that are on the disk for sure."""
        return self._durable.size

    # Appending

    def event(
        self, kind: str, body: Mapping[str, Any] | bytes, *, durable: bool = False
    ) -> int:
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

    def _append(self, kind: int, payload: bytes) -> int:
        length = len(payload)
        if length > frames.MAX_PAYLOAD:
            raise BrainError(
                f"body of {length} bytes is larger than a record may be "
                f"({frames.MAX_PAYLOAD} bytes); store a digest of it",
                ErrorCode.INVALID_ARGUMENT,
            )
        while True:
            with self._lock:
                if self._stopped:
                    raise self._stopped
                offset, sequence = self._offset, self._mountain.size
                if not self._salts:
                    random = os.urandom(16 * _SALTS)
                    self._salts = [random[i : i + 16] for i in range(0, len(random), 16)]
                region = self._salts.pop() + payload
                if length < 16:
                    region = region.ljust(32, b"\0")
                end = offset + frames.FRAME.size + len(region)
                if end + frames.SEAL_SIZE <= self._capacity:
                    header = frames.HEADER.pack(kind, length, sequence, time.time_ns())
                    body = b"\x01" + header + region
                    frame = crc32(body).to_bytes(4, "big") + body
                    try:
                        written = disk.pwrite(self._fd, frame, offset)
                        if written != len(frame):
                            disk.write_all(self._fd, frame[written:], offset + written)
                    except OSError as error:
                        raise self._refused(error, offset) from error
                    commitment = sha256(region).digest()
                    self._mountain.add(sha256(b"\x00" + header + commitment).digest())
                    self._offsets.append(offset)
                    self._offset = end
                    if not self._dirty:
                        self._dirty = True
                        self._wake.set()
                    return sequence
            self._roll(frames.FRAME.size + len(region))

    def _refused(self, error: OSError, offset: int) -> BrainError:
        """A write that failed: what it left is taken back, or the stream stops."""
        try:
            disk.ftruncate(self._fd, offset)
            disk.allocate(self._fd, offset, self._capacity - offset)
        except OSError as second:
            return self._stop(f"what a failed write left could not be taken back: {second}")
        if error.errno in disk.TRANSIENT:
            return BrainError(
                f"stream '{self.path.name}' did not accept the record: {error}; free some space",
                ErrorCode.LEDGER_REFUSED,
            )
        return self._stop(f"a write failed: {error}")

    def _stop(self, reason: str) -> BrainError:
        """No more records in this process, nor in the next until `doctor --repair` has looked."""
        self._stopped = freeze(self._layout, RECOVERABLE, reason)
        return self._stopped

    def _write_seal(self) -> None:
        size, root = self._mountain.size, self._mountain.root()
        frame, digest = frames.build_seal(size, time.time_ns(), self._seal.hash, root)
        try:
            disk.write_all(self._fd, frame, self._offset)
        except OSError as error:
            raise self._refused(error, self._offset) from error
        self._offset += len(frame)
        self._seal = Seal(size, digest, root)

    # Durability

    def sync(self) -> None:
        """Return when every record accepted before the call is on the disk.

        Raises BrainError (LEDGER_REFUSED); after an `fdatasync` that failed the stream is stopped
        for good, because the page cache no longer tells what the disk holds.
        """
        with self._sync_lock:
            with self._lock:
                if self._stopped:
                    raise self._stopped
                self._dirty = False
                if self._mountain.size > self._seal.size:
                    if self._offset + frames.SEAL_SIZE > self._capacity:
                        self._capacity = self._offset + frames.SEAL_SIZE
                    self._write_seal()
                seal, fd = self._seal, self._fd
                if seal == self._durable:
                    return
                if self._offsets:
                    self._offsets.byteswap()
                    fresh = self._mountain.take_fresh()
                    self._backlog.append((seal.size, fresh, self._offsets.tobytes()))
                    self._offsets = array("I")
            try:
                disk.fdatasync(fd)
            except OSError as error:
                raise self._stop(f"fdatasync failed: {error}") from error
            self.syncs += 1
            self._durable = seal
            self._store_derived()

    def _store_derived(self) -> None:
        """Write nodes and offsets; what a full disk does not take is tried again next time."""
        while self._backlog:
            try:
                self._tiles.extend(*self._backlog[0])
            except OSError:
                return
            self._backlog.pop(0)

    def checkpoint(self) -> Checkpoint:
        """Sign the head over everything accepted so far: made durable, kept, then returned.

        Raises BrainError (LEDGER_REFUSED).
        """
        with self._sync_lock:
            self.sync()
            seal = self._durable
            self._checkpoint_due = time.monotonic() + CHECKPOINT_S
            if self._checkpoint and self._checkpoint.size == seal.size:
                return self._checkpoint
            return self._keep_checkpoint(seal, [self._key])

    def _keep_checkpoint(self, seal: Seal, keys: list[SigningKey]) -> Checkpoint:
        checkpoint = sign_checkpoint(self.origin, seal.size, seal.root, seal.hash, keys)
        packed = pack_checkpoint(checkpoint)
        try:
            disk.write_all(self._checkpoints_fd, packed, self._checkpoints_end)
        except OSError as error:
            try:
                disk.ftruncate(self._checkpoints_fd, self._checkpoints_end)
            except OSError as second:
                raise self._stop(f"a head half written could not be removed: {second}") from second
            if error.errno not in disk.TRANSIENT:
                raise self._stop(f"a head could not be written: {error}") from error
            raise BrainError(f"the head was not kept: {error}", ErrorCode.LEDGER_REFUSED) from error
        try:
            disk.fdatasync(self._checkpoints_fd)
        except OSError as error:
            raise self._stop(f"fdatasync of the heads failed: {error}") from error
        self._checkpoints_end += len(packed)
        self._checkpoint = checkpoint
        return checkpoint

    def _flush(self) -> None:
        """The thread that syncs a window after an append, and signs a head now and then."""
        wait: float | None = None
        while True:
            if self._wake.wait(wait):
                self._wake.clear()
                time.sleep(self._window_s)
            if self._stopped:
                return
            try:
                self.sync()
                wait = self._sign_when_due()
            except BrainError:
                wait = CHECKPOINT_S

    def _sign_when_due(self) -> float | None:
        """Sign a head once it is time; returns how long until then [s], None if none is needed."""
        unsigned = self._durable.size - (self._checkpoint.size if self._checkpoint else 0)
        wait = self._checkpoint_due - time.monotonic()
        if unsigned and (wait <= 0 or unsigned >= CHECKPOINT_RECORDS):
            self.checkpoint()
            return None
        return wait if unsigned else None

    # Segments

    def _begin_segment(self, capacity: int) -> None:
        """Create the file of the segment that begins now, whole or not at all."""
        first = self._mountain.size
        header = frames.Segment(self._stream_id, first, self._seal.hash, self._seal.root)
        path = self._layout.segment(first)
        fresh = path.with_name(path.name + ".new")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = disk.open_file(fresh, flags, 0o644)
        try:
            disk.allocate(fd, 0, capacity)
            disk.write_all(fd, header.pack(), 0)
        except OSError:
            disk.close(fd)
            disk.unlink(fresh)
            raise
        try:
            disk.fsync(fd)
            disk.replace(fresh, path)
            disk.sync_directory(self._layout.log)
        except OSError as error:
            disk.close(fd)
            raise self._stop(f"a new segment could not be made durable: {error}") from error
        self._fd, self._first = fd, first
        self._offset, self._capacity = frames.SEGMENT_HEADER_SIZE, capacity

    def _roll(self, needed: int) -> None:
        """Seal the segment and begin the next, with room for a frame of `needed` bytes."""
        with self._sync_lock, self._lock:
            if self._offset + needed + frames.SEAL_SIZE <= self._capacity:
                return
            self.sync()
            old_fd, old_end = self._fd, self._offset
            least = frames.SEGMENT_HEADER_SIZE + needed + frames.SEAL_SIZE
            try:
                self._tiles.sync()
                self._begin_segment(max(self._segment_bytes, least))
            except OSError as error:
                raise BrainError(
                    f"stream '{self.path.name}' could not begin a new segment: {error}",
                    ErrorCode.LEDGER_REFUSED,
                ) from error
            try:
                disk.ftruncate(old_fd, old_end)
                disk.close(old_fd)
            except OSError:
                pass
            if self._reader:
                self._reader.refresh()
            self.checkpoint()

    # Reading

    def read(self, sequence: int) -> Record:
        """Record `sequence`. Raises BrainError (NOT_FOUND, UNAVAILABLE), Damage."""
        reader = self._reader
        with self._lock:
            if reader is None:
                reader = self._reader = LogReader(self._layout)
            return reader.record(sequence)

    # The end

    def close(self) -> None:
        """Make everything durable, sign the head and let go of the stream."""
        with self._sync_lock, self._lock:
            if self._lock_fd < 0:
                return
            try:
                if not self._stopped:
                    self.checkpoint()
                    self._tiles.sync()
                    disk.ftruncate(self._fd, self._offset)
                    disk.fdatasync(self._fd)
            except OSError as error:
                raise self._stop(f"closing failed: {error}") from error
            finally:
                self._release()
        if self._flusher:
            self._flusher.join()

    def _release(self) -> None:
        """Close every file; the lock last."""
        self._stopped = self._stopped or BrainError(
            f"stream '{self.path.name}' is closed", ErrorCode.LEDGER_REFUSED
        )
        self._wake.set()
        self._tiles.close()
        if self._reader:
            self._reader.close()
        fds = [fd for fd in (self._fd, self._checkpoints_fd, self._lock_fd) if fd >= 0]
        self._fd = self._checkpoints_fd = self._lock_fd = -1
        for fd in fds:
            os.close(fd)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def take_lock(layout: Layout) -> int:
    """Become the stream's only writer; returns the descriptor that holds the lock.

    The lock ends with the process, however it ends, and is never taken from another. Raises
    BrainError (UNAVAILABLE) where somebody has it, OSError.
    """
    fd = disk.open_file(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        disk.ftruncate(fd, 0)
        disk.write_all(fd, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
        disk.close(fd)
        raise BrainError(
            f"stream '{layout.path.name}' is being written by process {holder}; "
            "stop it, or ask it",
            ErrorCode.UNAVAILABLE,
        ) from None
    except BaseException:
        disk.close(fd)
        raise
    return fd


def _load_key(layout: Layout) -> SigningKey:
    """The stream's key; a new one, kept durably, where nothing was ever written."""
    try:
        return SigningKey.parse(layout.key.read_bytes())
    except FileNotFoundError:
        if layout.checkpoints.exists() or layout.segments():
            raise freeze(layout, HUMAN, "the key is gone, the log is not") from None
    except frames.Damage as damage:
        raise freeze(layout, HUMAN, str(damage)) from None
    key = SigningKey(f"brainos/{layout.path.name}/{os.urandom(8).hex()}")
    disk.replace_file(layout.key, key.pack(), 0o600)
    return key


def _unavailable(layout: Layout, error: OSError) -> BrainError:
    return BrainError(
        f"stream '{layout.path.name}' cannot be opened: {error.strerror} "
        f"({error.filename or layout.path})",
        ErrorCode.UNAVAILABLE,
    )


def _disown() -> None:
    """In a forked child: the parent's streams, and its locks, are not the child's."""
    for stream in list(_open_streams):
        stream._stopped = BrainError(
            "this stream belongs to the parent process; open streams after the fork",
            ErrorCode.LEDGER_REFUSED,
        )
        for fd in (stream._fd, stream._checkpoints_fd, stream._lock_fd):
            if fd >= 0:
                os.close(fd)
        stream._fd = stream._checkpoints_fd = stream._lock_fd = -1


os.register_at_fork(after_in_child=_disown)
