"""The robot file: every mistake is refused with its line, field, value and what would be right."""

from pathlib import Path

import pytest

from brainos_ros import robot_file
from brainos_ros.errors import BrainError, ErrorCode

CONFIG = Path(__file__).resolve().parents[2] / "config/robots"
GOOD = """\
name: test
base:
  footprint_radius_m: 0.3
  max_speed_mps: 1
  max_yaw_rate_radps: 1.5
  acceleration_mps2: 1.0
  deceleration_mps2: 2.0
  actuation_delay_s: 0.05
  command_timeout_s: 0.3
nodes:
  memory:
    heartbeat: {period_s: 0.1, misses: 3}
  pfc:
    after: [memory]
    parameters: {depth: 3}
"""


def anything(package: str, name: str) -> list[str] | None:
    return None if name == "missing" else ["true"]


def written(folder: Path, text: str) -> Path:
    path = folder / "robot.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_robot_that_is_shipped_loads(path: Path) -> None:
    robot = robot_file.load(path, anything)
    assert robot.name == path.stem
    assert "pfc" in robot.nodes


def test_what_is_given_and_what_is_left_out(tmp_path: Path) -> None:
    robot = robot_file.load(written(tmp_path, GOOD), anything)
    assert robot.base["max_speed_mps"] == 1.0
    assert robot.nodes["pfc"].after == ("memory",)
    assert robot.nodes["pfc"].executable == "pfc"
    assert robot.nodes["pfc"].parameters == {"depth": 3}
    shared = robot.shared_parameters()
    assert shared["person_speed_mps"] == 2.5
    assert shared["cmd_vel_in_topic"] == "cmd_vel_raw"
    assert shared["hardware"] == ["cpu"]


@pytest.mark.parametrize(("old", "new", "line", "words"), [
    ("nodes:", "network: {reach: [fleet.local]}\nnodes:", 10,
     ["network.reach[0]", "'fleet.local'", "host:port"]),
    ("nodes:", "network: {reach: ['a..b:22']}\nnodes:", 10, ["'a..b'", "host's name"]),
    ("nodes:", "network: {reach: ['a:²']}\nnodes:", 10, ["'a:²'", "host:port"]),
    ("nodes:", "network: {period_s: 0}\nnodes:", 10, ["network.period_s", "0.1 to 3600"]),
    ("after: [memory]", "after: [memry]", 14, ["nodes.pfc.after[0]", "'memry'", "'memory'"]),
    ("  memory:\n", "  memory:\n    after: [pfc]\n", 15,
     ["cycle", "memory after pfc after memory"]),
    ("  pfc:\n", "  pfc:\n    executable: missing\n", 14, ["'missing'", "brainos_ros"]),
    ("period_s: 0.1", "period_s: -0.1", 12, ["heartbeat.period_s", "-0.1", "0.01 to 10"]),
    ("max_speed_mps: 1", "max_speed_mps: fast", 4, ["base.max_speed_mps", "'fast'", "number"]),
    ("max_speed_mps: 1", "max_speed_mps: .nan", 4, ["nan"]),
    ("max_speed_mps: 1", "max_speed_mps: true", 4, ["True"]),
    ("  max_speed_mps: 1\n", "", 3, ["max_speed_mps", "missing"]),
    ("misses: 3", "misses: 2.5", 12, ["whole number"]),
    ("misses: 3", "mises: 3", 12, ["'mises'", "did you mean 'misses'"]),
    ("name: test\n", "name: test\nname: other\n", 2, ["twice"]),
    ("name: test\n", "", 1, ["'name'", "missing"]),
    ("name: test", "name: [", 3, ["not YAML"]),
    ("after: [memory]", "after: memory", 14, ["not a list"]),
    ("after: [memory]", "restart: {strategy: one4one}", 14, ["one4one", "one_for_one"]),
    ("after: [memory]", "restart: {backoff_s: 9, backoff_max_s: 1}", 14, ["at least"]),
    ("after: [memory]", "outputs: [{topic: a, type: Twist, period_s: 1}]", 14, ["geometry_msgs"]),
    ("after: [memory]", "outputs: [{topic: a, type: /msg/Twist, period_s: 1}]", 14,
     ["geometry_msgs"]),
    ("after: [memory]", "outputs: [{topic: a, type: geometry_msgs/msg/Twst, period_s: 1}]", 14,
     ["nodes.pfc.outputs[0].type", "'Twst'", "ros2 interface list"]),
    ("  pfc:\n", "  pfc_standby: {}\n  pfc:\n    standby: true\n", 13,
     ["nodes.pfc_standby", "stand-by of 'pfc'", "standby: false"]),
    ("after: [memory]", "standby: maybe", 14, ["true nor false"]),
    ("  pfc:", "  watchdog:", 14, ["watchdog"]),
    ("name: test", "name: ../../evil", 1, ["name", "'../../evil'", "letters, digits and _"]),
    ("depth: 3", "heartbeat_period_s: 5.0", 15,
     ["nodes.pfc.parameters.heartbeat_period_s", "heartbeat: {period_s: 0.1}"]),
    ("nodes:", "parameters: {home: /tmp/x}\nnodes:", 10, ["parameters.home", "--home"]),
    ("name: test", "name: !!bool maybe", 1, ["name", "'maybe'", "cannot be read"]),
    ("name: test", "name: !!int ''", 1, ["name", "cannot be read"]),
    ("name: test", "name: !!timestamp foo", 1, ["name", "'foo'", "cannot be read"]),
    ("name: test", "name: 2026-13-45", 1, ["name", "'2026-13-45'", "between quotes"]),
    ("name: test", "name: !!python/object:os.system {}", 1, ["name", "python/object", "plain"]),
    ("max_speed_mps: 1", f"max_speed_mps: 1{'0' * 400}", 4, ["base.max_speed_mps", "0.01 to 20"]),
    ("  pfc:", "  bad role/..:", 14, ["'bad role/..'", "letters, digits and _"]),
    ("nodes:", "topics: {scan: bad topic}\nnodes:", 10, ["topics.scan", "'bad topic'", "e.g."]),
    ("nodes:", "topics: {scan: ''}\nnodes:", 10, ["topics.scan", "''"]),
    ("nodes:", "topics: {cmd_vel_in: /cmd_vel}\nnodes:", 10,
     ["topics.cmd_vel_in", "'cmd_vel'", "cmd_vel_out", "of its own"]),
    ("after: [memory]", "outputs: [{topic: a b, type: std_msgs/msg/Empty, period_s: 1}]", 14,
     ["outputs[0].topic", "'a b'"]),
])
def test_a_mistake_names_its_line(
    tmp_path: Path, old: str, new: str, line: int, words: list[str]
) -> None:
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(BrainError) as refused:
        robot_file.load(path, anything, lambda name: None if name.endswith("Twst") else name)
    message = str(refused.value)
    assert message.startswith(f"{path}:{line}:"), message
    for word in words:
        assert word in message


