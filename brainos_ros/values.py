"""Values that come with a name: what decisions, learning and the memory can use of them."""

import math
from collections.abc import Mapping
from typing import Any

from brainos_ros.errors import BrainError


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, and in lists each: 1 and 1.0 are the same, 1 and true not."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def check_values(field: str, values: Mapping[str, Any]) -> None:
    """Raise BrainError naming `field` and the key of a value that is bytes or not finite."""
    for key, value in values.items():
        if isinstance(value, bytes):
            raise BrainError(f"{field}: `{key}` is bytes; give text, numbers or booleans")
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, float) and not math.isfinite(each):
                raise BrainError(f"{field}: `{key}` is {each}, must be finite")
