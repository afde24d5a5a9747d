"""The rules of the house: only the doors import ROS, and no room imports another."""

import ast
import re
import sys
from pathlib import Path

import pytest

from brainos_ros.ledger.kinds import EVENTS

PACKAGE = Path(__file__).parents[2] / "brainos_ros"
ROOMS = {"pfc", "conscience", "memory", "world_model", "genome_sync", "watchdog"}
DOORS = {"ros", "robots", "cli"}
ROS_PACKAGES = ("rclpy", "rcl_interfaces", "builtin_interfaces", "ament_index_python", "tf2_ros")
MODULES = sorted(PACKAGE.rglob("*.py"))
DISTRIBUTIONS = {"cel": "common-expression-language", "yaml": "PyYAML"}
RECORDS = {"record", "_record", "event"}
OPTIONAL = {"nacl", "tf2_ros"}


def imports(path: Path) -> set[str]:
    """Dotted names of everything `path` imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; use the full name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return names


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_doors_import_ros(path: Path) -> None:
    if path.name == "node.py" or room_of(path) in DOORS:
        return
    ros = {
        name
        for name in imports(path)
        if name.split(".")[0] in ROS_PACKAGES
        or name.split(".")[0].endswith("_msgs")
        or name.startswith("brainos_ros.ros")
    }
    assert not ros


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_room_imports_another(path: Path) -> None:
    room = room_of(path)
    if room in DOORS:
        return
    others = ROOMS - {room} if room in ROOMS else ROOMS
    foreign = {
        name
        for name in imports(path)
        if name.startswith("brainos_ros.") and name.split(".")[1] in others
    }
    assert not foreign


def test_every_import_is_declared_and_nothing_else() -> None:
    listed = (PACKAGE.parent / "scripts/requirements-runtime.txt").read_text()
    libraries = {line.split("#")[0].strip() for line in listed.splitlines()} - {""}
    libraries = {re.split("[=<>]", line)[0] for line in libraries}
    packages = set(re.findall("<exec_depend>(.+)</exec_depend>",
                              (PACKAGE.parent / "package.xml").read_text()))
    imported = {name.split(".")[0] for path in MODULES for name in imports(path)}
    imported -= {"", "brainos_ros", *OPTIONAL, *sys.stdlib_module_names}
    named = {DISTRIBUTIONS.get(name, name) for name in imported}
    assert named <= libraries | packages
    assert libraries <= named


def test_the_error_codes_are_those_of_the_message() -> None:
    from brainos_ros.errors import ErrorCode

    text = (PACKAGE.parent / "brainos_msgs/msg/ErrorCode.msg").read_text()
    lines = [line.split("#")[0].split() for line in text.splitlines()]
    constants = dict(line[1].split("=") for line in lines if line)
    assert {name: int(value) for name, value in constants.items()} == {
        code.name: code.value for code in ErrorCode
    }


def test_every_interface_field_has_a_comment() -> None:
    interfaces = [
        path
        for kind in ("msg", "srv", "action")
        for path in (PACKAGE.parent / "brainos_msgs" / kind).iterdir()
    ]
    assert len(interfaces) > 60
    for path in interfaces:
        lines = path.read_text().splitlines()
        assert lines[0].startswith("# "), f"{path.name} does not say what it is"
        for line in lines:
            bare = not line.strip() or line.startswith("#") or line == "---"
            assert bare or "#" in line, f"{path.name}: no comment on {line!r}"


def test_every_reply_carries_the_result_convention() -> None:
    for kind in ("srv", "action"):
        for path in (PACKAGE.parent / "brainos_msgs" / kind).iterdir():
            reply = path.read_text().split("---")[1]
            fields = [line.split()[:2] for line in reply.split("\n") if line.strip()][:3]
            assert fields == [["bool", "success"], ["uint16", "error_code"], ["string", "message"]]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_rooms_stay_liveable(path: Path) -> None:
    about = 300 if path.name == "node.py" else 400
    assert len(path.read_text().splitlines()) <= about * 1.1


def recorded(path: Path) -> set[str]:
    """The kinds of records that `path` has written: literals given to a call of that name."""
    return {
        text.value
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and call.args
        and isinstance(call.func, ast.Attribute | ast.Name)
        and getattr(call.func, "attr", getattr(call.func, "id", "")) in RECORDS
        for text in ast.walk(call.args[0])
        if isinstance(text, ast.Constant) and isinstance(text.value, str)
    }


def test_the_ledger_has_every_kind_that_is_recorded() -> None:
    found = {kind for path in MODULES for kind in recorded(path)}
    assert {"decision", "evaluation", "service_level", "tried_again"} <= found
    assert not found - EVENTS.keys()
