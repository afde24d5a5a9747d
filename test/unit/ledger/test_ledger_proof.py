"""Proof bundles, checked by the stand-alone verifier and by nothing else."""

import importlib.util
import json
import shutil
import subprocess
import sys
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Stream, heads, prove, verifier
from brainos_ros.ledger.kinds import EVENTS
from brainos_ros.ledger.notes import Checkpoint, PublicKey, SigningKey, sign_checkpoint
from brainos_ros.ledger.proof import prove_growth
from brainos_ros.ledger.verifier import ProofError, verify_bundle, verify_consistency


@pytest.fixture
def stream(tmp_path: Path) -> Any:
    with Stream.open(tmp_path, "memory", segment_bytes=2048) as opened:
        for number in range(40):
            opened.event("episode", {"n": number})
        yield opened


def test_every_record_is_proved_with_nothing_but_the_key(stream: Stream) -> None:
    for sequence in range(stream.size):
        proven = verify_bundle(json.loads(json.dumps(stream.prove(sequence))), stream.public_key)
        assert proven.payload == stream.read(sequence).payload
        assert (proven.sequence, proven.origin) == (sequence, stream.origin)
        assert (proven.size, proven.root) == (stream.size, stream.root.hex())
    assert proven.kind == EVENTS["episode"]


def test_the_verifier_stands_alone(stream: Stream, tmp_path: Path) -> None:
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    shutil.copy(verifier.__file__, lonely / "verifier.py")
    bundle = stream.prove(7)
    (lonely / "bundle.json").write_text(json.dumps(bundle))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "verifier.py", *arguments]
        return subprocess.run(command, cwd=lonely, capture_output=True, text=True)

    done = run("bundle.json", "--key", stream.public_key)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["payload"] == '{"n":6}'
    other = str(SigningKey(stream.origin).public)
    done = run("bundle.json", "--key", other)
    assert done.returncode == 1
    assert "not signed by the key given" in json.loads(done.stdout)["reason"]
    assert run("nothing.json", "--key", other).returncode == 2
    for text, code in (("[]", 1), ("null", 1), ("{", 2), ("[" * 100_000, 2)):
        (lonely / "bundle.json").write_text(text)
        done = run("bundle.json", "--key", other)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), text[:9]


