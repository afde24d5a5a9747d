"""Genome packets between robots: hashed once, the digest signed twice, verified before decoding.

The digest is SHA-256 over a domain tag and the fields in their order in GenomePacket.msg, each as
an 8-byte big-endian length and its bytes (numbers as 8-byte big-endian integers, the fitness as an
IEEE 754 single); the payload enters as its own SHA-256. `mac` is HMAC-SHA256 (RFC 2104) of the
digest with the fleet key, `signature` Ed25519 (RFC 8032) of it by the sender. The first says "of
our fleet", the second which robot.
"""

import hashlib
import hmac
import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.genome_sync.genome import MAX_BYTES, Genome
from brainos_ros.ledger import disk

PACKET = b"brainos/genome-packet/1"
REQUEST = b"brainos/genome-request/1"
MIN_KEY = 32
MAX_TEXT = 255


@dataclass(frozen=True, slots=True)
class Packet:
    """A genome on its way to the fleet; fields as in GenomePacket.msg, time in nanoseconds."""

    packet_id: str
    sender_node_id: str
    base_hash: str
    genome_hash: str
    payload: bytes
    epoch: int
    counter: int
    generation: int
    fitness_score: float
    evolved_since: int
    platform: str
    mac: bytes = b""
    signature: bytes = b""

    def digest(self) -> bytes:
        """What is signed."""
        return _digest(PACKET, self, ("mac", "signature"))


@dataclass(frozen=True, slots=True)
class Request:
    """A robot asks for what it missed; fields as in GenomeSyncRequest.msg, time in nanoseconds."""

    request_id: str
    node_id: str
    genome_hash: str
    since: int
    mac: bytes = b""
    signature: bytes = b""

    def digest(self) -> bytes:
        """What is signed."""
        return _digest(REQUEST, self, ("mac", "signature"))


class Fleet:
    """The keys of one robot in its fleet: what it signs with and whom it believes."""

    def __init__(
        self, key: bytes, identity: Ed25519PrivateKey, members: Mapping[str, bytes]
    ) -> None:
        """`key` is the fleet's shared secret, `members` the Ed25519 public key of each robot id."""
        if len(key) < MIN_KEY:
            raise BrainError(f"the fleet key has {len(key)} bytes: give at least {MIN_KEY}")
        self._key = key
        self._identity = identity
        self._members = {
            name: Ed25519PublicKey.from_public_bytes(public) for name, public in members.items()
        }

    @property
    def public_key(self) -> bytes:
        """This robot's Ed25519 public key, 32 bytes: what the others list as its member key."""
        return self._identity.public_key().public_bytes_raw()

    def sign(self, packet: Packet) -> Packet:
        """The packet with both proofs."""
        digest = packet.digest()
        return replace(packet, mac=self._mac(digest), signature=self._identity.sign(digest))

    def sign_request(self, request: Request) -> Request:
        """The request with both proofs."""
        digest = request.digest()
        return replace(request, mac=self._mac(digest), signature=self._identity.sign(digest))

    def verify(self, packet: Packet) -> Genome:
        """Return the genome of a full packet that is genuine; raise GENOME_REJECTED saying why not.

        Sizes first, then the fleet's code, then the sender's signature; only then is it decoded.
        """
        if len(packet.payload) > MAX_BYTES:
            raise _rejected(packet.sender_node_id, f"{len(packet.payload)} bytes of payload")
        self._check(packet.sender_node_id, packet.digest(), packet.mac, packet.signature)
        if packet.base_hash:
            raise _rejected(
                packet.sender_node_id, "it is a delta; this robot asks for full genomes"
            )
        genome = Genome.decode(packet.payload)
        if genome.hash != packet.genome_hash:
            raise _rejected(packet.sender_node_id, "its payload is not the genome it names")
        return genome

    def verify_request(self, request: Request) -> None:
        """Return if the request is genuine; raise GENOME_REJECTED saying why not."""
        self._check(request.node_id, request.digest(), request.mac, request.signature)

    def _mac(self, digest: bytes) -> bytes:
        return hmac.digest(self._key, digest, "sha256")

    def _check(self, sender: str, digest: bytes, mac: bytes, signature: bytes) -> None:
        if not hmac.compare_digest(self._mac(digest), mac):
            raise _rejected(sender, "its code does not match the fleet key")
        public = self._members.get(sender)
        if public is None:
            raise _rejected(sender, "the sender is not a member of this fleet")
        try:
            public.verify(signature, digest)
        except InvalidSignature:
            raise _rejected(sender, "its signature is not the sender's") from None


def load_identity(path: Path) -> Ed25519PrivateKey:
    """The robot's Ed25519 key (32 raw bytes, mode 0600); made on first use, durably."""
    try:
        return Ed25519PrivateKey.from_private_bytes(path.read_bytes())
    except FileNotFoundError:
        pass
    except ValueError as error:
        raise BrainError(f"{path} is not an Ed25519 key of 32 bytes: {error}") from None
    key = Ed25519PrivateKey.generate()
    disk.make_directory(path.parent)
    disk.replace_file(path, key.private_bytes_raw(), 0o600)
    return key


def _rejected(sender: str, reason: str) -> BrainError:
    return BrainError(f"packet of {sender[:40]!r} refused: {reason}", ErrorCode.GENOME_REJECTED)


def _digest(domain: bytes, message: Packet | Request, without: tuple[str, ...]) -> bytes:
    state = hashlib.sha256(domain)
    for part in fields(message):
        if part.name in without:
            continue
        value = getattr(message, part.name)
        if isinstance(value, str):
            data = value.encode()
            if len(data) > MAX_TEXT:
                raise BrainError(f"{part.name} is too long", ErrorCode.GENOME_REJECTED)
        elif isinstance(value, bytes):
            data = hashlib.sha256(value).digest()
        elif isinstance(value, float):
            data = struct.pack(">f", value)
        else:
            data = struct.pack(">q", value) if value < 2**63 else struct.pack(">Q", value)
        state.update(struct.pack(">Q", len(data)) + data)
    return state.digest()
