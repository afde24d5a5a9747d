"""The world model over real DDS: doors, topics, senses, restart."""

import math
import time

import pytest
import rclpy
from brainos_msgs import msg, srv
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Vector3
from lifecycle_msgs.msg import Transition
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import ParameterType, ParameterValue
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import LaserScan
from visualization_msgs.msg import Marker, MarkerArray
from waiting import DEADLINE_S, matched, wait_for

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Stream
from brainos_ros.ledger.backup import back_up
from brainos_ros.ledger.housekeeping import prune
from brainos_ros.ros import qos
from brainos_ros.world_model import node as node_module
from brainos_ros.world_model import senses
from brainos_ros.world_model.node import WorldModelNode


def text(key: str, value: str) -> msg.Attribute:
    return msg.Attribute(key=key, value=ParameterValue(string_value=value))


def create(graph, entity_id: str, entity_type: str = "object", **fields):
    entity = msg.Entity(entity_id=entity_id, entity_type=entity_type, **fields)
    return graph.call(
        srv.CreateEntity, "world_model/create_entity", srv.CreateEntity.Request(entity=entity)
    )


def observe(graph, target: str, **fields):
    fields = {"event_type": "object_detected", "target_entity_type": "object", **fields}
    observation = msg.Observation(target_entity_id=target, **fields)
    return graph.call(
        srv.Observe, "world_model/observe", srv.Observe.Request(observation=observation)
    )


def delete(graph, entity_id: str):
    request = srv.DeleteEntity.Request(entity_id=entity_id)
    return graph.call(srv.DeleteEntity, "world_model/delete_entity", request)


def relate(graph, source: str, kind: str, target: str, remove: bool = False):
    relation = msg.Relation(source_id=source, relation_type=kind, target_id=target)
    request = srv.Relate.Request(relation=relation, remove=remove)
    return graph.call(srv.Relate, "world_model/relate", request)


def get(graph, entity_id: str):
    request = srv.GetEntity.Request(entity_id=entity_id)
    return graph.call(srv.GetEntity, "world_model/get_entity", request)


def snapshot(graph, **fields):
    request = srv.GetSnapshot.Request(**fields)
    return graph.call(srv.GetSnapshot, "world_model/get_snapshot", request)


def test_an_entity_lives_from_create_to_delete(graph) -> None:
    graph.start(WorldModelNode)
    made = create(graph, "", rank=5, attributes=[text("weight", "2.5"), text("label", "glass")])
    assert made.success, made.message
    held = get(graph, made.entity_id)
    assert held.entity.rank == 5
    values = {a.key: a.value for a in held.entity.attributes}
    assert values["weight"].double_value == 2.5
    assert values["label"].type == ParameterType.PARAMETER_STRING
    assert delete(graph, made.entity_id).success
    assert get(graph, made.entity_id).error_code == ErrorCode.NOT_FOUND


def test_observations_reach_the_world_by_service_and_topic(graph) -> None:
    graph.start(WorldModelNode)
    seen = observe(graph, "cube", data=[text("colour", "red")], frame_id="map")
    assert seen.success, seen.message
    state = graph.listen(msg.WorldState, "world_model/state", qos.STATE)
    topic = matched(graph.publisher(msg.Observation, "observations", qos.EVENT))
    topic.publish(msg.Observation(event_type="seen", target_entity_id="nameless"))
    topic.publish(
        msg.Observation(
            event_type="seen", target_entity_id="ball", target_entity_type="toy",
            data=[text("colour", "blue")],
        )
    )  # fmt: skip
    state.wait_for(lambda m: any(count.type == "toy" for count in m.entities_by_type))
    assert get(graph, "ball").entity.attributes[0].value.string_value == "blue"
    assert get(graph, "cube").entity.frame_id == "map"
    assert get(graph, "nameless").error_code == ErrorCode.NOT_FOUND


