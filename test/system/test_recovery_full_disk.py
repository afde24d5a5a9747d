"""A full disk: the watchdog comes back on it, adopts, and its records follow when space returns."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 40.0
ROBOT = """\
name: test
base: {footprint_radius_m: 0.3, max_speed_mps: 1, max_yaw_rate_radps: 1.5, acceleration_mps2: 1,
       deceleration_mps2: 2, actuation_delay_s: 0.05, command_timeout_s: 0.3}
nodes: {world_model: {}}
"""


@pytest.fixture
def small_home(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB that the brain has for itself."""
    home = tmp_path / "small"
    home.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(home)],
        check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system needs the right to mount")
    yield home
    subprocess.run(["umount", "-l", str(home)], check=True)


def wait_for(holds: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.02)  # other processes act; nothing tells this one


def test_the_watchdog_comes_back_on_a_full_disk(small_home: Path, tmp_path: Path) -> None:
    log, robot = tmp_path / "up.log", tmp_path / "test.yaml"
    robot.write_text(ROBOT)
    up = subprocess.Popen(
        [sys.executable, "-m", "brainos_ros.cli.main", "up", str(robot), "--home", str(small_home)],
        cwd=ROOT, stdout=log.open("wb"), stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: "service level ONLINE" in log.read_text(), log)
        pids = (small_home / "watchdog/processes.json").read_text()
        filler = small_home / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                pass
        children = Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        wait_for(lambda: "world_model lives already and is adopted" in log.read_text(), log)
        wait_for(lambda: log.read_text().count("service level ONLINE") == 2, log)
        filler.unlink()
        assert json.loads(pids) == json.loads((small_home / "watchdog/processes.json").read_text())
        assert up.poll() is None
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(LIMIT_S) == 0
