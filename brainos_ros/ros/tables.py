"""The parameters of this package's executables, for who checks a robot file.

The nodes describe them. `scripts/parameters.py` wrote that down in `config/parameters.json`: to
check a file, nobody has to import the rooms, which takes a second.
"""

import json
from collections.abc import Mapping
from functools import cache

from brainos_ros.ros.parameters import Parameter
from brainos_ros.shipped import shipped


def table(package: str, executable: str) -> Mapping[str, Parameter] | None:
    """The parameters of an executable by name; None where they are not known."""
    return _tables().get(executable) if package == "brainos_ros" else None


@cache
def _tables() -> Mapping[str, Mapping[str, Parameter]]:
    written = json.loads(shipped("parameters.json").read_text())
    return {
        executable: {each["name"]: Parameter(**each) for each in described}
        for executable, described in written.items()
    }
