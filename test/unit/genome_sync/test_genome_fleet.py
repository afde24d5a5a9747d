"""The register of peers: any order, loss or repetition of packets ends in the same state."""

from itertools import permutations
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from brainos_ros.errors import BrainError
from brainos_ros.genome_sync.fleet import Register, read_key, read_members
from brainos_ros.genome_sync.genome import Genome, scalar
from brainos_ros.genome_sync.packet import Fleet, Packet

KEYS = {name: Ed25519PrivateKey.generate() for name in ("r1", "r2")}
MEMBERS = {name: key.public_key().public_bytes_raw() for name, key in KEYS.items()}


def register(robot: str = "r2") -> Register:
    return Register(Fleet(b"k" * 32, KEYS[robot], MEMBERS), robot)


def packet(counter: int, packet_id: str = "", epoch: int = 1) -> Packet:
    genome = Genome({"c": (scalar("speed", counter / 10, 0.0, 1.0),)})
    made = Packet(
        packet_id or f"p{epoch}-{counter}",
        "r1", "", genome.hash, genome.encode(), epoch, counter, counter, 0.5, 7, "cpu",
    )  # fmt: skip
    return register("r1").fleet.sign(made)


def test_any_order_and_repetition_ends_the_same() -> None:
    packets = [packet(1), packet(2), packet(3), packet(1, epoch=2)]
    for order in permutations(packets):
        held = register()
        for each in (*order, *order):
            held.receive(each, 5)
        assert held.peers == {"r1": packets[-1]}
        assert (held.rejected, held.last_heard) == (0, 5)


def test_its_own_packets_and_false_ones_are_not_taken_in() -> None:
    assert not register("r1").receive(packet(1), 5)
    held = register()
    forged = Fleet(b"x" * 32, KEYS["r1"], MEMBERS).sign(packet(9))
    with pytest.raises(BrainError):
        held.receive(forged, 5)
    assert (held.peers, held.rejected, held.last_heard) == ({}, 1, 0)


def test_a_request_is_answered_once() -> None:
    held, request = register(), register("r1").ask("0" * 64)
    assert held.wants(request)
    assert not held.wants(request)
    assert not register("r1").wants(request)


def test_keys_are_read_or_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "members.yaml"
    path.write_text(f"r1: {MEMBERS['r1'].hex()}\n")
    assert read_members(path) == {"r1": MEMBERS["r1"]}
    for text in ("r1: abc", "r1: zz", "- r1", "{"):
        path.write_text(text)
        with pytest.raises(BrainError, match="fleet_members_file"):
            read_members(path)
    (tmp_path / "key").write_bytes(b"secret\n")
    assert read_key(tmp_path / "key") == b"secret"
    with pytest.raises(BrainError, match="fleet_key_file"):
        read_key(tmp_path / "none")
