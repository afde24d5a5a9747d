"""Faults in a real graph: each one ends stopped, and a halt always works."""

import json
import math
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here")

from brainos_msgs import msg, srv  # noqa: E402
from conscience_world import FAST_BASE, World, moving, provisioned  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from small_disk import fill, small_disk  # noqa: E402
from waiting import wait_for  # noqa: E402

from brainos_ros.conscience import stream  # noqa: E402
from brainos_ros.conscience.credentials import reset_token  # noqa: E402
from brainos_ros.conscience.node import ConscienceNode  # noqa: E402
from brainos_ros.conscience.records import Writer  # noqa: E402
from brainos_ros.errors import BrainError, ErrorCode  # noqa: E402
from brainos_ros.ledger import Stream, verify  # noqa: E402
from brainos_ros.ledger.layout import Layout  # noqa: E402
from brainos_ros.ledger.log import frames_from, to_record  # noqa: E402
from brainos_ros.ros import qos  # noqa: E402
from brainos_ros.ros.conversions import dict_to_attributes  # noqa: E402

STATES = msg.SafetyState
NODE = "from brainos_ros.conscience.node import main; main()"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return provisioned(tmp_path)


@pytest.fixture
def world(graph: Any) -> Iterator[World]:
    made = World(graph)
    yield made
    made.close()


def driving(graph: Any, world: World) -> tuple[Any, Any]:
    """(node, its states) of a conscience that lets a request pass."""
    states = graph.listen(STATES, "conscience/safety_state", qos.STATE)
    node = graph.start(ConscienceNode, **FAST_BASE)
    states.wait_for(lambda state: state.state == STATES.RUNNING)
    world.request = (0.4, 0.0)
    world.commands.wait_for(moving)
    states.messages.clear()
    return node, states


def ends_stopped(world: World, states: Any, cause: str) -> None:
    states.wait_for(lambda state: any(cause in each for each in state.causes))
    world.commands.messages.clear()
    world.commands.wait_for(lambda command: not moving(command))
    assert not any(map(moving, world.commands.messages))


def evaluate(graph: Any, action: str, **context: Any) -> msg.SafetyEvaluation:
    return graph.call(srv.Evaluate, "conscience/evaluate", srv.Evaluate.Request(
        action=action, context=dict_to_attributes(context))).evaluation


