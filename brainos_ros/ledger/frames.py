"""The bytes of the log: frames, segment headers, payloads. `docs/ledger.md` describes them.

All integers are big-endian. A frame is

    crc u32 | form u8 | kind u16, length u32, sequence u64, time_ns u64 | region

where the region is 16 bytes of salt and the payload, padded with zeros to at least 32 bytes; the
22 bytes in the middle are the header. The CRC-32 covers everything after it.
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple
from zlib import crc32

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import kinds
from brainos_ros.ledger.merkle import HASH_SIZE

END, RECORD, ERASED, SEAL = range(4)

FRAME = struct.Struct(">IBHIQQ")
HEADER = struct.Struct(">HIQQ")
SALT_SIZE = 16
MIN_PAYLOAD = HASH_SIZE - SALT_SIZE
MAX_PAYLOAD = 4 << 20
MAX_PATH = 1024
SEAL_PAYLOAD = 2 * HASH_SIZE - SALT_SIZE
SEAL_SIZE = FRAME.size + SALT_SIZE + SEAL_PAYLOAD

MAGIC = b"BRAINLG1"
SEGMENT = struct.Struct(">8s8sQ32s32s")
SEGMENT_HEADER_SIZE = SEGMENT.size + 4
NO_SEAL = bytes(HASH_SIZE)


class Damage(BrainError):
    """The bytes are not what the format says; the message says what and where.

    Attributes:
        check: the invariant that is broken, as `doctor` names it.
    """

    def __init__(self, message: str, check: str = "frame-crc") -> None:
        super().__init__(message, ErrorCode.LEDGER_REFUSED)
        self.check = check


class Frame(NamedTuple):
    """One frame of a log.

    Attributes:
        form: RECORD, ERASED or SEAL.
        kind: code of the kind; 0 in a seal.
        length: bytes of payload.
        sequence: the record's number in its stream; in a seal, the number of records before it.
        time_ns: wall clock when it was written [ns since the epoch].
        header: the 22 bytes that are hashed into the leaf.
        region: salt and padded payload; in an erased record the commitment and zeros; in a seal
            the hash of the previous seal and the root.
    """

    form: int
    kind: int
    length: int
    sequence: int
    time_ns: int
    header: bytes
    region: bytes

    @property
    def commitment(self) -> bytes:
        """SHA-256 over salt and payload, computed or, once erased, as kept."""
        if self.form == ERASED:
            return self.region[:HASH_SIZE]
        return sha256(self.region).digest()

    @property
    def entry(self) -> bytes:
        """The log entry in the sense of RFC 6962: header and commitment."""
        return self.header + self.commitment

    @property
    def payload(self) -> bytes:
        """The payload; empty once erased."""
        return b"" if self.form == ERASED else self.region[SALT_SIZE : SALT_SIZE + self.length]

    @property
    def size(self) -> int:
        """Bytes of the whole frame."""
        return FRAME.size + len(self.region)


class Segment(NamedTuple):
    """What a segment's header says: whose it is and where in the chain and tree it begins."""

    stream_id: bytes
    first: int
    previous_seal: bytes
    root: bytes

    def pack(self) -> bytes:
        """The 92 bytes at the beginning of the segment's file."""
        packed = SEGMENT.pack(MAGIC, self.stream_id, self.first, self.previous_seal, self.root)
        return packed + crc32(packed).to_bytes(4, "big")

    @classmethod
    def parse(cls, data: bytes) -> "Segment":
        """Raises Damage."""
        head = data[: SEGMENT.size]
        if len(data) < SEGMENT_HEADER_SIZE or head[: len(MAGIC)] != MAGIC:
            raise Damage("it does not begin with a segment header")
        if crc32(head) != int.from_bytes(data[SEGMENT.size : SEGMENT_HEADER_SIZE], "big"):
            raise Damage("the CRC of the segment header is wrong")
        return cls(*SEGMENT.unpack(head)[1:])


def region_size(length: int) -> int:
    """Bytes of the region of a frame with `length` bytes of payload."""
    return SALT_SIZE + max(length, MIN_PAYLOAD)


def build(form: int, header: bytes, region: bytes) -> bytes:
    """A frame's bytes."""
    body = bytes((form,)) + header + region
    return crc32(body).to_bytes(4, "big") + body


def build_seal(sequence: int, time_ns: int, previous: bytes, root: bytes) -> tuple[bytes, bytes]:
    """A seal's frame and its hash: SHA-256 over 0x02, header, previous seal's hash and root."""
    header = HEADER.pack(0, SEAL_PAYLOAD, sequence, time_ns)
    return build(SEAL, header, previous + root), seal_hash(header, previous + root)


