"""Is every number in a message finite?"""

import math
import re
from functools import cache
from typing import Any

_ALWAYS_FINITE = re.compile(r"boolean|octet|u?int\d+|w?string(<\d+>)?")


def not_finite(message: Any, path: str = "") -> str:
    """The first field that is NaN or infinite, with its value; empty if there is none.

    `message` is any object with `get_fields_and_field_types`, as ROS messages have; arrays of
    numbers may be numpy arrays.
    """
    if isinstance(message, float):
        return "" if math.isfinite(message) else f"{path} is {message}"
    if hasattr(message, "get_fields_and_field_types"):
        kind: Any = type(message)
        for name in _fields(kind):
            found = not_finite(getattr(message, name), f"{path}.{name}" if path else name)
            if found:
                return found
    elif hasattr(message, "tolist"):
        return not_finite(message.tolist(), path)
    elif isinstance(message, list | tuple):
        for i, item in enumerate(message):
            found = not_finite(item, f"{path}[{i}]")
            if found:
                return found
    return ""


@cache
def _fields(kind: Any) -> tuple[str, ...]:
    """The fields in which there may be a number that is not finite."""
    types = kind.get_fields_and_field_types()
    return tuple(name for name, of in types.items() if not _ALWAYS_FINITE.fullmatch(of))
