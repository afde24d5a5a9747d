"""How fast do events flow through our publisher and subscriber, beside bare rclpy's?

200-byte strings, one process to another on loopback, reliable, the executors alike. A round
publishes a burst, waits until all of it has come, and counts; ours and bare take turns.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from report import Figure, percentile, report

ROUNDS, BURST, IN_FLIGHT = 12, 10_000, 500
KINDS = ("ours", "bare")


def make_node(kind: str, name: str) -> Any:
    """A node of ours, or a bare one."""
    from rclpy.node import Node

    from brainos_ros.ros.lifecycle import BrainNode

    class Events(BrainNode):
        role = name

    return Events() if kind == "ours" else Node(name)


def subscriber(kind: str, pipe: Connection) -> None:
    """Count what comes; after every IN_FLIGHT say so, which is the publisher's window."""
    import rclpy
    from std_msgs.msg import String

    from brainos_ros.ros import qos
    from brainos_ros.ros.executor import make_executor

    rclpy.init()
    node = make_node(kind, f"{kind}_subscriber")
    count = 0

    def came(message: String) -> None:
        nonlocal count
        count += 1
        if count % IN_FLIGHT == 0:
            pipe.send(count)

    node.create_subscription(String, f"events_{kind}", came, qos.EVENT)
    executor = make_executor(node)
    pipe.send("ready")
    while os.getppid() != 1 and not (pipe.poll() and pipe.recv() == "end"):
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            executor.spin_once(timeout_sec=0.05)
            if pipe.poll():
                break
    pipe.send(("total", count))


def main() -> int:
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ["BRAINOS_HOME"] = tempfile.mkdtemp(prefix="brainos-bench-")
    import rclpy
    from std_msgs.msg import String

    from brainos_ros.ros import discovery, qos

    discovery.prepare()
    rclpy.init()
    context = multiprocessing.get_context("spawn")
    publishers, pipes, processes = {}, {}, []
    for kind in KINDS:
        pipe, theirs = context.Pipe()
        process = context.Process(target=subscriber, args=(kind, theirs))
        process.start()
        processes.append(process)
        theirs.close()
        assert pipe.recv() == "ready"
        node = make_node(kind, f"{kind}_publisher")
        publishers[kind] = node.create_publisher(String, f"events_{kind}", qos.EVENT)
        while not publishers[kind].get_subscription_count():
            time.sleep(0.01)
        pipes[kind] = pipe
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(ROUNDS + 1):
        for kind in KINDS if number % 2 else reversed(KINDS):
            rates[kind].append(burst(publishers[kind], String(data="x" * 200), pipes[kind]))
    lost = 0
    for kind, process in zip(KINDS, processes, strict=True):
        pipes[kind].send("end")
        _, total = pipes[kind].recv()
        if kind == "ours":
            lost = (ROUNDS + 1) * BURST - total
        process.join()
    rclpy.shutdown()
    ours, bare = (percentile(rates[kind][1:], 0.5) for kind in KINDS)
    n = ROUNDS * BURST
    figures = [
        Figure("events p50", "1/s", ours, n, "ours >= 10000 and ratio >= 0.9", bare, "bare rclpy"),
        Figure("events lost", "1", lost, n, "ours <= 0"),
    ]
    return report("events", figures)


def burst(publisher: Any, message: Any, pipe: Connection) -> float:
    """Publish BURST messages, never more than two windows ahead; returns messages per second."""
    seen = 0
    start = time.perf_counter()
    for sent in range(IN_FLIGHT, BURST + IN_FLIGHT, IN_FLIGHT):
        for _ in range(IN_FLIGHT):
            publisher.publish(message)
        while sent - seen > IN_FLIGHT:
            pipe.recv()
            seen += IN_FLIGHT
    while seen < BURST:
        pipe.recv()
        seen += IN_FLIGHT
    return BURST / (time.perf_counter() - start)


if __name__ == "__main__":
    raise SystemExit(main())
