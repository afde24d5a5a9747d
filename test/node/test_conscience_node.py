"""The conscience in a real graph: the gate follows its inputs, halt and reset, the doors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here")

from brainos_msgs import msg, srv  # noqa: E402
from builtin_interfaces.msg import Time  # noqa: E402
from conscience_world import FAST_BASE, World, moving, provisioned  # noqa: E402
from geometry_msgs.msg import Twist, TwistStamped  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from waiting import wait_for  # noqa: E402

from brainos_ros.conscience import adopted  # noqa: E402
from brainos_ros.conscience.credentials import (  # noqa: E402
    challenge,
    load_key,
    load_operators,
    operators_file,
    provision,
    reset_token,
    sign,
)
from brainos_ros.conscience.halt import Latch  # noqa: E402
from brainos_ros.conscience.node import ConscienceNode  # noqa: E402
from brainos_ros.conscience.rules_file import parse  # noqa: E402
from brainos_ros.errors import ErrorCode  # noqa: E402
from brainos_ros.ros import qos  # noqa: E402
from brainos_ros.ros.conversions import dict_to_attributes  # noqa: E402

STATES = msg.SafetyState


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return provisioned(tmp_path)


@pytest.fixture
def world(graph: Any) -> Iterator[World]:
    made = World(graph)
    yield made
    made.close()


def running(graph: Any, **parameters: Any) -> Any:
    """An active conscience whose inputs have all arrived, and its state inbox."""
    states = graph.listen(STATES, "conscience/safety_state", qos.STATE)
    graph.start(ConscienceNode, **{**FAST_BASE, **parameters})
    states.wait_for(lambda state: state.state == STATES.RUNNING)
    return states


def evaluate(graph: Any, action: str, **context: Any) -> msg.SafetyEvaluation:
    request = srv.Evaluate.Request(
        action=action, context=dict_to_attributes(context), requester="pfc")
    response = graph.call(srv.Evaluate, "conscience/evaluate", request)
    assert response.success, response.message
    return response.evaluation


def test_commands_pass_and_stop_with_the_request(graph: Any, keys: Path, world: World) -> None:
    running(graph)
    world.request = (0.8, 0.0)
    world.commands.wait_for(lambda command: command.linear.x == pytest.approx(0.8))
    world.commands.messages.clear()
    world.request = None
    world.commands.wait_for(lambda command: not moving(command))


def test_one_request_wakes_a_resting_gate_to_its_full_rate(
        graph: Any, keys: Path, world: World) -> None:
    running(graph)
    world.commands.wait_for(lambda _: len(world.commands.messages) > 20)
    zeros = world.commands.messages.copy()
    assert not any(map(moving, zeros))
    requests = graph.publisher(Twist, "cmd_vel_raw", qos.COMMAND)
    world.commands.wait_for(lambda _: requests.get_subscription_count() == 1)
    twist = Twist()
    twist.linear.x = 0.8
    requests.publish(twist)
    world.commands.wait_for(moving)
    world.commands.wait_for(lambda _: not moving(world.commands.messages[-1]))
    assert sum(map(moving, world.commands.messages)) >= 8


def test_a_person_slows_and_stops_it(graph: Any, keys: Path, world: World) -> None:
    running(graph)
    world.people = [(2.4, 0.0)]
    world.request = (0.8, 0.0)
    seen = world.commands.messages  # it would reach 0.8 m/s in 20 of them
    world.commands.wait_for(lambda _: sum(map(moving, seen)) > 40)
    assert 0.1 < max(command.linear.x for command in seen) < 0.6
    world.people = [(1.0, 0.0)]
    world.commands.messages.clear()
    world.commands.wait_for(lambda command: not moving(command))


@pytest.mark.parametrize("lost", ["scan", "odom", "people", "watchdog"])
def test_a_silent_input_stops_it(graph: Any, keys: Path, world: World, lost: str) -> None:
    states = running(graph)
    world.request = (0.5, 0.0)
    world.commands.wait_for(moving)
    world.silent.add(lost)
    stopped = states.wait_for(lambda state: state.state == STATES.PROTECTIVE_STOP and any(
        lost.replace("people", "tracked_people") in cause for cause in state.causes))
    assert stopped.reason
    world.commands.messages.clear()
    world.commands.wait_for(lambda command: not moving(command))
    states.messages.clear()
    world.silent.clear()
    states.wait_for(lambda state: state.state == STATES.RUNNING)


def test_emergency_stops_it_until_it_ends(graph: Any, keys: Path, world: World) -> None:
    states = running(graph)
    world.say_level(msg.ServiceLevel.EMERGENCY)
    states.wait_for(lambda state: any("EMERGENCY" in cause for cause in state.causes))
    assert not evaluate(graph, "aisle_1").approved
    states.messages.clear()
    world.say_level(msg.ServiceLevel.ONLINE)
    states.wait_for(lambda state: state.state == STATES.RUNNING)


def test_a_fresh_robot_is_halted(graph: Any, world: World) -> None:
    states = graph.listen(STATES, "conscience/safety_state", qos.STATE)
    graph.start(ConscienceNode, **FAST_BASE)
    states.wait_for(lambda state: state.state == STATES.HALTED)
    verdict = evaluate(graph, "aisle_1")
    assert not verdict.approved
    assert "halted" in verdict.reason


def test_halt_latches_until_an_operator_resets(graph: Any, keys: Path, world: World) -> None:
    states = running(graph)
    world.request = (0.5, 0.0)
    world.commands.wait_for(moving)
    reply = graph.call(srv.Halt, "conscience/halt", srv.Halt.Request(reason="a test"))
    assert reply.success
    assert not reply.message
    assert not (graph.home / "conscience" / "armed").exists()
    states.wait_for(lambda state: state.state == STATES.HALTED)
    world.commands.messages.clear()
    world.commands.wait_for(lambda command: not moving(command))

    def reset(token: str) -> Any:
        return graph.call(
            srv.Reset, "conscience/reset", srv.Reset.Request(operator_name="anna", token=token))

    assert reset("AAAA").error_code == ErrorCode.UNAUTHORISED
    token = reset_token(graph.home, "anna", keys)
    refused = reset(token)
    assert refused.error_code == ErrorCode.CONSCIENCE_CAUSE_NOT_CLEARED
    assert "somebody asks to move on /cmd_vel_raw: cancel" in refused.message
    world.request = (0.0, 0.0)
    states.messages.clear()
    wait_for(lambda: reset(token).success, lambda: reset(token).message)
    states.wait_for(lambda state: state.state == STATES.RUNNING)
    assert (graph.home / "conscience" / "armed").exists()
    graph.call(srv.Halt, "conscience/halt")
    assert reset(token).error_code == ErrorCode.UNAUTHORISED
    world.commands.messages.clear()
    world.request = (0.5, 0.0)
    world.commands.wait_for()
    assert not any(map(moving, world.commands.messages))


def test_a_halt_at_the_tick_that_clears_all_else_is_the_cause_that_is_told(
        graph: Any, keys: Path, world: World) -> None:
    world.silent.add("watchdog")
    states = graph.listen(STATES, "conscience/safety_state", qos.STATE)
    node = graph.start(ConscienceNode, **FAST_BASE)
    states.wait_for(lambda state: state.causes == ["watchdog silent"])

    def just_before() -> str:
        found = node.latch.look()
        if not node._gate.protective:
            node.latch.halt("anna: a test")
        return found

    node._gate.halted = just_before
    world.silent.clear()
    told = states.wait_for(lambda state: state.state == STATES.HALTED)
    assert told.causes == ["halted: anna: a test"]
    assert told.reason == "halted: anna: a test"


def test_a_reset_at_the_tick_that_still_saw_the_halt_leaves_no_cause_of_it(
        graph: Any, keys: Path, world: World) -> None:
    world.silent.add("watchdog")
    states = graph.listen(STATES, "conscience/safety_state", qos.STATE)
    node = graph.start(ConscienceNode, **FAST_BASE)
    states.wait_for(lambda state: state.causes == ["watchdog silent"])
    assert graph.call(srv.Halt, "conscience/halt").success
    states.wait_for(lambda state: state.state == STATES.HALTED)

    def just_after() -> str:
        found = node.latch.look()
        if found and not node._gate.protective:
            node.latch.arm("anna", node.latch.generation)
        return found

    node._gate.halted = just_after
    states.messages.clear()
    world.silent.clear()
    told = states.wait_for(lambda state: state.state != STATES.HALTED)
    assert (told.state, told.causes) == (STATES.RUNNING, [])


@pytest.mark.parametrize("state", ["unconfigured", "inactive"])
def test_halt_answers_in_every_state(graph: Any, keys: Path, state: str) -> None:
    node = graph.start(ConscienceNode, state, **FAST_BASE)
    assert not node.latch.halted
    assert graph.call(srv.Halt, "conscience/halt").success
    assert node.latch.halted
    assert not (graph.home / "conscience" / "armed").exists()
    graph.stop(node)
    again = graph.start(ConscienceNode, **FAST_BASE)
    assert again.latch.halted


def test_a_stand_by_that_takes_over_follows_a_reset_made_by_the_active(
        graph: Any, keys: Path, world: World) -> None:
    states = graph.listen(STATES, "conscience/safety_state", qos.STATE)
    node = graph.start(ConscienceNode, "inactive", **FAST_BASE)
    assert graph.call(srv.Halt, "conscience/halt").success
    active = Latch(graph.home / "conscience", node.operators.robot)
    active.arm("anna", active.generation)
    assert graph.change_state("conscience", 3)
    states.wait_for(lambda state: state.state == STATES.RUNNING)


def test_evaluate_answers_as_the_safety_contract_has_it(graph: Any, keys: Path) -> None:
    graph.start(ConscienceNode, **FAST_BASE)
    told = graph.listen(msg.SafetyEvaluation, "conscience/evaluations")
    low = evaluate(graph, "/aisle_1/", length_m=3.0)
    assert (low.approved, low.safety_level, low.action) == (True, low.LOW, "aisle_1")
    high = evaluate(graph, "move_arm", speed="high", environment="warehouse",
                    nearby_objects=["human", "fragile_item"])
    assert not high.approved
    assert (high.safety_level, high.human_approval_required) == (high.HIGH, True)
    assert high.approval_deadline.sec > high.stamp.sec
    unknown = evaluate(graph, "launch_missile")
    assert (unknown.approved, unknown.safety_level) == (False, unknown.CRITICAL)
    assert not unknown.human_approval_required
    told.wait_for(lambda each: each.evaluation_id == unknown.evaluation_id)


def test_a_malformed_context_is_refused_named_and_recorded(graph: Any, keys: Path) -> None:
    graph.start(ConscienceNode, **FAST_BASE)
    told = graph.listen(msg.SafetyEvaluation, "conscience/evaluations")
    twice = dict_to_attributes({"a": 1}) * 2
    reply = graph.call(srv.Evaluate, "conscience/evaluate", srv.Evaluate.Request(
        action="aisle_1", context=twice))
    assert (reply.success, reply.error_code) == (False, ErrorCode.INVALID_ARGUMENT)
    assert "repeated" in reply.message
    assert (reply.evaluation.approved, reply.evaluation.safety_level) == (False, 3)
    told.wait_for(lambda each: each.evaluation_id == reply.evaluation.evaluation_id)
    redeem = graph.call(srv.Redeem, "conscience/redeem", srv.Redeem.Request(
        action="aisle_1", context=twice))
    assert (redeem.success, redeem.evaluation.approved) == (False, False)


def test_an_approval_is_given_and_used_once(graph: Any, keys: Path) -> None:
    graph.start(ConscienceNode, **FAST_BASE)
    context = {"zone": "public", "battery_percent": 80.0, "charging": False}
    asked = evaluate(graph, "go_to", **context)
    pending = graph.call(srv.ListPending, "conscience/list_pending").pending
    assert [each.approval_id for each in pending] == [asked.approval_id]

    def redeem(**changes: Any) -> Any:
        return graph.call(srv.Redeem, "conscience/redeem", srv.Redeem.Request(
            approval_id=asked.approval_id, action="go_to", requester="pfc",
            context=dict_to_attributes({**context, **changes})))

    assert not redeem().success
    robot = load_operators(graph.home).robot
    token = sign(load_key("anna", keys), "approve", robot, {"challenge": pending[0].challenge})
    approve = srv.Approve.Request(
        approval_id=asked.approval_id, operator_name="anna", token=token)
    assert graph.call(srv.Approve, "conscience/approve", approve).status == "approved"
    assert redeem(battery_percent=79.0).error_code == ErrorCode.UNAUTHORISED
    assert redeem().evaluation.approved
    assert redeem().error_code == ErrorCode.CONSCIENCE_APPROVAL_USED


def test_a_foreign_publisher_stops_it(graph: Any, keys: Path, world: World) -> None:
    states = running(graph)
    foreign = graph.publisher(Twist, "cmd_vel", qos.COMMAND)
    stopped = states.wait_for(lambda state: state.state == STATES.PROTECTIVE_STOP)
    assert "/tester" in stopped.reason
    states.messages.clear()
    graph.tester.destroy_publisher(foreign)
    states.wait_for(lambda state: state.state == STATES.RUNNING)


def test_deactivated_it_says_so_and_closes(graph: Any, keys: Path, world: World) -> None:
    states = running(graph)
    world.request = (0.5, 0.0)
    world.commands.wait_for(moving)
    assert graph.change_state("conscience", 4)
    states.wait_for(lambda state: state.state == STATES.INACTIVE)
    assert not moving(world.commands.messages[-1])
    assert graph.change_state("conscience", 3)
    states.wait_for(lambda state: state.state == STATES.RUNNING)


def test_stamped_commands_pass_with_a_stamp(graph: Any, keys: Path, world: World) -> None:
    stamped = graph.listen(TwistStamped, "wheels")
    asks = graph.publisher(TwistStamped, "asked", qos.COMMAND)
    running(graph, enable_stamped_cmd_vel=True, cmd_vel_in_topic="asked",
            cmd_vel_out_topic="wheels")
    request = TwistStamped()
    request.twist.linear.x = 0.02
    asks.publish(request)
    command = stamped.wait_for(lambda each: moving(each.twist))
    assert command.header.stamp.sec > 0
    assert evaluate(graph, "/wheels").action == "cmd_vel"
    assert evaluate(graph, "asked").action == "cmd_vel"


def test_stamps_are_those_of_the_simulation(graph: Any, keys: Path, world: World) -> None:
    clock = graph.publisher(Clock, "/clock", 10)
    stamped = graph.listen(TwistStamped, "wheels")
    ticks = graph.listen(msg.GateTick, "conscience/gate", qos.SENSOR)
    asks = graph.publisher(TwistStamped, "asked", qos.COMMAND)
    running(graph, enable_stamped_cmd_vel=True, cmd_vel_in_topic="asked",
            cmd_vel_out_topic="wheels", use_sim_time=True)
    request = TwistStamped()
    request.twist.linear.x = 0.02

    def told() -> bool:
        clock.publish(Clock(clock=Time(sec=101)))
        asks.publish(request)
        return any(moving(each.twist) and each.header.stamp.sec == 101 for each in stamped.messages)

    wait_for(told, lambda: {each.header.stamp.sec for each in stamped.messages})
    ticks.wait_for(lambda tick: tick.stamp.sec == 101)


def test_who_is_struck_off_or_registered_meanwhile_loses_or_gains_his_rights(
        graph: Any, keys: Path, world: World) -> None:
    node = graph.start(ConscienceNode, **FAST_BASE)
    graph.call(srv.Halt, "conscience/halt")
    provision(graph.home, "ben", keys)
    file = operators_file(graph.home)
    body = yaml.safe_load(file.read_text())
    del body["operators"]["anna"]
    file.write_text(yaml.safe_dump(body))
    wait_for(lambda: set(node.operators.people) == {"ben"})

    def reset(name: str) -> Any:
        token = sign(load_key(name, keys), "reset", body["robot"], challenge(graph.home))
        request = srv.Reset.Request(operator_name=name, token=token)
        return graph.call(srv.Reset, "conscience/reset", request)

    assert "is not in the robot's operators file" in reset("anna").message
    wait_for(lambda: reset("ben").success, lambda: reset("ben").message)
    file.write_text("operators: [")
    wait_for(lambda: not node.operators.people)
    assert not node.latch.halted, "an editor that is writing the file stops no robot"
    graph.call(srv.Halt, "conscience/halt")
    assert "is not in the robot's operators file" in reset("ben").message


def test_rules_change_by_two_signatures_only(
        graph: Any, keys: Path, world: World, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    shipped = adopted.rules_file("").read_bytes()
    file.write_bytes(shipped)
    states = running(graph, rules_file=str(file))
    changed = shipped.replace(b"payload_kg <= 25.0", b"payload_kg <= 20.0")
    file.write_bytes(changed)
    robot = load_operators(graph.home).robot

    def signed(source: bytes, replaced: bytes) -> list[str]:
        fields = {"rules_version": parse(source).version, "replaces": parse(replaced).version,
                  **challenge(graph.home)}
        return [sign(load_key(name, keys), "rules", robot, fields) for name in ("anna", "ben")]

    tokens = signed(changed, shipped)

    def reload(*names: str, tokens: list[str] = tokens) -> Any:
        request = srv.ReloadRules.Request(operators=list(names), tokens=tokens[:len(names)])
        return graph.call(srv.ReloadRules, "conscience/reload_rules", request)

    assert reload("anna").error_code == ErrorCode.UNAUTHORISED
    assert reload("anna", "anna").error_code == ErrorCode.UNAUTHORISED
    load = {"payload_kg": 22.0, "person_distance_m": 5.0, "moving": False}
    assert evaluate(graph, "pick", **load).approved
    assert reload("anna", "ben").rules_version == parse(changed).version
    assert not evaluate(graph, "pick", **load).approved
    assert (graph.home / "conscience" / "rules.yaml").read_bytes() == changed
    file.write_bytes(shipped)
    assert reload("anna", "ben", tokens=signed(shipped, changed)).success
    file.write_bytes(changed)
    assert reload("anna", "ben").error_code == ErrorCode.UNAUTHORISED, "signatures count once"
    world.request = (0.4, 0.0)
    world.commands.wait_for(moving)
    assert states.messages


def test_a_stand_by_that_takes_over_enforces_rules_changed_meanwhile(
        graph: Any, keys: Path) -> None:
    graph.start(ConscienceNode, "inactive", **FAST_BASE)
    shipped = adopted.rules_file("").read_bytes()
    changed = shipped.replace(b"payload_kg <= 25.0", b"payload_kg <= 20.0")
    adopted.keep(graph.home, parse(changed))
    assert graph.change_state("conscience", 3)
    load = {"payload_kg": 22.0, "person_distance_m": 5.0, "moving": False}
    assert not evaluate(graph, "pick", **load).approved
    assert evaluate(graph, "pick", **{**load, "payload_kg": 19.0}).approved


def test_a_tick_that_fails_sends_zero(graph: Any, keys: Path, world: World) -> None:
    states = graph.listen(STATES, "conscience/safety_state", qos.STATE)
    node = graph.start(ConscienceNode, **FAST_BASE)
    states.wait_for(lambda state: state.state == STATES.RUNNING)
    world.request = (0.4, 0.0)
    world.commands.wait_for(moving)
    node._gate.causes = None
    world.commands.messages.clear()
    world.commands.wait_for(lambda command: not moving(command))
    assert graph.call(srv.Halt, "conscience/halt").success
