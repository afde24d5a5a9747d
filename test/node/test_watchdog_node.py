"""The watchdog with real nodes in processes of their own."""

import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here")

from brainos_msgs.msg import ErrorCode, Heartbeat, NodeStatus, ServiceLevel  # noqa: E402
from brainos_msgs.srv import Failover, GetMemoryStats, GetSystemStatus, RestartNode  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import Twist, Vector3  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from waiting import wait_for  # noqa: E402

from brainos_ros.errors import LEDGER_REFUSED, BrainError  # noqa: E402
from brainos_ros.ros import composed, qos  # noqa: E402
from brainos_ros.watchdog import plan  # noqa: E402
from brainos_ros.watchdog.node import WatchdogNode  # noqa: E402

ROBOT = """\
name: test
base: {footprint_radius_m: 0.3, max_speed_mps: 1, max_yaw_rate_radps: 1.5, acceleration_mps2: 1,
       deceleration_mps2: 2, actuation_delay_s: 0.05, command_timeout_s: 0.3}
nodes:
  memory: {}
  world_model: {after: [memory], standby: true}
"""

LAMP = f"""\
#!{sys.executable}
import os
import rclpy
from brainos_msgs.msg import Heartbeat
from rclpy.lifecycle import LifecycleNode

rclpy.init()
node = LifecycleNode("lamp")
beats = node.create_publisher(Heartbeat, "heartbeats", rclpy.qos.qos_profile_sensor_data)
beat = Heartbeat(node=node.get_fully_qualified_name(), role="lamp", pid=os.getpid())

def say():
    beat.state = node._state_machine.current_state[0]
    beats.publish(beat)

node.create_timer(0.1, say)
rclpy.spin(node)
"""


@pytest.fixture
def robot(tmp_path: Path) -> str:
    path = tmp_path / "test.yaml"
    path.write_text(ROBOT)
    return str(path)


def status(graph: Any) -> dict[str, NodeStatus]:
    reply = graph.call(GetSystemStatus, "watchdog/get_status")
    assert reply.success
    return {node.node: node for node in reply.nodes}


def online(level: ServiceLevel) -> bool:
    return bool(level.level == ServiceLevel.ONLINE)


def since(level: ServiceLevel) -> tuple[int, int]:
    return (level.stamp.sec, level.stamp.nanosec)


def test_it_brings_the_brain_up_keeps_it_up_and_takes_it_down(graph: Any, robot: str) -> None:
    levels = graph.listen(ServiceLevel, "service_level", qos.STATE)
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    beats = graph.listen(Heartbeat, "watchdog/heartbeat", qos.HEARTBEATS)
    watchdog = graph.start(WatchdogNode, state="unconfigured", robot_file=robot)
    assert watchdog.is_active, "it activates itself"
    up = levels.wait_for(online)
    assert beats.wait_for(lambda beat: beat.role == "watchdog").pid == os.getpid()

    for name in ("/memory", "/world_model"):
        wait_for(lambda name=name: status(graph)[name].status == NodeStatus.ACTIVE)
    before = status(graph)
    assert graph.call(GetMemoryStats, "memory/get_stats").success

    os.kill(before["/memory"].pid, signal.SIGKILL)
    fallen = levels.wait_for(
        lambda level: "memory" in level.failed_components and since(level) > since(up))
    assert fallen.recommended_actions
    levels.wait_for(lambda level: online(level) and since(level) > since(fallen))
    after = status(graph)
    assert after["/memory"].pid not in (0, before["/memory"].pid)
    assert after["/memory"].restarts == 1
    assert "SIGKILL" in after["/memory"].last_failure
    assert after["/world_model"].pid == before["/world_model"].pid

    def shows_memory(array: DiagnosticArray) -> bool:
        return any(found.name == "brainos: watchdog: memory" and found.level == b"\x00"
                   for found in array.status)

    diagnostics.wait_for(shows_memory)
    graph.stop(watchdog)
    for node in after.values():
        assert not alive(node.pid)


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_what_operators_ask_for(graph: Any, robot: str) -> None:
    levels = graph.listen(ServiceLevel, "service_level", qos.STATE)
    graph.start(WatchdogNode, state="unconfigured", robot_file=robot)
    levels.wait_for(online)
    pid = status(graph)["/memory"].pid
    reply = graph.call(RestartNode, "watchdog/restart", RestartNode.Request(role="memory"), 20.0)
    assert reply.success, reply.message
    assert reply.duration_ms > 0
    assert status(graph)["/memory"].pid != pid

    wait_for(lambda: status(graph)["/world_model_standby"].status == NodeStatus.STANDBY)
    request = Failover.Request(role="world_model", reason="test")
    reply = graph.call(Failover, "watchdog/failover", request, 20.0)
    assert reply.success, reply.message
    assert reply.node == "world_model_standby"
    wait_for(lambda: status(graph)["/world_model_standby"].status == NodeStatus.ACTIVE)

    restarting = graph.outgoing.client(RestartNode, "watchdog/restart").call_async(
        RestartNode.Request(role="memory"))
    reply = graph.call(Failover, "watchdog/failover", Failover.Request(role="memory"))
    assert not restarting.done(), "a failover does not wait for a restart"
    wait_for(restarting.done, timeout_s=30.0)
    assert reply.error_code == ErrorCode.WATCHDOG_NO_STANDBY
    assert "standby: true" in reply.message
    reply = graph.call(RestartNode, "watchdog/restart", RestartNode.Request(role="wheel"))
    assert reply.error_code == ErrorCode.WATCHDOG_UNKNOWN_NODE
    assert "memory" in reply.message


