"""The wall clock of a whole brain is stepped by an hour, either way, while the robot drives."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stepped_clock import Step, stepped_clock
from whole_brain import ROOT, Brain

pytest.importorskip("rclpy", reason="no ROS 2 here")
pytest.importorskip("mujoco", reason="MuJoCo is not installed")

from brainos_msgs import msg, srv
from geometry_msgs.msg import Twist

from brainos_ros.conscience.credentials import (
    load_key,
    load_operators,
    provision,
    sign,
)
from brainos_ros.errors import ErrorCode
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import dict_to_attributes

HOUR_NS = 3600 * 10**9
LIFETIME_S = 8.0
BATTERY = (float(percent) for percent in range(100, 20, -1))


@pytest.fixture
def stepped(tmp_path: Path) -> Iterator[tuple[Brain, Step]]:
    """A driving brain, and what steps the wall clock of all its processes."""
    with stepped_clock(tmp_path) as (variables, step):
        provision(tmp_path, "anna", tmp_path / "keys")
        robot = (ROOT / "config/robots/sim.yaml").read_text().replace(
            "{scan_period_s: 0.05,", f"{{approval_lifetime_s: {LIFETIME_S}, scan_period_s: 0.05,")
        assert "approval_lifetime_s" in robot
        brain = Brain(tmp_path, robot, **variables)
        try:
            brain.said("service level ONLINE")
            yield brain, step
        finally:
            brain.stop()


def pending(graph: Any) -> dict[str, msg.PendingApproval]:
    reply = graph.call(srv.ListPending, "conscience/list_pending")
    return {each.approval_id: each for each in reply.pending}


def ask(graph: Any) -> msg.PendingApproval:
    """A new action that waits for a person."""
    context = {"zone": "public", "battery_percent": next(BATTERY), "charging": False}
    asked = graph.call(srv.Evaluate, "conscience/evaluate", srv.Evaluate.Request(
        action="go_to", context=dict_to_attributes(context))).evaluation
    return pending(graph)[asked.approval_id]


def approve(graph: Any, home: Path, approval: msg.PendingApproval) -> srv.Approve.Response:
    """anna's signed approval."""
    token = sign(load_key("anna", home / "keys"), "approve", load_operators(home).robot,
                 {"challenge": approval.challenge})
    return graph.call(srv.Approve, "conscience/approve", srv.Approve.Request(
        approval_id=approval.approval_id, operator_name="anna", token=token))


def live_on(graph: Any, round_: int) -> None:
    """What is seen changes the world, and what was lived is kept."""
    given = dict_to_attributes({"round": round_})
    seen = msg.Observation(
        event_type="seen", target_entity_id="box", target_entity_type="object", data=given)
    observe, get = srv.Observe.Request(observation=seen), srv.GetEntity.Request(entity_id="box")
    assert graph.call(srv.Observe, "world_model/observe", observe).success
    box = graph.call(srv.GetEntity, "world_model/get_entity", get).entity
    assert list(box.attributes) == given
    lived = msg.Episode(objective="stepping", action="wait", outcome="success", kind="working")
    write = srv.WriteEpisode.Request(episode=lived)
    assert graph.call(srv.WriteEpisode, "memory/write", write).success
    kept = graph.call(srv.Retrieve, "memory/retrieve", srv.Retrieve.Request(query="stepping"))
    assert len(kept.results) == round_


def test_a_stepped_clock_stops_nothing_and_forgets_or_revives_nothing(
        graph: Any, tmp_path: Path, stepped: tuple[Brain, Step]) -> None:
    brain, step = stepped
    levels = graph.listen(msg.ServiceLevel, "service_level", qos.STATE)
    states = graph.listen(msg.SafetyState, "conscience/safety_state", qos.STATE)
    beats = graph.listen(msg.Heartbeat, "watchdog/heartbeat", qos.HEARTBEATS)
    commands = graph.listen(Twist, "cmd_vel")
    asks = graph.publisher(Twist, "cmd_vel_raw", qos.COMMAND)
    states.wait_for(lambda state: state.state == msg.SafetyState.RUNNING)
    request = Twist()
    request.angular.z = 0.2
    timer = graph.tester.create_timer(0.05, lambda: asks.publish(request))
    commands.wait_for(lambda command: command.angular.z > 0.0)
    pids = brain.pids()
    for seen in (levels, states):
        seen.messages.clear()

    was = 0
    live_on(graph, 1)
    for round_, ahead in enumerate((HOUR_NS, -HOUR_NS, 0), start=2):
        before = ask(graph)
        step(ahead)
        for heard in (commands, beats):
            heard.messages.clear()
            heard.wait_for(lambda _, heard=heard: len(heard.messages) > 30)
        after = ask(graph)
        stepped_s = after.created_at.sec - before.created_at.sec
        assert stepped_s == pytest.approx((ahead - was) / 1e9, abs=60)
        assert approve(graph, tmp_path, before).status == "approved", "a jump expires nothing"
        live_on(graph, round_)
        commands.wait_for(lambda command: command.angular.z > 0.0)
        was = ahead

    waiting = ask(graph)
    brain.wait_for(lambda: waiting.approval_id not in pending(graph))
    step(-HOUR_NS)
    assert waiting.approval_id not in pending(graph)
    refused = approve(graph, tmp_path, waiting)
    assert (refused.success, refused.error_code) == (False, ErrorCode.CONSCIENCE_APPROVAL_EXPIRED)

    graph.tester.destroy_timer(timer)
    assert not [level.reason for level in levels.messages]
    assert not [state.causes for state in states.messages]
    assert brain.pids() == pids
    assert "failed:" not in brain.text() and "was killed" not in brain.text()
