"""What does the conscience cost, and how fast does it stop?

The gate: from a request to the command it becomes, in a real conscience with sensors, people and
a watchdog around it, beside a bare relay (one subscription, one publisher, the same executor) in
alternating rounds. `evaluate`: the shipped rules in plain Python. The halt: from the call to zero
on the wire, while four processes call `evaluate` without a pause.
"""

import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from report import Figure, percentile, report

ROUNDS, CALLS, HALTS, CALLERS = 20, 100, int(os.environ.get("HALTS", "100")), 4
NODE = "from brainos_ros.conscience.node import main; main()"
RELAY = """
import threading
import rclpy
from geometry_msgs.msg import Twist
from rclpy.node import Node
from brainos_ros.ros import qos
from brainos_ros.ros.executor import make_executor, spin
rclpy.init()
node = Node("relay")
out = node.create_publisher(Twist, "relayed", qos.COMMAND)
node.create_subscription(Twist, "relay", out.publish, qos.COMMAND)
spin(node, make_executor(node), threading.Event())
"""
WORLD = """
import math, time
from array import array
import rclpy
from brainos_msgs.msg import Heartbeat, TrackedPeople, TrackedPerson
from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import LaserScan
from brainos_ros.ros import qos
rclpy.init()
node = Node("world")
scans = node.create_publisher(LaserScan, "scan", qos.SENSOR)
odoms = node.create_publisher(Odometry, "odom", qos.SENSOR)
tracks = node.create_publisher(TrackedPeople, "tracked_people", qos.SENSOR)
beats = node.create_publisher(Heartbeat, "watchdog/heartbeat", qos.HEARTBEATS)
scan = LaserScan(angle_min=-math.pi, angle_increment=math.tau / 360, range_min=0.05,
                 range_max=25.0, ranges=array("f", [9.0] * 360))
odom, people = Odometry(), TrackedPeople()
odom.header.frame_id = people.header.frame_id = "odom"
odom.pose.pose.orientation.w = 1.0
for number in range(8):
    person = TrackedPerson(id=number, radius_m=0.3)
    person.position.x, person.position.y = 8.0, float(number)
    people.people.append(person)
count, due = 0, time.monotonic()
while True:
    count, due = count + 1, due + 0.02
    time.sleep(max(0.0, due - time.monotonic()))
    now = node.get_clock().now().to_msg()
    for message in (scan, odom, people):
        message.header.stamp = now
    odoms.publish(odom)
    beats.publish(Heartbeat(role="watchdog", period_s=0.05))
    if count % 2:
        scan.ranges[count % 360] += 0.001
        scans.publish(scan)
        tracks.publish(people)
"""
CALLER = """
import rclpy
from brainos_msgs.srv import Evaluate
from rclpy.node import Node
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import dict_to_attributes
from brainos_ros.ros.executor import make_executor
rclpy.init()
node = Node("caller")
executor = make_executor(node)
client = node.create_client(Evaluate, "conscience/evaluate", qos_profile=qos.SERVICE)
request = Evaluate.Request(action="go_to", context=dict_to_attributes(
    {"zone": "warehouse", "battery_percent": 80.0, "charging": False}))
client.wait_for_service(20.0)
while True:
    future = client.call_async(request)
    while not future.done():
        executor.spin_once(timeout_sec=1.0)
"""


class Driver:
    """Asks for velocities and watches what comes out."""

    def __init__(self) -> None:
        from geometry_msgs.msg import Twist
        from rclpy.node import Node

        from brainos_ros.ros import qos
        from brainos_ros.ros.executor import make_executor

        self.node = Node("bench_conscience")
        self.executor = make_executor(self.node)
        self.last: dict[str, float] = {}
        self.twist = Twist()
        self.ways = {}
        for name, asked, out in (("gate", "cmd_vel_raw", "cmd_vel"), ("relay", "relay", "relayed")):
            self.node.create_subscription(
                Twist, out, lambda twist, name=name: self._took(name, twist), qos.COMMAND)
            self.ways[name] = self.node.create_publisher(Twist, asked, qos.COMMAND)

    def _took(self, name: str, twist: Any) -> None:
        self.last[name] = twist.linear.x

    def ask(self, name: str, speed: float) -> None:
        self.twist.linear.x = speed
        self.ways[name].publish(self.twist)

    def trip(self, name: str, speed: float) -> float:
        """How long from asking for exactly this speed to hearing it [ms]; NaN if the gate was
        stopped by a stale input (the machine is too busy for its sensors)."""
        started = time.perf_counter()
        self.ask(name, speed)
        while self.last.get(name) != speed:
            self.executor.spin_once(timeout_sec=0.1)
            if time.perf_counter() - started > 1.0:
                return math.nan
        return (time.perf_counter() - started) * 1e3

    def drive(self, speed: float) -> None:
        """Ask again and again until the gate lets this speed through."""
        until = time.perf_counter() + 20.0
        while self.last.get("gate") != speed:
            self.ask("gate", speed)
            self.executor.spin_once(timeout_sec=0.02)
            assert time.perf_counter() < until, "the gate does not open"

    def call(self, client: Any, request: Any) -> Any:
        future = client.call_async(request)
        while not future.done():
            self.executor.spin_once(timeout_sec=1.0)
        return future.result()

    def client(self, kind: Any, name: str) -> Any:
        from brainos_ros.ros import qos

        client = self.node.create_client(kind, name, qos_profile=qos.SERVICE)
        assert client.wait_for_service(20.0), f"{name} did not come up"
        return client


