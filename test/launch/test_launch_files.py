"""The launch files: importable without launch, and with it they bring a brain up and down."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

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


@pytest.mark.parametrize("composed", ["false", "true"])
def test_launch_brings_a_brain_up_and_takes_it_down(tmp_path: Path, composed: str) -> None:
    pytest.importorskip("launch_ros", reason="launch is not installed")
    rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here")
    from brainos_msgs.msg import ServiceLevel

    from brainos_ros.robot_file import load
    from brainos_ros.ros import qos

    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if not any((Path(p) / "lib/brainos_ros/brainos").exists() for p in prefixes if p):
        pytest.skip("brainos_ros is not installed in this environment")
    assert load("sim").nodes
    launched = subprocess.Popen(
        [sys.executable, "-c", RUN, str(LAUNCH / "brainos.launch.py"), f"home:={tmp_path}",
         "driver:=false", "namespace:=r1", f"use_composition:={composed}"],
        start_new_session=True)
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
        launched.send_signal(signal.SIGINT)
        try:
            code = launched.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(launched.pid, signal.SIGKILL)
            raise
    assert code == 0
    assert not list(pids_of(tmp_path)), "everything ended"


def pids_of(home: Path) -> list[int]:
    """Processes with this home on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(home) in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found
