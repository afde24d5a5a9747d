"""Nothing a peer sends ends a node: wrong transitions, malformed requests, garbage, exceptions.

All six nodes, real DDS. The requests are built from the interface definitions, so a new door is
covered as soon as it exists.
"""

import array
import math
import random
import struct
from typing import Any

import pytest
from lifecycle_msgs.msg import Transition
from rcl_interfaces.srv import GetParameters
from std_msgs.msg import String
from std_srvs.srv import Empty

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
            package, name = inner.split("/")
            kind = getattr(__import__(f"{package}.msg", fromlist=[name]), name)
            return [garbage(kind, rng, depth + 1) for _ in range(rng.choice((0, 1, 3)))]
        items = [value(None, inner, rng, depth) for _ in range(rng.choice((0, 1, 3)))]
        return array.array(now.typecode, items) if isinstance(now, array.array) else items
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


def poison(*_: Any) -> None:
    raise RuntimeError("poison")


@pytest.fixture(params=NODES, ids=lambda kind: kind.role)
def node(graph, request):
    kind = request.param
    if kind is WatchdogNode:
        robot = graph.home / "alone.yaml"
        robot.write_text(ALONE)
        return graph.start(kind, state="unconfigured", robot_file=str(robot))
    return graph.start(kind)


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
    assert graph.state(node.get_name()) == "active"
    for transition in WRONG:
        assert not graph.change_state(node.get_name(), transition)
    assert graph.state(node.get_name()) == "active"
    assert answers(graph, node)


def test_malformed_requests(graph, node) -> None:
    doors = [
        service
        for service in (*node.services, *(node._outgoing.node.services if node._outgoing else ()))
        if "brainos_msgs" in service.srv_type.__module__
    ]
    assert doors
    rng = random.Random(7)
    for door in doors:
        for number in range(1 if door.srv_name.endswith(SLOW) else 6):
            request = door.srv_type.Request()
            if number:
                request = garbage(door.srv_type.Request, rng)
            reply = graph.call(door.srv_type, door.srv_name, request, timeout_s=60.0)
            assert reply.success or (reply.error_code and reply.message), door.srv_name
    assert answers(graph, node)
    assert graph.state(node.get_name()) == "active"


def test_garbage_on_every_topic(graph, node) -> None:
    rng = random.Random(7)
    for subscription in [s for s in node.subscriptions if s.topic_name != "/clock"]:
        publisher = graph.publisher(
            subscription.msg_type, subscription.topic_name, subscription.qos_profile
        )
        while not publisher.get_subscription_count():
            assert answers(graph, node)
        for number in range(20):
            publisher.publish(garbage(subscription.msg_type, rng))
            if number % 4 == 0:
                length = rng.choice((0, 3, 64))
                publisher.publish(struct.pack("<I", 256) + rng.randbytes(length))
    for _ in range(20):
        assert answers(graph, node)
    assert graph.state(node.get_name()) == "active"


def test_exceptions_in_callbacks(graph, node) -> None:
    name = node.get_name()
    node.every(0.01, poison)
    node.create_service(Empty, f"{name}/poison", poison)
    node.create_subscription(String, "poison", poison, qos.EVENT)
    publisher = graph.publisher(String, "poison")
    for _ in range(10):
        graph.call(Empty, f"{name}/poison")
        publisher.publish(String(data="arsenic"))
    assert answers(graph, node)
    assert graph.state(name) == "active"
    assert "poison" in node.last_failure
