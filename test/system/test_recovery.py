"""A whole brain under `brainos up`: its parts are killed, stopped and made to crash."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from whole_brain import BASE, LIMIT_S, ROOT, Brain

pytest.importorskip("rclpy", reason="no ROS 2 here")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from brainos_ros.watchdog.fork_server import TITLE

TWO = BASE + "  memory: {}\n  world_model: {after: [memory]}\n"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Brain]]:
    brains: list[Brain] = []

    def make(nodes: str) -> Brain:
        brains.append(Brain(tmp_path, nodes))
        brains[-1].said("service level ONLINE")
        return brains[-1]

    yield make
    for brain in brains:
        if brain.up.poll() is None:
            brain.stop()


def test_a_killed_and_a_stopped_node_come_back(start: Callable[[str], Brain]) -> None:
    brain = start(TWO)
    before = brain.pids()
    os.kill(before["memory"], signal.SIGKILL)
    brain.said("memory works again")
    assert "memory failed: its process was killed by SIGKILL" in brain.text()
    os.kill(before["world_model"], signal.SIGSTOP)
    brain.said("world_model works again")
    assert "its process is stopped" in brain.text()
    brain.said("service level ONLINE", 2)
    assert brain.stop() == 0
    assert not [pid for pid in brain.pids().values() if Path(f"/proc/{pid}").exists()]


def test_without_its_fork_server_a_node_comes_back_too(start: Callable[[str], Brain]) -> None:
    brain = start(TWO)
    before = brain.pids()
    stat = Path(f"/proc/{before['memory']}/stat").read_text()
    server = int(stat.rpartition(")")[2].split()[1])
    assert TITLE[-1] in Path(f"/proc/{server}/cmdline").read_text()
    os.kill(server, signal.SIGKILL)
    os.kill(before["memory"], signal.SIGKILL)
    brain.said("memory works again")
    assert brain.pids()["world_model"] == before["world_model"]


def test_a_new_watchdog_adopts_the_living(start: Callable[[str], Brain]) -> None:
    brain = start(TWO)
    before = brain.pids()
    for number in (signal.SIGKILL, signal.SIGSTOP):
        count = brain.text().count("world_model works")
        os.kill(brain.watchdog(), number)
        brain.wait_for(lambda count=count: brain.text().count("world_model works") > count)
        assert brain.pids() == before, "no healthy node was restarted"
    assert "was killed: no heartbeat" in brain.text()


@pytest.mark.parametrize("how", ["SIGTERM", "deactivate"])
def test_a_watchdog_told_to_stop_ends_the_brain(
    start: Callable[[str], Brain], graph: Any, how: str
) -> None:
    brain = start(TWO)
    pids = brain.pids()
    if how == "SIGTERM":
        os.kill(brain.watchdog(), signal.SIGTERM)
    else:
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
        client = graph.tester.create_client(ChangeState, "watchdog/change_state")
        assert client.wait_for_service(LIMIT_S)
        client.call_async(request)
    assert brain.up.wait(LIMIT_S) == 0, brain.text()
    assert "starting it again" not in brain.text()
    assert not [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()]


def test_a_changed_robot_file_is_told_and_restarts_nobody(start: Callable[[str], Brain]) -> None:
    brain = start(TWO)
    before = brain.pids()
    changed = TWO.replace("memory: {}", "memory: {parameters: {working_ttl_s: 60.0}}")
    brain.robot.write_text(changed)
    os.kill(brain.watchdog(), signal.SIGKILL)
    brain.said("the robot file changed; memory, world_model live on")
    brain.said("service level ONLINE", 2)
    assert brain.pids() == before


def test_two_at_once_come_back_in_order(start: Callable[[str], Brain]) -> None:
    brain = start(TWO)
    for pid in brain.pids().values():
        os.kill(pid, signal.SIGKILL)
    brain.said("world_model works again")
    text = brain.text()
    assert text.index("memory works again") < text.index("world_model works again")


def test_the_stand_by_takes_over(start: Callable[[str], Brain]) -> None:
    brain = start(BASE + "  memory: {standby: true}\n")
    brain.wait_for(lambda: len(brain.pids()) == 2)
    brain.wait_for(lambda: standby_ready(brain))
    first = brain.pids()
    os.kill(first["memory"], signal.SIGKILL)
    brain.said("memory works again")
    assert "on memory_standby" in brain.text()
    brain.wait_for(lambda: brain.pids().get("memory") not in (None, first["memory"]))
    assert brain.pids()["memory_standby"] == first["memory_standby"]


def standby_ready(brain: Brain) -> bool:
    status = subprocess.run(
        [sys.executable, "-m", "brainos_ros.cli.main", "status", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False)
    return '"stand-by"' in status.stdout


def test_a_crash_loop_is_given_up_on_and_the_level_says_so(start: Callable[[str], Brain]) -> None:
    restart = "{max_restarts: 1, backoff_s: 0.05}"
    brain = start(BASE + f"  memory: {{essential: true, restart: {restart}}}\n")
    for times in (1, 2):
        pid = brain.wait_for(lambda: brain.pids().get("memory"))
        os.kill(pid, signal.SIGKILL)
        brain.said("memory failed: its process", times)
        brain.wait_for(lambda pid=pid: brain.pids().get("memory") != pid)
    brain.said("service level EMERGENCY: failed for good: memory")
    assert "memory" not in brain.pids(), "no storm"
    restarted = subprocess.run(
        [sys.executable, "-m", "brainos_ros.cli.main", "restart", "memory", "--reason", "repaired"],
        cwd=ROOT, capture_output=True, text=True, check=False)
    assert "works again" in restarted.stdout, restarted.stderr
    brain.said("service level ONLINE", 2)


def test_a_refused_start_is_explained_by_its_reason(tmp_path: Path) -> None:
    given = "parameters: {constraints_file: /nowhere.yaml}, restart: {max_restarts: 1}"
    brain = Brain(tmp_path, BASE + f"  pfc: {{{given}}}\n")
    try:
        brain.said("pfc failed: could not configure: constraints file /nowhere.yaml")
    finally:
        brain.stop()


def test_one_brain_per_home(start: Callable[[str], Brain]) -> None:
    brain = start(BASE + "  memory: {}\n")
    second = subprocess.run(
        [sys.executable, "-m", "brainos_ros.cli.main", "up", str(brain.robot),
         "--home", str(brain.home)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert f"pid {brain.up.pid}" in second.stderr
