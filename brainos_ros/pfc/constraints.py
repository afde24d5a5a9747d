"""Constraints a caller names by id, defined in a YAML file as CEL expressions.

    constraints:
      - id: avoid_stairs                  # what a caller writes
        level: hard                       # hard excludes an option, soft costs it score
        reason: it leads over stairs      # goes into the reasoning sentence
        when: option.stairs               # CEL, true where the constraint is hurt
        defaults: {option.stairs: false}  # taken where the caller did not say
      - id: energy_efficient
        level: soft
        reason: the way is long
        cost: 0.01 * option.length_m      # CEL, score taken away, limited to 0..max_cost
        max_cost: 0.5

Expressions read `option.<attribute>` and `context.<key>`; every number is a double. An attribute
that is read, not given and has no default hurts: a hard constraint excludes the option, a soft
one costs `max_cost`. CEL: https://github.com/google/cel-spec.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.expressions import cel

_REFERENCE = re.compile(r"\b(option|context)\.([A-Za-z_]\w*)")
_MOST_VERDICTS = 1024
_FIELDS = {
    "hard": {"id", "level", "reason", "when", "defaults"},
    "soft": {"id", "level", "reason", "cost", "max_cost", "defaults"},
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one constraint says of one option: `cost` in score units, `excluded` if it may not."""

    cost: float
    excluded: bool
    text: str


@dataclass(frozen=True, slots=True)
class Constraint:
    """One constraint of the file, compiled.

    `verdicts` holds what it said before, by the values it read: it reads nothing else.
    """

    id: str
    hard: bool
    reason: str
    program: Any
    references: tuple[tuple[str, str], ...]
    defaults: Mapping[tuple[str, str], Any]
    max_cost: float
    verdicts: dict[tuple[Any, ...], Verdict | None] = field(default_factory=dict, compare=False)

    def judge(self, option: Mapping[str, Any], context: Mapping[str, Any]) -> Verdict | None:
        """Return what this constraint says of the option, or None where it is content."""
        read: list[Any] = []
        for scope, name in self.references:
            values = option if scope == "option" else context
            value = values.get(name, self.defaults.get((scope, name)))
            if value is None:
                return self._hurt(f"{scope}.{name} is not known")
            read.append(_double(value))
        key = (*read, *map(type, read))
        try:
            return self.verdicts[key]
        except KeyError:
            if len(self.verdicts) >= _MOST_VERDICTS:
                self.verdicts.clear()
            verdict = self.verdicts[key] = self._evaluate(read)
            return verdict
        except TypeError:  # a list cannot be a key
            return self._evaluate(read)

    def _evaluate(self, read: Sequence[Any]) -> Verdict | None:
        known: dict[str, dict[str, Any]] = {"option": {}, "context": {}}
        for (scope, name), value in zip(self.references, read, strict=True):
            known[scope][name] = value
        try:
            result = self.program.execute(known)
        except Exception as error:
            return self._hurt(f"it cannot be evaluated ({str(error).splitlines()[0]})")
        if self.hard:
            if not isinstance(result, bool):
                return self._hurt(f"it gave {result!r} instead of true or false")
            return self._hurt(self.reason) if result else None
        if isinstance(result, bool) or not isinstance(result, int | float):
            return self._hurt(f"it gave {result!r} instead of a number")
        if not math.isfinite(result):
            return self._hurt(f"it gave {result!r}")
        cost = min(max(float(result), 0.0), self.max_cost)
        return Verdict(cost, False, self.reason) if cost > 0.0 else None

    def _hurt(self, text: str) -> Verdict:
        return Verdict(0.0 if self.hard else self.max_cost, self.hard, text)


class ConstraintSet:
    """The constraints of one file, looked up by id."""

    def __init__(self, constraints: Sequence[Constraint] = ()) -> None:
        self._by_id = {constraint.id: constraint for constraint in constraints}

    @property
    def ids(self) -> list[str]:
        return sorted(self._by_id)

    def select(self, ids: Sequence[str]) -> list[Constraint]:
        """Return the named constraints, each once.

        Raises BrainError (PFC_UNKNOWN_CONSTRAINT) naming the id and what there is.
        """
        for name in ids:
            if name not in self._by_id:
                raise BrainError(
                    f"constraints: `{name}` is not defined; "
                    f"known are {', '.join(self.ids) or 'none'}",
                    ErrorCode.PFC_UNKNOWN_CONSTRAINT,
                )
        return [self._by_id[name] for name in dict.fromkeys(ids)]


def load_constraints(path: Path) -> ConstraintSet:
    """Read a constraints file. Raises BrainError naming the file, the constraint and the field."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BrainError(f"constraints file {path}: {error}") from error
    entries = content.get("constraints") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise BrainError(f"constraints file {path}: needs a list `constraints`")
    constraints: list[Constraint] = []
    for entry in entries:
        try:
            constraints.append(parse_constraint(entry))
        except BrainError as error:
            raise BrainError(f"constraints file {path}: {error}") from error
        if len({constraint.id for constraint in constraints}) < len(constraints):
            raise BrainError(f"constraints file {path}: id `{constraints[-1].id}` is there twice")
    return ConstraintSet(constraints)


def parse_constraint(entry: Any) -> Constraint:
    """Compile one entry of the file. Raises BrainError naming the field that is wrong."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str) or not entry["id"]:
        raise BrainError(f"a constraint needs an `id`: {entry!r}")
    name, level = entry["id"], entry.get("level")
    if level not in _FIELDS:
        raise BrainError(f"`{name}`: level is {level!r}, must be hard or soft")
    if unknown := sorted(map(str, entry.keys() - _FIELDS[level])):
        raise BrainError(
            f"`{name}`: unknown field `{unknown[0]}`, a {level} constraint has "
            f"{', '.join(sorted(_FIELDS[level]))}"
        )
    field = "when" if level == "hard" else "cost"
    expression = entry.get(field)
    if not isinstance(expression, str | int | float):
        raise BrainError(f"`{name}`: needs `{field}`, a CEL expression")
    try:
        program = cel.compile(str(expression))
    except ValueError as error:
        raise BrainError(f"`{name}`: {field}: {error}") from error
    max_cost = entry.get("max_cost", 1.0)
    if isinstance(max_cost, bool) or not isinstance(max_cost, int | float) or max_cost <= 0:
        raise BrainError(f"`{name}`: max_cost is {max_cost!r}, must be a number above 0")
    return Constraint(
        id=name,
        hard=level == "hard",
        reason=str(entry.get("reason") or f"{name} is hurt"),
        program=program,
        references=tuple(dict.fromkeys(_REFERENCE.findall(str(expression)))),
        defaults=_parse_defaults(name, entry.get("defaults") or {}),
        max_cost=float(max_cost),
    )


def _parse_defaults(name: str, defaults: Any) -> dict[tuple[str, str], Any]:
    parsed: dict[tuple[str, str], Any] = {}
    for key, value in defaults.items() if isinstance(defaults, dict) else [(defaults, None)]:
        match = _REFERENCE.fullmatch(str(key))
        if match is None:
            raise BrainError(
                f"`{name}`: defaults: {key!r} must be option.<attribute> or context.<key>"
            )
        parsed[match[1], match[2]] = _double(value)
    return parsed


def _double(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