def test_once_it_is_to_stop_nothing_is_brought_back(graph: Any, robot: str) -> None:
    levels = graph.listen(ServiceLevel, "service_level", qos.STATE)
    watchdog = graph.start(WatchdogNode, state="unconfigured", robot_file=robot)
    levels.wait_for(online)
    wait_for(lambda: status(graph)["/world_model_standby"].status == NodeStatus.STANDBY)
    before = {name: (node.pid, node.restarts) for name, node in status(graph).items()}
    watchdog._keeper.ending = True
    for kind, door in ((RestartNode, "watchdog/restart"), (Failover, "watchdog/failover")):
        reply = graph.call(kind, door, kind.Request(role="world_model"))
        assert reply.error_code == ErrorCode.CANCELLED
        assert "told to stop" in reply.message
    assert {name: (node.pid, node.restarts) for name, node in status(graph).items()} == before


def test_a_mistake_in_the_robot_file_is_refused_with_its_line(graph: Any, robot: str) -> None:
    Path(robot).write_text(ROBOT.replace("[memory]", "[memry]"))
    with pytest.raises(BrainError, match=r"test.yaml:6: .*did you mean 'memory'"):
        graph.start(WatchdogNode, state="unconfigured", robot_file=robot)


def test_a_message_type_that_is_not_there_is_refused_with_its_line(
    graph: Any, robot: str
) -> None:
    outputs = "outputs: [{topic: a, type: geometry_msgs/msg/Twst, period_s: 1}]"
    Path(robot).write_text(ROBOT.replace("memory: {}", f"memory: {{{outputs}}}"))
    with pytest.raises(BrainError, match=r"test.yaml:5: .*'geometry_msgs' has no message 'Twst'"):
        graph.start(WatchdogNode, state="unconfigured", robot_file=robot)


def test_why_it_cannot_start_is_said_whatever_the_roll_back_says(graph: Any, robot: str) -> None:
    (graph.home / "ledger").write_text("no directory")
    with pytest.raises(BrainError, match=r"could not start: could not activate: .*Not a directory"):
        graph.start(WatchdogNode, state="unconfigured", robot_file=robot)


def test_deactivated_it_takes_the_nodes_down_and_activated_up_again(
    graph: Any, robot: str
) -> None:
    levels = graph.listen(ServiceLevel, "service_level", qos.STATE)
    watchdog = graph.start(WatchdogNode, state="unconfigured", robot_file=robot)
    up = levels.wait_for(online)
    before = {node.pid for node in status(graph).values()}
    keeper = watchdog._keeper
    assert graph.change_state("watchdog", Transition.TRANSITION_DEACTIVATE)
    assert not any(map(alive, before))
    keeper.wake()
    assert graph.change_state("watchdog", Transition.TRANSITION_ACTIVATE)
    levels.wait_for(lambda level: online(level) and since(level) > since(up))
    assert not before & {node.pid for node in status(graph).values()}


