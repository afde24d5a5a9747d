"""A brain that is cut off says so and works on."""

import os
import signal
import socket
from pathlib import Path

import pytest
from whole_brain import BASE, Brain

pytest.importorskip("rclpy", reason="no ROS 2 here")


def test_cut_off_it_is_offline_and_still_recovers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as fleet:
        port = fleet.getsockname()[1]
        network = f"network: {{reach: ['127.0.0.1:{port}'], period_s: 0.2}}\n"
        brain = Brain(tmp_path, network + BASE + "  memory: {}\n")
        brain.said("service level ONLINE")
    try:
        brain.said(f"service level OFFLINE: cut off: no answer from 127.0.0.1:{port}")
        os.kill(brain.pids()["memory"], signal.SIGKILL)
        brain.said("memory works again")
        brain.said("service level OFFLINE", 2)
        with socket.create_server(("127.0.0.1", port)):
            brain.said("service level ONLINE", 2)
    finally:
        assert brain.stop() == 0
