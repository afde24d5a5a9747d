"""Real nodes in this process, each spun by a thread of its own, talked to over real DDS."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here")

from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from waiting import DEADLINE_S, wait_for  # noqa: E402

from brainos_ros.ros import discovery, qos  # noqa: E402
from brainos_ros.ros.executor import Outgoing, make_executor, spin, wake  # noqa: E402
from brainos_ros.ros.lifecycle import BrainNode  # noqa: E402
from brainos_ros.ros.main import pace  # noqa: E402


class Inbox:
    """The messages that came in on a topic, and waiting for one that fits."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self._came = threading.Condition()

    def take(self, message: Any) -> None:
        with self._came:
            self.messages.append(message)
            self._came.notify_all()

    def wait_for(
        self, fits: Callable[[Any], bool] = lambda _: True, timeout_s: float = DEADLINE_S
    ) -> Any:
        """The first message that fits, also one that is here already."""

        def found() -> list[Any]:
            return [message for message in self.messages if fits(message)]

        with self._came:
            assert self._came.wait_for(found, timeout_s), f"nothing that fits in {self.messages!r}"
            return found()[0]


class Graph:
    """What a test needs of the graph: nodes under test, a client of each door, topics."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._running: list[tuple[Node, Any, threading.Event, threading.Thread]] = []
        self.tester = Node("tester")
        self._run(self.tester)
        self.outgoing = Outgoing(self.tester)

    def start(
        self,
        node_class: type[BrainNode],
        state: str = "active",
        namespace: str = "",
        **parameters: Any,
    ) -> BrainNode:
        """A node with these parameters, taken to `state` (unconfigured, inactive or active)."""
        given = {"home": str(self.home), **parameters}
        node = node_class(
            namespace=namespace,
            parameter_overrides=[Parameter(name, value=value) for name, value in given.items()],
        )
        self._run(node)
        steps = {"unconfigured": 0, "inactive": 1, "active": 2}[state]
        for transition in (
            Transition.TRANSITION_CONFIGURE,
            Transition.TRANSITION_ACTIVATE,
        )[:steps]:
            name = node.get_fully_qualified_name()
            assert self.change_state(name, transition), node.last_failure
        return node

    def stop(self, node: BrainNode) -> None:
        """End a node as its process would on SIGTERM."""
        entry = next(item for item in self._running if item[0] is node)
        self._running.remove(entry)
        self._end(*entry)

    def within(self, node: BrainNode, act: Callable[[], Any]) -> Any:
        """What `act` gives in the node's own thread: its stores are for no other."""
        executor = next(item[1] for item in self._running if item[0] is node)
        task = executor.create_task(act)
        wait_for(task.done)
        return task.result()

    def change_state(self, name: str, transition: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = transition
        return bool(self.call(ChangeState, f"{name}/change_state", request).success)

    def state(self, name: str) -> str:
        return str(self.call(GetState, f"{name}/get_state", GetState.Request()).current_state.label)

    def call(
        self, srv_type: Any, name: str, request: Any = None, timeout_s: float = DEADLINE_S
    ) -> Any:
        client = self.outgoing.client(srv_type, name)
        try:
            return self.outgoing.call(client, request or srv_type.Request(), timeout_s)
        finally:
            self.outgoing.node.destroy_client(client)

    def listen(self, msg_type: Any, topic: str, profile: Any = qos.EVENT) -> Inbox:
        inbox = Inbox()
        self.tester.create_subscription(msg_type, topic, inbox.take, profile)
        return inbox

    def publisher(self, msg_type: Any, topic: str, profile: Any = qos.EVENT) -> Any:
        return self.tester.create_publisher(msg_type, topic, profile)

    def _run(self, node: Node) -> None:
        executor, stop = make_executor(node), threading.Event()
        given = (node, executor, stop, *pace(node))
        thread = threading.Thread(target=spin, args=given, daemon=True)
        thread.start()
        self._running.append((node, executor, stop, thread))

    def _end(self, node: Node, executor: Any, stop: threading.Event, thread: Any) -> None:
        stop.set()
        wake(executor)
        thread.join()
        if node is self.tester:
            for client in [each for each in node.waitables if isinstance(each, ActionClient)]:
                client.destroy()
        getattr(node, "end", node.destroy_node)()
        executor.shutdown()

    def close(self) -> None:
        self.outgoing.close()
        for entry in reversed(self._running):
            self._end(*entry)


def participants() -> list[str]:
    """Threads of DDS participants in this process (Fast DDS)."""
    names = [each.read_text().strip() for each in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if name.startswith("dds.")]


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    discovery.prepare()
    rclpy.init()
    made = Graph(tmp_path)
    yield made
    made.close()
    rclpy.try_shutdown()
    wait_for(lambda: not participants(), lambda: "a node is left for the next test's graph to show")
