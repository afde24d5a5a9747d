"""Between messages and plain Python: attributes, times, results."""

import json
import math
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from brainos_msgs.msg import Attribute
from builtin_interfaces.msg import Duration, Time
from rcl_interfaces.msg import ParameterType, ParameterValue

from brainos_ros.errors import BrainError, ErrorCode

Value = bool | int | float | str | list[Any] | bytes

_FIELDS = {
    ParameterType.PARAMETER_BOOL: "bool_value",
    ParameterType.PARAMETER_INTEGER: "integer_value",
    ParameterType.PARAMETER_DOUBLE: "double_value",
    ParameterType.PARAMETER_STRING: "string_value",
    ParameterType.PARAMETER_BYTE_ARRAY: "byte_array_value",
    ParameterType.PARAMETER_BOOL_ARRAY: "bool_array_value",
    ParameterType.PARAMETER_INTEGER_ARRAY: "integer_array_value",
    ParameterType.PARAMETER_DOUBLE_ARRAY: "double_array_value",
    ParameterType.PARAMETER_STRING_ARRAY: "string_array_value",
}
_SCALAR_TYPES = {bool: 1, int: 2, float: 3, str: 4}
_ARRAY_TYPES = {bool: 6, int: 7, float: 8, str: 9}
_INT64 = range(-(2**63), 2**63)


def attributes_to_dict(attributes: Iterable[Attribute], field: str) -> dict[str, Value]:
    """The attributes of a request as a dictionary.

    A value without a type is its `string_value`, read as a JSON scalar where it is one and as
    itself where it is not. Raises `BrainError` naming `field` for an empty or repeated key, an
    unknown type, or a value set without its type.
    """
    result: dict[str, Value] = {}
    for index, attribute in enumerate(attributes):
        where = f"{field}[{index}]"
        if not attribute.key:
            raise BrainError(f"{where}.key is empty; give it a name")
        if attribute.key in result:
            raise BrainError(f"{where}.key {attribute.key!r} is repeated; give each key once")
        result[attribute.key] = _value(attribute.value, f"{where} ({attribute.key!r})")
    return result


def _value(value: ParameterValue, where: str) -> Value:
    if value.type == ParameterType.PARAMETER_NOT_SET:
        for name in _FIELDS.values():
            if name != "string_value" and getattr(value, name):
                raise BrainError(f"{where} sets value.{name} without value.type; set the type too")
        return _json_scalar(value.string_value, where)
    if value.type not in _FIELDS:
        raise BrainError(f"{where} has value.type {value.type}; use 1 to 9 (ParameterType)")
    content = getattr(value, _FIELDS[value.type])
    if isinstance(content, bool | int | float | str):
        return content
    if value.type == ParameterType.PARAMETER_BYTE_ARRAY:
        return b"".join(content)
    return list(content)


def _json_scalar(text: str, where: str) -> Value:
    try:
        scalar = json.loads(text, parse_constant=lambda name: name)
    except (ValueError, RecursionError):
        return text
    if isinstance(scalar, bool) or not isinstance(scalar, int | float):
        return scalar if isinstance(scalar, bool) else text
    if isinstance(scalar, int) and scalar not in _INT64:
        raise BrainError(f"{where} is {text}; a whole number must fit 64 bits")
    if not math.isfinite(scalar):
        raise BrainError(f"{where} is {text}; a number must be finite")
    return scalar


def dict_to_attributes(values: Mapping[str, Any]) -> list[Attribute]:
    """A dictionary as attributes, each with its type set.

    Raises `BrainError` for a value that no attribute can hold (a mixed list, a nested mapping).
    """
    return [Attribute(key=key, value=_parameter(key, value)) for key, value in values.items()]


def _parameter(key: str, value: Any) -> ParameterValue:
    kind = _SCALAR_TYPES.get(type(value))
    if isinstance(value, bytes):
        kind, value = ParameterType.PARAMETER_BYTE_ARRAY, [bytes([b]) for b in value]
    elif isinstance(value, list | tuple):
        kinds = {type(item) for item in value} or {str}
        if kinds == {int, float}:
            kinds, value = {float}, [float(item) for item in value]
        kind, value = (_ARRAY_TYPES.get(kinds.pop()) if len(kinds) == 1 else None), list(value)
    if kind is None:
        raise BrainError(
            f"attribute {key!r} is {value!r}; it must be a bool, number, string or a list of one"
        )
    parameter = ParameterValue(type=kind)
    setattr(parameter, _FIELDS[kind], value)
    return parameter


def time_to_ns(time: Time | Duration, field: str = "stamp") -> int:
    """A time, or a duration, of a request in nanoseconds (since its clock's epoch).

    Raises `BrainError` naming `field` where the nanoseconds make a second or more.
    """
    if time.nanosec >= 1_000_000_000:
        raise BrainError(f"{field}: nanosec is {time.nanosec}, must be less than 1000000000")
    return int(time.sec) * 1_000_000_000 + int(time.nanosec)


def ns_to_time(ns: int) -> Time:
    """A time from nanoseconds since its clock's epoch."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def time_to_s(time: Time) -> float:
    """A time in seconds since its clock's epoch."""
    return float(time.sec + time.nanosec * 1e-9)


def s_to_time(seconds: float) -> Time:
    """A time from seconds since its clock's epoch."""
    return ns_to_time(round(seconds * 1e9))


def refuse(response: Any, error: BrainError) -> Any:
    """`response` with the three result fields of a refusal."""
    response.success = False
    response.error_code = int(error.code)
    response.message = str(error)
    return response


def accept(response: Any, message: str = "") -> Any:
    """`response` with the three result fields of success."""
    response.success = True
    response.error_code = int(ErrorCode.NONE)
    response.message = message
    return response


def message_type(name: str) -> Any:
    """The class of `geometry_msgs/msg/Twist`; None where there is none of that name."""
    package, _, kind = name.split("/")
    try:
        return getattr(import_module(f"{package}.msg"), kind, None)
    except ImportError:
        return None
