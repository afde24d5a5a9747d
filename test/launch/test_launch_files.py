"""The launch files: importable without launch, and with it they bring a brain up and down."""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from waiting import wait_for

from brainos_ros import robot_file
from brainos_ros.cli import up
from brainos_ros.errors import BrainError

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
START_S, STOP_S = 60.0, 60.0
RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
service = LaunchService(noninteractive=True)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(sys.argv[1]),
    launch_arguments=[argument.split(":=", 1) for argument in sys.argv[2:]])]))
raise SystemExit(service.run())
"""


@pytest.mark.parametrize("file", sorted(LAUNCH.glob("*.launch.py")), ids=lambda file: file.stem)
def test_nothing_breaks_where_launch_is_missing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "launch", None)
    assert callable(run_path(str(file))["generate_launch_description"])


def command_of(file: str, monkeypatch: pytest.MonkeyPatch, **given: str) -> list[Any]:
    """What a launch file would run, where launch is not installed."""
    launch = ModuleType("launch")
    for name, module in (("launch", launch), ("launch.actions", launch),
                         ("launch_ros.substitutions", launch)):
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("ExecuteProcess", "ExecutableInPackage", "OpaqueFunction"):
        monkeypatch.setattr(launch, name, lambda **named: SimpleNamespace(**named), raising=False)
    launch.DeclareLaunchArgument = (  # type: ignore[attr-defined]
        lambda name, default_value, description: SimpleNamespace(name=name, default=default_value))
    launch.LaunchDescription = list  # type: ignore[attr-defined]
    *declared, run = run_path(str(LAUNCH / file))["generate_launch_description"]()
    unknown = given.keys() - {each.name for each in declared}
    assert not unknown
    configured = {each.name: each.default for each in declared} | given
    (process,) = run.function(SimpleNamespace(launch_configurations=configured))
    assert process.on_exit
    return list(process.cmd[1:])


def test_the_simulator_is_started_by_brainos_up(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ["up", "sim", "--log-level", "info"]
    assert command_of("brainos.launch.py", monkeypatch) == plain
    assert command_of("sim.launch.py", monkeypatch) == plain
    command = command_of("sim.launch.py", monkeypatch, people_file="/a #1: b.txt", namespace="r1",
                         people_time_step_s="1", params_file="given.yaml")
    parser = argparse.ArgumentParser()
    up.add_arguments(parser)
    args = parser.parse_args(command[1:])
    assert (args.robot, args.namespace, args.params_file) == ("sim", "r1", [Path("given.yaml")])
    assert [yaml.safe_load(each.partition(":=")[2]) for each in args.driver_parameter] == [
        "/a #1: b.txt", 1.0]
    robot = robot_file.load("sim", lambda package, name: ["true"])
    up._check_driver_parameters(robot, robot.driver, args.driver_parameter)


def test_a_wrong_time_step_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    command = command_of(
        "sim.launch.py", monkeypatch, people_file="people.txt", people_time_step_s="abc")
    robot = robot_file.load("sim", lambda package, name: ["true"])
    with pytest.raises(BrainError, match="parameter people_time_step_s is 'abc'; it must be a num"):
        up._check_driver_parameters(robot, robot.driver, command[-1:])


def test_without_a_simulator_the_launch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="robot:=example_base has no simulator; add the line"):
        command_of("sim.launch.py", monkeypatch, robot="example_base")


def launched(file: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """A launch file in a process of its own; skips where launch is not installed."""
    pytest.importorskip("launch_ros", reason="launch is not installed")
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if not any((Path(p) / "lib/brainos_ros/brainos").exists() for p in prefixes if p):
        pytest.skip("brainos_ros is not installed in this environment")
    return subprocess.Popen([sys.executable, "-c", RUN, str(LAUNCH / file), *arguments],
                            start_new_session=True)


def ended(launch: "subprocess.Popen[bytes]") -> int:
    try:
        return launch.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(launch.pid, signal.SIGKILL)
        raise


@pytest.mark.parametrize("file", ["brainos.launch.py", "sim.launch.py"])
def test_a_refusal_ends_the_launch(tmp_path: Path, file: str) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("/**:\n  ros__parameters:\n    heartbeat_period_s: -1.0\n")
    launch = launched(file, f"home:={tmp_path}", f"params_file:={wrong}")
    ended(launch)
    assert not commands_with(tmp_path), "everything ended"


def test_the_parameter_file_reaches_the_simulator(tmp_path: Path) -> None:
    given = tmp_path / "given.yaml"
    given.write_text("/**/sim_robot:\n  ros__parameters:\n    people_time_step_s: 0.5\n")
    launch = launched("sim.launch.py", f"home:={tmp_path}", f"params_file:={given}")
    try:
        wait_for(
            lambda: all(
                any(name in command for command in commands_with(given))
                for name in ("sim_robot", "watchdog.node")
            ),
            lambda: commands_with(given),
            START_S,
        )
    finally:
        launch.send_signal(signal.SIGINT)
        ended(launch)


@pytest.mark.parametrize("composed", ["false", "true"])
def test_launch_brings_a_brain_up_and_takes_it_down(tmp_path: Path, composed: str) -> None:
    rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here")
    from brainos_msgs.msg import ServiceLevel

    from brainos_ros.robot_file import load
    from brainos_ros.ros import qos

    assert load("sim").nodes
    launch = launched("brainos.launch.py", f"home:={tmp_path}", "driver:=false", "namespace:=r1",
                      f"use_composition:={composed}")
    rclpy.init()
    try:
        node = rclpy.create_node("listener", namespace="r1")
        level: Any = rclpy.task.Future()

        def hear(message: ServiceLevel) -> None:
            if message.level == ServiceLevel.ONLINE and not level.done():
                level.set_result(message)

        node.create_subscription(ServiceLevel, "service_level", hear, qos.STATE)
        rclpy.spin_until_future_complete(node, level, timeout_sec=START_S)
        assert level.done(), "the brain did not get online"
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
        launch.send_signal(signal.SIGINT)
        code = ended(launch)
    assert code == 0
    assert not commands_with(tmp_path), "everything ended"


def commands_with(path: Path) -> list[str]:
    """Command lines of processes that name this path."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue
        if str(path) in command:
            found.append(command)
    return found
