"""From a robot file to command lines: what is started, with which parameters and remaps."""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainos_ros import quoted_yaml
from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robot_file import executable
from brainos_ros.robot_spec import Robot

COMPOSABLE = ("conscience", "memory", "world_model", "genome_sync", "pfc")


@dataclass(frozen=True)
class Command:
    """How one process is started, and by what its like is recognised when it already runs."""

    argv: tuple[str, ...]
    marks: tuple[str, ...]


def nodes(robot: Robot, composed: bool) -> Iterator[tuple[str, str]]:
    """(node name, role) of every node that is started, stand-bys included."""
    for role, spec in robot.nodes.items():
        yield role, role
        if spec.standby and not composed:
            yield f"{role}_standby", role


def parameters(robot: Robot, home: Path, use_sim_time: bool, composed: bool) -> dict[str, Any]:
    """The content of the ROS parameters file for all nodes of this robot."""
    shared = {
        **robot.shared_parameters(),
        "robot": robot.name,
        "home": str(home),
        "use_sim_time": use_sim_time,
    }
    sections: dict[str, Any] = {"/**": {"ros__parameters": shared}}
    for name, role in nodes(robot, composed):
        spec = robot.nodes[role]
        own = {"heartbeat_period_s": spec.heartbeat.period_s, **spec.parameters}
        sections[f"/**/{name}"] = {"ros__parameters": own}
    return sections


def write_parameters(path: Path, content: Mapping[str, Any]) -> bool:
    """Replace the file, unless it says so already: a watchdog must come back on a full disk.

    Returns whether it said something else. Raises OSError if the file cannot be written.
    """
    text = quoted_yaml.dump(dict(content)) + "\n"
    if path.is_file() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)
    return True


def commands(
    robot: Robot, parameters_file: Path, passed_on: Sequence[str], composed: bool
) -> dict[str, Command]:
    """Process name -> command. `passed_on` are ROS arguments for every node.

    Raises `BrainError`: NOT_FOUND for an executable that is not there, INVALID_ARGUMENT for a
    node that cannot be composed.
    """
    common = ("--ros-args", "--params-file", str(parameters_file), *passed_on)
    if composed:
        for role, spec in robot.nodes.items():
            ours = spec.package == "brainos_ros" and spec.executable == role
            if not ours or role not in COMPOSABLE:
                raise BrainError(
                    f"{role!r} cannot be in one process with the rest, only "
                    f"{', '.join(COMPOSABLE)} can; leave composition out",
                    ErrorCode.INVALID_ARGUMENT)
        return {"composed": _command("brainos_ros", "composed", common)}
    found = {}
    for name, role in nodes(robot, composed):
        spec = robot.nodes[role]
        rename = () if name == role == spec.executable else ("-r", f"__node:={name}")
        found[name] = _command(spec.package, spec.executable, (*common, *rename))
    return found


def _command(package: str, name: str, arguments: Sequence[str]) -> Command:
    argv = executable(package, name)
    if argv is None:
        raise BrainError(f"package {package!r} has no executable {name!r}", ErrorCode.NOT_FOUND)
    return Command((*argv, *arguments), (argv[-1], f"lib{os.sep}{package}{os.sep}{name}"))


def passed_on(arguments: Sequence[str]) -> list[str]:
    """What of the watchdog's own ROS arguments goes to every node: remaps except of its own name,
    parameter files and log levels."""
    given = list(arguments)
    if "--ros-args" not in given:
        return []
    given = given[given.index("--ros-args") + 1:]
    if "--" in given:
        given = given[: given.index("--")]
    kept: list[str] = []
    for flag, value in itertools.pairwise(given):
        own_name = value.startswith(("__node:=", "__name:="))
        if flag in ("-r", "--remap", "--params-file", "--log-level", "--enclave") and not own_name:
            kept += [flag, value]
    return kept