@pytest.mark.parametrize("content", ["format: brainos-rules/1\nrules: []\n", "{", ""])
def test_a_broken_rules_file_opens_no_gate(
        graph: Any, keys: Path, tmp_path: Path, world: World, content: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(content)
    node = graph.start(ConscienceNode, "unconfigured", rules_file=str(file), **FAST_BASE)
    assert not graph.change_state("conscience", Transition.TRANSITION_CONFIGURE)
    assert graph.state("conscience") == "unconfigured"
    assert "rules" in node.last_failure
    world.request = (0.4, 0.0)
    assert graph.tester.count_publishers("cmd_vel") == 0
    assert graph.call(srv.Halt, "conscience/halt").success


def test_a_frozen_scan_with_fresh_stamps(graph: Any, keys: Path, world: World) -> None:
    _, states = driving(graph, world)
    world.frozen = True
    world.pose[0] += 0.5
    count = world._count
    world.commands.wait_for(lambda _: world._count > count + 3)
    world.pose[0] += 0.5
    ends_stopped(world, states, "scan frozen")


def test_odometry_that_is_not_a_number(graph: Any, keys: Path, world: World) -> None:
    _, states = driving(graph, world)
    world.pose[1] = math.nan
    ends_stopped(world, states, "odom not finite")


@pytest.mark.parametrize("hours", [-1, 1])
def test_stamps_that_step_an_hour_stop_nothing(
        graph: Any, keys: Path, world: World, hours: int) -> None:
    _, states = driving(graph, world)
    world.clock_offset_ns = hours * 3600 * 10**9
    count = world._count
    world.commands.wait_for(lambda _: world._count > count + 20)
    assert not states.messages
    world.commands.messages.clear()
    world.commands.wait_for(moving)


def test_two_gates_at_once_stop_each_other(graph: Any, keys: Path, world: World,
                                           tmp_path: Path) -> None:
    states = graph.listen(STATES, "conscience/safety_state")
    provisioned(tmp_path / "other")
    twins = [graph.start(ConscienceNode, "unconfigured", **FAST_BASE, home=str(home))
             for home in (graph.home, tmp_path / "other")]
    for twin in twins:
        twin.trigger_configure()
        twin.trigger_activate()
    world.request = (0.4, 0.0)
    states.wait_for(lambda state: any("another gate" in each for each in state.causes))
    epochs = {twin.epoch for twin in twins}
    for epoch in epochs:
        states.wait_for(lambda state, epoch=epoch: state.epoch == epoch and any(
            "another gate" in each for each in state.causes))
    world.commands.messages.clear()
    world.commands.wait_for(lambda command: not moving(command))
    assert not any(map(moving, world.commands.messages))


def test_a_second_gate_on_the_same_home_never_opens(
        graph: Any, keys: Path, world: World) -> None:
    _, states = driving(graph, world)
    second = graph.start(ConscienceNode, "unconfigured", **FAST_BASE)
    second.trigger_configure()
    second.trigger_activate()
    assert not second.is_active
    assert graph.tester.count_publishers("cmd_vel") == 1
    assert not states.messages


def test_a_hung_callback_does_not_hold_up_a_halt(graph: Any, keys: Path, world: World) -> None:
    node, states = driving(graph, world)
    inside, released = threading.Event(), threading.Event()

    def hangs(*_: Any) -> Any:
        inside.set()
        released.wait(10.0)
        raise RuntimeError("released")

    node._circuit.evaluate = hangs
    caller = threading.Thread(target=evaluate, args=(graph, "aisle_1"))
    caller.start()
    assert inside.wait(10.0)
    assert graph.call(srv.Halt, "conscience/halt").success
    ends_stopped(world, states, "halted")
    released.set()
    caller.join()


def test_a_halt_whose_zero_cannot_be_sent_lasts_all_the_same(
        graph: Any, keys: Path, world: World) -> None:
    node, _ = driving(graph, world)

    def fails(linear: float, angular: float) -> None:
        raise RuntimeError("the publisher is gone")

    node._outlet.publish = fails
    reply = graph.call(srv.Halt, "conscience/halt")
    assert reply.success
    assert "could not be sent" in reply.message
    assert not (graph.home / "conscience" / "armed").exists()


def test_a_ledger_that_is_gone_does_not_hold_up_a_halt(
        graph: Any, keys: Path, world: World) -> None:
    _, states = driving(graph, world)
    shutil.rmtree(graph.home / "ledger")
    assert graph.call(srv.Halt, "conscience/halt").success
    ends_stopped(world, states, "halted")
    assert not (graph.home / "conscience" / "armed").exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "40m") as place:
        yield place


def halts_stopped(graph: Any, world: World, states: Any) -> None:
    """On a disk that is full: the robot stands, and a halt holds."""
    ends_stopped(world, states, "ledger refused")
    assert graph.call(srv.Halt, "conscience/halt").success
    ends_stopped(world, states, "halted")
    assert not (graph.home / "conscience" / "armed").exists()


def allows_again(
        graph: Any, world: World, states: Any, keys: Path, ballast: Path) -> msg.SafetyEvaluation:
    """The space is back: it allows without being restarted, and after a reset the robot may move.

    Returns the verdict from before the reset.
    """
    states.messages.clear()
    ballast.unlink()
    states.wait_for(lambda state: not any("ledger" in cause for cause in state.causes))
    verdict = evaluate(graph, "aisle_1")
    world.request = (0.0, 0.0)
    states.messages.clear()

    def reset() -> Any:
        token = reset_token(graph.home, "anna", keys)
        request = srv.Reset.Request(operator_name="anna", token=token)
        return graph.call(srv.Reset, "conscience/reset", request)

    wait_for(lambda: reset().success, lambda: reset().message)  # it must hear of the zero first
    states.wait_for(lambda state: state.state == STATES.RUNNING)
    world.request = (0.4, 0.0)
    world.commands.wait_for(moving)
    return verdict


