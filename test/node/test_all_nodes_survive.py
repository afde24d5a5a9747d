"""Nothing a peer sends ends a node: wrong transitions, malformed requests, garbage, exceptions.

All six nodes, real DDS. The doors and topics are those that the ROS graph shows for a node and the
second nodes beside it, and the requests are built from the interface definitions, so a new one is
covered as soon as it exists.
"""

import array
import math
import random
import struct
import uuid
from importlib import import_module
from typing import Any

import pytest
from lifecycle_msgs.msg import Transition
from rcl_interfaces.srv import GetParameters
from rclpy.qos import QoSProfile
from std_msgs.msg import String
from std_srvs.srv import Empty
from waiting import matched

from brainos_ros.conscience.node import ConscienceNode
from brainos_ros.genome_sync.node import GenomeSyncNode
from brainos_ros.memory.node import MemoryNode
from brainos_ros.pfc.node import PfcNode
from brainos_ros.ros import qos
from brainos_ros.watchdog.node import WatchdogNode
from brainos_ros.world_model.node import WorldModelNode

NODES = (ConscienceNode, GenomeSyncNode, MemoryNode, PfcNode, WorldModelNode, WatchdogNode)
WRONG = (
    Transition.TRANSITION_CREATE,
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    99,
    255,
)
STRINGS = ("", "x", "../../etc/passwd", "a" * 10_000, "ünïcödé ☃", "0", "NaN", "' OR 1=1 --")
NUMBERS = (0.0, -1.0, 1e308, math.nan, math.inf, -math.inf)
LIMITS = {"int8": 7, "int16": 15, "int32": 31, "int64": 63}
#: Doors whose work takes seconds when the request happens to be valid.
SLOW = ("/evolve", "/restart", "/failover", "/sync")
#: What the graph must show, or it was not asked well: doors and topics of second nodes, an action.
SHOWN = {
    "conscience": {"/conscience/halt", "/conscience/evaluate", "/cmd_vel_raw", "/scan"},
    "genome_sync": {"/genome_sync/evolve", "/genome_sync/get_status"},
    "memory": {"/memory/retrieve", "/memory/forget", "/memory/write", "/episodes"},
    "pfc": {"/pfc/decide", "/pfc/pursue/_action/send_goal", "/pfc/pursue/_action/cancel_goal"},
    "world_model": {"/world_model/observe", "/observations", "/odom"},
    "watchdog": {"/watchdog/restart", "/watchdog/get_status"},
}


def garbage(kind: type, rng: random.Random, depth: int = 0) -> Any:
    """A message of `kind` with random content within its types."""
    message = kind()
    for name, type_name in kind.get_fields_and_field_types().items():
        try:
            setattr(message, name, value(getattr(message, name), type_name, rng, depth))
        except (AssertionError, TypeError):
            continue  # a fixed-size array or a bound that this value does not fit
    return message


def value(now: Any, type_name: str, rng: random.Random, depth: int) -> Any:
    if type_name.startswith("sequence<"):
        inner = type_name[9:-1].split(",")[0]
        if "/" in inner:
            kind = interface(inner.replace("/", "/msg/"))
            return [garbage(kind, rng, depth + 1) for _ in range(rng.choice((0, 1, 3)))]
        items = [value(None, inner, rng, depth) for _ in range(rng.choice((0, 1, 3)))]
        return array.array(now.typecode, items) if isinstance(now, array.array) else items
    if type_name.endswith("]"):
        inner, _, length = type_name[:-1].partition("[")
        return [value(None, inner, rng, depth) for _ in range(int(length))]
    if type_name in ("float", "double", "float32", "float64"):
        return rng.choice(NUMBERS)
    if type_name in ("boolean", "bool"):
        return rng.random() < 0.5
    if type_name == "octet":
        return rng.randbytes(1)
    bits = LIMITS.get(type_name.removeprefix("u"))
    if bits is not None:
        low = 0 if type_name.startswith("u") else -(2**bits)
        return rng.choice((low, 0, 1, 2**bits - 1))
    if type_name.startswith("string"):
        return rng.choice(STRINGS)
    return garbage(type(now), rng, depth + 1) if depth < 6 else now


def interface(name: str) -> type:
    """The class of `package/msg/Name`, `package/srv/Name` or what an action consists of."""
    package, kind, name = name.split("/")
    action, _, part = name.partition("_")
    module = import_module(f"{package}.{kind}")
    if kind != "action":
        return getattr(module, name)
    impl = getattr(module, action).Impl
    return getattr(impl, part if part == "FeedbackMessage" else f"{part}Service")


def poison(*_: Any) -> None:
    raise RuntimeError("poison")


