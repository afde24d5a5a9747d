"""A door for work that takes seconds, beside the node's own."""

import threading
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor, ShutdownException

from brainos_ros.ros import qos
from brainos_ros.ros.executor import second_node
from brainos_ros.ros.lifecycle import BrainNode


class Side:
    """One slow door on a node and threads of its own: it may take minutes, and a second caller is
    answered while the first waits.
    """

    def __init__(self, owner: BrainNode, srv_type: Any, name: str, handler: Any) -> None:
        self._owner, self._closing = owner, False
        self._node = second_node(owner, name.rpartition("/")[2])
        self._node.create_service(
            srv_type,
            owner.resolve_service_name(name),
            owner.answering(srv_type, name, handler),
            qos_profile=qos.SERVICE,
            callback_group=ReentrantCallbackGroup(),
        )
        self._executor = MultiThreadedExecutor(num_threads=4, context=owner.context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name="evolve", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._closing and self._owner.context.ok():
            try:
                self._executor.spin()
            except (ShutdownException, ExternalShutdownException):
                return
            except Exception as error:
                self._owner.note_failure(f"{self._node.get_name()} failed: {error!r}")

    def close(self) -> None:
        """Let running calls end, answer them, then close the door."""
        self._closing = True
        self._executor.shutdown()
        self._thread.join()
        # rclpy's shutdown does not wait for what runs, so a reply would be lost with its service
        self._executor._executor.shutdown(wait=True)
        self._node.destroy_node()
