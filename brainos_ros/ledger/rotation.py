"""Changing the key that signs the heads, so that the heads signed before stay good.

The old key signs the new one in a record of the stream, and both sign the first head after it:
who trusts the old key can follow to the new one, with the stream or with a proof bundle alone.
"""

import json
from base64 import b64encode

from brainos_ros.ledger import disk, frames, kinds
from brainos_ros.ledger.frames import Frame
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.log import frames_from
from brainos_ros.ledger.notes import PublicKey, SigningKey, rotation_text


def statement(old: SigningKey, new: PublicKey) -> bytes:
    """The payload of the record by which `old` hands over to `new`."""
    signature = b64encode(old.sign(rotation_text(old.public, new))).decode()
    return frames.encode({"key": str(new), "signature": signature})


def history(layout: Layout) -> list[dict[str, str]]:
    """Every verifier key the stream had, in order, each but the first with its predecessor's
    signature; from `keys.json`, or where that is missing from the log.
    """
    try:
        entries: list[dict[str, str]] = json.loads(layout.keys.read_bytes())
    except (FileNotFoundError, ValueError):
        entries = []
        for frame in frames_from(layout, 0):
            if frame.kind in (kinds.CREATED, kinds.KEY_ROTATED):
                entries.append(entry(frame.payload))
    return entries


def entry(payload: bytes) -> dict[str, str]:
    """What a record that names a key adds to the history."""
    body = json.loads(payload)
    return {name: body[name] for name in ("key", "signature") if name in body}


def keep_history(layout: Layout, entries: list[dict[str, str]]) -> None:
    """Write `keys.json`. Raises OSError."""
    disk.replace_file(layout.keys, pack(entries))


def pack(entries: list[dict[str, str]]) -> bytes:
    """The bytes of `keys.json`."""
    return json.dumps(entries, indent=1).encode() + b"\n"


def keep_next(layout: Layout, key: SigningKey) -> None:
    """Keep the next key durably, before anything is signed to it. Raises OSError."""
    disk.replace_file(layout.next_key, key.pack(), 0o600)


def take_over(layout: Layout) -> None:
    """The next key becomes the stream's key. Raises OSError."""
    disk.replace(layout.next_key, layout.key)
    disk.sync_directory(layout.path)


def finish(layout: Layout, key: SigningKey, operations: list[Frame]) -> SigningKey:
    """At opening: finish a rotation whose record was accepted, forget one that was not.

    Returns the key that signs from now on. Raises OSError, Damage.
    """
    if not layout.next_key.exists():
        return key
    following = SigningKey.parse(layout.next_key.read_bytes())
    rotations = (frame for frame in operations if frame.kind == kinds.KEY_ROTATED)
    if any(json.loads(frame.payload)["key"] == str(following.public) for frame in rotations):
        disk.remove_file(layout.keys)
        take_over(layout)
        return following
    disk.remove_file(layout.next_key)
    return key
