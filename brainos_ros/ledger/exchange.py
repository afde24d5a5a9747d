"""Export of a whole stream as one file, and import of another's records with their proof."""

import io
import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import disk, frames, kinds, rotation
from brainos_ros.ledger.auditing import write_csv
from brainos_ros.ledger.backup import bring_up
from brainos_ros.ledger.frames import Operation
from brainos_ros.ledger.layout import Layout, find
from brainos_ros.ledger.log import LogReader, content, frames_from
from brainos_ros.ledger.notes import Checkpoint, pack_checkpoint
from brainos_ros.ledger.paths import Paths
from brainos_ros.ledger.proof import latest_head, prove
from brainos_ros.ledger.stream import Stream
from brainos_ros.ledger.verifier import verify_bundle

_MEMBER = re.compile(r"checkpoints|keys\.json|log/[0-9]{16}\.seg")


class Imported(NamedTuple):
    """What an import did.

    Attributes:
        origin: the foreign log.
        records: records of it that were verified.
        put: paths that were put.
        unchanged: paths that were live with that body already.
    """

    origin: str
    records: int
    put: int
    unchanged: int


def export(path: Path, target: Path) -> tuple[Checkpoint, str]:
    """Write the stream in `path`, up to its newest head, as one tar file.

    The bytes depend on the records and the head alone: not on the machine, the time, or whether
    segments are compressed. No key, lock or derived file is in it. Returns the head, and the
    SHA-256 of the file in hex.

    Raises BrainError (NOT_FOUND; INVALID_ARGUMENT for a target inside the stream, or no file;
    UNAVAILABLE where segments were pruned), OSError; then `target` is as it was.
    """
    layout = find(Path(path))
    head = latest_head(layout.path)
    if head is None:
        raise BrainError(f"stream '{path}' has no signed head yet", ErrorCode.NOT_FOUND)
    with (
        _whole_file(layout, Path(target)) as file,
        tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, data in _members(layout, head):
            entry = tarfile.TarInfo(f"{layout.path.name}/{name}")
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return head, file.digest.hexdigest()


def export_csv(path: Path, target: Path) -> int:
    """Write every record of the stream in `path` as a line of CSV; returns how many.

    Raises BrainError (NOT_FOUND; INVALID_ARGUMENT as `export`), Damage, OSError; then `target` is
    as it was.
    """
    layout = find(Path(path))
    with _whole_file(layout, Path(target)) as file:
        text = io.TextIOWrapper(io.BufferedWriter(file), encoding="utf-8", newline="")
        try:
            return write_csv(layout.path, text)
        finally:
            text.detach().detach()


@contextmanager
def _whole_file(layout: Layout, target: Path) -> "Iterator[_DiskFile]":
    """A file outside the stream that comes to lie at `target` when it is whole, or never."""
    if layout.path.resolve() in target.resolve().parents:
        raise BrainError(f"target '{target}' lies inside the stream; name a file elsewhere")
    if target.exists() and not target.is_file():
        raise BrainError(f"target '{target}' is no regular file; name a file, new or old")
    target = target.resolve()  # the file that a link names is replaced, not the link
    fresh = target.with_name(target.name + ".new")
    file = _DiskFile(fresh)
    try:
        yield file
        file.sync()
    except BaseException:
        file.close()
        fresh.unlink(missing_ok=True)
        raise
    file.close()
    disk.replace(fresh, target)
    disk.sync_directory(target.parent)


def _members(layout: Layout, head: Checkpoint) -> Iterator[tuple[str, bytes]]:
    yield "checkpoints", pack_checkpoint(head)
    yield "keys.json", rotation.pack(rotation.known_to(head, rotation.history(layout)))
    for segment in layout.segments():
        if segment.first >= head.size:
            break
        data = content(layout, segment)
        if not data:
            raise BrainError(
                f"the records from {segment.first} on were pruned; export from the backup",
                ErrorCode.UNAVAILABLE,
            )
        yield f"log/{segment.first:016d}.seg", data[: _end(data, head.size)]


def _end(data: bytes, size: int) -> int:
    """Where a segment's frames end: after the seal over `size` records, or where they stop."""
    end = frames.SEGMENT_HEADER_SIZE
    for offset, frame in frames.scan(data):
        end = offset + frame.size
        if frame.form == frames.SEAL and frame.sequence == size:
            break
    return end


class _DiskFile(io.RawIOBase):
    """A file written from its beginning on, through the calls of `disk`."""

    def __init__(self, path: Path) -> None:
        self._fd = disk.open_file(path, disk.CREATE, 0o644)
        self._offset = 0
        self.digest = sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        disk.write_all(self._fd, bytes(data), self._offset)
        self._offset += len(data)
        return len(data)

    def writable(self) -> bool:
        return True

    def sync(self) -> None:
        disk.fsync(self._fd)

    def close(self) -> None:
        if not self.closed:
            disk.close(self._fd)
        super().close()


def import_archive(stream: Stream, archive: Path, key: str, prefix: str = "") -> Imported:
    """Put the live paths of an exported stream into `stream`, each with its origin and proof.

    The whole archive is verified first, against the verifier key `key`, the first that the
    foreign stream had. A path `p` comes to lie at `imported/<stream>-<id>/p`.

    Args:
        stream: where the records go.
        archive: a file that `export` wrote.
        key: the key trusted for it.
        prefix: take only paths that begin with this.

    Raises:
        BrainError: INVALID_ARGUMENT where the file is no export, or a path or a body is too long
            for a record here; UNAUTHORISED where it is signed by another key; LEDGER_REFUSED
            where it does not verify. Nothing is put then.
        OSError.
    """
    with tempfile.TemporaryDirectory(prefix="brainos-import-") as directory:
        layout = _unpack(Path(archive), Path(directory))
        audit = bring_up(layout)
        first = str(audit.keys[0][1]) if audit.keys else ""
        if first != key.strip():
            raise BrainError(
                f"the archive is signed by '{first}', not by the key given",
                ErrorCode.UNAUTHORISED,
            )
        head = latest_head(layout.path)
        if head is None or head.size != audit.size:
            raise BrainError(
                "the archive does not verify: it holds records that its head does not cover",
                ErrorCode.LEDGER_REFUSED,
            )
        return _put_all(stream, layout, head, first, prefix)


def _unpack(archive: Path, directory: Path) -> Layout:
    """The members of an export, as a stream's directory."""
    try:
        with tarfile.open(archive, "r:") as tar:
            names = tar.getnames()
            stream = names[0].partition("/")[0] if names else ""
            layout = Layout(directory / frames.check_path(stream, "archive"))
            disk.make_directory(layout.log)
            for member in tar:
                name = member.name.removeprefix(f"{stream}/")
                content = tar.extractfile(member) if member.isfile() else None
                if content is None or not _MEMBER.fullmatch(name):
                    raise BrainError(f"archive member '{member.name}' is not part of an export")
                (layout.path / name).write_bytes(content.read())
    except tarfile.TarError as error:
        raise BrainError(f"'{archive}' is not an exported stream: {error}") from None
    return layout


def _put_all(stream: Stream, layout: Layout, head: Checkpoint, key: str, prefix: str) -> Imported:
    put = unchanged = 0
    with closing(Paths(layout.paths)) as paths:
        for frame in frames_from(layout, 0):
            paths.apply(frame)
        for operation in _operations(layout, paths, head, key, prefix):
            _check(operation)
        for path, _, origin, body in _operations(layout, paths, head, key, prefix):
            before = stream.size
            stream.put_foreign(path, origin, body)
            put, unchanged = put + (stream.size > before), unchanged + (stream.size == before)
    stream.sync()
    return Imported(head.origin, head.size, put, unchanged)


def _operations(
    layout: Layout, paths: Paths, head: Checkpoint, key: str, prefix: str
) -> Iterator[Operation]:
    """What puts the live paths of an archive, each with its proof."""
    _, name, stream_id = head.origin.split("/")
    with closing(LogReader(layout)) as reader:
        for live in paths.walk(prefix):
            bundle = prove(layout.path, live.sequence)
            verify_bundle(bundle, key)
            path = f"imported/{name}-{stream_id[:8]}/{live.path}"
            body = reader.record(live.sequence).body
            yield Operation(path, origin=frames.encode(bundle), body=body)


def _check(operation: Operation) -> None:
    """Refuse what no record can carry, before anything is put. Raises BrainError."""
    size = len(frames.encode_operation(kinds.IMPORT, operation))
    if size > frames.MAX_PAYLOAD:
        raise BrainError(
            f"the body of {len(operation.body)} bytes for '{operation.path}' is too large to be "
            f"imported: with its proof it takes {size} bytes, and a record may have "
            f"{frames.MAX_PAYLOAD}; give a prefix that leaves it out"
        )
    frames.check_path(operation.path)