def test_an_orderly_end_keeps_the_world_though_the_ledger_takes_nothing(graph) -> None:
    def refuse(kind: str, body) -> int:
        raise BrainError("no space", ErrorCode.LEDGER_REFUSED)

    node = graph.start(WorldModelNode)
    topic = matched(graph.publisher(msg.Observation, "observations", qos.EVENT))
    graph.within(node, lambda: setattr(node._journal, "_record", refuse))
    topic.publish(
        msg.Observation(event_type="seen", target_entity_id="ball", target_entity_type="toy")
    )
    wait_for(lambda: get(graph, "ball").success)
    graph.stop(node)
    assert "no space" in node.last_failure
    graph.start(WorldModelNode)
    assert get(graph, "ball").success


def test_what_is_too_large_to_record_costs_the_rest_nothing(graph) -> None:
    node = graph.start(WorldModelNode)
    topic = matched(graph.publisher(msg.Observation, "observations", qos.EVENT))
    large = [text(f"k{i}", "x" * 65_000) for i in range(70)]
    for name, data in (("aaa", large), ("ball", [text("colour", "blue")])):
        topic.publish(
            msg.Observation(
                event_type="seen", target_entity_id=name, target_entity_type="toy", data=data
            )
        )
    wait_for(lambda: get(graph, "ball").success)
    assert get(graph, "aaa").error_code == ErrorCode.NOT_FOUND
    graph.stop(node)
    (graph.home / "world_model" / "world.json").unlink()
    graph.start(WorldModelNode)
    assert get(graph, "ball").success


def test_snapshot_since_a_version_and_impact(graph) -> None:
    graph.start(WorldModelNode)
    for name in ("dock", "lidar", "base"):
        assert create(graph, name).success
    assert relate(graph, "lidar", "depends_on", "base").success
    before = snapshot(graph)
    assert before.total_entities == 4
    assert {c.type: c.count for c in before.entities_by_type} == {"object": 3, "robot": 1}
    assert create(graph, "box", "box").success
    assert relate(graph, "lidar", "depends_on", "base", remove=True).success
    assert relate(graph, "dock", "depends_on", "lidar").success
    after = snapshot(graph, since_version=before.version, entity_types=["object", "box"])
    assert {e.entity_id for e in after.entities} == {"box", "lidar", "base", "dock"}
    assert [r.target_id for r in after.relations] == ["lidar"]
    assert relate(graph, "lidar", "depends_on", "base").success
    request = srv.GetImpact.Request(entity_id="base")
    impact = graph.call(srv.GetImpact, "world_model/get_impact", request)
    assert list(zip(impact.entity_ids, impact.depths, strict=True)) == [("lidar", 1), ("dock", 2)]


def until_counted(graph, count: int):
    def counts() -> bool:
        counted = snapshot(graph)
        return not counted.message and counted.pending_approvals == count

    wait_for(counts, lambda: snapshot(graph))