@pytest.fixture(params=["nacl", "cryptography"])
def checker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The verifier as it is where PyNaCl is installed, and where it is not."""
    if request.param == "nacl":
        pytest.importorskip("nacl", reason="PyNaCl is not installed")
    else:
        monkeypatch.setitem(sys.modules, "nacl.bindings", None)
    spec = importlib.util.spec_from_file_location("lonely_verifier", verifier.__file__)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_either_library_tells_a_signature_from_none(checker: ModuleType) -> None:
    key = SigningKey("log")
    public, message = key.public.public, b"what was signed"
    signature = key.sign(message)
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    assert checker.is_signed(public, signature, message)
    for wrong in [flipped, signature[:63], signature + b"w", b"", bytes(64)]:
        assert not checker.is_signed(public, wrong, message)
    assert not checker.is_signed(public, signature[:60], signature[60:] + message)
    assert not checker.is_signed(public, signature + message[:1], message[1:])
    assert not checker.is_signed(SigningKey("log").public.public, signature, message)
    assert not checker.is_signed(bytes(32), signature, message)


def test_either_library_checks_a_bundle(stream: Stream, checker: ModuleType) -> None:
    bundle, key = stream.prove(5), stream.public_key
    assert checker.verify_bundle(bundle, key).payload == stream.read(5).payload
    with pytest.raises(checker.ProofError, match="signature over the head is wrong"):
        checker.verify_bundle(CHANGES["size"](bundle), key)


def bent(text: str) -> str:
    raw = bytearray(b64decode(text))
    raw[0] ^= 1
    return b64encode(raw).decode()


CHANGES = {
    "payload": lambda b: {**b, "payload": bent(b["payload"])},
    "salt": lambda b: {**b, "salt": bent(b["salt"])},
    "longer payload": lambda b: {
        **b,
        "payload": b64encode(b64decode(b["payload"]) + b"!").decode(),
    },
    "header": lambda b: {**b, "header": ("ff" + b["header"][2:])},
    "sequence": lambda b: {**b, "sequence": b["sequence"] + 1},
    "path": lambda b: {**b, "path": bent(b["path"])},
    "shorter path": lambda b: {**b, "path": b64encode(b64decode(b["path"])[32:]).decode()},
    "ragged path": lambda b: {**b, "path": b64encode(b64decode(b["path"])[1:]).decode()},
    "no path": lambda b: {**b, "path": ""},
    "size": lambda b: {**b, "checkpoint": b["checkpoint"].replace("\n41\n", "\n42\n")},
    "no signature": lambda b: {**b, "checkpoint": b["checkpoint"].partition("— ")[0]},
    "format": lambda b: {**b, "format": "brainos-ledger-proof/2"},
    "missing": lambda b: {"format": b["format"]},
    "nonsense": lambda b: {**b, "header": 7, "keys": [3]},
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_bundle_proves_nothing(stream: Stream, what: str) -> None:
    bundle = stream.prove(3)
    changed = CHANGES[what](bundle)
    assert changed != bundle
    with pytest.raises(ProofError):
        verify_bundle(changed, stream.public_key)


@pytest.mark.parametrize("what", [None, 5, True, 1.5, [], {}, ["a"], [{"key": 5}], "\ud800"])
def test_a_bundle_of_the_wrong_types_is_malformed(stream: Stream, what: object) -> None:
    record, growth = stream.prove(3), prove_growth(stream.path, stream.checkpoint())
    for bundle in (record, growth):
        for name in bundle:
            if name in ("stream", "keys"):
                continue
            with pytest.raises(verifier.ProofError):
                verifier.describe({**bundle, name: what}, stream.public_key)


def test_a_payload_that_is_not_shown_is_not_said_to_be_erased(stream: Stream) -> None:
    """Anybody can strip the payload of a record that was never erased."""
    bundle, frame = stream.prove(3), stream.read(3)
    salt, payload = b64decode(bundle.pop("salt")), b64decode(bundle.pop("payload"))
    bundle["commitment"] = b64encode(sha256(salt + payload.ljust(16, b"\0")).digest()).decode()
    told = verifier.describe(bundle, stream.public_key)
    assert not frame.erased
    assert "erased" not in told
    assert told["payload"] is None
    assert told["note"] == verifier.NOT_SHOWN
    assert verifier.describe(stream.prove(3), stream.public_key)["payload"] == '{"n":2}'


@pytest.mark.parametrize("key", ["", "x", "a+b+c", "brainos/x/00+00000000+AQ=="])
def test_what_is_no_key_is_refused(stream: Stream, key: str) -> None:
    with pytest.raises(ProofError, match="is not a verifier key"):
        verify_bundle(stream.prove(3), key)
    with pytest.raises(ValueError):
        PublicKey.parse(key)


def test_growth_is_proved_between_any_two_heads(stream: Stream) -> None:
    kept = [stream.checkpoint()]
    for number in range(6):
        for _ in range(number):
            stream.event("note", b"more")
        kept.append(stream.checkpoint())
    for old in kept:
        bundle = prove_growth(stream.path, old)
        first, last = verify_consistency(json.loads(json.dumps(bundle)), stream.public_key)
        assert (first.size, last.size) == (old.size, stream.size)
    with pytest.raises(ProofError, match="history was changed"):
        verify_consistency({**bundle, "old": kept[2].note, "path": ""}, stream.public_key)


def test_growth_of_a_history_that_was_changed_is_not_proved(stream: Stream, tmp_path: Path) -> None:
    kept = stream.checkpoint()
    key = SigningKey.parse((stream.path / "key").read_bytes())
    false = sign_checkpoint(kept.origin, kept.size, bytes(32), kept.seal, [key])
    with pytest.raises(BrainError, match="are not those of the kept head"):
        prove_growth(stream.path, false)
    ahead = sign_checkpoint(kept.origin, kept.size + 1, kept.root, kept.seal, [key])
    with pytest.raises(BrainError, match="its history was truncated"):
        prove_growth(stream.path, ahead)


def test_proofs_under_old_heads_and_old_keys_stay_good(stream: Stream) -> None:
    first = stream.public_key
    before, head = stream.prove(5), stream.checkpoint()
    second = stream.rotate_key()
    stream.event("note", b"between")
    third = stream.rotate_key()
    stream.event("note", b"after")
    assert len({first, second, third}) == 3
    after = stream.prove(5)
    for key in (first, second, third):
        assert verify_bundle(after, key).sequence == 5
        assert verify_consistency(prove_growth(stream.path, head), first)[0].size == head.size
    assert verify_bundle(before, first).sequence == 5
    with pytest.raises(ProofError, match="not signed by the key given"):
        verify_bundle(before, third)
    forged = [{**entry, "signature": bent(entry["signature"])} if "signature" in entry else entry
              for entry in after["keys"]]  # fmt: skip
    with pytest.raises(ProofError, match="the key it was handed to"):
        verify_bundle({**after, "keys": forged}, first)


def test_a_record_that_no_head_covers_is_said_to_be_so(tmp_path: Path) -> None:
    stream = Stream.open(tmp_path, "pfc", window_s=3600.0)
    number = stream.event("note", b"young")
    with pytest.raises(BrainError, match="is not under a signed head yet") as refusal:
        prove(stream.path, number)
    assert refusal.value.code is ErrorCode.UNAVAILABLE
    assert stream.prove(number)["sequence"] == number
    with pytest.raises(BrainError, match="is not in stream"):
        stream.prove(number + 1)
    stream.close()


def test_heads_of_all_streams_are_collected(tmp_path: Path) -> None:
    for name in ("pfc", "conscience"):
        with Stream.open(tmp_path, name) as stream:
            stream.event("note", b"x")
    collected = heads(tmp_path)
    assert list(collected) == ["conscience", "pfc"]
    assert Checkpoint.parse(collected["pfc"]).size == 2


def test_a_checkpoint_is_a_c2sp_signed_note(stream: Stream) -> None:
    """Text, blank line, `— name base64(key id, signature)`; c2sp.org/signed-note."""
    lines = stream.checkpoint().note.split("\n")
    assert lines[0] == stream.origin
    assert lines[1] == str(stream.size)
    assert b64decode(lines[2]) == stream.root
    assert lines[3].startswith("seal ")
    assert lines[4] == ""
    assert lines[5].startswith(f"— {stream.origin} ")
    assert len(b64decode(lines[5].rpartition(" ")[2])) == 4 + 64
    assert lines[6:] == [""]
