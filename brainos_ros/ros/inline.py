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
from brainos_ros.ros.executor import (
    await_server,
    client_of,
    make_executor,
    second_node,
    unanswered,
)


class Inline:
    """A second node, spun by whoever calls; for one thread only. Close it when done.

    The caller's own loop stands still meanwhile, so after a call in vain nobody waits again for as
    long as that one did: callers that queue up cannot hold up the heartbeat.
    """

    def __init__(self, owner: Node) -> None:
        self._owner = owner
        self._node = second_node(owner, "asking")
        self._executor = make_executor(self._node)
        self._answering: set[Client] = set()
        self._silent_until: dict[Client, float] = {}

    def client(self, srv_type: Any, name: str) -> Client:
        """A client for the service `name`, relative to the owner and with the owner's remaps."""
        return client_of(self._node, self._owner, srv_type, name)

    def call(self, client: Client, request: Any, timeout_s: float) -> Any:
        """The reply to `request`.

        Raises `BrainError`: UNAVAILABLE if nobody offers the service within `timeout_s`, or did
        not answer a moment ago; TIMEOUT if nobody answered within it.
        """
        now = time.monotonic()
        if now < self._silent_until.get(client, 0.0):
            raise BrainError(f"{client.srv_name} did not answer just now", ErrorCode.UNAVAILABLE)
        try:
            return self._call(client, request, timeout_s, now + timeout_s)
        except BrainError:
            self._silent_until[client] = time.monotonic() + timeout_s
            raise

    def _call(self, client: Client, request: Any, timeout_s: float, deadline: float) -> Any:
        if client not in self._answering:
            await_server(client, deadline)
        self._answering.discard(client)
        future = client.call_async(request)
        while not future.done():
            remaining = deadline - time.monotonic()
            if remaining <= 0.0:
                raise unanswered(client, future, timeout_s)
            self._executor.spin_once(timeout_sec=remaining)
        self._answering.add(client)
        return future.result()

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