def test_a_conscience_that_is_silent_holds_nobody_up(graph, monkeypatch) -> None:
    monkeypatch.setattr(node_module, "UPKEEP_PERIOD_S", 0.2)
    node = graph.start(WorldModelNode)
    assert snapshot(graph).message
    pending = [msg.PendingApproval()] * 2

    def answer(_, response):
        response.success, response.pending = True, pending
        return response

    name = "conscience/list_pending"
    service = graph.tester.create_service(srv.ListPending, name, answer, qos_profile=qos.SERVICE)
    until_counted(graph, 2)
    pending.pop()
    until_counted(graph, 1)
    graph.tester.destroy_service(service)
    mute = rclpy.create_node("mute")
    mute.create_service(srv.ListPending, name, answer, qos_profile=qos.SERVICE)
    assert node._approvals.wait_for_service(DEADLINE_S)
    took = []

    def gives_up() -> bool:
        began = time.monotonic()
        said = snapshot(graph).message
        took.append(time.monotonic() - began)
        return "not counted" in said

    wait_for(gives_up)
    assert sorted(took)[len(took) // 2] < 0.1
    assert snapshot(graph).success
    mute.destroy_node()


def test_an_activation_leaves_no_client_behind(graph) -> None:
    node = graph.start(WorldModelNode)
    name = node.get_name()
    for _ in range(3):
        assert graph.change_state(name, Transition.TRANSITION_DEACTIVATE)
        assert graph.change_state(name, Transition.TRANSITION_ACTIVATE)
    assert len(list(node.outgoing.node.clients)) == 1


def test_list_filters_by_attribute(graph) -> None:
    graph.start(WorldModelNode)
    for i in range(3):
        create(graph, f"box{i}", "box", attributes=[text("full", "true" if i else "false")])
    request = srv.ListEntities.Request(entity_type="box", filters=[text("full", "true")], limit=1)
    found = graph.call(srv.ListEntities, "world_model/list_entities", request)
    assert ([e.entity_id for e in found.entities], found.total_count) == (["box1"], 2)


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        (lambda g: create(g, "x", ""), ErrorCode.INVALID_ARGUMENT),
        (lambda g: create(g, "x", rank=77), ErrorCode.INVALID_ARGUMENT),
        (lambda g: create(g, "tracked/4", "person"), ErrorCode.INVALID_ARGUMENT),
        (lambda g: observe(g, "tracked/4"), ErrorCode.INVALID_ARGUMENT),
        (lambda g: create(g, "robot", "toaster"), ErrorCode.ALREADY_EXISTS),
        (lambda g: delete(g, "robot"), ErrorCode.INVALID_ARGUMENT),
        (lambda g: observe(g, "robot", event_type="removed"), ErrorCode.INVALID_ARGUMENT),
        (lambda g: observe(g, ""), ErrorCode.INVALID_ARGUMENT),
        (lambda g: observe(g, "x", target_entity_type=""), ErrorCode.INVALID_ARGUMENT),
        (lambda g: observe(g, "x", data=[text("", "1")]), ErrorCode.INVALID_ARGUMENT),
        (lambda g: relate(g, "robot", "on", "robot"), ErrorCode.WORLD_MODEL_RELATION_INVALID),
        (lambda g: relate(g, "robot", "on", "moon"), ErrorCode.NOT_FOUND),
        (lambda g: snapshot(g, since_version=2**63), ErrorCode.INVALID_ARGUMENT),
    ],
)
def test_refusals_say_why_and_change_nothing(graph, refused, code: ErrorCode) -> None:
    graph.start(WorldModelNode)
    before = snapshot(graph).version
    reply = refused(graph)
    assert (reply.success, reply.error_code) == (False, code)
    assert reply.message
    assert snapshot(graph).version == before


def test_the_senses_fill_the_state(graph) -> None:
    graph.start(WorldModelNode, sense_period_s=0.02)
    state = graph.listen(msg.WorldState, "world_model/state", qos.STATE)
    odom = Odometry()
    odom.header.frame_id = "odom"
    odom.pose.pose.position.x = 3.0
    odom.pose.pose.orientation.w = 1.0
    scan = LaserScan(range_min=0.1, range_max=30.0, ranges=[math.inf, 1.25, math.nan])
    people = msg.TrackedPeople(
        people=[msg.TrackedPerson(id=4, position=Point(x=1.0), velocity=Vector3(x=0.6, y=0.8))]
    )
    people.header.frame_id = "odom"
    for message, topic in ((odom, "odom"), (scan, "scan"), (people, "tracked_people")):
        matched(graph.publisher(type(message), topic, qos.SENSOR)).publish(message)
    seen = state.wait_for(
        lambda m: m.people == 1 and m.nearest_obstacle_m == 1.25 and m.robot_pose.header.frame_id
    )
    assert seen.robot_pose.pose.position.x == 3.0
    person = get(graph, "tracked/4").entity
    values = {a.key: a.value.double_value for a in person.attributes}
    assert (person.entity_type, values["speed_mps"]) == ("person", 1.0)
    assert person.ttl.sec == 2


def test_a_way_that_becomes_free_is_told(graph, monkeypatch) -> None:
    monkeypatch.setattr(node_module, "SCAN_HOLDS_NS", 500_000_000)
    graph.start(WorldModelNode, sense_period_s=0.02)
    state = graph.listen(msg.WorldState, "world_model/state", qos.STATE)
    scans = matched(graph.publisher(LaserScan, "scan", qos.SENSOR))

    def told(nearest: float) -> list[str]:
        """What the robot's entity has, once the state said so after a scan like this."""
        state.messages.clear()
        scans.publish(LaserScan(range_min=0.1, range_max=10.0, ranges=[nearest]))
        state.wait_for(lambda m: m.nearest_obstacle_m == nearest)
        return [each.key for each in get(graph, "robot").entity.attributes]

    assert told(0.5) == ["nearest_obstacle_m"]
    assert told(math.inf) == []
    assert told(0.5) == ["nearest_obstacle_m"]
    state.wait_for(lambda m: math.isnan(m.nearest_obstacle_m))
    assert not get(graph, "robot").entity.attributes


