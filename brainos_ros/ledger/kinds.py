"""The closed schema: every kind of record there is, with the code that stands for it in the log.

A new kind is a new line here. A code is never used again for something else, and never changed:
the logs on disk hold the codes.
"""

from brainos_ros.errors import BrainError, ErrorCode

PUT = 1
MOVE = 2
DELETE = 3
PURGE = 4
IMPORT = 5
CREATED = 6
KEY_ROTATED = 7
RECOVERED = 8
PRUNED = 9

#: Operations, written by the ledger itself.
OPERATIONS = {
    "put": PUT,
    "move": MOVE,
    "delete": DELETE,
    "purge": PURGE,
    "import": IMPORT,
    "stream.created": CREATED,
    "key.rotated": KEY_ROTATED,
    "log.recovered": RECOVERED,
    "log.pruned": PRUNED,
}

#: Events, written by the rooms.
EVENTS = {
    "note": 16,
    "error": 18,
    # pfc
    "decision": 32,
    "pursuit": 34,
    "outcome": 35,
    # conscience
    "evaluation": 48,
    "approval.requested": 49,
    "approval.granted": 50,
    "approval.denied": 51,
    "approval.expired": 52,
    "approval.redeemed": 53,
    "halt": 54,
    "reset": 55,
    "rules.loaded": 56,
    "gate": 57,
    "stop": 58,
    "refusals": 60,
    # memory
    "episode": 80,
    "forget": 81,
    "heads": 83,
    "retention": 84,
    # world_model
    "entity": 112,
    "entity.deleted": 113,
    "relation": 114,
    "observation": 115,
    # genome_sync
    "genome": 144,
    "genome.evolved": 145,
    "genome.merged": 146,
    "genome.activated": 147,
    "genome.rejected": 148,
    "genome.rolled_back": 149,
    "genome.equivocation": 150,
    # watchdog
    "service_level": 181,
    "adopted": 182,
    "stopped": 183,
    "restart": 184,
    "failover": 185,
    "started": 186,
    "detected": 187,
    "given_up": 188,
    "failed": 189,
    "taken_along": 190,
    "working": 191,
    "recovered": 192,
    "tried_again": 193,
    "set_aside": 194,
    "fork_server_lost": 195,
    "put_off": 196,
}

CODES = {**OPERATIONS, **EVENTS}
NAMES = {code: name for name, code in CODES.items()}


def event_code(kind: str) -> int:
    """The code of an event kind. Raises BrainError (INVALID_ARGUMENT) for an unknown one."""
    try:
        return EVENTS[kind]
    except KeyError:
        raise BrainError(
            f"kind '{kind}' is not in the ledger's schema; add it to brainos_ros/ledger/kinds.py "
            f"or use one of: {', '.join(EVENTS)}",
            ErrorCode.INVALID_ARGUMENT,
        ) from None