def gate_latency(driver: Driver) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {"gate": [], "relay": []}
    driver.drive(0.2)
    for number in range(ROUNDS + 1):
        for name in sorted(taken, reverse=bool(number % 2)):
            for call in range(CALLS):
                ms = driver.trip(name, 0.2 + (number * CALLS + call) * 1e-7)
                if math.isnan(ms):
                    driver.drive(0.2)
                elif number:
                    taken[name].append(ms)
        driver.drive(0.2)
    return taken


def evaluate_us() -> list[float]:
    from brainos_ros.conscience import adopted
    from brainos_ros.conscience.rules_file import load

    rules = load(adopted.rules_file(""))
    cases = [
        ("aisle_1", {"length_m": 8.0}),
        ("go_to", {"zone": "warehouse", "battery_percent": 80.0, "charging": False}),
        ("pick", {"payload_kg": 5.0, "person_distance_m": 3.0, "moving": False}),
        ("move_arm", {"speed": "low", "nearby_objects": ["cube"], "environment": "hall"}),
        ("cmd_vel", {"linear_mps": 0.5, "angular_radps": 0.1, "person_separation_m": 3.0,
                     "obstacle_separation_m": 4.0}),
        ("launch", {}),
    ]
    taken = []
    for number in range(12_000):
        action, context = cases[number % len(cases)]
        started = time.perf_counter()
        rules.evaluate(action, context)
        taken.append((time.perf_counter() - started) * 1e6)
    return taken[1000:]


def halt_latency(driver: Driver, home: Path) -> list[float]:
    from brainos_msgs.srv import Halt, Reset

    from brainos_ros.conscience.credentials import reset_token

    halt, reset = driver.client(Halt, "conscience/halt"), driver.client(Reset, "conscience/reset")
    taken = []
    callers = [subprocess.Popen([sys.executable, "-c", CALLER]) for _ in range(CALLERS)]
    try:
        time.sleep(3.0)
        for _ in range(HALTS):
            driver.drive(0.2)
            started = time.perf_counter()
            future = halt.call_async(Halt.Request(reason="benchmark"))
            while driver.last["gate"] != 0.0:
                driver.executor.spin_once(timeout_sec=1.0)
            taken.append((time.perf_counter() - started) * 1e3)
            while not future.done():
                driver.executor.spin_once(timeout_sec=1.0)
            until = time.perf_counter() + 20.0
            while True:
                driver.ask("gate", 0.0)
                token = reset_token(home, "benchmark", home / "keys")
                request = Reset.Request(operator_name="benchmark", token=token)
                if driver.call(reset, request).success:
                    break
                assert time.perf_counter() < until, "no reset"
    finally:
        for caller in callers:
            caller.kill()
            caller.wait()
    return taken


def main() -> int:
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    home = Path(tempfile.mkdtemp(prefix="brainos-bench-"))
    from brainos_ros.conscience.credentials import provision

    provision(home, "benchmark", home / "keys")
    options = ["--ros-args", "-p", f"home:={home}", "-p", "unrecognised_speed_mps:=0.0"]
    processes = [subprocess.Popen([sys.executable, "-c", code, *given], stderr=subprocess.DEVNULL)
                 for code, given in ((NODE, options), (RELAY, []), (WORLD, []))]
    try:
        return measure(home)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(home: Path) -> int:
    import rclpy
    from lifecycle_msgs.srv import ChangeState

    us = evaluate_us()
    rclpy.init()
    driver = Driver()
    change = driver.client(ChangeState, "conscience/change_state")
    for transition in (1, 3):
        request = ChangeState.Request()
        request.transition.id = transition
        assert driver.call(change, request).success
    taken = gate_latency(driver)
    halts = halt_latency(driver, home)
    rclpy.shutdown()
    gate, relay, n = taken["gate"], taken["relay"], len(taken["gate"])
    if n < ROUNDS * CALLS:
        print(f"{ROUNDS * CALLS - n} requests met a protective stop and are not counted")
    return report("conscience", [
        Figure("gate latency p50", "ms", percentile(gate, 0.5), n, "ratio <= 1.5",
               percentile(relay, 0.5), "bare relay"),
        Figure("gate latency p99", "ms", percentile(gate, 0.99), n, "ours <= 2",
               percentile(relay, 0.99), "bare relay"),
        Figure("evaluate p50", "us", percentile(us, 0.5), len(us), "ours <= 30"),
        Figure("evaluate p99", "us", percentile(us, 0.99), len(us)),
        Figure("halt to zero p50", "ms", percentile(halts, 0.5), len(halts)),
        Figure("halt to zero p99", "ms", percentile(halts, 0.99), len(halts), "ours <= 20"),
    ])


if __name__ == "__main__":
    raise SystemExit(main())