def test_a_full_disk_denies_stops_still_halts_and_ends_when_space_returns(
        graph: Any, disk: Path, world: World) -> None:
    graph.home = disk / "home"
    keys = provisioned(graph.home)
    node, states = driving(graph, world)
    accepted = [evaluate(graph, "aisle_1").evaluation_id]
    ballast = fill(disk)
    for size in (12_000, 1000, 1):
        filling = {f"note_{n}": "x" * (size // 4 + 1) for n in range(4)}
        while (verdict := evaluate(graph, "aisle_1", **filling)).approved:
            accepted.append(verdict.evaluation_id)
    assert "ledger" in verdict.reason
    halts_stopped(graph, world, states)
    accepted.append(allows_again(graph, world, states, keys, ballast).evaluation_id)
    graph.stop(node)
    assert verify(graph.home / "ledger" / "conscience").verified
    kept = {body.get("evaluation_id") for _, _, body in stream.events(graph.home)}
    assert kept.issuperset(accepted), "what was allowed is on record"


@pytest.mark.parametrize("opens", [True, False])
def test_started_on_a_full_disk_it_halts_and_moves_nothing_until_space_returns(
        graph: Any, disk: Path, world: World, opens: bool) -> None:
    graph.home = disk / "home"
    keys = provisioned(graph.home)
    graph.stop(graph.start(ConscienceNode, **FAST_BASE))
    if not opens:
        shutil.rmtree(graph.home / "ledger" / "conscience")
    ballast = fill(disk)
    states = graph.listen(STATES, "conscience/safety_state", qos.STATE)
    world.request = (0.4, 0.0)
    node = graph.start(ConscienceNode, **FAST_BASE)
    states.wait_for(lambda state: any("ledger refused" in each for each in state.causes))
    verdict = evaluate(graph, "aisle_1")
    assert not verdict.approved
    assert "not on record" in verdict.reason
    halts_stopped(graph, world, states)
    allows_again(graph, world, states, keys, ballast)
    assert evaluate(graph, "aisle_1").approved
    graph.stop(node)
    assert verify(graph.home / "ledger" / "conscience").verified
    kinds = [kind for _, kind, _ in stream.events(graph.home)]
    assert kinds.index("rules.loaded") < kinds.index("evaluation")


def halts_on_record(graph: Any, node: ConscienceNode) -> list[str]:
    """Who halted it, once it has ended."""
    graph.stop(node)
    frames = frames_from(Layout(graph.home / "ledger" / "conscience"), 0)
    return [json.loads(record.body)["cause"].partition(":")[0]
            for record in map(to_record, frames) if record.kind == "halt"]


def halt(node: ConscienceNode, requester: str) -> None:
    assert node._halt(srv.Halt.Request(requester=requester), srv.Halt.Response()).success


def test_a_halt_that_the_ledger_refuses_is_on_record_after_the_next_activation(
        graph: Any, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = graph.start(ConscienceNode, **FAST_BASE)

    def full(*_: Any, **__: Any) -> int:
        raise BrainError("no space left", ErrorCode.LEDGER_REFUSED)

    with monkeypatch.context() as patch:
        patch.setattr(Stream, "event", full)
        for requester in ("anna", "ben"):
            halt(node, requester)
        assert graph.change_state("conscience", Transition.TRANSITION_DEACTIVATE)
    halt(node, "carl")
    assert graph.change_state("conscience", Transition.TRANSITION_ACTIVATE)
    assert halts_on_record(graph, node) == ["anna", "ben", "carl"]


class Wanted:
    """A lock that says how often it was wanted."""

    def __init__(self) -> None:
        self._lock, self.times = threading.Lock(), 0

    def __enter__(self) -> None:
        self.times += 1
        self._lock.acquire()

    def __exit__(self, *_: Any) -> None:
        self._lock.release()


@pytest.mark.parametrize("transition", ["deactivate", "activate"])
def test_a_halt_beside_a_transition_is_on_record(
        graph: Any, keys: Path, monkeypatch: pytest.MonkeyPatch, transition: str) -> None:
    """It begins while the halt is between asking for the writer and using it."""
    begun = "active" if transition == "deactivate" else "inactive"
    node = graph.start(ConscienceNode, begun, **FAST_BASE)
    lock = node._halts._lock = Wanted()
    wanted = getattr(Transition, f"TRANSITION_{transition.upper()}")
    change = threading.Thread(target=graph.change_state, args=("conscience", wanted))

    def in_between() -> None:
        monkeypatch.undo()
        before = lock.times
        change.start()
        wait_for(lambda: lock.times > before or not change.is_alive())

    put = Writer.put

    def put_late(*given: Any) -> None:
        in_between()
        put(*given)

    class Late(list[Any]):
        def append(self, body: Any) -> None:
            in_between()
            super().append(body)

    node._halts._waiting = Late()
    monkeypatch.setattr(Writer, "put", put_late)
    halt(node, "anna")
    change.join(10.0)
    assert not change.is_alive()
    assert halts_on_record(graph, node) == ["anna"]


@pytest.fixture
def process(graph: Any, keys: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An active conscience in a process of its own."""
    values = [f"{name}:={value}" for name, value in {"home": graph.home, **FAST_BASE}.items()]
    beats = graph.listen(msg.Heartbeat, "heartbeats", qos.HEARTBEATS)
    made = subprocess.Popen([sys.executable, "-c", NODE, "--ros-args", *(
        part for value in values for part in ("-p", value))])
    try:
        beats.wait_for(lambda beat: beat.pid == made.pid)
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            assert graph.change_state("conscience", transition)
        yield made
    finally:
        made.kill()
        made.wait()


def test_killed_it_says_nothing_more_and_its_successor_drives_again(
        graph: Any, process: subprocess.Popen[bytes], world: World) -> None:
    states = graph.listen(STATES, "conscience/safety_state", qos.STATE)
    states.wait_for(lambda state: state.state == STATES.RUNNING)
    world.request = (0.4, 0.0)
    world.commands.wait_for(moving)
    process.kill()
    process.wait()
    world.commands.messages.clear()
    count = world._count
    beats = graph.listen(msg.Heartbeat, "watchdog/heartbeat", qos.HEARTBEATS)
    beats.wait_for(lambda _: world._count > count + 10)
    assert not world.commands.messages
    states.messages.clear()
    again = graph.start(ConscienceNode, "unconfigured", **FAST_BASE)
    again.trigger_configure()
    again.trigger_activate()
    states.wait_for(lambda state: state.epoch == again.epoch and state.state == STATES.RUNNING)
    world.commands.wait_for(moving)


def test_on_sigterm_the_last_command_is_zero(
        graph: Any, process: subprocess.Popen[bytes], world: World) -> None:
    states = graph.listen(STATES, "conscience/safety_state", qos.STATE)
    states.wait_for(lambda state: state.state == STATES.RUNNING)
    world.request = (0.4, 0.0)
    world.commands.wait_for(moving)
    process.terminate()
    assert process.wait(10.0) == 0
    states.wait_for(lambda state: state.state == STATES.INACTIVE)
    world.commands.wait_for(lambda command: not moving(command))
    assert not moving(world.commands.messages[-1])


def brainos(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "brainos_ros.cli.main", *arguments, "--home", str(home)],
        capture_output=True, text=True, check=False, timeout=30)


def test_an_operator_approves_at_the_command_line(graph: Any, keys: Path) -> None:
    graph.start(ConscienceNode, **FAST_BASE)
    asked = evaluate(graph, "move_arm", speed="low", environment="hall", nearby_objects=["human"])
    listed = brainos(graph.home, "approvals", "list")
    assert asked.approval_id in listed.stdout, listed.stderr
    done = brainos(graph.home, "approvals", "approve", asked.approval_id, "--operator", "anna",
                   "--keys", str(keys))
    assert done.stdout.endswith("approved\n"), done.stderr  # DDS may complain before it
    replayed = brainos(graph.home, "conscience", "replay")
    assert (replayed.returncode, "1 verdicts judged again, 0 differ" in replayed.stdout) == (
        0, True), replayed