def test_a_person_of_unknown_speed_is_somewhere_and_keeps_what_was_observed(graph) -> None:
    graph.start(WorldModelNode, sense_period_s=0.02)
    tracker = matched(graph.publisher(msg.TrackedPeople, "tracked_people", qos.SENSOR))
    person = msg.TrackedPerson(id=4, velocity=Vector3(x=math.nan), radius_m=0.25)

    def tracked(x: float) -> bool:
        person.position.x = x
        tracker.publish(msg.TrackedPeople(people=[person]))
        reply = get(graph, "tracked/4")
        return reply.success and reply.entity.pose.pose.position.x == x

    wait_for(lambda: tracked(1.0))
    assert observe(graph, "tracked/4", data=[text("vest", "red")]).success
    wait_for(lambda: tracked(2.0))
    assert {each.key for each in get(graph, "tracked/4").entity.attributes} == {"radius_m", "vest"}


def test_nobody_need_track_people(graph) -> None:
    state = graph.listen(msg.WorldState, "world_model/state", qos.STATE)
    graph.start(WorldModelNode, tracked_people_topic="")
    assert not state.wait_for().people_known


def test_people_that_nobody_tells_of_any_more_are_not_zero_people(graph, monkeypatch) -> None:
    monkeypatch.setattr(senses, "PERSON_TTL_NS", 300_000_000)
    graph.start(WorldModelNode, sense_period_s=0.02)
    state = graph.listen(msg.WorldState, "world_model/state", qos.STATE)
    tracker = matched(graph.publisher(msg.TrackedPeople, "tracked_people", qos.SENSOR))
    state.wait_for(lambda m: not m.people_known)
    tracker.publish(msg.TrackedPeople())
    state.wait_for(lambda m: m.people_known and m.people == 0)
    state.messages.clear()
    state.wait_for(lambda m: not m.people_known)


def test_a_sensor_that_lies_is_refused_and_the_rest_still_seen(graph) -> None:
    node = graph.start(WorldModelNode, sense_period_s=0.02)
    state = graph.listen(msg.WorldState, "world_model/state", qos.STATE)
    odom = Odometry()
    odom.header.frame_id = "odom"
    odom.pose.pose.position.x = math.nan
    lost = msg.TrackedPeople(people=[msg.TrackedPerson(id=5, position=Point(x=math.nan))])
    for message, topic in ((odom, "odom"), (lost, "tracked_people")):
        matched(graph.publisher(type(message), topic, qos.SENSOR)).publish(message)
    state.wait_for(lambda m: m.people == 1)
    scan = LaserScan(range_min=0.1, range_max=30.0, ranges=[2.0])
    matched(graph.publisher(LaserScan, "scan", qos.SENSOR)).publish(scan)
    seen = state.wait_for(lambda m: m.nearest_obstacle_m == 2.0)
    assert seen.robot_pose.header.frame_id == ""
    assert get(graph, "tracked/5").error_code == ErrorCode.NOT_FOUND
    assert node._refused == 1


def test_markers_show_what_has_a_pose_and_its_end(graph) -> None:
    graph.start(WorldModelNode, sense_period_s=0.02)
    markers = graph.listen(MarkerArray, "world_model/markers", qos.STATE)
    assert create(graph, "dock", "station", frame_id="map").success
    shown = markers.wait_for(lambda m: any(x.ns == "dock" for x in m.markers))
    assert shown.markers[0].header.frame_id == "map"
    assert delete(graph, "dock").success
    markers.wait_for(lambda m: any(x.ns == "dock" and x.action == Marker.DELETE for x in m.markers))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_pruned_records_do_not_keep_it_from_starting(graph, checkpoint: bool) -> None:
    node = graph.start(WorldModelNode)
    assert create(graph, "dock", "station").success
    graph.stop(node)
    world = graph.home / "world_model" / "world.json"
    with Stream.open(graph.home / "ledger", "world_model", segment_bytes=2048) as stream:
        for n in range(60):
            stream.event("note", {"n": n})
        stream.checkpoint()
        back_up(stream.path, graph.home / "copy")
        assert prune(stream, -1.0, graph.home / "copy")
    if not checkpoint:
        world.unlink()
    graph.start(WorldModelNode)
    assert create(graph, "cube").success
    assert get(graph, "dock").success


