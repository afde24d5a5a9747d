"""What is known of the other robots' genomes: the newest packet of each, kept only if genuine."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import yaml

from brainos_ros.errors import BrainError
from brainos_ros.genome_sync.packet import Fleet, Packet, Request

MAX_REQUESTS = 1_000


@dataclass
class Register:
    """Newest genuine packet of every peer, joined by (epoch, counter, genome hash).

    `rejected` counts what was refused, `last_heard` is when a genuine packet came last [ns].
    """

    fleet: Fleet
    robot: str
    rejected: int = 0
    last_heard: int = 0

    def __post_init__(self) -> None:
        self.peers: dict[str, Packet] = {}
        self._answered: OrderedDict[str, None] = OrderedDict()

    def receive(self, packet: Packet, now: int) -> bool:
        """Take in a packet; True if it brought news. Raises GENOME_REJECTED for a false one."""
        if packet.sender_node_id == self.robot:
            return False
        held = self.peers.get(packet.sender_node_id)
        if held and held.packet_id == packet.packet_id:
            return False
        try:
            self.fleet.verify(packet)
        except BrainError:
            self.rejected += 1
            raise
        self.last_heard = now
        if held and _order(packet) <= _order(held):
            return False
        self.peers[packet.sender_node_id] = packet
        return True

    def wants(self, request: Request) -> bool:
        """True if a genuine request of another robot deserves an answer: once each."""
        if request.node_id == self.robot or request.request_id in self._answered:
            return False
        try:
            self.fleet.verify_request(request)
        except BrainError:
            self.rejected += 1
            raise
        self._answered[request.request_id] = None
        if len(self._answered) > MAX_REQUESTS:
            self._answered.popitem(last=False)
        return True

    def ask(self, genome_hash: str) -> Request:
        """A signed request for what was missed."""
        return self.fleet.sign_request(
            Request(str(uuid4()), self.robot, genome_hash, self.last_heard)
        )


def read_key(path: Path) -> bytes:
    """The fleet key: the file's bytes without a trailing line end."""
    try:
        return path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise BrainError(f"fleet_key_file {path} cannot be read: {error.strerror}") from None


def read_members(path: Path) -> dict[str, bytes]:
    """The fleet's public keys: a YAML mapping of robot name to 64 hex digits (Ed25519)."""
    try:
        body = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise BrainError(f"fleet_members_file {path} cannot be read: {error}") from None
    if not isinstance(body, Mapping):
        raise BrainError(f"fleet_members_file {path} is no mapping of robot name to key")
    members = {}
    for name, key in body.items():
        try:
            members[str(name)] = bytes.fromhex(str(key))
        except ValueError:
            members[str(name)] = b""
        if len(members[str(name)]) != 32:
            raise BrainError(f"fleet_members_file {path}: the key of {name} needs 64 hex digits")
    return members


def _order(packet: Packet) -> tuple[int, int, str]:
    return packet.epoch, packet.counter, packet.genome_hash
