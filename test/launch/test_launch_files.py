"""The launch files: importable without launch, and with it they bring a brain up and down."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
from waiting import wait_for

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