def seal_hash(header: bytes, region: bytes) -> bytes:
    """What the next seal, and the checkpoint over this one, carry."""
    return sha256(b"\x02" + header + region).digest()


def parse(data: bytes | memoryview, offset: int) -> Frame:
    """The frame at `offset`. Raises Damage where there is none or its CRC is wrong."""
    if len(data) - offset < FRAME.size:
        raise Damage("the log ends inside a frame's header")
    crc, form, kind, length, sequence, time_ns = FRAME.unpack_from(data, offset)
    if not RECORD <= form <= SEAL:
        raise Damage(f"form {form} is not one of a frame")
    if length > MAX_PAYLOAD:
        raise Damage(f"a length of {length} bytes is more than a frame may have")
    end = offset + FRAME.size + region_size(length)
    if end > len(data):
        raise Damage("the log ends inside a frame")
    body = bytes(data[offset + 4 : end])
    if crc32(body) != crc:
        raise Damage("the CRC of a frame is wrong")
    return Frame(form, kind, length, sequence, time_ns, body[1:23], body[23:])


def scan(data: bytes) -> Iterator[tuple[int, Frame]]:
    """The frames of a segment and their offsets, to where only zeros follow. Raises Damage."""
    offset = SEGMENT_HEADER_SIZE
    while data[offset + 4 : offset + 5] not in (b"", b"\0"):
        frame = parse(data, offset)
        yield offset, frame
        offset += frame.size


def encode(body: Mapping[str, Any] | bytes) -> bytes:
    """A body as it is stored: bytes as they are, a mapping as canonical JSON.

    Canonical means: keys sorted, no white space, UTF-8; NaN and the infinities become the strings
    "NaN", "Infinity" and "-Infinity" (as in the JSON mapping of Protocol Buffers). Raises
    BrainError (INVALID_ARGUMENT) for what JSON cannot hold.
    """
    if isinstance(body, bytes):
        return body
    try:
        try:
            text = _encode_json(dict(body))
        except ValueError:
            text = _encode_json(_finite(body))
        return text.encode()
    except (TypeError, UnicodeEncodeError) as error:
        raise BrainError(
            f"body cannot be stored as JSON: {error}; use only numbers, strings of Unicode, "
            "booleans, lists and dictionaries with string keys",
            ErrorCode.INVALID_ARGUMENT,
        ) from None


_encode_json = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


class Operation(NamedTuple):
    """The decoded payload of an operation on paths.

    Attributes:
        path: the path put, moved or deleted.
        target: where a move goes; empty otherwise.
        origin: where an import comes from (JSON); empty otherwise.
        body: what was put.
    """

    path: str
    target: str = ""
    origin: bytes = b""
    body: bytes = b""


def encode_operation(kind: int, operation: Operation) -> bytes:
    """The payload of a put, move, delete or import: length-prefixed parts, the body last."""
    parts = [operation.path.encode()]
    if kind == kinds.MOVE:
        parts.append(operation.target.encode())
    elif kind == kinds.IMPORT:
        parts.append(operation.origin)
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts) + operation.body


def decode_operation(kind: int, payload: bytes) -> Operation:
    """The reverse of `encode_operation`. Raises Damage."""
    path, rest = _take(payload)
    if kind == kinds.MOVE:
        target, rest = _take(rest)
        return Operation(path.decode(), target.decode(), body=rest)
    if kind == kinds.IMPORT:
        origin, rest = _take(rest)
        return Operation(path.decode(), origin=origin, body=rest)
    return Operation(path.decode(), body=rest)


def _take(payload: bytes) -> tuple[bytes, bytes]:
    end = 4 + int.from_bytes(payload[:4], "big")
    if len(payload) < end:
        raise Damage("the payload ends inside one of its parts")
    return payload[4:end], payload[end:]


def is_path(path: str) -> bool:
    """Whether a record may carry `path`: relative, no `.`, `..` or empty part, printable."""
    parts = path.split("/")
    return (
        not {"", ".", ".."} & set(parts)
        and "\\" not in path
        and path.isprintable()
        and len(path.encode()) <= MAX_PATH
    )


def check_path(path: str, field: str = "path") -> str:
    """`path`, if a record may carry it. Raises BrainError (INVALID_ARGUMENT)."""
    if not is_path(path):
        raise BrainError(
            f"{field} '{path}' is not allowed; give a relative path without '.', '..' or empty "
            f"parts and of at most {MAX_PATH} bytes, such as 'maps/ground_floor.yaml'",
            ErrorCode.INVALID_ARGUMENT,
        )
    return path
