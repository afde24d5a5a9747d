"""The reset: how an operator, and nobody else, ends a halt."""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path

from brainos_ros.conscience.credentials import Operators, challenge_file
from brainos_ros.conscience.halt import Latch, write_durably
from brainos_ros.conscience.records import Record
from brainos_ros.errors import BrainError, ErrorCode

_NO_HALT = -1


class ResetDesk:
    """Checks a reset and carries it out.

    A token signs the activation's epoch and a nonce that every halt and every reset changes, so
    it opens one halt, once. `record` must raise if the ledger does not take the reset for good.
    """

    def __init__(self, home: Path, latch: Latch, operators: Operators, epoch: str,
                 record: Record) -> None:
        self._home, self._latch, self.operators = home, latch, operators
        self._epoch, self._record = epoch, record
        self._generation = _NO_HALT
        self._challenge: dict[str, str] = {}
        self._on_disk: dict[str, str] = {}

    def renew(self) -> dict[str, str]:
        """Another nonce: what was signed so far is void."""
        self._generation = _NO_HALT
        return self.challenge()

    def challenge(self) -> dict[str, str]:
        """What a token for the halt there is now has to sign; also written for the tool."""
        if self._generation != self._latch.generation:
            self._generation = self._latch.generation
            self._challenge = {"epoch": self._epoch, "nonce": str(uuid.uuid4())}
        if self._on_disk != self._challenge:
            try:
                write_durably(challenge_file(self._home), json.dumps(self._challenge).encode())
                self._on_disk = self._challenge
            except OSError:
                pass  # the next call tries again; until then no tool can make a token
        return self._challenge

    def reset(self, operator: str, token: str, causes: Sequence[str], asked: str) -> None:
        """Ends the halt. Raises BrainError naming what stands against it; nothing changes then.

        `causes` are the protective stops there are, `asked` the topic on which somebody asks to
        move now, if any.
        """
        generation = self._latch.generation
        self.operators.check(operator, token, "reset", self.challenge(), "reset")
        if causes:
            raise BrainError(f"the cause is not cleared: {'; '.join(causes)}",
                             ErrorCode.CONSCIENCE_CAUSE_NOT_CLEARED)
        if asked:
            raise BrainError(f"somebody asks to move on {asked}: cancel what the planner is at "
                             "(`pfc/pursue`) or send zero there, then reset again",
                             ErrorCode.CONSCIENCE_CAUSE_NOT_CLEARED)
        self._latch.stage(operator)
        self._record("reset", {"operator": operator, "cause": self._latch.cause,
                               "token": token.strip(), **self._challenge})
        self._latch.arm(operator, generation)
        self.renew()
