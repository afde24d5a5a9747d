"""Calls to another node in the middle of a callback, on the calling thread.

`Outgoing` has a thread of its own, and two thread changes a call; under load each of them waits
for the interpreter. Where one callback makes all the calls, as when `pfc` asks the conscience
about every decision, spinning the second node right there takes a third of the time.
"""

import time
from typing import Any

from rclpy.client import Client
from rclpy.node import Node

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ros import qos
from brainos_ros.ros.executor import make_executor


class Inline:
    """A second node, spun by whoever calls; for one thread only. Close it when done."""

    def __init__(self, owner: Node) -> None:
        self._owner = owner
        self._node = Node(
            f"{owner.get_name()}_asking",
            namespace=owner.get_namespace(),
            context=owner.context,
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._executor = make_executor(self._node)
        self._answering: set[Client] = set()

    def client(self, srv_type: Any, name: str) -> Client:
        """A client for the service `name`, relative to the owner and with the owner's remaps."""
        resolved = self._owner.resolve_service_name(name)
        return self._node.create_client(srv_type, resolved, qos_profile=qos.SERVICE)

    def call(self, client: Client, request: Any, timeout_s: float) -> Any:
        """The reply to `request`.

        Raises `BrainError`: UNAVAILABLE if nobody offers the service within `timeout_s`, TIMEOUT
        if nobody answered within it.
        """
        deadline = time.monotonic() + timeout_s
        while client not in self._answering and not client.service_is_ready():
            if time.monotonic() >= deadline:
                raise BrainError(f"nobody offers {client.srv_name}", ErrorCode.UNAVAILABLE)
            time.sleep(0.002)
        self._answering.discard(client)
        future = client.call_async(request)
        while not future.done():
            remaining = deadline - time.monotonic()
            if remaining <= 0.0:
                client.remove_pending_request(future)
                raise BrainError(
                    f"{client.srv_name} did not answer within {timeout_s:g} s", ErrorCode.TIMEOUT
                )
            self._executor.spin_once(timeout_sec=remaining)
        self._answering.add(client)
        return future.result()

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
