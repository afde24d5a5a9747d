#!/usr/bin/env python3
"""Check a proof bundle of a BrainOS ledger with nothing but a public key.

This file stands alone: copy it anywhere; it needs Python 3.10 and the package `cryptography`
(or PyNaCl, which checks a signature in half the time and is used where it is installed).

    python verifier.py bundle.json --key 'brainos/memory/3f2a…+1c0d…+AQ…'

Exit code 0: the record was in the stream, as shown, when the head was signed (or: the newer head
extends the older one). 1: the bundle proves nothing. 2: it could not be read.

Formats: docs/ledger.md. Hashing: RFC 6962 section 2.1, verified as in RFC 9162 sections 2.1.3.2
and 2.1.4.2. Heads: c2sp.org/signed-note and c2sp.org/tlog-checkpoint, Ed25519.
"""

import json
import struct
import sys
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Any, NamedTuple

try:
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import BadSignatureError
except ImportError:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    def is_signed(public: bytes, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (64 bytes) over `message` is of the key `public` (RFC 8032)."""
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except InvalidSignature:
            return False
        return True

else:

    def is_signed(public: bytes, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (64 bytes) over `message` is of the key `public` (RFC 8032)."""
        try:
            crypto_sign_open(signature + message, public)
        except BadSignatureError:
            return False
        return len(signature) == 64

INCLUSION, CONSISTENCY = "brainos-ledger-proof/1", "brainos-ledger-consistency/1"
NOT_SHOWN = "the bundle does not show the payload: erased in the ledger, or left out of the bundle"
_HEADER = struct.Struct(">HIQQ")
_MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, struct.error)


class ProofError(Exception):
    """The bundle does not prove what it says; the message says why."""


class Key(NamedTuple):
    """A verifier key: the name it signs under, its id, and the 32 bytes of the Ed25519 key."""

    name: str
    id: bytes
    public: bytes


class Head(NamedTuple):
    """A checkpoint whose signature is good."""

    origin: str
    size: int
    root: bytes


class Proven(NamedTuple):
    """What an inclusion bundle proves.

    Attributes:
        origin: the log: `brainos/<stream>/<id>`.
        sequence: the record's number in it.
        kind: code of its kind.
        time_ns: when the robot's clock says it was written [ns since the epoch].
        payload: what was written; None where the bundle does not show it, which proves nothing
            of why: it may have been erased in the ledger, or left out of the bundle.
        size: number of records under the signed head.
        root: the head's root, in hex.
    """

    origin: str
    sequence: int
    kind: int
    time_ns: int
    payload: bytes | None
    size: int
    root: str


def parse_key(text: str) -> Key:
    """A verifier key (`name+id+key`). Raises ProofError."""
    try:
        name, key_id, encoded = text.strip().split("+", 2)
        raw = b64decode(encoded, validate=True)
        if len(raw) != 33 or raw[:1] != b"\x01":
            raise ValueError
        if sha256(name.encode() + b"\n" + raw).digest()[:4].hex() != key_id:
            raise ValueError
        return Key(name, bytes.fromhex(key_id), raw[1:])
    except ValueError:
        raise ProofError(f"'{text.strip()}' is not a verifier key") from None


def follow_keys(trusted: str, history: list[dict[str, Any]]) -> list[Key]:
    """The trusted key and those it, and its successors, handed over to. Raises ProofError."""
    keys, text = [parse_key(trusted)], trusted.strip()
    listed = [str(entry["key"]) for entry in history]
    later = history[listed.index(text) + 1 :] if text in listed else []
    for entry in later:
        message = f"brainos key rotation\n{text}\n{entry['key']}\n".encode()
        _check(keys[-1], b64decode(entry["signature"]), message, "the key it was handed to")
        text = str(entry["key"])
        keys.append(parse_key(text))
    return keys


def _check(key: Key, signature: bytes, message: bytes, what: str) -> None:
    if not is_signed(key.public, signature, message):
        raise ProofError(f"the signature over {what} is wrong")


def open_head(note: str, keys: list[Key]) -> Head:
    """The checkpoint in a signed note. Raises ProofError unless one of `keys` signed it."""
    text, _, signatures = note.partition("\n\n")
    for line in signatures.splitlines():
        name, _, encoded = line.removeprefix("— ").rpartition(" ")
        raw = b64decode(encoded)
        for key in keys:
            if (name, raw[:4]) == (key.name, key.id):
                _check(key, raw[4:], text.encode() + b"\n", "the head")
                lines = text.split("\n")
                head = Head(lines[0], int(lines[1]), b64decode(lines[2], validate=True))
                if head.origin != key.name:
                    raise ProofError("the head is of another log than its key")
                return head
    raise ProofError("the head is not signed by the key given, nor by one it was handed to")


def verify_bundle(bundle: dict[str, Any], trusted: str) -> Proven:
    """Check an inclusion bundle against a verifier key. Raises ProofError."""
    try:
        return _verify_inclusion(bundle, follow_keys(trusted, bundle["keys"]))
    except _MALFORMED as error:
        raise ProofError(f"the bundle is malformed: {error!r}") from None


