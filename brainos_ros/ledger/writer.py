"""Writing the log: frames, seals, heads and segments, each made durable in its order."""

import os
import threading
import time
from array import array
from contextlib import suppress
from hashlib import sha256
from zlib import crc32

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import disk, frames
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.merkle import Mountain
from brainos_ros.ledger.notes import Checkpoint, SigningKey, pack_checkpoint, sign_checkpoint, thin
from brainos_ros.ledger.recovery import RECOVERABLE, Recovered, freeze
from brainos_ros.ledger.tiles import Derived, Tiles, pack_offsets
from brainos_ros.ledger.walk import Seal

CHECKPOINT_S = 1.0
CHECKPOINT_RECORDS = 16384
CHECKPOINT_BYTES = 256 << 10
_SALTS = 256


class Writer:
    """Appends to the log under `layout`, whose lock is held by the caller.

    Attributes:
        syncs: number of `fdatasync` of the log since opening.
    """

    def __init__(self, layout: Layout, key: SigningKey, segment_bytes: int) -> None:
        self.path = layout.path
        self.syncs = 0
        self._layout = layout
        self._key = key
        self._handing_over: SigningKey | None = None
        self._segment_bytes = segment_bytes
        self._lock = threading.RLock()
        self._sync_lock = threading.RLock()
        self._wake = threading.Event()
        self._released = threading.Event()
        self._stopped: BrainError | None = None
        self._fd = self._checkpoints_fd = -1
        self._offset = self._capacity = 0
        self._mountain = Mountain()
        self._seal = self._durable = Seal(0, frames.NO_SEAL, self._mountain.root())
        self._checkpoint: Checkpoint | None = None
        self._checkpoints_end = self._thinned = 0
        self._checkpoint_due = 0.0
        self._dirty = False
        self._tiles_due = False
        self._offsets: array[int] = array("I")
        self._backlog: list[Derived] = []
        self._salts: list[bytes] = []
        self._tiles = Tiles(layout, writable=True)

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
        except OSError as second:
            return self._stop(f"what a failed write left could not be taken back: {second}")
        try:
            disk.allocate(self._fd, offset, self._capacity - offset)
        except OSError as second:
            if second.errno not in disk.TRANSIENT:
                return self._stop(f"room that was given back could not be taken again: {second}")
            self._capacity = offset  # somebody else has it: the next record begins a segment
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
                    fresh = self._mountain.take_fresh()
                    self._backlog.append((seal.size, fresh, pack_offsets(self._offsets)))
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
            return self._keep_checkpoint(seal)

    def _keep_checkpoint(self, seal: Seal) -> Checkpoint:
        keys = [self._key, *([self._handing_over] if self._handing_over else [])]
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

    def _sign_when_due(self) -> float | None:
        """Sign a head once it is time; returns how long until then [s], None if none is needed."""
        unsigned = self._durable.size - (self._checkpoint.size if self._checkpoint else 0)
        wait = self._checkpoint_due - time.monotonic()
        if unsigned and (wait <= 0 or unsigned >= CHECKPOINT_RECORDS):
            self.checkpoint()
            if self._checkpoints_end > max(CHECKPOINT_BYTES, 2 * self._thinned):
                self.thin_checkpoints()
            return None
        return wait if unsigned else None

    def thin_checkpoints(self) -> None:
        """Drop heads that lie between the ends of segments (see `notes.thin`).

        On a full disk they stay. Raises BrainError (LEDGER_REFUSED) where the disk fails, and once
        the stream is closed: the file is another writer's then.
        """
        path = self._layout.checkpoints
        ends = {segment.first for segment in self._layout.segments()}
        with self._sync_lock:
            if self._stopped:
                raise self._stopped
            try:
                try:
                    disk.replace_file(path, thin(path.read_bytes(), ends))
                except OSError as error:
                    if error.errno not in disk.TRANSIENT:
                        raise
                fresh = disk.open_file(path, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                raise self._stop(f"the heads could not be thinned: {error}") from error
            old, self._checkpoints_fd = self._checkpoints_fd, fresh
            self._checkpoints_end = self._thinned = os.fstat(fresh).st_size
            with suppress(OSError):
                disk.close(old)

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
        self._fd = fd
        self._offset, self._capacity = frames.SEGMENT_HEADER_SIZE, capacity

    def _roll(self, needed: int) -> None:
        """Seal the segment and begin the next, unless a frame of `needed` bytes fits.

        What takes the disk's time is done before and after others are kept from appending.
        """
        with self._sync_lock:
            self.sync()
            self._sync_tiles()
            with self._lock:
                if self._offset + needed + frames.SEAL_SIZE <= self._capacity:
                    return
                self.sync()
                old_fd, old_end = self._fd, self._offset
                least = frames.SEGMENT_HEADER_SIZE + needed + frames.SEAL_SIZE
                try:
                    self._begin_segment(max(self._segment_bytes, least))
                except OSError as error:
                    raise BrainError(
                        f"stream '{self.path.name}' could not begin a new segment: {error}",
                        ErrorCode.LEDGER_REFUSED,
                    ) from error
                self._tiles_due = True
            with suppress(OSError):
                disk.ftruncate(old_fd, old_end)
                disk.close(old_fd)
            self._sign_if_possible()

    def _roll_early(self) -> None:
        """In the thread that syncs: begin the next segment before somebody has to wait for it."""
        if self._offset > self._capacity // 8 * 7:
            self._roll(self._capacity // 8)
        self._sync_tiles()

    def _sync_tiles(self) -> None:
        """Make the stored nodes of sealed segments durable; opening checks the newest ones."""
        with self._sync_lock, suppress(OSError):
            if self._tiles_due and not self._stopped:
                self._tiles.sync()
                self._tiles_due = False

    def _sign_if_possible(self) -> None:
        """Sign the head; one that a full disk does not take is signed another time."""
        try:
            self.checkpoint()
        except BrainError:
            if self._stopped:
                raise

    def _continue(self, recovered: Recovered) -> None:
        """Go on where the recovered log ends, once log and heads are durable: more acts on them."""
        walk = recovered.walk
        self._mountain = walk.mountain
        self._seal = walk.seals[-1]
        self._checkpoint = recovered.checkpoint
        self._checkpoints_end = recovered.checkpoints_end
        self._fd = disk.open_file(recovered.segment.path, os.O_RDWR | os.O_CLOEXEC)
        self._offset = walk.offset
        self._capacity = max(self._segment_bytes, walk.offset + frames.SEAL_SIZE)
        try:
            disk.allocate(self._fd, 0, self._capacity)
        except OSError as error:
            if error.errno not in disk.TRANSIENT or self.size > self._seal.size:
                raise
            self._capacity = walk.offset  # no room: the next record begins a segment
        try:
            disk.fdatasync(self._fd)
            disk.fdatasync(self._checkpoints_fd)
            disk.sync_directory(self._layout.log)
        except OSError as error:
            raise self._stop(f"the log found could not be made durable: {error}") from error
        self._durable = self._seal
        self._backlog.append(recovered.derived)
        self._store_derived()

    def _release(self) -> None:
        """Close every file of the log and accept nothing more."""
        self._stopped = self._stopped or BrainError(
            f"stream '{self.path.name}' is closed", ErrorCode.LEDGER_REFUSED
        )
        self._released.set()
        self._wake.set()
        self._tiles.close()
        self._disown()

    def _disown(self) -> None:
        for fd in (self._fd, self._checkpoints_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._checkpoints_fd = -1
