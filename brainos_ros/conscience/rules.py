"""Rules: CEL expressions in YAML that say what may be done.

A rule that fires gives its level; the highest level among those that fire decides, so a refusal
always overrides a permission. Nothing fires, or anything at all goes wrong: the verdict is
CRITICAL, which nobody can approve. Expressions are CEL (https://cel.dev), checked when loaded.
"""

import hashlib
import itertools
import math
import random
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.expressions import cel

FORMAT = "brainos-rules/1"
LONGEST_TEXT = 4096
LONGEST_LIST = 256
TIME_LIMIT_S = 0.5
_SAMPLES = 2048
_PLANS = 1024
_ID = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_BOUND = re.compile(r"\.(?:all|exists|exists_one|map|filter)\(\s*([A-Za-z_]\w*)\s*,")


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
                return Verdict(Level.CRITICAL, f"No rule covers the action `{_short(action)}`.")
            values, problem = _checked(plan, context)
            if problem:
                return Verdict(Level.CRITICAL, problem)
            verdict = _decide(plan, values, action)
        except Exception as error:
            return Verdict(Level.CRITICAL, f"The rules could not be evaluated: {_short(error)}.")
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
                return {}, f"No rule knows the input `{_short(name)}`."
            if not _harmless(value):
                return {}, f"The input `{_short(name)}` is not a finite value."
            continue
        try:
            values[name] = wanted.check(value)
        except ValueError as error:
            return {}, f"The input `{name}` {error}, not {_short(repr(value))}."
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
            return Verdict(Level.CRITICAL, f"Rule {rule.id} failed: {_short(error)}.", (rule.id,))
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


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def load(path: Path) -> RuleSet:
    """The rule set in a file. Raises BrainError(CONSCIENCE_RULES_INVALID) naming what is wrong."""
    return parse(read(path))


def read(path: Path) -> bytes:
    """The bytes of a rules file. Raises BrainError as `load` does."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _invalid(f"rules file {path}: {error.strerror}") from error


@lru_cache(maxsize=4)
def parse(source: bytes) -> RuleSet:
    """The rule set in these bytes of YAML. Raises BrainError as `load` does.

    Compiled once: the file, what was authorised and what a stand-by reads again when it takes over
    are most often the same bytes.
    """
    try:
        document = yaml.safe_load(source)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _invalid(f"the rules are not YAML: {_short(error)}") from error
    document = _mapping(document, "the rules", {"format", "inputs", "rules"})
    if document.get("format") != FORMAT:
        raise _invalid(f"format must be {FORMAT}, not {_short(document.get('format'))}")
    inputs = {
        name: _input(name, body)
        for name, body in _mapping(document.get("inputs", {}), "inputs").items()
    }
    bodies = document.get("rules")
    if not isinstance(bodies, list) or not bodies:
        raise _invalid("rules must be a list of at least one rule")
    rules = [_rule(body, inputs) for body in bodies]
    ids = [rule.id for rule in rules]
    for name in ids:
        if ids.count(name) > 1:
            raise _invalid(f"rule id {name} is used twice")
    return RuleSet(inputs, rules, source)


def _invalid(message: str) -> BrainError:
    return BrainError(message, ErrorCode.CONSCIENCE_RULES_INVALID)


def _mapping(value: Any, what: str, known: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _invalid(f"{what} must be a mapping")
    if known is not None and (unknown := set(value) - known):
        raise _invalid(f"{what}: unknown field {sorted(unknown)[0]}")
    return value


def _input(name: str, value: Any) -> Input:
    what = f"input {name}"
    body = _mapping(value, what, {"type", "unit", "text", "min", "max", "values"})
    if not _NAME.fullmatch(name):
        raise _invalid(f"{what}: a name has lower case letters, digits and _ only")
    kind = body.get("type")
    if kind not in ("bool", "int", "double", "string", "strings", "doubles"):
        raise _invalid(f"{what}: type must be bool, int, double, string, strings or doubles")
    bounds = [body.get("min", -math.inf), body.get("max", math.inf)]
    if any(isinstance(bound, bool) or not isinstance(bound, int | float) for bound in bounds):
        raise _invalid(f"{what}: min and max must be numbers")
    if not bounds[0] <= bounds[1]:
        raise _invalid(f"{what}: min must not be above max")
    values = body.get("values", [])
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise _invalid(f"{what}: values must be a list of strings")
    text, unit = body.get("text", ""), body.get("unit", "")
    return Input(name, kind, str(unit), str(text), bounds[0], bounds[1], tuple(values))


def _rule(value: Any, inputs: Mapping[str, Input]) -> Rule:
    body = _mapping(
        value, "a rule", {"id", "level", "actions", "inputs", "when", "reason", "extra_inputs"}
    )
    name = body.get("id")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise _invalid(f"rule id {_short(name)} must be words of a-z, 0-9 and _ joined by dots")
    what = f"rule {name}"
    if body.get("level") not in Level.__members__:
        raise _invalid(f"{what}: level must be one of {', '.join(Level.__members__)}")
    level = Level[body["level"]]
    actions = _strings(body.get("actions"), f"{what}: actions")
    if not actions:
        raise _invalid(f"{what}: actions must name at least one action")
    if level <= Level.MEDIUM and any(not pattern.strip("*?") for pattern in actions):
        raise _invalid(f"{what}: a rule that permits must name what it permits, not `*`")
    needed = _strings(body.get("inputs", []), f"{what}: inputs")
    for item in needed:
        if item not in inputs:
            raise _invalid(f"{what}: input {item} is not declared")
    when, reason = body.get("when"), body.get("reason")
    if not isinstance(when, str) or not when.strip():
        raise _invalid(f"{what}: when must be a CEL expression in quotes")
    if not isinstance(reason, str) or not reason.strip():
        raise _invalid(f"{what}: reason must be a sentence")
    extra = body.get("extra_inputs", "refused")
    if extra not in ("refused", "ignored"):
        raise _invalid(f"{what}: extra_inputs must be refused or ignored")
    program = _compile(what, when, [inputs[item] for item in needed])
    return Rule(name, level, actions, needed, when, reason, extra == "ignored", program)


def _strings(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise _invalid(f"{what} must be a list of strings")
    return tuple(value)


def _compile(what: str, when: str, inputs: Sequence[Input]) -> cel.Program:
    """Compiles and type-checks by running: every branch meets samples of every input's type."""
    try:
        program = cel.compile(when)
    except Exception as error:
        raise _invalid(f"{what}: {_short(error)}") from error
    unknown = set(program.variables()) - {item.name for item in inputs}
    unknown -= set(_BOUND.findall(when))
    if unknown:
        raise _invalid(f"{what}: reads {sorted(unknown)[0]}, which is not among its inputs")
    choices = [item.samples() for item in inputs]
    combinations: Iterable[tuple[Any, ...]] = itertools.product(*choices)
    if math.prod(len(choice) for choice in choices) > _SAMPLES:
        dice = random.Random(0)
        combinations = (tuple(map(dice.choice, choices)) for _ in range(_SAMPLES))
    for combination in combinations:
        values = dict(zip((item.name for item in inputs), combination, strict=True))
        try:
            answer = program.execute(values)
        except Exception as error:
            raise _invalid(f"{what}: fails for {_short(values)}: {_short(error)}") from error
        if not isinstance(answer, bool):
            raise _invalid(f"{what}: gives {_short(answer)}, not true or false")
    return program
