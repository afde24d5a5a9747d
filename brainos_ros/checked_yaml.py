"""A YAML file read value by value; every mistake names the file, line, field and what is right."""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from brainos_ros.errors import BrainError

NAME = "[A-Za-z_][A-Za-z0-9_]*"  # as ROS allows it for nodes, and between the / of a topic


def compose(path: Path) -> "Place":
    """The whole file. Raises `BrainError` (INVALID_ARGUMENT) if it is empty or not YAML."""
    body = path.read_bytes()
    try:
        text = body.decode()
        node = yaml.compose(text, yaml.SafeLoader)
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise BrainError(f"{path}:{line}: not UTF-8: byte {body[error.start]:#04x}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise BrainError(f"{path}:{line}: not YAML: character {error.character:#04x}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BrainError(f"{path}:{line}: not YAML: {error.problem}") from error
    if node is None:
        raise BrainError(f"{path}:1: the file is empty")
    return Place(path, "", node)


def meant(value: object, known: Sequence[str]) -> str:
    """What could be meant by `value`, and what is known."""
    near = difflib.get_close_matches(str(value), known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint} Known here: {', '.join(known)}"


@dataclass(frozen=True)
class Place:
    """A value of the file with its name and line, read by asking for the type that is wanted."""

    path: Path
    name: str
    node: yaml.Node

    def wrong(self, what: str, line: int | None = None) -> BrainError:
        line = self.node.start_mark.line + 1 if line is None else line
        return BrainError(f"{self.path}:{line}: {self.name}{': ' if self.name else ''}{what}")

    def value(self) -> Any:
        try:
            return yaml.constructor.SafeConstructor().construct_object(self.node, deep=True)
        except yaml.MarkedYAMLError as error:
            raise self.wrong(f"{error.problem}; write a plain value") from error
        except (ValueError, LookupError, AttributeError, TypeError) as error:  # after a wrong tag
            raise self.wrong(f"{self.node.value!r} cannot be read ({error}); "
                             "put a text between quotes") from error

    def number(self, low: float, high: float) -> float:
        value = self.value()
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not real or (isinstance(value, float) and not math.isfinite(value)):
            raise self.wrong(f"{value!r} is not a number; give one from {low:g} to {high:g}")
        if not low <= value <= high:
            raise self.wrong(f"{self.node.value} is outside {low:g} to {high:g}")
        return float(value)

    def whole(self, low: int, high: int) -> int:
        value = self.number(low, high)
        if value != int(value):
            raise self.wrong(f"{value:g} is not a whole number; give one from {low} to {high}")
        return int(value)

    def flag(self) -> bool:
        value = self.value()
        if not isinstance(value, bool):
            raise self.wrong(f"{value!r} is neither true nor false")
        return value

    def text(self) -> str:
        value = self.value()
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(f"{value!r} is not a text; give a name")
        return value

    def ros_name(self, value: object = None) -> str:
        """A name as ROS allows it for nodes; of this value, or `value` that stands before it."""
        value = self.value() if value is None else value
        if not isinstance(value, str) or not re.fullmatch(NAME, value):
            raise self.wrong(f"{value!r} is not a name; use letters, digits and _, no digit first")
        return value

    def topic(self) -> str:
        """The name of a topic as ROS allows it."""
        value = self.value()
        if not isinstance(value, str) or not re.fullmatch(f"/?{NAME}(/{NAME})*", value):
            raise self.wrong(f"{value!r} is not a topic; write e.g. cmd_vel or /base/cmd_vel")
        return value

    def choice(self, known: Sequence[str]) -> str:
        value = self.value()
        if value not in known:
            raise self.wrong(f"{value!r} is unknown{meant(value, known)}")
        return str(value)

    def items(self) -> "list[Place]":
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.wrong(f"{self.value()!r} is not a list; write [a, b]")
        return [
            Place(self.path, f"{self.name}[{i}]", child)
            for i, child in enumerate(self.node.value)
        ]

    def fields(self, known: Sequence[str] | None = None) -> "dict[str, Place]":
        """The fields of a mapping; a repeated one, or one not in `known`, is refused."""
        if isinstance(self.node, yaml.ScalarNode) and self.node.value in ("", "~", "null"):
            return {}
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong(f"{self.value()!r} is not a mapping; write `field: value` lines")
        found: dict[str, Place] = {}
        for key_node, value_node in self.node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in found:
                raise self.wrong(f"{key!r} is given twice; keep one of them", line)
            if known is not None and key not in known:
                raise self.wrong(f"unknown field {key!r}{meant(key, known)}", line)
            found[key] = Place(self.path, f"{self.name}.{key}".lstrip("."), value_node)
        return found
