"""Only what the fleet signed is ever decoded."""

from dataclasses import fields, replace
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.genome_sync import packet as module
from brainos_ros.genome_sync.genome import Genome, scalar
from brainos_ros.genome_sync.packet import Fleet, Packet, Request, load_identity
from brainos_ros.ledger import disk

KEY = b"k" * 32
ALICE, MALLORY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
MEMBERS = {"alice": ALICE.public_key().public_bytes_raw()}
GENOME = Genome({"c": (scalar("speed", 0.5, 0.0, 1.0),)})


def fleet(identity: Ed25519PrivateKey = ALICE, key: bytes = KEY) -> Fleet:
    return Fleet(key, identity, MEMBERS)


def plain(**change) -> Packet:
    packet = Packet(
        str(uuid4()), "alice", "", GENOME.hash, GENOME.encode(), 1, 2, 3, 0.25, 5, "cpu"
    )  # fmt: skip
    return replace(packet, **change)


def refused(action) -> str:
    with pytest.raises(BrainError) as error:
        action()
    assert error.value.code is ErrorCode.GENOME_REJECTED
    return str(error.value)


def test_a_signed_packet_is_believed() -> None:
    assert fleet().verify(fleet().sign(plain())).hash == GENOME.hash


@pytest.mark.parametrize("field", [field.name for field in fields(Packet)])
def test_no_field_can_be_changed(field: str) -> None:
    signed = fleet().sign(plain())
    value = getattr(signed, field)
    changed = value + {str: "x", bytes: b"x", int: 1, float: 0.5}[type(value)]
    refused(lambda: fleet().verify(replace(signed, **{field: changed})))


def test_who_is_not_of_the_fleet_is_refused() -> None:
    assert "fleet key" in refused(lambda: fleet().verify(plain()))
    assert "fleet key" in refused(lambda: fleet().verify(fleet(key=b"x" * 32).sign(plain())))
    assert "signature" in refused(lambda: fleet().verify(fleet(MALLORY).sign(plain())))
    stranger = fleet().sign(plain(sender_node_id="mallory"))
    assert "member" in refused(lambda: fleet().verify(stranger))


def test_nothing_is_decoded_before_it_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(data: bytes) -> Genome:
        raise AssertionError("decoded")

    monkeypatch.setattr(module.Genome, "decode", decode)
    refused(lambda: fleet().verify(replace(fleet().sign(plain()), payload=b"other")))


def test_a_signed_lie_about_the_content_is_refused() -> None:
    refused(lambda: fleet().verify(fleet().sign(plain(payload=b"nonsense"))))
    assert "names" in refused(lambda: fleet().verify(fleet().sign(plain(genome_hash="0" * 64))))
    assert "delta" in refused(lambda: fleet().verify(fleet().sign(plain(base_hash="0" * 64))))


def test_sizes_are_capped_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    assert "bytes" in refused(lambda: fleet().verify(plain()))


def test_requests_are_signed_too() -> None:
    signed = fleet().sign_request(Request(str(uuid4()), "alice", GENOME.hash, 7))
    fleet().verify_request(signed)
    refused(lambda: fleet().verify_request(replace(signed, since=8)))


def test_a_short_key_is_refused() -> None:
    with pytest.raises(BrainError, match="32"):
        fleet(key=b"short")


def test_an_identity_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "identity.key"
    one, two = load_identity(path), load_identity(path)
    assert one.private_bytes_raw() == two.private_bytes_raw()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"short")
    with pytest.raises(BrainError, match="32 bytes"):
        load_identity(path)


def test_an_identity_outlives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(disk, "sync_directory", synced.append)
    load_identity(tmp_path / "genome_sync" / "identity.key")
    assert synced == [tmp_path, tmp_path / "genome_sync"]
