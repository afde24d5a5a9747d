"""Keys, signed notes and checkpoints, in the formats of C2SP.

A checkpoint is a signed note (c2sp.org/signed-note) whose text is origin, tree size and root
(c2sp.org/tlog-checkpoint), with one extension line: `seal ` and the hash of the seal over that
size, which ties the chain to the tree. Signatures are Ed25519 (RFC 8032).
"""

import os
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from brainos_ros.ledger.frames import Damage

_ED25519 = b"\x01"
_TAIL = 8192


class PublicKey:
    """A verifier key: `name+key id in hex+base64 of 0x01 and the 32 bytes of the key`."""

    def __init__(self, name: str, public: bytes) -> None:
        self.name = name
        self.public = public
        self.id = sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]
        self._key = Ed25519PublicKey.from_public_bytes(public)

    @classmethod
    def parse(cls, text: str) -> "PublicKey":
        """A verifier key from its text. Raises ValueError."""
        parts = text.strip().split("+", 2)
        if len(parts) != 3:
            raise ValueError(f"'{text.strip()}' is not a verifier key (name+id+key)")
        raw = b64decode(parts[2], validate=True)
        if len(raw) != 33 or raw[:1] != _ED25519:
            raise ValueError(f"'{text.strip()}' is not an Ed25519 verifier key")
        key = cls(parts[0], raw[1:])
        if str(key) != text.strip():
            raise ValueError(f"the key id of '{text.strip()}' does not belong to the key")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{b64encode(_ED25519 + self.public).decode()}"

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` over `message` is this key's."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """An Ed25519 key and the name it signs under."""

    def __init__(self, name: str, seed: bytes | None = None) -> None:
        self.seed = seed or os.urandom(32)
        self._key = Ed25519PrivateKey.from_private_bytes(self.seed)
        self.public = PublicKey(name, self._key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the signature."""
        return self._key.sign(message)

    def sign_note(self, text: str) -> str:
        """The signature line of a note over `text`."""
        signature = b64encode(self.public.id + self.sign(text.encode())).decode()
        return f"— {self.public.name} {signature}\n"

    def pack(self) -> bytes:
        """The key's file: its name and base64 of the seed."""
        return f"{self.public.name} {b64encode(self.seed).decode()}\n".encode()

    @classmethod
    def parse(cls, data: bytes) -> "SigningKey":
        """Raises Damage."""
        try:
            name, seed = data.decode().split()
            raw = b64decode(seed, validate=True)
        except ValueError:
            raise Damage("the key file does not hold a name and a key") from None
        if len(raw) != 32:
            raise Damage("the key file does not hold 32 bytes of key")
        key = cls(name, raw)
        if key.pack() != data:
            raise Damage("the key file is not in its canonical form")
        return key


class Checkpoint(NamedTuple):
    """A signed statement of what a stream held.

    Attributes:
        origin: which log it is about.
        size: number of records.
        root: Merkle Tree Hash over them.
        seal: hash of the seal over them.
        note: the whole signed note.
    """

    origin: str
    size: int
    root: bytes
    seal: bytes
    note: str

    @classmethod
    def parse(cls, note: str) -> "Checkpoint":
        """Raises Damage for anything but one checkpoint in its one canonical form."""
        text, blank, signatures = note.partition("\n\n")
        lines = text.split("\n")
        try:
            origin, size, root, seal = lines
            if not blank or int(size) < 1 or not seal.startswith("seal "):
                raise ValueError
            if not signatures.startswith("— "):
                raise ValueError
            checkpoint = cls(
                origin, int(size), b64decode(root, validate=True), bytes.fromhex(seal[5:]), note
            )
        except ValueError:
            raise Damage("a checkpoint is not origin, size, root, seal and signature") from None
        if checkpoint_text(*checkpoint[:4]) != text + "\n" or len(checkpoint.root) != 32:
            raise Damage("a checkpoint is not in its canonical form")
        return checkpoint

    def signatures(self) -> list[tuple[str, bytes, bytes]]:
        """Name, key id and signature of each signature line. Raises Damage."""
        found = []
        for line in self.note.partition("\n\n")[2].removesuffix("\n").split("\n"):
            name, _, encoded = line.removeprefix("— ").rpartition(" ")
            try:
                raw = b64decode(encoded, validate=True)
            except ValueError:
                raw = b""
            if len(raw) != 68 or f"— {name} {b64encode(raw).decode()}" != line:
                raise Damage("a checkpoint has a malformed signature", "head-signature")
            found.append((name, raw[:4], raw[4:]))
        return found

    def signed_by(self, key: PublicKey) -> bool:
        """Whether one of the signatures is the key's, and good. Raises Damage."""
        text = self.note.partition("\n\n")[0].encode() + b"\n"
        return any(
            key.verify(signature, text)
            for name, key_id, signature in self.signatures()
            if (name, key_id) == (key.name, key.id)
        )


def checkpoint_text(origin: str, size: int, root: bytes, seal: bytes) -> str:
    """The signed text of a checkpoint."""
    return f"{origin}\n{size}\n{b64encode(root).decode()}\nseal {seal.hex()}\n"


def sign_checkpoint(
    origin: str, size: int, root: bytes, seal: bytes, keys: list[SigningKey]
) -> Checkpoint:
    """A checkpoint signed by each of `keys`."""
    text = checkpoint_text(origin, size, root, seal)
    note = text + "\n" + "".join(key.sign_note(text) for key in keys)
    return Checkpoint(origin, size, root, seal, note)


def pack_checkpoint(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as it stands in the file `checkpoints`: the note and an empty line."""
    return checkpoint.note.encode() + b"\n"


def read_checkpoints(data: bytes) -> tuple[list[Checkpoint], bytes]:
    """The checkpoints in the file `checkpoints`, and what is left of one cut short at its end.

    Raises Damage where something else than a checkpoint is in it.
    """
    *parts, rest = data.split(b"\n\n")
    if len(parts) % 2:
        rest = parts.pop() + b"\n\n" + rest
    try:
        notes = [
            (parts[i] + b"\n\n" + parts[i + 1] + b"\n").decode() for i in range(0, len(parts), 2)
        ]
    except UnicodeDecodeError:
        raise Damage("the file of checkpoints is not text") from None
    return [Checkpoint.parse(note) for note in notes], rest


def last_checkpoint(path: Path) -> tuple[Checkpoint | None, int]:
    """The newest checkpoint in the file `checkpoints`, and where its last whole one ends.

    Reads only the file's end. Raises Damage, OSError.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = file.seek(max(0, size - _TAIL))
        data = file.read()
    *parts, rest = data.split(b"\n\n")
    signed = [i for i, part in enumerate(parts) if i and part.startswith("— ".encode())]
    if not signed:
        checkpoints, rest = read_checkpoints(path.read_bytes())
        return (checkpoints[-1] if checkpoints else None), size - len(rest)
    last = signed[-1]
    note = b"\n\n".join(parts[last - 1 : last + 1]) + b"\n\n"
    end = start + sum(len(part) + 2 for part in parts[: last + 1])
    return read_checkpoints(note)[0][0], end


def thin(data: bytes, ends: set[int]) -> bytes:
    """The file `checkpoints` without the heads that are neither at a segment's end nor needed.

    Kept are the first and the newest, the newest up to each of `ends`, and those of two keys.
    """
    checkpoints, _ = read_checkpoints(data)
    keep = {0, len(checkpoints) - 1}
    for end in ends:
        keep.add(max((i for i, each in enumerate(checkpoints) if each.size <= end), default=0))
    keep |= {i for i, each in enumerate(checkpoints) if each.note.count("\n— ") > 1}
    return b"".join(pack_checkpoint(checkpoints[i]) for i in sorted(keep))


def rotation_text(old: PublicKey, new: PublicKey) -> bytes:
    """What the old key signs to hand over to the new one."""
    return f"brainos key rotation\n{old}\n{new}\n".encode()
