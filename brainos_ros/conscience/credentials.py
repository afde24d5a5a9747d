"""Operators: who may approve, reset and change rules, proved by Ed25519 signatures (RFC 8032).

The robot holds public keys and roles only, in `<home>/conscience/operators.yaml`. Private keys
stay with the people, in files the nodes never open. A token is the base64 signature over what it
is for, so one made for a reset approves nothing.
"""

import base64
import binascii
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from brainos_ros.conscience.halt import write_armed, write_durably
from brainos_ros.errors import BrainError, ErrorCode

ROLES = {"operator": frozenset({"reset", "approve"}), "engineer": frozenset({"rules"})}
_NAME = re.compile(r"[a-z][a-z0-9_.\-]{0,63}")


@dataclass(frozen=True, slots=True)
class Operator:
    """A person the robot knows: `roles` are `operator` (reset, approve) and `engineer` (rules)."""

    name: str
    roles: tuple[str, ...]
    key: bytes

    def may(self, purpose: str) -> bool:
        """Whether one of the roles allows this."""
        return any(purpose in ROLES[role] for role in self.roles)


@dataclass(frozen=True, slots=True)
class Operators:
    """All people one robot knows; `robot` is its id, to which every signature is bound."""

    robot: str
    people: Mapping[str, Operator]

    def check(self, name: str, token: str, purpose: str, fields: Mapping[str, Any],
              right: str) -> Operator:
        """The operator who signed this. Raises BrainError UNAUTHORISED, naming what is wrong.

        `purpose` and `fields` are what was signed, `right` what the role must allow.
        """
        person = self.people.get(name)
        if person is None:
            raise _unauthorised(f"operator {name[:64]!r} is not in the robot's operators file")
        if not person.may(right):
            raise _unauthorised(f"operator {name} has no role that allows {right}")
        try:
            signature = base64.b64decode(token.strip(), validate=True)
            key = Ed25519PublicKey.from_public_bytes(person.key)
            key.verify(signature, statement(purpose, self.robot, fields))
        except (InvalidSignature, ValueError, binascii.Error) as error:
            raise _unauthorised(
                f"token of {name} is no signature over this {purpose} on this robot; make a new one"
            ) from error
        return person


def _unauthorised(message: str) -> BrainError:
    return BrainError(message, ErrorCode.UNAUTHORISED)


def statement(purpose: str, robot: str, fields: Mapping[str, Any]) -> bytes:
    """The bytes that are signed: a domain, then canonical JSON of the robot and the fields."""
    body = json.dumps({**fields, "robot": robot}, sort_keys=True, separators=(",", ":"))
    return b"brainos-conscience/1 " + purpose.encode() + b"\n" + body.encode()


