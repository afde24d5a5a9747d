"""A full disk: the watchdog comes back on it, adopts, and its records follow when space returns."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disk import fill, small_disk
from whole_brain import BASE, Brain

from brainos_ros.ledger.layout import Layout
from brainos_ros.ledger.log import frames_from, to_record

pytest.importorskip("rclpy", reason="no ROS 2 here")


@pytest.fixture
def small_home(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "64m") as home:
        yield home


def test_the_watchdog_comes_back_on_a_full_disk(small_home: Path, tmp_path: Path) -> None:
    brain = Brain(tmp_path, BASE + "  world_model: {}\n", small_home)
    try:
        brain.said("service level ONLINE")
        pids = brain.pids()
        ballast = fill(small_home)
        os.kill(brain.watchdog(), signal.SIGKILL)
        brain.said("world_model lives already and is adopted")
        brain.said("service level ONLINE", 2)
        ballast.unlink()
        assert brain.pids() == pids, "no healthy node was restarted"
        assert brain.up.poll() is None
    finally:
        assert brain.stop() == 0
    frames = frames_from(Layout(small_home / "ledger" / "watchdog"), 0)
    assert "adopted" in [to_record(frame).kind for frame in frames]


def test_nodes_given_up_on_a_full_disk_come_back_when_space_returns(
    small_home: Path, tmp_path: Path
) -> None:
    roles = ("memory", "world_model", "genome_sync", "pfc")
    once = "{restart: {max_restarts: 0}, heartbeat: {grace_s: 30}}"
    nodes = "".join(f"  {role}: {once}\n" for role in roles)
    brain = Brain(tmp_path, BASE + nodes, small_home)
    brain.said("service level ONLINE")
    assert brain.stop() == 0, "an orderly end leaves no store open and no segment allocated"
    ballast = fill(small_home)
    brain = Brain(tmp_path, BASE + nodes, small_home)
    try:
        for role in roles:
            brain.said(f"[watchdog]: {role} failed: could not")
        brain.said("given up after", len(roles))
        ballast.unlink()
        brain.said("service level ONLINE")
    finally:
        assert brain.stop() == 0


def test_a_conscience_killed_on_a_full_disk_comes_back_and_halts(
    small_home: Path, tmp_path: Path
) -> None:
    brain = Brain(tmp_path, BASE + "  conscience: {}\n", small_home)
    try:
        brain.said("service level ONLINE")
        fill(small_home)
        os.kill(brain.pids()["conscience"], signal.SIGKILL)
        brain.said("conscience works again")
        halt = [sys.executable, "-m", "brainos_ros.cli.main", "halt", "--timeout", "20"]
        assert subprocess.run(halt, check=False).returncode == 0
    finally:
        assert brain.stop() == 0
