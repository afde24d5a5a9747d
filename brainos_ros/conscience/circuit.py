"""The conscience circuit: one verdict for each proposed action, in the ledger before it is told."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from brainos_ros.conscience.approvals import Approval, Approvals
from brainos_ros.conscience.credentials import Operators
from brainos_ros.conscience.names import Names
from brainos_ros.conscience.records import Record, Refusals
from brainos_ros.conscience.rules import Level, RuleSet, Verdict
from brainos_ros.conscience.rules_file import parse
from brainos_ros.errors import BrainError, ErrorCode

LONGEST_RECORD = 16_384
LONGEST_REQUESTER = 128


@dataclass(slots=True)
class Evaluation:
    """A verdict as seed 001's safety contract has it; times in seconds since the epoch."""

    id: str
    stamp: float
    action: str
    requester: str
    level: Level
    approved: bool
    reason: str
    rules: tuple[str, ...]
    rules_version: str
    approval: Approval | None = None
    latency_ms: float = 0.0
    context: dict[str, Any] = field(default_factory=dict, repr=False)


def judge(rules: RuleSet, action: str, context: Mapping[str, Any], hold: str) -> Verdict:
    """The verdict as a pure function, which is what a replay repeats.

    `hold` says why the robot may not act at all now (halted, EMERGENCY); empty if it may.
    """
    if hold:
        return Verdict(Level.CRITICAL, f"The robot may not act: {hold}.")
    return rules.evaluate(action, context)


