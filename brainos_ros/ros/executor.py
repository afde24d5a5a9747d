"""Which executor, how it is spun, and calls to other nodes from inside a callback."""

import math
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.client import Client
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ros import qos

try:
    from rclpy.experimental import EventsExecutor
except ImportError:  # Jazzy before 7.1.4
    EventsExecutor = None

IDLE_S = 0.2  # within which a loop looks whether it should end
WOKEN_IDLE_S = 2.0  # the same where whoever ends it wakes it, too: each look costs


def make_executor(node: Node) -> Executor:
    """An executor holding `node`: events where rclpy has them (ten times faster), else single."""
    if EventsExecutor is None:
        node.get_logger().warning(
            "this rclpy has no EventsExecutor; services will be ten times slower"
        )
        executor = SingleThreadedExecutor(context=node.context)
    else:
        executor = EventsExecutor(context=node.context)
    executor.add_node(node)
    return executor


def spin(
    node: Node,
    executor: Executor,
    stop: threading.Event,
    beat: Callable[[], None] = lambda: None,
    period_s: float = math.inf,
    idle_s: float = IDLE_S,
) -> None:
    """Work until `stop` is set or the context is gone, which it sees within `idle_s`, or at once
    after `wake`; no exception ends it.

    Between callbacks, every `period_s`, it calls `beat`: a timer for that would cost twice as much.

    `EventsExecutor.spin` processes nothing in some releases, and after a shutdown it would run
    hot, hence the loop.
    """
    due = -math.inf
    while not stop.is_set() and node.context.ok():
        try:
            now = time.monotonic()
            if now >= due:
                due = now + period_s
                beat()
            executor.spin_once(timeout_sec=min(max(due - now, 0.0), idle_s))
        except Exception:
            if node.context.ok():
                node.get_logger().error(
                    f"a callback failed outside its guard:\n{traceback.format_exc()}",
                    throttle_duration_sec=1.0,
                )
                stop.wait(0.001)


def wake(executor: Executor) -> None:
    """Let `spin` look at its `stop` at once, from any thread.

    `EventsExecutor.wake` does not end a `spin_once`, which would go on to its time-out.
    """
    executor.create_task(lambda: None)


def second_node(owner: Node, name: str) -> Node:
    """A bare node `<owner>_<name>` in the owner's namespace.

    `use_global_arguments=False` keeps a `__node:=` remap off it, and any other: names are resolved
    by the owner.
    """
    return Node(
        f"{owner.get_name()}_{name}",
        namespace=owner.get_namespace(),
        context=owner.context,
        use_global_arguments=False,
        enable_rosout=False,
        start_parameter_services=False,
    )


def client_of(node: Node, owner: Node, srv_type: Any, name: str) -> Client:
    """A client on `node` for the service `name`, relative to `owner` and with its remaps."""
    resolved = owner.resolve_service_name(name)
    return node.create_client(srv_type, resolved, qos_profile=qos.SERVICE)


def await_server(client: Client, deadline: float) -> None:
    """Wait until somebody offers the service; `deadline` on the steady clock [s].

    Raises `BrainError` (UNAVAILABLE).
    """
    while not client.service_is_ready():
        if time.monotonic() >= deadline:
            raise BrainError(f"nobody offers {client.srv_name}", ErrorCode.UNAVAILABLE)
        time.sleep(0.002)


def unanswered(client: Client, future: Any, timeout_s: float) -> BrainError:
    """Forget the request; the refusal for whoever waited."""
    client.remove_pending_request(future)
    return BrainError(f"{client.srv_name} did not answer within {timeout_s:g} s", ErrorCode.TIMEOUT)


class Outgoing:
    """A second node on a thread of its own, so that a callback can call other nodes and wait."""

    def __init__(self, owner: Node, name: str = "outgoing") -> None:
        self._owner = owner
        self.node = second_node(owner, name)
        self._stop = threading.Event()
        self._executor = make_executor(self.node)
        self._thread = threading.Thread(
            target=spin,
            args=(self.node, self._executor, self._stop),
            kwargs={"idle_s": WOKEN_IDLE_S},
            name=name,
            daemon=True,
        )
        self._thread.start()

    def client(self, srv_type: Any, name: str) -> Client:
        """A client for the service `name`, relative to the owner and with the owner's remaps."""
        return client_of(self.node, self._owner, srv_type, name)

    def call(self, client: Client, request: Any, timeout_s: float) -> Any:
        """The reply to `request`; may be called from any thread but the outgoing one.

        Raises `BrainError`: UNAVAILABLE if nobody offers the service within `timeout_s`, TIMEOUT
        if nobody answered within it.
        """
        deadline = time.monotonic() + timeout_s
        await_server(client, deadline)
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(max(deadline - time.monotonic(), 0.0)):
            raise unanswered(client, future, timeout_s)
        return future.result()

    def close(self) -> None:
        """End the thread and the node."""
        self._stop.set()
        wake(self._executor)
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