def _verify_inclusion(bundle: dict[str, Any], keys: list[Key]) -> Proven:
    if bundle["format"] != INCLUSION:
        raise ProofError(f"format '{bundle['format']}' is not '{INCLUSION}'")
    head = open_head(bundle["checkpoint"], keys)
    header = bytes.fromhex(bundle["header"])
    kind, length, sequence, time_ns = _HEADER.unpack(header)
    payload = None
    if "payload" in bundle:
        payload = b64decode(bundle["payload"], validate=True)
        salt = b64decode(bundle["salt"], validate=True)
        if len(payload) != length or len(salt) != 16:
            raise ProofError("salt or payload have another length than the header says")
        commitment = sha256(salt + payload.ljust(16, b"\0")).digest()
    else:
        commitment = b64decode(bundle["commitment"], validate=True)
    leaf = sha256(b"\x00" + header + commitment).digest()
    path = unpack_path(bundle["path"])
    if sequence != bundle["sequence"]:
        raise ProofError("the header is of another record than the bundle says")
    if len(commitment) != 32 or root_of(leaf, sequence, head.size, path) != head.root:
        raise ProofError("the path does not lead from the record to the head's root")
    return Proven(head.origin, sequence, kind, time_ns, payload, head.size, head.root.hex())


def verify_consistency(bundle: dict[str, Any], trusted: str) -> tuple[Head, Head]:
    """Check that the newer head extends the older one; returns both. Raises ProofError."""
    try:
        if bundle["format"] != CONSISTENCY:
            raise ProofError(f"format '{bundle['format']}' is not '{CONSISTENCY}'")
        keys = follow_keys(trusted, bundle["keys"])
        old, new = open_head(bundle["old"], keys), open_head(bundle["new"], keys)
        path = unpack_path(bundle["path"])
    except _MALFORMED as error:
        raise ProofError(f"the bundle is malformed: {error!r}") from None
    if old.origin != new.origin or not extends(old, new, path):
        raise ProofError("the newer head does not extend the older one: history was changed")
    return old, new


def unpack_path(text: str) -> list[bytes]:
    """The hashes of a path, which stand one after the other in base64. Raises ValueError."""
    packed = b64decode(text, validate=True)
    if len(packed) % 32:
        raise ValueError("the path is not made of whole hashes")
    return [packed[i : i + 32] for i in range(0, len(packed), 32)]


def root_of(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes | None:
    """The root that an audit path leads to; None where it has the wrong length."""
    if not 0 <= index < size:
        return None
    fn, sn, root = index, size - 1, leaf
    for sibling in path:
        if not sn:
            return None
        if fn & 1 or fn == sn:
            root = sha256(b"\x01" + sibling + root).digest()
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            root = sha256(b"\x01" + root + sibling).digest()
        fn, sn = fn >> 1, sn >> 1
    return None if sn else root


def extends(old: Head, new: Head, path: list[bytes]) -> bool:
    """Whether `path` shows that the newer tree begins with the older one."""
    if not 0 < old.size <= new.size:
        return False
    if old.size == new.size:
        return not path and old.root == new.root
    if not old.size & (old.size - 1):
        path = [old.root, *path]
    if not path:
        return False
    fn, sn = old.size - 1, new.size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if not sn:
            return False
        if fn & 1 or fn == sn:
            first = sha256(b"\x01" + sibling + first).digest()
            second = sha256(b"\x01" + sibling + second).digest()
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = sha256(b"\x01" + second + sibling).digest()
        fn, sn = fn >> 1, sn >> 1
    return not sn and first == old.root and second == new.root


def describe(bundle: Any, trusted: str) -> dict[str, Any]:
    """What a bundle of either format proves, as JSON can hold it. Raises ProofError."""
    if not isinstance(bundle, dict):
        raise ProofError("the bundle is malformed: it is not a JSON object")
    if bundle.get("format") == CONSISTENCY:
        old, new = verify_consistency(bundle, trusted)
        sizes = {"old_size": old.size, "size": new.size}
        return {"origin": new.origin, **sizes, "root": new.root.hex()}
    proven = verify_bundle(bundle, trusted)._asdict()
    payload = proven.pop("payload")
    if payload is None:
        return {**proven, "payload": None, "note": NOT_SHOWN}
    try:
        return {**proven, "payload": payload.decode()}
    except UnicodeDecodeError:
        return {**proven, "payload_base64": b64encode(payload).decode()}


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module's text."""
    import argparse

    parser = argparse.ArgumentParser(description="Check a proof bundle of a BrainOS ledger.")
    parser.add_argument("bundle", help="the bundle's file, or - for standard input")
    parser.add_argument("--key", required=True, help="the verifier key you trust (name+id+key)")
    options = parser.parse_args(arguments)
    try:
        if options.bundle == "-":
            bundle = json.load(sys.stdin)
        else:
            with open(options.bundle, encoding="utf-8") as file:
                bundle = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        print(f"cannot read the bundle: {error}", file=sys.stderr)
        return 2
    try:
        print(json.dumps({"valid": True, **describe(bundle, options.key)}, indent=1))
    except ProofError as error:
        print(json.dumps({"valid": False, "reason": str(error)}, indent=1))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
