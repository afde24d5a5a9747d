"""Changing the key that signs the heads, so that the heads signed before stay good.

The old key signs the new one in a record of the stream, and both sign the first head after it:
who trusts the old key can follow to the new one, with the stream or with a proof bundle alone.
"""

import json
from base64 import b64encode

from brainos_ros.ledger import disk, frames, kinds
from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.log import frames_from
from brainos_ros.ledger.notes import Checkpoint, PublicKey, SigningKey, rotation_text


def statement(old: SigningKey, new: PublicKey) -> bytes:
    """The payload of the record by which `old` hands over to `new`."""
    signature = b64encode(old.sign(rotation_text(old.public, new))).decode()
    return frames.encode({"key": str(new), "signature": signature})


def history(layout: Layout) -> list[dict[str, str]]:
    """Every verifier key the stream had, in order, each but the first with its predecessor's
    signature; from `keys.json`, or where that is missing or no history from the log.

    Raises Damage, OSError.
    """
    try:
        known = json.loads(layout.keys.read_bytes())
        entries = [{name: str(text) for name, text in each.items()} for each in known]
        for each in entries:
            PublicKey.parse(each["key"])
    except (FileNotFoundError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        entries = []
    if entries:
        return entries
    keys = (kinds.CREATED, kinds.KEY_ROTATED)
    return [entry(each.payload) for each in frames_from(layout, 0) if each.kind in keys]


def known_to(head: Checkpoint, entries: list[dict[str, str]]) -> list[dict[str, str]]:
    """The part of a history that a head is over: up to the newest key that signed it.

    Until such a head is kept the history of an unfinished rotation says more.
    """
    while len(entries) > 1 and not head.signed_by(PublicKey.parse(entries[-1]["key"])):
        entries = entries[:-1]
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


def accepted(layout: Layout, head: Checkpoint | None) -> SigningKey | None:
    """At opening: the next key, where the record that hands over to it was accepted.

    One without such a record is forgotten. A head over that record is signed by the next key too,
    so nothing before the newest head has to be read. Raises OSError, Damage.
    """
    if not layout.next_key.exists():
        return None
    following = SigningKey.parse(layout.next_key.read_bytes())
    if head and head.signed_by(following.public):
        return following
    for frame in frames_from(layout, head.size if head else 0):
        named = frame.kind == kinds.KEY_ROTATED and entry(frame.payload)["key"]
        if named == str(following.public):
            return following
    disk.remove_file(layout.next_key)
    return None
