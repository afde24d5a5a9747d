"""The robot file: one YAML file that says what a robot can do and which nodes think for it.

`load` reads and checks `config/robots/<name>.yaml`; every mistake is a `BrainError` that names
the file, line, field, value and what would be right. `config/robots/example_base.yaml` describes
every field.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from brainos_ros.checked_yaml import Place, compose, meant
from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robot_spec import (
    PARAMETER,
    STRATEGIES,
    Beat,
    Driver,
    Network,
    NodeSpec,
    Output,
    Restart,
    Robot,
)
from brainos_ros.shipped import places

_BASE = {  # field -> (lowest, highest, default; None: must be given)
    "footprint_radius_m": (0.01, 10.0, None),
    "max_speed_mps": (0.01, 20.0, None),
    "max_yaw_rate_radps": (0.01, 20.0, None),
    "acceleration_mps2": (0.01, 50.0, None),
    "deceleration_mps2": (0.01, 50.0, None),
    "actuation_delay_s": (0.0, 2.0, None),
    "command_timeout_s": (0.01, 5.0, None),
}
_PEOPLE = {
    "speed_mps": (0.0, 10.0, 2.5),
    "unrecognised_speed_mps": (0.0, 10.0, 2.5),
    "position_uncertainty_m": (0.0, 5.0, 0.1),
    "intrusion_m": (0.0, 5.0, 0.1),
}
_ELSEWHERE = {  # parameters of every node that the brain gives it -> where to say them
    "home": "give `brainos up` a --home, or set BRAINOS_HOME",
    "robot": "it is the robot file's `name`",
    "use_sim_time": "give `brainos up` --use-sim-time",
    "heartbeat_period_s": "write `heartbeat: {period_s: 0.1}` in the node's entry",
}
_TOPICS = {
    "cmd_vel_in": "cmd_vel_raw",
    "cmd_vel_out": "cmd_vel",
    "scan": "scan",
    "odom": "odom",
    "tracked_people": "tracked_people",
}


def folders() -> Iterator[Path]:
    """Where robot files are looked for by name: the working folder's config/robots, the source
    tree's, then the installed package's."""
    yield Path("config/robots").resolve()
    for place in places():
        yield place / "config/robots"


def find(robot: str) -> Path:
    """The file of a robot given by name (`sim`) or by path (`./mine.yaml`).

    Raises `BrainError` (NOT_FOUND) naming the robots there are.
    """
    if robot.endswith((".yaml", ".yml")) or os.sep in robot:
        if Path(robot).is_file():
            return Path(robot)
        raise BrainError(f"robot {robot!r}: no such file", ErrorCode.NOT_FOUND)
    names: set[str] = set()
    for folder in folders():
        if (folder / f"{robot}.yaml").is_file():
            return folder / f"{robot}.yaml"
        names |= {path.stem for path in folder.glob("*.yaml")}
    raise BrainError(f"robot {robot!r} is unknown{meant(robot, sorted(names))}",
                     ErrorCode.NOT_FOUND)


def executable(package: str, name: str) -> list[str] | None:
    """The command line that starts an executable of a package; None if there is none.

    Looked for as `ros2 run` does, in `lib/<package>/` of every prefix; an executable of this
    package that is not installed runs from the source tree.
    """
    if package == "brainos_ros":
        module = {
            "composed": "brainos_ros.ros.composed",
            "sim_robot": "brainos_ros.robots.sim_robot_node",
            "log_player": "brainos_ros.robots.log_player_node",
        }.get(name, f"brainos_ros.{name}.node")
        try:
            if importlib.util.find_spec(module):
                return [sys.executable, "-c", f"from {module} import main; main()"]
        except ModuleNotFoundError:
            pass
    for prefix in [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]:
        path = Path(prefix) / "lib" / package / name
        if prefix and os.access(path, os.X_OK):
            return [str(path)]
    return None


Finder = Callable[[str, str], Sequence[str] | None]
TypeFinder = Callable[[str], object]


class Described(Protocol):
    """A parameter that a node has."""

    def problem(self, value: object) -> str | None:
        """What is wrong with `value`, as a sentence; None if nothing."""


Table = Mapping[str, Described]
TableFinder = Callable[[str, str], Table | None]


def load(
    robot: str | Path,
    find_executable: Finder = executable,
    find_type: TypeFinder = lambda name: name,
    find_table: TableFinder = lambda package, name: None,
) -> Robot:
    """Read and check a robot file, given by name or path.

    For who has ROS: `find_type` finds a message type, None if there is none of that name;
    `find_table` the parameters of an executable by name, None if they are not known.

    Raises `BrainError` (NOT_FOUND) for an unknown robot and (INVALID_ARGUMENT) for a mistake in
    the file, with its line.
    """
    path = find(str(robot))
    top = compose(path)
    known = ("name", "base", "people", "topics", "network", "hardware", "composition", "driver",
             "nodes", "parameters")
    fields = top.fields(known)
    for must in ("name", "base", "nodes"):
        if must not in fields:
            raise top.wrong(f"the field {must!r} is missing")
    base = fields["base"].fields(list(_BASE))
    people = fields["people"].fields(list(_PEOPLE)) if "people" in fields else {}
    for must in _BASE:
        if must not in base:
            low, high, _ = _BASE[must]
            raise fields["base"].wrong(
                f"the field {must!r} is missing; give a number from {low:g} to {high:g}")
    driver = _driver(fields["driver"], find_executable, find_table) if "driver" in fields else None
    nodes = _nodes(fields["nodes"], find_executable, find_type, find_table)
    everybody = [(each.package, each.executable) for each in nodes.values()]
    everybody += [(driver.package, driver.executable)] if driver else []
    tables = [find_table(*each) for each in everybody]

    def measure(place: Place, name: str, low: float, high: float) -> float:
        value = place.number(low, high)
        _must_suit(place, name, value, tables)
        return value

    return Robot(
        name=fields["name"].ros_name(),
        path=path,
        base={key: measure(base[key], key, low, high) for key, (low, high, _) in _BASE.items()},
        people={
            key: measure(people[key], PARAMETER.get(key, key), low, high)
            if key in people else default
            for key, (low, high, default) in _PEOPLE.items()
        },
        topics=_topics(fields["topics"]) if "topics" in fields else _TOPICS,
        network=_network(fields["network"]) if "network" in fields else Network(),
        hardware=tuple(item.text() for item in fields["hardware"].items())
        if "hardware" in fields else ("cpu",),
        composition=fields["composition"].flag() if "composition" in fields else False,
        driver=driver,
        nodes=nodes,
        parameters=_parameters(fields, tables),
    )


def _must_suit(place: Place, name: str, value: object, tables: Sequence[Table | None]) -> None:
    """Whoever has the parameter `name` must take this value."""
    for table in filter(None, tables):
        if name in table and (problem := table[name].problem(value)):
            raise place.wrong(problem)


def _parameters(fields: Mapping[str, Place], tables: Sequence[Table | None]) -> dict[str, Any]:
    """Those under `parameters`, for executables with these tables; one must know each."""
    if "parameters" not in fields:
        return {}
    names = sorted({name for table in filter(None, tables) for name in table})
    given = fields["parameters"].fields(None if None in tables else names)
    for name, at in given.items():
        if name in _ELSEWHERE:
            raise at.wrong(f"{name!r} is no parameter to give here; {_ELSEWHERE[name]}")
        _must_suit(at, name, at.value(), tables)
    return {name: at.value() for name, at in given.items()}


def _topics(place: Place) -> dict[str, str]:
    fields, topics = place.fields(list(_TOPICS)), dict(_TOPICS)
    for key, at in fields.items():
        nobody = key == "tracked_people" and at.value() == ""
        topics[key] = "" if nobody else at.topic()
    for key, at in fields.items():
        for other, name in topics.items():
            if other != key and name.lstrip("/") == topics[key].lstrip("/"):
                raise at.wrong(f"{name!r} is {other} too; give each a topic of its own")
    return topics


def _network(place: Place) -> Network:
    fields = place.fields(list(Network.__dataclass_fields__))
    given: dict[str, Any] = {}
    if "reach" in fields:
        given["reach"] = tuple(_address(item) for item in fields["reach"].items())
    if "period_s" in fields:
        given["period_s"] = fields["period_s"].number(0.1, 3600)
    if "misses" in fields:
        given["misses"] = fields["misses"].whole(1, 100)
    return Network(**given)


def _address(place: Place) -> str:
    host, _, port = place.text().rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise place.wrong(f"{place.value()!r} is not host:port; write e.g. 10.0.0.2:22")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise place.wrong(f"{host!r} cannot be a host's name ({error}); "
                          "write e.g. 10.0.0.2:22") from error
    return place.text()


def _driver(place: Place, find_executable: Finder, find_table: TableFinder) -> Driver:
    fields = place.fields(("executable", "package", "parameters"))
    if "executable" not in fields:
        raise place.wrong("the field 'executable' is missing; e.g. sim_robot")
    name = fields["executable"].text()
    package = fields["package"].text() if "package" in fields else "brainos_ros"
    _must_exist(fields["executable"], package, name, find_executable)
    return Driver(name, package, _parameters(fields, [find_table(package, name)]))


def _must_exist(place: Place, package: str, name: str, find_executable: Finder) -> None:
    if find_executable(package, name) is None:
        raise place.wrong(
            f"package {package!r} has no executable {name!r}; build and source the package, "
            f"or name one that `ros2 pkg executables {package}` lists")


def _nodes(
    place: Place, find_executable: Finder, find_type: TypeFinder, find_table: TableFinder
) -> dict[str, NodeSpec]:
    places = place.fields()
    if not places:
        raise place.wrong("there are no nodes; name at least one, e.g. `memory: {}`")
    nodes = {role: _node(role, at, list(places), find_executable, find_type, find_table)
             for role, at in places.items()}
    for role, spec in nodes.items():
        if spec.standby and f"{role}_standby" in nodes:
            raise places[f"{role}_standby"].wrong(
                f"the stand-by of {role!r} has this name; give this role another, or {role!r} "
                "`standby: false`")
    _refuse_cycle(nodes, places)
    return nodes


def _node(role: str, place: Place, roles: list[str], find_executable: Finder,
          find_type: TypeFinder, find_table: TableFinder) -> NodeSpec:
    if role == "watchdog":
        raise place.wrong("the watchdog is not one of its own nodes; remove this entry")
    place.ros_name(role)
    fields = place.fields(("package", "executable", "after", "standby", "essential", "configure_s",
                           "restart", "heartbeat", "outputs", "parameters"))
    package = fields["package"].text() if "package" in fields else "brainos_ros"
    name = fields["executable"].text() if "executable" in fields else role
    _must_exist(fields.get("executable", place), package, name, find_executable)
    return NodeSpec(
        role=role,
        package=package,
        executable=name,
        after=tuple(item.choice(roles) for item in fields["after"].items())
        if "after" in fields else (),
        standby=fields["standby"].flag() if "standby" in fields else False,
        essential=fields["essential"].flag() if "essential" in fields else False,
        configure_s=fields["configure_s"].number(0.1, 600) if "configure_s" in fields else 20.0,
        restart=_restart(fields["restart"]) if "restart" in fields else Restart(),
        heartbeat=_beat(fields["heartbeat"]) if "heartbeat" in fields else Beat(),
        outputs=tuple(_output(item, find_type) for item in fields["outputs"].items())
        if "outputs" in fields else (),
        parameters=_parameters(fields, [find_table(package, name)]),
    )


def _restart(place: Place) -> Restart:
    fields = place.fields(list(Restart.__dataclass_fields__))
    given: dict[str, Any] = {
        key: at.number(low, 86400)
        for key, low in (("window_s", 0.1), ("backoff_s", 0.0), ("backoff_max_s", 0.0),
                         ("stable_s", 0.0))
        if (at := fields.get(key))
    }
    if "strategy" in fields:
        given["strategy"] = fields["strategy"].choice(STRATEGIES)
    if "max_restarts" in fields:
        given["max_restarts"] = fields["max_restarts"].whole(0, 1000)
    restart = Restart(**given)
    if restart.backoff_max_s < restart.backoff_s:
        raise fields.get("backoff_max_s", place).wrong(
            f"backoff_max_s {restart.backoff_max_s:g} is less than backoff_s "
            f"{restart.backoff_s:g}; give at least that")
    return restart


def _beat(place: Place) -> Beat:
    fields = place.fields(list(Beat.__dataclass_fields__))
    given: dict[str, Any] = {
        key: at.number(low, high)
        for key, low, high in (("period_s", 0.01, 10), ("grace_s", 0.1, 600))
        if (at := fields.get(key))
    }
    if "misses" in fields:
        given["misses"] = fields["misses"].whole(1, 100)
    return Beat(**given)


def _output(place: Place, find_type: TypeFinder) -> Output:
    fields = place.fields(list(Output.__dataclass_fields__))
    for must in ("topic", "type", "period_s"):
        if must not in fields:
            raise place.wrong(f"the field {must!r} is missing")
    package, _, name = fields["type"].text().partition("/msg/")
    if not (package.isidentifier() and name.isidentifier()):
        raise fields["type"].wrong(f"{fields['type'].text()!r} is not a message type; "
                                   "write e.g. geometry_msgs/msg/Twist")
    if find_type(fields["type"].text()) is None:
        raise fields["type"].wrong(f"package {package!r} has no message {name!r}; build and source "
                                   "it, or name one that `ros2 interface list -m` lists")
    return Output(
        topic=fields["topic"].topic(),
        type=fields["type"].text(),
        period_s=fields["period_s"].number(0.001, 3600),
    )


def _refuse_cycle(nodes: Mapping[str, NodeSpec], places: Mapping[str, Place]) -> None:
    done: set[str] = set()

    def visit(role: str, trail: list[str]) -> None:
        if role in trail:
            circle = [*trail[trail.index(role):], role]
            at = places[circle[-2]].fields()["after"]
            raise at.wrong(f"a cycle: {' after '.join(circle)}; take one of them out")
        if role not in done:
            for earlier in nodes[role].after:
                visit(earlier, [*trail, role])
            done.add(role)

    for role in nodes:
        visit(role, [])