@pytest.fixture(params=NODES, ids=lambda kind: kind.role)
def node(graph, request):
    kind, own = request.param, f"n{uuid.uuid4().hex}"  # the graph still shows who was ended
    if kind is WatchdogNode:
        robot = graph.home / "alone.yaml"
        robot.write_text(ALONE)
        return graph.start(kind, "unconfigured", own, robot_file=str(robot))
    return graph.start(kind, "active", own, **QUICK.get(kind.role, {}))


QUICK = {"genome_sync": {"candidates": 1, "rollouts": 1, "rollout_s": 0.1}}
ALONE = """
name: alone
base: {footprint_radius_m: 0.3, max_speed_mps: 1.0, max_yaw_rate_radps: 1.0, acceleration_mps2: 1.0,
       deceleration_mps2: 1.0, actuation_delay_s: 0.05, command_timeout_s: 0.3}
nodes:
  memory: {}
"""


def answers(graph, node) -> bool:
    """Whether the node still answers, from its own loop."""
    name = node.get_fully_qualified_name()
    reply = graph.call(
        GetParameters, f"{name}/get_parameters", GetParameters.Request(names=["home"])
    )
    return len(reply.values) == 1


def test_wrong_transitions(graph, node) -> None:
    assert graph.state(node.get_fully_qualified_name()) == "active"
    for transition in WRONG:
        assert not graph.change_state(node.get_fully_qualified_name(), transition)
    assert graph.state(node.get_fully_qualified_name()) == "active"
    assert answers(graph, node)


def shown(graph, node) -> tuple[dict[str, str], dict[str, str]]:
    """(services, topics listened to), name -> type, of the node and the second nodes beside it."""
    role, place, tester = node.get_name(), node.get_namespace(), graph.tester
    known = {node.resolve_service_name(service.srv_name) for service in node.services}
    known |= {place + name for name in SHOWN[role]}
    expected = known | {each.topic_name for each in node.subscriptions}
    for _ in range(1000):
        doors, topics = {}, {}
        for name, where in tester.get_node_names_and_namespaces():
            if where == place and (name == role or name.startswith(f"{role}_")):
                doors |= tester.get_service_names_and_types_by_node(name, place)
                topics |= tester.get_subscriber_names_and_types_by_node(name, place)
        if expected <= doors.keys() | topics.keys():
            return ({name: kinds[0] for name, kinds in doors.items()},
                    {name: kinds[0] for name, kinds in topics.items()})
        assert answers(graph, node)
    raise AssertionError(f"not in the graph: {expected - doors.keys() - topics.keys()}")


def test_malformed_requests(graph, node) -> None:
    doors, _ = shown(graph, node)
    rng = random.Random(7)
    for door, kind in doors.items():
        if not kind.startswith(("brainos_msgs/", "action_msgs/")):
            continue
        srv_type = interface(kind)
        for number in range(2 if door.endswith(SLOW) else 6):
            request = garbage(srv_type.Request, rng) if number else srv_type.Request()
            reply = graph.call(srv_type, door, request, timeout_s=60.0)
            if "/_action/" not in door:
                assert reply.success or (reply.error_code and reply.message), door
    assert answers(graph, node)
    assert graph.state(node.get_fully_qualified_name()) == "active"


def test_garbage_on_every_topic(graph, node) -> None:
    _, topics = shown(graph, node)
    rng = random.Random(7)
    for topic, kind in topics.items():
        msg_type = interface(kind)
        ear = graph.tester.get_subscriptions_info_by_topic(topic)[0].qos_profile
        profile = QoSProfile(depth=100, reliability=ear.reliability, durability=ear.durability)
        publisher = matched(graph.publisher(msg_type, topic, profile))
        for number in range(20):
            publisher.publish(garbage(msg_type, rng))
            if number % 4 == 0:
                length = rng.choice((0, 3, 40))  # a Twist takes no more
                publisher.publish(struct.pack("<I", 256) + rng.randbytes(length))
    for _ in range(20):
        assert answers(graph, node)
    assert graph.state(node.get_fully_qualified_name()) == "active"


def test_exceptions_in_callbacks(graph, node) -> None:
    name = node.get_fully_qualified_name()
    node.every(0.01, poison)
    node.create_service(Empty, f"{name}/poison", poison)
    node.create_subscription(String, "/poison", poison, qos.EVENT)
    publisher = graph.publisher(String, "/poison")
    for _ in range(10):
        graph.call(Empty, f"{name}/poison")
        publisher.publish(String(data="arsenic"))
    assert answers(graph, node)
    assert graph.state(name) == "active"
    assert "poison" in node.last_failure