@pytest.mark.parametrize(("bytes_", "what"), [
    (b"\xff", "not UTF-8: byte 0xff"), (b"\x01", "not YAML: character 0x01")])
def test_what_is_no_text_names_its_line(tmp_path: Path, bytes_: bytes, what: str) -> None:
    path = tmp_path / "robot.yaml"
    path.write_bytes(b"name: test\nbase:  # " + bytes_ + b"\n")
    with pytest.raises(BrainError) as refused:
        robot_file.load(path, anything)
    assert str(refused.value) == f"{path}:2: {what}"


class AtMost(int):
    def problem(self, value: object) -> str | None:
        return None if isinstance(value, int) and value <= self else f"it must be at most {self}"


@pytest.mark.parametrize(("old", "new", "line", "words"), [
    ("depth: 3", "dpeth: 3", 15, ["nodes.pfc.parameters", "'dpeth'", "did you mean 'depth'"]),
    ("depth: 3", "depth: 9", 15, ["nodes.pfc.parameters.depth", "at most 5"]),
    ("nodes:", "parameters: {dpeth: 3}\nnodes:", 10, ["parameters", "did you mean 'depth'"]),
    ("nodes:", "parameters: {depth: null}\nnodes:", 10, ["parameters.depth", "at most 5"]),
    ("nodes:", "driver: {executable: x, parameters: {depth: 9}}\nnodes:", 10,
     ["driver.parameters.depth", "at most 5"]),
])
def test_parameters_are_checked_against_the_tables_of_the_nodes(
    tmp_path: Path, old: str, new: str, line: int, words: list[str]
) -> None:
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(BrainError) as refused:
        robot_file.load(path, anything, find_table=lambda package, name: {"depth": AtMost(5)})
    message = str(refused.value)
    assert message.startswith(f"{path}:{line}:"), message
    for word in words:
        assert word in message


@pytest.mark.parametrize(("old", "new", "name", "line"), [
    ("max_speed_mps: 1", "max_speed_mps: 2", "base.max_speed_mps", 4),
    ("nodes:", "people: {speed_mps: 2}\nnodes:", "people.speed_mps", 10),
])
def test_what_the_robot_is_like_must_suit_whoever_reads_it(
    tmp_path: Path, old: str, new: str, name: str, line: int
) -> None:
    path = written(tmp_path, GOOD.replace(old, new, 1))

    class One(str):
        def problem(self, value: object) -> str | None:
            return None if value == 1.0 else f"it must be 1, not {value}"

    table = {"max_speed_mps": One(), "person_speed_mps": One(), "depth": AtMost(5)}
    with pytest.raises(BrainError, match=f"{path}:{line}: {name}: it must be 1, not 2"):
        robot_file.load(path, anything, find_table=lambda package, name: table)


def test_parameters_of_who_has_no_table_are_taken_as_they_are(tmp_path: Path) -> None:
    text = GOOD.replace("nodes:", "parameters: {other: {depth: 9}}\nnodes:")
    robot = robot_file.load(written(tmp_path, text), anything)
    assert robot.parameters == {"other": {"depth": 9}}


def test_nobody_need_track_people(tmp_path: Path) -> None:
    text = GOOD.replace("nodes:", "topics: {tracked_people: ''}\nnodes:")
    robot = robot_file.load(written(tmp_path, text), anything)
    assert robot.shared_parameters()["tracked_people_topic"] == ""


def test_an_unknown_robot_lists_those_there_are() -> None:
    with pytest.raises(BrainError, match="did you mean 'sim'") as refused:
        robot_file.find("simm")
    assert refused.value.code is ErrorCode.NOT_FOUND


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(BrainError, match="empty"):
        robot_file.load(written(tmp_path, ""), anything)
