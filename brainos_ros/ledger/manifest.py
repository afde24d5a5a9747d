"""`manifest.json`: what consolidation publishes of a stream. Derived; nothing depends on it."""

import json

from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.notes import Checkpoint


def pack_manifest(
    layout: Layout, checkpoint: Checkpoint, keys: list[dict[str, str]], segments: list[str]
) -> bytes:
    """The manifest's bytes: number of records, head, keys, and the files of the log."""
    manifest = {
        "format": 1,
        "stream": layout.path.name,
        "records": checkpoint.size,
        "checkpoint": checkpoint.note,
        "keys": keys,
        "segments": segments,
    }
    return json.dumps(manifest, indent=1).encode() + b"\n"