def fingerprint(purpose: str, robot: str, fields: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a statement."""
    return hashlib.sha256(statement(purpose, robot, fields)).hexdigest()


def sign(key: Ed25519PrivateKey, purpose: str, robot: str, fields: Mapping[str, Any]) -> str:
    """A token: base64 of the signature over the statement."""
    return base64.b64encode(key.sign(statement(purpose, robot, fields))).decode()


UNPROVISIONED = Operators("", {})


def operators_file(home: Path) -> Path:
    """Where a robot's operators are registered."""
    return home / "conscience" / "operators.yaml"


def file_version(path: Path) -> tuple[int, ...] | None:
    """Something that differs once the file was changed or replaced; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def load_operators(home: Path) -> Operators:
    """The robot's operators. Raises BrainError NOT_FOUND or INVALID_ARGUMENT."""
    path = operators_file(home)
    try:
        body = yaml.safe_load(path.read_text())
        people = {
            name: _operator(name, entry) for name, entry in body["operators"].items()
        }
        robot = body["robot"]
        if not isinstance(robot, str) or not robot:
            raise ValueError("robot must be its id")
        keys = [person.key for person in people.values()]
        if len(set(keys)) < len(keys):
            raise ValueError("two operators have the same key")
    except FileNotFoundError as error:
        raise BrainError(
            f"{path} is missing: run `brainos conscience init`", ErrorCode.NOT_FOUND
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise BrainError(f"{path}: {error}") from error
    return Operators(robot, people)


def _operator(name: str, entry: Any) -> Operator:
    roles, key = tuple(entry["roles"]), base64.b64decode(entry["public_key"], validate=True)
    if not _NAME.fullmatch(name):
        raise ValueError(f"operator {name!r}: lower case letters, digits, _ . - only")
    if not roles or not set(roles) <= set(ROLES):
        raise ValueError(f"operator {name}: roles must be among {', '.join(ROLES)}")
    if len(key) != 32:
        raise ValueError(f"operator {name}: public_key must be 32 bytes in base64")
    return Operator(name, roles, key)


def keys_directory() -> Path:
    """Where a person's private keys lie unless told otherwise."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "brainos" / "keys"


def load_key(operator: str, keys: Path | None = None) -> Ed25519PrivateKey:
    """An operator's private key. Raises BrainError NOT_FOUND, or if the file is no such key."""
    path = (keys or keys_directory()) / f"{operator}.pem"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError as error:
        raise BrainError(f"there is no key {path}", ErrorCode.NOT_FOUND) from error
    except (OSError, ValueError, TypeError) as error:
        raise BrainError(f"{path} is not a private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BrainError(f"{path} is not an Ed25519 key")
    return key


def provision(home: Path, operator: str, keys: Path | None = None,
              roles: Iterable[str] = tuple(ROLES)) -> Path:
    """Makes a person known to a robot, and arms the robot if it never had an operator.

    This is a person's explicit act, with the rights to write to `home`. Creates the private key
    `<keys>/<operator>.pem` (mode 0600) unless the person has one. Returns its path. Doing it
    again changes nothing: a halt stays a halt. Raises BrainError if the name is taken by another
    key, or cannot be one.
    """
    if not _NAME.fullmatch(operator):
        raise BrainError(
            f"operator {operator!r} must be lower case letters, digits, _ . - only"
        )
    path = (keys or keys_directory()) / f"{operator}.pem"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption())
        write_durably(path, pem, mode=0o600)
    public = load_key(operator, keys).public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    file = operators_file(home)
    fresh = not file.exists()
    if fresh:
        file.parent.mkdir(parents=True, exist_ok=True)
        known = Operators(f"{home.name}-{uuid.uuid4()}", {})
    else:
        known = load_operators(home)
    person = known.people.get(operator)
    if person is not None and person.key != public:
        raise BrainError(
            f"operator {operator} is registered with another key", ErrorCode.ALREADY_EXISTS)
    if person is None:
        everyone = [*known.people.values(), Operator(operator, tuple(roles), public)]
        body = {"robot": known.robot, "operators": {
            each.name: {"roles": list(each.roles),
                        "public_key": base64.b64encode(each.key).decode()}
            for each in everyone}}
        if fresh:  # first: a conscience that waits for operators looks once it has some
            write_armed(file.parent, known.robot, operator)
        write_durably(file, yaml.safe_dump(body, sort_keys=False).encode())
        load_operators(home)
    return path


def challenge_file(home: Path) -> Path:
    """Where the conscience says what a reset or a change of rules has to sign: its epoch and a
    nonce."""
    return home / "conscience" / "challenge.json"


def challenge(home: Path) -> dict[str, str]:
    """The epoch and nonce of the conscience that is active now. Raises BrainError UNAVAILABLE."""
    path = challenge_file(home)
    try:
        found: dict[str, str] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BrainError(
            f"{path} cannot be read, is the conscience active? {error}", ErrorCode.UNAVAILABLE
        ) from error
    return found


def reset_token(home: Path, operator: str, keys: Path | None = None) -> str:
    """The token that lets `operator` reset the halt there is now. Raises BrainError."""
    key = load_key(operator, keys)
    return sign(key, "reset", load_operators(home).robot, challenge(home))
