"""Subscriptions that no executor hears: to wake up for each message costs half as much again."""

import time
from collections.abc import Iterator
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from brainos_ros.ros.executor import second_node


def publishers(node: Node, topic: str) -> list[str]:
    """The full name of the node behind each publisher on a topic, as `node` sees the graph."""
    return [f"{end.node_namespace.rstrip('/')}/{end.node_name}"
            for end in node.get_publishers_info_by_topic(topic)]


class Ears:
    """Holds them on a node of its own until `close`; `take` is called as often as suits."""

    def __init__(self, owner: Node) -> None:
        self._owner, self._node = owner, second_node(owner, "ears")
        self.close = self._node.destroy_node

    def subscribe(self, kind: Any, topic: str, profile: QoSProfile) -> Subscription:
        """Listen to `topic`, relative to the owner and with its remaps."""
        resolved = self._owner.resolve_topic_name(topic)
        return self._node.create_subscription(kind, resolved, lambda _: None, profile)

    def rivals(self, heard: Subscription) -> set[str]:
        """The full names of the nodes that publish what is heard; nobody if only one publisher is
        there, and never asked for names, which costs."""
        topic = heard.topic_name
        if self._node.count_publishers(topic) < 2:
            return set()
        return set(publishers(self._node, topic))

    @staticmethod
    def take(heard: Subscription, now: float, period_s: float) -> Iterator[tuple[float, Any]]:
        """The messages that wait, each with the steady time [s] it came.

        The middleware stamps with the clock of the wall, which may step: `period_s`, since when
        the caller last took them, bounds the age.
        """
        wall_ns = time.time_ns()
        with heard.handle:
            while taken := heard.handle.take_message(heard.msg_type, False):
                message, info = taken
                age_s = (wall_ns - info["received_timestamp"]) / 1e9
                yield now - min(max(age_s, 0.0), period_s), message
