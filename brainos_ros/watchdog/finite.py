"""Is every number in a message finite?"""

import math
from typing import Any


def not_finite(message: Any, path: str = "") -> str:
    """The first field that is NaN or infinite, with its value; empty if there is none.

    `message` is any object with `get_fields_and_field_types`, as ROS messages have; arrays of
    numbers may be numpy arrays.
    """
    if isinstance(message, float):
        return "" if math.isfinite(message) else f"{path} is {message}"
    if hasattr(message, "get_fields_and_field_types"):
        for name in message.get_fields_and_field_types():
            found = not_finite(getattr(message, name), f"{path}.{name}".lstrip("."))
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