class Circuit:
    """Evaluates, asks people, redeems; of one activation of the conscience.

    `record(kind, body)` must raise if the ledger does not take it: the answer is a denial then.
    `hold()` says why the robot may not act at all now.
    """

    def __init__(self, rules: RuleSet, operators: Operators, approvals: Approvals, names: Names,
                 record: Record, hold: Callable[[], str], epoch: str,
                 clock: Callable[[], float] = time.monotonic,
                 wall: Callable[[], float] = time.time) -> None:
        self.rules, self.operators, self.approvals = rules, operators, approvals
        self._names, self._record, self._hold, self._epoch = names, record, hold, epoch
        self._clock, self._wall = clock, wall
        self._refusals = Refusals()
        self._lock = threading.RLock()

    def evaluate(self, action: str, context: Mapping[str, Any], requester: str) -> Evaluation:
        """May this be done? Never raises: whatever goes wrong is a denial that says so."""
        with self._lock:
            started = self._clock()
            result, hold = self._judged(action, context, requester)
            if result.level is Level.HIGH:
                try:
                    result.approval = self.approvals.ask(
                        result.action, context, result.requester, result.reason,
                        self.rules.version, result.id)
                except Exception as error:
                    result.level = Level.CRITICAL
                    result.reason = f"{result.reason} No approval can be asked for: {error}."
            result.latency_ms = (self._clock() - started) * 1e3
            return self._recorded(result, hold)

    def refuse(self, action: str, requester: str, problem: str) -> Evaluation:
        """The verdict on a proposal that cannot even be read: denied, and recorded."""
        with self._lock:
            return self._recorded(Evaluation(
                str(uuid.uuid4()), self._wall(), action[:80], requester[:LONGEST_REQUESTER],
                Level.CRITICAL, False, f"Not evaluated: {problem}.", (), self.rules.version), "")

    def redeem(self, approval_id: str, action: str, context: Mapping[str, Any],
               requester: str) -> Evaluation:
        """Uses an approval, once, for the very action it was given for, judged again now.

        Raises BrainError if there is no such approval for it.
        """
        with self._lock:
            started = self._clock()
            result, hold = self._judged(action, context, requester)
            approval = self.approvals.match(
                approval_id, result.action, context, result.requester, self.rules.version)
            if result.level <= Level.HIGH:
                self.approvals.use(approval.id, result.id)
                if result.level is Level.HIGH:
                    result.approved = True
                    result.reason = f"{result.reason} Approved by {approval.operator}."
            result.latency_ms = (self._clock() - started) * 1e3
            return self._recorded(result, hold, approval.id)

    def reload(self, source: bytes, operators: list[str], tokens: list[str],
               challenge: Mapping[str, str], keep: Callable[[RuleSet], None]) -> RuleSet:
        """Puts other rules in force: two different engineers signed their hash. Raises BrainError.

        `challenge` must change with every change of rules, so that signatures count once. The
        change is in the ledger and on disk (`keep`) before it holds; what waits for approval
        expires with it.
        """
        rules = parse(source)
        fields = {"rules_version": rules.version, "replaces": self.rules.version,
                  **challenge}
        if len(operators) != 2 or len(tokens) != 2:
            raise BrainError("operators and tokens must name two people",
                             ErrorCode.UNAUTHORISED)
        people = [self.operators.check(name, token, "rules", fields, "rules")
                  for name, token in zip(operators, tokens, strict=True)]
        if people[0].name == people[1].name:
            raise BrainError("a change of rules needs two different people",
                             ErrorCode.UNAUTHORISED)
        with self._lock:
            record_rules(self._record, rules, self.rules.version, operators)
            keep(rules)
            self.approvals.expire(everything=True)
            self.rules = rules
        return rules

    def flush(self) -> None:
        """Writes the count of coalesced refusals; called once a second. Raises if refused."""
        with self._lock:
            counted = self._refusals.take()
        if counted:
            self._record("refusals", {"counts": counted, "rules_version": self.rules.version})

    def _judged(self, action: str, context: Mapping[str, Any],
                requester: str) -> tuple[Evaluation, str]:
        hold, name = "", action
        try:
            hold = self._hold()
            name = self._names.normalise(action)
            if len(requester) > LONGEST_REQUESTER:
                raise BrainError(f"requester is longer than {LONGEST_REQUESTER} characters")
            verdict = judge(self.rules, name, context, hold)
        except Exception as error:
            verdict = Verdict(Level.CRITICAL, f"Not evaluated: {error}.")
            name, requester = name[:80], requester[:LONGEST_REQUESTER]
        return Evaluation(
            str(uuid.uuid4()), self._wall(), name, requester, verdict.level, verdict.approved,
            verdict.reason, verdict.rules, self.rules.version, context=dict(context)), hold

    def _recorded(self, result: Evaluation, hold: str, redeemed: str = "") -> Evaluation:
        inputs = encode(result.context)
        if len(inputs) > LONGEST_RECORD:
            result.approved, result.level = False, Level.CRITICAL
            result.reason = f"The inputs take more than {LONGEST_RECORD} characters."
            result.approval, inputs = None, "{}"
        if result.level is Level.CRITICAL:
            key = (result.action, inputs, result.requester, result.reason)
            if not self._refusals.admit(self._clock(), key, result.action[:80]):
                return result
        try:
            self._record("evaluation", {
                "evaluation_id": result.id, "action": result.action, "inputs": inputs,
                "requester": result.requester, "hold": hold, "level": result.level.name,
                "approved": result.approved, "reason": result.reason,
                "rules": list(result.rules), "rules_version": result.rules_version,
                "redeems": redeemed,
                "approval_id": result.approval.id if result.approval else "",
                "deadline": result.approval.expires_at if result.approval else 0.0,
                "latency_ms": result.latency_ms, "epoch": self._epoch})
        except Exception as error:
            result.approved, result.level, result.approval = False, Level.CRITICAL, None
            result.reason = f"The ledger did not accept the verdict: {error}."
        return result


def encode(context: Mapping[str, Any]) -> str:
    """Inputs as one line of JSON, exact to the type: 1 stays 1 and 1.0 stays 1.0.

    What JSON has no type for becomes a mapping, which no rule accepts either.
    """
    return json.dumps(dict(context), sort_keys=True, default=lambda value: {"no": repr(value)})


def record_rules(record: Record, rules: RuleSet, replaces: str, operators: list[str]) -> None:
    """Puts a rule set into the ledger, text and all, so that a replay needs nothing else."""
    record("rules.loaded", {"rules_version": rules.version, "replaces": replaces,
                     "operators": operators, "source": rules.source.decode()})
