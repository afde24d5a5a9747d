"""Rules: CEL expressions that say what may be done.

A rule that fires gives its level; the highest level among those that fire decides, so a refusal
always overrides a permission. Nothing fires, or anything at all goes wrong: the verdict is
CRITICAL, which nobody can approve. `rules_file` reads them.
"""

import hashlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import Any

from brainos_ros.expressions import cel

LONGEST_TEXT = 4096
LONGEST_LIST = 256
TIME_LIMIT_S = 0.5
_PLANS = 1024


class Level(IntEnum):
    """How dangerous an action is; the same values as `brainos_msgs/msg/SafetyEvaluation`."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2
    CRITICAL = 3


@dataclass(frozen=True, slots=True)
class Input:
    """What a rule may read: `type` is bool, int, double, string, strings or doubles."""

    name: str
    type: str
    unit: str = ""
    text: str = ""
    minimum: float = -math.inf
    maximum: float = math.inf
    values: tuple[str, ...] = ()

    def check(self, value: Any) -> Any:
        """The value as CEL sees it. Raises ValueError with what would be right."""
        if self.type in ("strings", "doubles"):
            if not isinstance(value, list | tuple):
                raise ValueError(f"must be a list of {self.type}")
            if len(value) > LONGEST_LIST:
                raise ValueError(f"has more than {LONGEST_LIST} elements")
            return [self._scalar(self.type[:-1], item) for item in value]
        return self._scalar(self.type, value)

    def _scalar(self, kind: str, value: Any) -> Any:
        if kind == "bool":
            if value is True or value is False:
                return value
            raise ValueError("must be true or false")
        if kind == "string":
            if not isinstance(value, str):
                raise ValueError("must be a string")
            if len(value) > LONGEST_TEXT:
                raise ValueError(f"is longer than {LONGEST_TEXT} characters")
            if self.values and value not in self.values:
                raise ValueError(f"must be one of {', '.join(self.values)}")
            return value
        if isinstance(value, bool) or not isinstance(value, int if kind == "int" else (int, float)):
            raise ValueError(f"must be {'an integer' if kind == 'int' else 'a number'}")
        if kind == "double":
            try:
                value = float(value)
            except OverflowError:
                value = math.inf
            if not math.isfinite(value):
                raise ValueError("must be finite")
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"must lie in [{self.minimum:g}, {self.maximum:g}]")
        if kind == "int" and abs(value) >= 2**63:
            raise ValueError("must fit in 64 bits")
        return value

    def samples(self) -> list[Any]:
        """Values to try an expression with when it is loaded."""
        if self.type == "bool":
            return [False, True]
        if self.type == "string":
            return list(self.values) or ["", "x"]
        if self.type == "strings":
            return [[], list(self.values) or ["x", "y"]]
        low, high = max(self.minimum, -1e6), min(self.maximum, 1e6)
        if self.type == "int":
            return sorted({math.ceil(low), math.floor((low + high) / 2), math.floor(high)})
        if self.type == "doubles":
            return [[], [float(low), float(high)]]
        return [float(low), (low + high) / 2, float(high)]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `actions` are names or shell patterns, matched against normalised names."""

    id: str
    level: Level
    actions: tuple[str, ...]
    inputs: tuple[str, ...]
    when: str
    reason: str
    extra_ignored: bool
    program: cel.Program = field(repr=False, compare=False)

    def covers(self, action: str) -> bool:
        """Whether the rule speaks about this action."""
        return any(fnmatchcase(action, pattern) for pattern in self.actions)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say: `rules` are the ids that fired, in the order of the file."""

    level: Level
    reason: str
    rules: tuple[str, ...] = ()

    @property
    def approved(self) -> bool:
        """True if it may be done without asking a person."""
        return self.level <= Level.MEDIUM


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is asked about one action; `together` gives all rules' answers as one list."""

    rules: tuple[Rule, ...]
    together: cel.Program
    inputs: dict[str, Input]
    extra_ignored: bool


