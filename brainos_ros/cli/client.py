"""A short-lived node for verbs that ask a running brain."""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.node import Node

from brainos_ros.cli import options
from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ros import discovery
from brainos_ros.ros.executor import Outgoing, await_server


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every such verb."""
    parser.add_argument("--namespace", type=options.namespace, default="",
                        help="namespace of the robot's brain")
    parser.add_argument("--timeout", type=options.seconds, default=5.0, metavar="SECONDS",
                        help="how long to wait for the brain (default: 5)")


class Caller:
    """Calls the doors of one brain, by role name (`watchdog/get_status`)."""

    def __init__(self, node: Node, outgoing: Outgoing, timeout_s: float) -> None:
        self._node, self._outgoing, self._timeout_s = node, outgoing, timeout_s
        self._clients: dict[str, Any] = {}

    def call(self, kind: Any, door: str, request: Any, timeout_s: float | None = None) -> Any:
        """The reply. Raises `BrainError` if nobody answers or the answer is a refusal.

        Work that takes long has a longer `timeout_s` [s]; that nobody is there shows before.
        """
        if door not in self._clients:
            self._clients[door] = self._outgoing.client(kind, door)
        client, timeout_s = self._clients[door], timeout_s or self._timeout_s
        await_server(client, time.monotonic() + min(timeout_s, self._timeout_s))
        reply = self._outgoing.call(client, request, timeout_s)
        if not reply.success:
            raise BrainError(reply.message, ErrorCode(reply.error_code))
        return reply


@contextmanager
def brain(args: argparse.Namespace) -> Iterator[Caller]:
    """A caller for the brain that `args` name."""
    discovery.prepare()
    rclpy.init(args=[])
    namespace = f"/{args.namespace.strip('/')}"
    node = Node("brainos_cli", namespace=namespace, use_global_arguments=False)
    outgoing = Outgoing(node)
    try:
        yield Caller(node, outgoing, args.timeout)
    finally:
        outgoing.close()
        node.destroy_node()
        rclpy.try_shutdown()
