"""The life of a process that holds one or several nodes of the brain."""

import gc
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from brainos_ros.errors import BrainError
from brainos_ros.ros import discovery
from brainos_ros.ros.executor import make_executor, spin
from brainos_ros.ros.lifecycle import BrainNode

EXIT_REFUSED = 2


def run(*node_classes: Callable[[], BrainNode]) -> None:
    """Run nodes until SIGINT or SIGTERM, then deactivate and end them while the context lives.

    One executor thread per node: on a shared one, two nodes that call each other dead-lock.
    Exits with 2 and one line if a parameter is refused.
    """
    # a long callback in one thread must not hold up a halt in another for 5 ms
    sys.setswitchinterval(0.0005)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    discovery.prepare()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        nodes = _construct(node_classes)
        gc.collect()
        gc.freeze()
        executors = [make_executor(node) for node in nodes]
        loops = [
            partial(spin, node, executor, stop, *pace(node))
            for node, executor in zip(nodes, executors, strict=True)
        ]
        threads = [
            threading.Thread(target=loop, name=node.get_name())
            for node, loop in zip(nodes[1:], loops[1:], strict=True)
        ]
        for thread in threads:
            thread.start()
        loops[0]()
        stop.set()
        for thread in threads:
            thread.join()
        for node, executor in zip(reversed(nodes), reversed(executors), strict=True):
            node.end()
            executor.shutdown()
    finally:
        rclpy.try_shutdown()


def pace(node: Node) -> tuple[Callable[[], None], float] | tuple[()]:
    """What `spin` calls between callbacks, and how often: a robot's nodes have no heartbeat."""
    return (node.beat, node.beat_period_s) if isinstance(node, BrainNode) else ()


def _construct(node_classes: tuple[Callable[[], BrainNode], ...]) -> list[BrainNode]:
    try:
        return [make() for make in node_classes]
    except BrainError as error:
        rclpy.try_shutdown()
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(EXIT_REFUSED) from None