class RuleSet:
    """A loaded, checked and unchangeable set of rules; `version` is the SHA-256 of its file."""

    def __init__(self, inputs: Mapping[str, Input], rules: Sequence[Rule], source: bytes) -> None:
        self.inputs = dict(inputs)
        self.rules = tuple(rules)
        self.source = source
        self.version = hashlib.sha256(source).hexdigest()
        self._plans: dict[str, _Plan] = {}

    def evaluate(self, action: str, context: Mapping[str, Any]) -> Verdict:
        """The verdict on a normalised action with its inputs; never raises.

        Every input is checked before any rule runs: a missing, unknown, infinite or wrongly
        typed one is refused and named.
        """
        started = time.monotonic()
        try:
            plan = self._plan(action)
            if not plan.rules:
                return Verdict(Level.CRITICAL, f"No rule covers the action `{short(action)}`.")
            values, problem = _checked(plan, context)
            if problem:
                return Verdict(Level.CRITICAL, problem)
            verdict = _decide(plan, values, action)
        except Exception as error:
            return Verdict(Level.CRITICAL, f"The rules could not be evaluated: {short(error)}.")
        if time.monotonic() - started > TIME_LIMIT_S:
            return Verdict(Level.CRITICAL, "The rules took too long.", verdict.rules)
        return verdict

    def _plan(self, action: str) -> _Plan:
        plan = self._plans.get(action)
        if plan is None:
            rules = tuple(rule for rule in self.rules if rule.covers(action))
            names = sorted({name for rule in rules for name in rule.inputs})
            plan = _Plan(
                rules,
                cel.compile("[" + ",".join(f"(\n{rule.when}\n)" for rule in rules) + "]"),
                {name: self.inputs[name] for name in names},
                any(rule.extra_ignored for rule in rules),
            )
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[action] = plan
        return plan


def _checked(plan: _Plan, context: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    values: dict[str, Any] = {}
    for name, value in context.items():
        wanted = plan.inputs.get(name)
        if wanted is None:
            if not plan.extra_ignored:
                return {}, f"No rule knows the input `{short(name)}`."
            if not _harmless(value):
                return {}, f"The input `{short(name)}` is not a finite value."
            continue
        try:
            values[name] = wanted.check(value)
        except ValueError as error:
            return {}, f"The input `{name}` {error}, not {short(repr(value))}."
    for name in plan.inputs:
        if name not in values:
            return {}, f"The input `{name}` is missing."
    return values, ""


def _decide(plan: _Plan, values: dict[str, Any], action: str) -> Verdict:
    try:
        answers = plan.together.execute(values)
    except Exception:
        answers = [None]
    if not all(answer is True or answer is False for answer in answers):
        return _culprit(plan.rules, values)
    fired = [rule for rule, answer in zip(plan.rules, answers, strict=True) if answer]
    if not fired:
        return Verdict(Level.CRITICAL, f"No rule allows the action `{action}` as it is.")
    worst = max(fired, key=lambda rule: rule.level)
    return Verdict(worst.level, worst.reason, tuple(rule.id for rule in fired))


def _culprit(rules: Iterable[Rule], values: dict[str, Any]) -> Verdict:
    """Which rule it was that failed."""
    for rule in rules:
        try:
            answer = rule.program.execute(values)
        except Exception as error:
            return Verdict(Level.CRITICAL, f"Rule {rule.id} failed: {short(error)}.", (rule.id,))
        if not isinstance(answer, bool):
            return Verdict(Level.CRITICAL, f"Rule {rule.id} gave no yes or no.", (rule.id,))
    return Verdict(Level.CRITICAL, "The rules failed together, though none does alone.")


def _harmless(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= LONGEST_LIST and all(
            not isinstance(item, list | tuple) and _harmless(item) for item in value
        )
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT
    return isinstance(value, bool | int)


def short(value: object) -> str:
    """The value on one line, for a message."""
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