def test_what_may_be_composed_is_what_the_composed_process_holds(
        monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[str] = []
    monkeypatch.setattr(composed, "run", lambda *kinds: held.extend(k.role for k in kinds))
    composed.main()
    assert sorted(held) == sorted(plan.COMPOSABLE)


def test_two_brains_in_one_place_are_refused(graph: Any, robot: str, tmp_path: Path) -> None:
    graph.start(WatchdogNode, state="unconfigured", robot_file=robot)
    other = f"another brain runs in ROS domain .*, namespace /; .*process {os.getpid()}"
    with pytest.raises(BrainError, match=other):
        graph.start(WatchdogNode, state="unconfigured", robot_file=robot, home=str(tmp_path / "b"))


def test_a_node_of_another_package_beats_by_message(
        graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lamp = tmp_path / "lib" / "lamps" / "lamp"
    lamp.parent.mkdir(parents=True)
    lamp.write_text(LAMP)
    lamp.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join(
        [str(tmp_path), os.environ.get("AMENT_PREFIX_PATH", "")]))
    path = tmp_path / "test.yaml"
    path.write_text(ROBOT.partition("nodes:")[0] + "nodes: {lamp: {package: lamps}}\n")
    levels = graph.listen(ServiceLevel, "service_level", qos.STATE)
    graph.start(WatchdogNode, state="unconfigured", robot_file=str(path))
    up = levels.wait_for(online)
    os.kill(status(graph)["/lamp"].pid, signal.SIGSTOP)
    levels.wait_for(lambda level: online(level) and since(level) > since(up))
    assert "no heartbeat" in status(graph)["/lamp"].last_failure


def test_a_conscience_without_its_ledger_is_in_the_level(graph: Any, tmp_path: Path) -> None:
    path = tmp_path / "test.yaml"
    path.write_text(ROBOT.partition("  memory")[0] + "  conscience: {essential: true}\n")
    ledger = graph.home / "ledger" / "conscience"
    ledger.parent.mkdir(parents=True)
    ledger.write_text("no directory")
    levels = graph.listen(ServiceLevel, "service_level", qos.STATE)
    graph.start(WatchdogNode, state="unconfigured", robot_file=str(path))
    said = levels.wait_for(lambda level: f"conscience: {LEDGER_REFUSED}: " in level.reason)
    assert said.level == ServiceLevel.DEGRADED_ONLINE
    assert said.failed_components == ["conscience"]
    assert said.recommended_actions
    pid = status(graph)["/conscience"].pid
    ledger.unlink()
    levels.wait_for(online)
    assert status(graph)["/conscience"].pid == pid


def test_what_a_stranger_publishes_is_no_failure_of_the_node_and_is_said(
        graph: Any, tmp_path: Path) -> None:
    path = tmp_path / "test.yaml"
    output = "{topic: cmd_vel, type: geometry_msgs/msg/Twist, period_s: 0.1}"
    path.write_text(ROBOT.partition("  memory")[0] + f"  conscience: {{outputs: [{output}]}}\n")
    levels = graph.listen(ServiceLevel, "service_level", qos.STATE)
    graph.start(WatchdogNode, state="unconfigured", robot_file=str(path))
    up = levels.wait_for(online)
    pid = status(graph)["/conscience"].pid
    stranger = graph.publisher(Twist, "cmd_vel")

    def said_amid_nonsense() -> list[ServiceLevel]:
        stranger.publish(Twist(linear=Vector3(x=math.nan)))
        return [level for level in levels.messages
                if level.reason == "conscience: /cmd_vel is also published by /tester"]

    said = wait_for(said_amid_nonsense, lambda: levels.messages)[0]
    assert said.level == ServiceLevel.DEGRADED_ONLINE
    assert said.failed_components == ["conscience"]
    graph.tester.destroy_publisher(stranger)
    levels.wait_for(lambda level: online(level) and since(level) > since(up))
    found = status(graph)["/conscience"]
    assert (found.pid, found.last_failure) == (pid, "")


def test_what_has_one_publisher_only_is_from_the_node(graph: Any, tmp_path: Path) -> None:
    path = tmp_path / "test.yaml"
    output = "{topic: said, type: geometry_msgs/msg/Twist, period_s: 0.1}"
    path.write_text(ROBOT.partition("  memory")[0] + f"  memory: {{outputs: [{output}]}}\n")
    graph.start(WatchdogNode, state="unconfigured", robot_file=str(path))
    publisher = graph.publisher(Twist, "said")

    def failed() -> bool:
        publisher.publish(Twist(linear=Vector3(x=math.nan)))
        return bool(status(graph)["/memory"].last_failure == "said: linear.x is nan")

    wait_for(failed)


def test_a_node_that_somebody_deactivates_rests_until_somebody_wants_it_back(
    graph: Any, robot: str
) -> None:
    levels = graph.listen(ServiceLevel, "service_level", qos.STATE)
    graph.start(WatchdogNode, state="unconfigured", robot_file=robot)
    up = levels.wait_for(online)
    pid = status(graph)["/memory"].pid
    assert graph.change_state("memory", Transition.TRANSITION_DEACTIVATE)
    levels.wait_for(lambda level: "memory: deactivated by somebody" in level.reason)
    assert status(graph)["/memory"].status == NodeStatus.STOPPED
    assert graph.change_state("memory", Transition.TRANSITION_ACTIVATE)
    levels.wait_for(lambda level: online(level) and since(level) > since(up))
    assert status(graph)["/memory"].pid == pid
