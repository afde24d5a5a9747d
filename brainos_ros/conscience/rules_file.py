"""Rules files: YAML with CEL expressions (https://cel.dev), which are checked by trying them."""

import itertools
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from brainos_ros.conscience.rules import Input, Level, Rule, RuleSet, short
from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.expressions import cel

FORMAT = "brainos-rules/1"
_SAMPLES = 2048
_ID = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_BOUND = re.compile(r"\.(?:all|exists|exists_one|map|filter)\(\s*([A-Za-z_]\w*)\s*,")


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
        raise _invalid(f"the rules are not YAML: {short(error)}") from error
    document = _mapping(document, "the rules", {"format", "inputs", "rules"})
    if document.get("format") != FORMAT:
        raise _invalid(f"format must be {FORMAT}, not {short(document.get('format'))}")
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
        raise _invalid(f"rule id {short(name)} must be words of a-z, 0-9 and _ joined by dots")
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
        raise _invalid(f"{what}: {short(error)}") from error
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
            raise _invalid(f"{what}: fails for {short(values)}: {short(error)}") from error
        if not isinstance(answer, bool):
            raise _invalid(f"{what}: gives {short(answer)}, not true or false")
    return program
