"""Approvals: an action that needs a person waits here, once, for one signature.

    pending -> approved -> used
    pending -> denied;  pending or approved -> expired

Deadlines run on the steady clock and live in memory: a restart, a deactivation or a change of
rules expires whatever waits, and no step of the wall clock brings anything back.
"""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from brainos_ros.conscience.credentials import Operators, fingerprint
from brainos_ros.errors import BrainError, ErrorCode

MOST_PENDING = 64
MOST_REMEMBERED = 1024


class Status(StrEnum):
    """Where an approval is in its life."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    USED = "used"


@dataclass(slots=True)
class Approval:
    """One action that waits, or waited. `challenge` is the hash (hex) that is signed."""

    id: str
    evaluation_id: str
    action: str
    context: dict[str, Any]
    requester: str
    reason: str
    rules_version: str
    challenge: str
    created_at: float
    expires_at: float
    deadline: float
    status: Status = Status.PENDING
    operator: str = ""
    arguments: str = field(default="", repr=False)


def canonical(context: Mapping[str, Any]) -> str:
    """One text for one set of arguments: types kept apart, order of keys not."""
    return json.dumps(context, sort_keys=True, separators=(",", ":"))


def signed_fields(challenge: str) -> dict[str, str]:
    """What an approver's token signs besides the robot, for `approve` and `deny`."""
    return {"challenge": challenge}


