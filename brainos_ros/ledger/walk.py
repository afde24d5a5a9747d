"""Walking a log in order: every frame checked, every leaf computed, every seal compared."""

from array import array
from hashlib import sha256
from typing import NamedTuple
from zlib import crc32

from brainos_ros.ledger import frames
from brainos_ros.ledger.frames import Damage, Frame
from brainos_ros.ledger.merkle import Mountain
from brainos_ros.ledger.tiles import Derived, pack_offsets

_LAST_OPERATION = 15
CHAIN, TREE, BODY, ORDER = "chain-continuity", "peaks-against-chain", "body-hashes", "no-rewind"


class Seal(NamedTuple):
    """Where the chain stands: the hash of a seal, and what it seals."""

    size: int
    hash: bytes
    root: bytes


class Walk:
    """The state while walking a log; give it one segment after the other.

    Attributes:
        mountain: the tree over the records so far.
        seals: the seals of the segment walked last, the one before it first.
        offset: where the walk stands in the segment; after Damage, where the damage is.
        offsets: of the records walked since the segment began or they were taken.
        operations: the frames of operations in it (put, move, …), as opposed to events.
        erased: numbers of all erased records so far.
        kinds: the codes of the kinds of all records so far.
    """

    def __init__(self, mountain: Mountain, every_root: bool = True) -> None:
        self.mountain = mountain
        self.every_root = every_root
        self.seals: list[Seal] = []
        self.offset = 0
        self.offsets: array[int] = array("I")
        self.operations: list[Frame] = []
        self.erased: list[int] = []
        self.kinds: set[int] = set()

    def begin(self, segment: frames.Segment, stream_id: bytes) -> None:
        """Enter a segment. Raises Damage where it does not continue the log so far."""
        if segment.stream_id != stream_id:
            raise Damage("it belongs to another stream", CHAIN)
        if segment.first != self.mountain.size:
            expected = self.mountain.size
            raise Damage(f"it begins with record {segment.first}, not {expected}", CHAIN)
        if segment.root != self.mountain.root():
            raise Damage("its root is not that of the records before it", TREE)
        if self.seals and segment.previous_seal != self.seals[-1].hash:
            raise Damage("it does not continue the chain of seals", CHAIN)
        self.seals = [Seal(segment.first, segment.previous_seal, segment.root)]
        self.offset = frames.SEGMENT_HEADER_SIZE
        self.offsets = array("I")
        self.operations = []

    def join(self, header: frames.Segment, stream_id: bytes, later: "Walk") -> None:
        """Go on at the end of another walk, which walked the next segment and no other.

        Raises Damage as `begin`.
        """
        self.begin(header, stream_id)
        self.mountain, self.seals, self.offset = later.mountain, later.seals, later.offset
        self.operations, self.offsets = later.operations, later.offsets
        self.erased += later.erased
        self.kinds |= later.kinds

    def take_derived(self) -> Derived:
        """What there is to store of the records walked since the last call."""
        offsets, self.offsets = self.offsets, array("I")
        return self.mountain.size, self.mountain.take_fresh(), pack_offsets(offsets)

    def walk(self, data: bytes) -> None:
        """Walk the frames of a segment to its end, or to where only zeros follow.

        Raises Damage at the first frame that is not what it must be, with everything before it
        walked and `offset` at it.
        """
        unpack, head = frames.FRAME.unpack_from, frames.FRAME.size
        record, last_operation, end_of_data = frames.RECORD, _LAST_OPERATION, len(data)
        most = frames.MAX_PAYLOAD
        mountain, kinds, offsets = self.mountain, self.kinds, self.offsets
        offset, expected = self.offset, self.mountain.size
        leaves: list[bytes] = []
        try:
            while offset + head <= end_of_data:
                crc, form, kind, length, sequence, _ = unpack(data, offset)
                if form == record and kind > last_operation:
                    end = offset + head + 16 + (length if length > 16 else 16)
                    checked = data[offset + 4 : end]  # form, header, region
                    if end > end_of_data or length > most or crc32(checked) != crc:
                        frames.parse(data, offset)
                    if sequence != expected:
                        raise _misplaced(sequence, expected)
                    commitment = sha256(checked[23:]).digest()
                    leaves.append(sha256(b"\x00" + checked[1:23] + commitment).digest())
                    offsets.append(offset)
                    kinds.add(kind)
                    expected += 1
                    offset = end
                elif form == frames.END:
                    break
                else:
                    mountain.extend(b"".join(leaves))
                    leaves = []
                    offset = self._special(frames.parse(data, offset), offset)
                    expected = mountain.size
        finally:
            mountain.extend(b"".join(leaves))
            self.offset = offset
        if data.count(0, offset) != end_of_data - offset:
            raise Damage("bytes that are no frame follow the last frame")

    def skip(self, leaves: bytes, seal: Frame, size: int) -> None:
        """Walk a pruned segment of `size` bytes: its leaves, then its last seal. Raises Damage."""
        self.mountain.extend(leaves)
        if seal.form != frames.SEAL or self.offset + seal.size != size:
            raise Damage("a pruned segment is not its header and last seal")
        self.seals = [Seal(seal.sequence, seal.region[:32], b"")]
        self._seal(seal)
        self.offset = size

    def _special(self, frame: Frame, offset: int) -> int:
        if frame.sequence != self.mountain.size:
            raise _misplaced(frame.sequence, self.mountain.size)
        if frame.form == frames.SEAL:
            self._seal(frame)
            return offset + frame.size
        if frame.form == frames.ERASED:
            if frame.region.count(0, 32) != len(frame.region) - 32:
                raise Damage(f"something is left of the erased record {frame.sequence}", BODY)
            self.erased.append(frame.sequence)
        self.mountain.add(sha256(b"\x00" + frame.entry).digest())
        self.offsets.append(offset)
        self.kinds.add(frame.kind)
        if frame.kind <= _LAST_OPERATION:
            self.operations.append(frame)
        return offset + frame.size

    def _seal(self, frame: Frame) -> None:
        previous, root = frame.region[:32], frame.region[32:]
        if frame.kind or frame.length != frames.SEAL_PAYLOAD:
            raise Damage("a seal does not have the form of one", CHAIN)
        if previous != self.seals[-1].hash:
            raise Damage(
                f"the seal over {frame.sequence} records does not continue the chain", CHAIN
            )
        if self.every_root and root != self.mountain.root():
            raise Damage(
                f"the seal over {frame.sequence} records has another root than they have", TREE
            )
        self.seals.append(Seal(frame.sequence, frames.seal_hash(frame.header, frame.region), root))


def _misplaced(sequence: int, expected: int) -> Damage:
    return Damage(f"record {sequence} stands where record {expected} should", ORDER)


def later_seals(data: bytes, offset: int) -> int:
    """How many whole seals stand in `data` beyond `offset`."""
    pattern = bytes((frames.SEAL, 0, 0)) + frames.SEAL_PAYLOAD.to_bytes(4, "big")
    found = 0
    position = data.find(pattern, offset)
    while position >= 0:
        try:
            frames.parse(data, position - 4)
            found += 1
        except Damage:
            pass
        position = data.find(pattern, position + 1)
    return found
