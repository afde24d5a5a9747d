"""YAML for ROS parameters: texts between quotes.

rcl takes more plain texts for something else than PyYAML does: `n` is false to it, `nan` a number.
"""

import math
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Puts every text between quotes."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar(
    "tag:yaml.org,2002:str", text, style='"'))


def dump(value: str | dict[str, Any]) -> str:
    """A text, or the content of a parameters file, so that rcl reads back what was meant."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=math.inf).rstrip("\n")
