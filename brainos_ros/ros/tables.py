"""The parameters of this package's executables, for who checks a robot file.

They are described in the rooms; `python -m brainos_ros.ros.tables FILE` checks a robot file.
"""

import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

from brainos_ros import robot_file
from brainos_ros.errors import BrainError
from brainos_ros.ros.conversions import message_type
from brainos_ros.ros.lifecycle import COMMON
from brainos_ros.ros.parameters import Parameter

DRIVERS = {"sim_robot": "sim_parameters", "log_player": "log_player_node"}
ROS_OWN = (Parameter("use_sim_time", False, "take the time from /clock"),)


@cache
def table(package: str, executable: str) -> Mapping[str, Parameter] | None:
    """The parameters of an executable by name; None for those of other packages."""
    if package != "brainos_ros":
        return None
    if executable in DRIVERS:
        described = import_module(f"brainos_ros.robots.{DRIVERS[executable]}").PARAMETERS
    else:
        try:
            door = import_module(f"brainos_ros.{executable}.node")
        except ModuleNotFoundError:
            return None
        node = next(each for each in vars(door).values() if getattr(each, "role", "") == executable)
        described = (*COMMON, *node.parameters)
    return {parameter.name: parameter for parameter in (*ROS_OWN, *described)}


def check(path: Path) -> None:
    """Check a robot file in a process that ends: this one need not import the rooms.

    Raises `BrainError` with the line in the file.
    """
    command = [sys.executable, "-m", "brainos_ros.ros.tables", str(path)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise BrainError(done.stderr.strip())


def main() -> int:
    """Check a robot file, parameters and message types included; 2 and one line if it is wrong."""
    try:
        robot_file.load(sys.argv[1], find_type=message_type, find_table=table)
    except BrainError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
