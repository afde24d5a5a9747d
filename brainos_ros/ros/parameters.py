"""Parameters of a node from one typed description: declared, checked and documented by it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter as RclpyParameter

from brainos_ros.errors import BrainError

Value = bool | int | float | str | list[bool] | list[int] | list[float] | list[str]
_KINDS = {bool: "true or false", int: "a whole number", float: "a number with a point, as 2.0",
          str: "a text"}


@dataclass(frozen=True)
class Parameter:
    """One parameter: its type is that of `default`; ranges also hold for each item of a list.

    A value out of range is refused with the reason, never clamped. Unless `dynamic`, it can be
    changed only while the node is unconfigured, because it is read at configure.
    """

    name: str
    default: Value
    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: Sequence[str] = ()
    dynamic: bool = False

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value` and what would be right, as a sentence; None if nothing."""
        if type(self.default) in _KINDS and type(value) is not type(self.default):
            return f"parameter {self.name} is {value!r}; it must be {_KINDS[type(self.default)]}"
        items = value if isinstance(value, list | tuple) or hasattr(value, "tolist") else [value]
        for item in items:
            wanted = self._wanted(item)
            if wanted:
                return f"parameter {self.name} is {item!r}; it must be {wanted}"
        return None

    def _wanted(self, item: Any) -> str | None:
        unit = f" {self.unit}" if self.unit else ""
        if isinstance(item, float) and not math.isfinite(item):
            return "finite"
        if self.minimum is not None and item < self.minimum:
            return f"at least {self.minimum:g}{unit}"
        if self.maximum is not None and item > self.maximum:
            return f"at most {self.maximum:g}{unit}"
        if self.choices and item not in self.choices:
            return f"one of {', '.join(self.choices)}"
        return None

    def descriptor(self) -> ParameterDescriptor:
        """The ROS description, with the range where it has two ends."""
        text = self.description + (f" [{self.unit}]" if self.unit else "")
        if self.choices:
            text += f" (one of {', '.join(self.choices)})"
        descriptor = ParameterDescriptor(name=self.name, description=text)
        if self.minimum is not None and self.maximum is not None:
            if isinstance(self.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(
                        from_value=float(self.minimum), to_value=float(self.maximum), step=0.0
                    )
                ]
            elif isinstance(self.default, int) and not isinstance(self.default, bool):
                descriptor.integer_range = [
                    IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum), step=1)
                ]
        return descriptor


class Parameters:
    """The declared parameters of a node; `parameters["name"]` is the value in force.

    Raises `BrainError` at construction if a given value is refused.
    """

    def __init__(self, node: Node, described: Iterable[Parameter], unconfigured: Any) -> None:
        self._described = {parameter.name: parameter for parameter in described}
        self._unconfigured = unconfigured
        self._values: dict[str, Any] = {}
        for parameter in self._described.values():
            try:
                value = node.declare_parameter(
                    parameter.name, parameter.default, parameter.descriptor()
                ).value
            except (InvalidParameterTypeException, InvalidParameterValueException) as error:
                given = node._parameter_overrides.get(parameter.name)
                raise BrainError(
                    parameter.problem(given.value)
                    if given is not None and self._same_type(parameter, given.value)
                    else f"parameter {parameter.name}: {error}"
                ) from None
            problem = parameter.problem(value)
            if problem:
                raise BrainError(problem)
            self._values[parameter.name] = value
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._store)

    @staticmethod
    def _same_type(parameter: Parameter, value: Any) -> bool:
        return type(value) is type(parameter.default)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def _check(self, parameters: list[RclpyParameter]) -> SetParametersResult:
        for given in parameters:
            described = self._described.get(given.name)
            if described is None:
                continue
            problem = described.problem(given.value)
            if not problem and not described.dynamic and not self._unconfigured():
                problem = (
                    f"parameter {given.name} is read at configure; put it in the robot file, or "
                    "in a --params-file, and restart the node (`brainos restart ROLE`)"
                )
            if problem:
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)

    def _store(self, parameters: list[RclpyParameter]) -> None:
        for given in parameters:
            if given.name in self._described:
                self._values[given.name] = given.value
