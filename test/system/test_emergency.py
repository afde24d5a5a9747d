"""EMERGENCY in a whole brain stops the robot through the conscience until all is well again."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from whole_brain import ROOT, Brain

pytest.importorskip("rclpy", reason="no ROS 2 here")
pytest.importorskip("mujoco", reason="MuJoCo is not installed")

from brainos_msgs import msg
from geometry_msgs.msg import Twist

from brainos_ros.conscience.credentials import provision
from brainos_ros.ros import qos

STATES = msg.SafetyState


def test_emergency_stops_the_robot_and_its_end_lets_it_go_on(graph: Any, tmp_path: Path) -> None:
    restart = "{max_restarts: 1, backoff_s: 0.05}"
    robot = (ROOT / "config/robots/sim.yaml").read_text().replace(
        "  memory: {}\n", f"  memory: {{essential: true, restart: {restart}}}\n")
    assert restart in robot
    provision(tmp_path, "anna", tmp_path / "keys")
    brain = Brain(tmp_path, robot)
    try:
        brain.said("service level ONLINE")
        levels = graph.listen(msg.ServiceLevel, "service_level", qos.STATE)
        states = graph.listen(STATES, "conscience/safety_state", qos.STATE)
        commands = graph.listen(Twist, "cmd_vel")
        asks = graph.publisher(Twist, "cmd_vel_raw", qos.COMMAND)
        request = Twist()
        request.angular.z = 0.2
        timer = graph.tester.create_timer(0.05, lambda: asks.publish(request))
        commands.wait_for(lambda command: command.angular.z > 0.0)

        for times in (1, 2):
            pid = brain.wait_for(lambda: brain.pids().get("memory"))
            os.kill(pid, signal.SIGKILL)
            brain.said("memory failed: its process", times)
            brain.wait_for(lambda pid=pid: brain.pids().get("memory") != pid)
        level = levels.wait_for(lambda each: each.level == msg.ServiceLevel.EMERGENCY)
        assert level.failed_components == ["memory"]
        assert any("memory" in action for action in level.recommended_actions)
        stopped = states.wait_for(lambda state: any("EMERGENCY" in c for c in state.causes))
        assert stopped.state == STATES.PROTECTIVE_STOP
        commands.messages.clear()
        commands.wait_for()
        assert all(command.angular.z == 0.0 for command in commands.messages)

        states.messages.clear()
        subprocess.run(
            [sys.executable, "-m", "brainos_ros.cli.main", "restart", "memory", "--reason",
             "repaired"], cwd=ROOT, check=True, capture_output=True)
        states.wait_for(lambda state: state.state == STATES.RUNNING)
        commands.wait_for(lambda command: command.angular.z > 0.0)
        graph.tester.destroy_timer(timer)
    finally:
        brain.stop()