class Approvals:
    """All approvals of one activation of the conscience.

    `record(kind, body)` must raise if the ledger does not take it; then nothing changes, except
    that a used approval stays used.
    """

    def __init__(self, operators: Operators, epoch: str, lifetime_s: float,
                 record: Callable[[str, dict[str, Any]], object],
                 clock: Callable[[], float] = time.monotonic,
                 wall: Callable[[], float] = time.time) -> None:
        self.operators, self._epoch, self._lifetime = operators, epoch, lifetime_s
        self._record, self._clock, self._wall = record, clock, wall
        self._lock = threading.RLock()
        self._all: dict[str, Approval] = {}

    def ask(self, action: str, context: Mapping[str, Any], requester: str, reason: str,
            rules_version: str, evaluation_id: str) -> Approval:
        """The pending approval for this; the same one if it waits already, or waits to be used.

        Raises BrainError UNAVAILABLE if too many wait, and what `record` raises.
        """
        arguments = canonical(context)
        with self._lock:
            self.expire()
            waiting = self._with(Status.PENDING)
            for each in [*self._with(Status.APPROVED), *waiting]:
                if (each.action, each.arguments, each.requester, each.rules_version) == (
                        action, arguments, requester, rules_version):
                    return each
            if len(waiting) >= MOST_PENDING:
                raise BrainError(
                    f"{MOST_PENDING} approvals are pending already", ErrorCode.UNAVAILABLE)
            now, wall = self._clock(), self._wall()
            nonce = str(uuid.uuid4())
            expires_at = wall + self._lifetime
            challenge = fingerprint("approval", self.operators.robot, {
                "action": action, "arguments": arguments, "requester": requester,
                "rules_version": rules_version, "nonce": nonce, "epoch": self._epoch,
                "expires_at": expires_at})
            approval = Approval(
                str(uuid.uuid4()), evaluation_id, action, dict(context), requester, reason,
                rules_version, challenge, wall, expires_at, now + self._lifetime,
                arguments=arguments)
            self._record("approval.requested", {
                "approval_id": approval.id, "evaluation_id": evaluation_id, "action": action,
                "requester": requester, "challenge": challenge, "nonce": nonce,
                "expires_at": expires_at})
            self._all[approval.id] = approval
            self._forget()
            return approval

    def pending(self) -> list[Approval]:
        """What waits for a person, oldest first."""
        with self._lock:
            self.expire()
            return self._with(Status.PENDING)

    def approve(self, approval_id: str, operator: str, token: str) -> Approval:
        """Approves with an operator's signature over the challenge. Raises BrainError."""
        return self._answer(approval_id, operator, token, "approve", Status.APPROVED, "")

    def deny(self, approval_id: str, operator: str, token: str, reason: str) -> Approval:
        """Denies, with a signature as well. Raises BrainError."""
        return self._answer(approval_id, operator, token, "deny", Status.DENIED, reason)

    def _answer(self, approval_id: str, operator: str, token: str, purpose: str,
                status: Status, reason: str) -> Approval:
        with self._lock:
            approval = self._live(approval_id, Status.PENDING)
            fields = signed_fields(approval.challenge)
            person = self.operators.check(operator, token, purpose, fields, "approve")
            if person.name == approval.requester.strip().casefold():
                raise BrainError(
                    f"{operator} asked for this and cannot {purpose} it", ErrorCode.UNAUTHORISED)
            kind = "approval.granted" if status is Status.APPROVED else "approval.denied"
            self._record(kind, {
                "approval_id": approval.id, "operator": operator, "token": token.strip(),
                "challenge": approval.challenge, "reason": reason})
            approval.status, approval.operator = status, operator
            return approval

    def match(self, approval_id: str, action: str, context: Mapping[str, Any], requester: str,
              rules_version: str) -> Approval:
        """The approved, unused approval for just this. Raises BrainError naming what differs."""
        with self._lock:
            approval = self._live(approval_id, Status.APPROVED)
            for what, given, asked in (
                    ("action", action, approval.action),
                    ("arguments", canonical(context), approval.arguments),
                    ("requester", requester, approval.requester),
                    ("rules version", rules_version, approval.rules_version)):
                if given != asked:
                    raise BrainError(
                        f"{what} differs from what was approved", ErrorCode.UNAUTHORISED)
            return approval

    def use(self, approval_id: str, evaluation_id: str) -> None:
        """Consumes an approval, before anything is dispatched. Raises BrainError."""
        with self._lock:
            approval = self._live(approval_id, Status.APPROVED)
            approval.status = Status.USED
            self._record("approval.redeemed", {
                "approval_id": approval.id, "evaluation_id": evaluation_id,
                "operator": approval.operator, "challenge": approval.challenge})

    def expire(self, everything: bool = False) -> int:
        """Expires what is past its deadline, or everything that waits; how many did."""
        with self._lock:
            now = self._clock()
            gone = [each for each in self._all.values()
                    if each.status in (Status.PENDING, Status.APPROVED)
                    and (everything or now >= each.deadline)]
            for each in gone:
                each.status = Status.EXPIRED
                with contextlib.suppress(Exception):  # it expires, recorded or not
                    self._record("approval.expired", {"approval_id": each.id})
            return len(gone)

    def _live(self, approval_id: str, wanted: Status) -> Approval:
        self.expire()
        approval = self._all.get(approval_id)
        if approval is None:
            raise BrainError(
                f"approval {approval_id[:64]!r} is not known to this activation",
                ErrorCode.NOT_FOUND)
        if approval.status is wanted:
            return approval
        codes = {Status.EXPIRED: ErrorCode.CONSCIENCE_APPROVAL_EXPIRED,
                 Status.USED: ErrorCode.CONSCIENCE_APPROVAL_USED,
                 Status.DENIED: ErrorCode.CONSCIENCE_DENIED}
        raise BrainError(
            f"approval {approval_id} is {approval.status.value}, not {wanted.value}",
            codes.get(approval.status, ErrorCode.UNAUTHORISED))

    def _with(self, status: Status) -> list[Approval]:
        return [each for each in self._all.values() if each.status is status]

    def _forget(self) -> None:
        """Drops the oldest that are over, never one that lives."""
        over = [key for key, each in self._all.items()
                if each.status not in (Status.PENDING, Status.APPROVED)]
        for key in over[:max(0, len(self._all) - MOST_REMEMBERED)]:
            del self._all[key]