def test_a_stepped_clock_freezes_nothing(graph, monkeypatch: pytest.MonkeyPatch) -> None:
    node = graph.start(WorldModelNode)
    clock, ahead = node.get_clock(), 0

    def seen(colour: str):
        """The time now, and the cube's entity after it was seen in this colour by its stamp."""
        now = clock.now().nanoseconds + ahead
        stamp = Time(sec=now // 10**9, nanosec=now % 10**9)
        reply = observe(graph, "cube", data=[text("colour", colour)], stamp=stamp)
        assert reply.success, reply.message
        return now / 1e9, get(graph, "cube").entity

    monkeypatch.setattr(node._lived, "_wall_ns", lambda: clock.now().nanoseconds + ahead)
    for hours in (0, -1, 1, 0):
        ahead = hours * 3600 * 10**9
        now, cube = seen(f"red {hours}")
        assert cube.attributes[0].value.string_value == f"red {hours}"
        assert cube.last_updated.sec == pytest.approx(now, abs=DEADLINE_S)
        assert snapshot(graph).stamp.sec == pytest.approx(now, abs=DEADLINE_S)


def test_nothing_outlives_the_reset_of_a_simulation(graph) -> None:
    clock, seconds = graph.publisher(Clock, "/clock", 10), 1000.0

    def tick(step: float) -> None:
        nonlocal seconds
        seconds += step
        time = Time(sec=int(seconds), nanosec=int(seconds % 1 * 1e9))
        clock.publish(Clock(clock=time))

    node = graph.start(WorldModelNode, sense_period_s=0.02, use_sim_time=True)
    matched(clock)

    def ticked() -> bool:
        tick(0.1)
        return node._ros_now() > 999 * 10**9

    wait_for(ticked)
    assert observe(graph, "door", ttl=Duration(sec=5)).success
    tracker = matched(graph.publisher(msg.TrackedPeople, "tracked_people", qos.SENSOR))
    tracker.publish(msg.TrackedPeople(people=[msg.TrackedPerson(id=4)]))
    wait_for(lambda: get(graph, "tracked/4").success)
    seconds = 1.0

    def all_gone() -> bool:
        tick(0.1)
        return {entity.entity_type for entity in snapshot(graph).entities} == {"robot"}

    wait_for(all_gone)
    assert seconds < 20.0
    assert snapshot(graph).stamp.sec < 20


def test_a_world_from_before_a_step_back_is_not_frozen(graph, monkeypatch) -> None:
    now = WorldModelNode._ros_now
    with monkeypatch.context() as ahead:
        ahead.setattr(WorldModelNode, "_ros_now", lambda node: now(node) + 3600 * 10**9)
        node = graph.start(WorldModelNode)
        assert observe(graph, "cube", data=[text("colour", "red")]).success
        graph.stop(node)
    node = graph.start(WorldModelNode)
    assert observe(graph, "cube", data=[text("colour", "blue")]).success
    cube = get(graph, "cube").entity
    assert cube.attributes[0].value.string_value == "blue"
    assert cube.last_updated.sec == pytest.approx(now(node) / 1e9, abs=DEADLINE_S)


def test_the_world_survives_a_restart(graph) -> None:
    node = graph.start(WorldModelNode)
    assert create(graph, "dock", "station").success
    assert observe(graph, "cube", data=[text("colour", "red")]).success
    assert relate(graph, "cube", "located_in", "dock").success
    before = snapshot(graph)
    graph.stop(node)
    (graph.home / "world_model" / "world.json").unlink()
    again = graph.start(WorldModelNode)
    after = snapshot(graph)
    assert {e.entity_id for e in after.entities} == {"dock", "cube", "robot"}
    assert after.relations == before.relations
    assert after.version > before.version
    graph.stop(again)
    graph.start(WorldModelNode)
    assert get(graph, "cube").entity.attributes[0].value.string_value == "red"
