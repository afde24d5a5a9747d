"""The one result convention: every failed reply carries a code from here and a sentence."""

from enum import IntEnum

LEDGER_REFUSED = "ledger refused"
"""How the conscience's cause for a ledger that takes nothing begins; the watchdog looks for it."""


class ErrorCode(IntEnum):
    """Result codes of every service and action; the same values as `brainos_msgs/msg/ErrorCode`.

    0–99 are common to all nodes; each node adds its own hundred above that.
    """

    NONE = 0
    INVALID_ARGUMENT = 1
    NOT_FOUND = 2
    ALREADY_EXISTS = 3
    NOT_ACTIVE = 4
    TIMEOUT = 5
    UNAVAILABLE = 6
    LEDGER_REFUSED = 7
    CANCELLED = 8
    UNAUTHORISED = 9
    INTERNAL = 99

    PFC_NO_OPTION_LEFT = 100
    PFC_UNKNOWN_CONSTRAINT = 101
    PFC_ACTION_FAILED = 102

    CONSCIENCE_HALTED = 200
    CONSCIENCE_RULES_INVALID = 201
    CONSCIENCE_CAUSE_NOT_CLEARED = 202
    CONSCIENCE_APPROVAL_EXPIRED = 203
    CONSCIENCE_APPROVAL_USED = 204
    CONSCIENCE_DENIED = 205

    MEMORY_FULL = 300

    WORLD_MODEL_RELATION_INVALID = 400

    GENOME_REJECTED = 500
    GENOME_BUSY = 501

    WATCHDOG_UNKNOWN_NODE = 600
    WATCHDOG_NO_STANDBY = 601
    WATCHDOG_RECOVERY_FAILED = 602


class BrainError(Exception):
    """A refusal a caller can act on: names the field, the value and what would be right.

    A service door turns it into `success=false` with `code` and the sentence.
    """

    def __init__(self, message: str, code: ErrorCode = ErrorCode.INVALID_ARGUMENT) -> None:
        super().__init__(message)
        self.code = code
