"""What surrounds the conscience in a graph: sensors, people, a watchdog, who asks and a base."""

import math
import threading
import time
from array import array
from pathlib import Path
from typing import Any

from brainos_msgs import msg
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
from sensor_msgs.msg import LaserScan

from brainos_ros.ros import qos

RAYS = 360
FAST_BASE = {
    "footprint_radius_m": 0.3, "max_speed_mps": 1.0, "max_yaw_rate_radps": 1.5,
    "acceleration_mps2": 2.0, "deceleration_mps2": 2.0, "actuation_delay_s": 0.05,
    "command_timeout_s": 0.3, "unrecognised_speed_mps": 0.0,
}
"""A base that reacts quickly, so that tests need not wait for it."""


class World:
    """Publishes everything the gate needs, every 20 ms, until told to leave something out."""

    def __init__(self, graph: Any, topic: str = "cmd_vel") -> None:
        self.silent: set[str] = set()
        self.ranges = array("f", [8.0] * RAYS)
        self.frozen = False
        self.people: list[tuple[float, float]] = []
        self.pose = [0.0, 0.0, 0.0]
        self.request: tuple[float, float] | None = None
        self.clock_offset_ns = 0
        self.commands = graph.listen(Twist, topic)
        make = graph.publisher
        self._requests = make(Twist, "cmd_vel_raw", qos.COMMAND)
        self._scans = make(LaserScan, "scan", qos.SENSOR)
        self._odoms = make(Odometry, "odom", qos.SENSOR)
        self._tracks = make(msg.TrackedPeople, "tracked_people", qos.SENSOR)
        self._beats = make(msg.Heartbeat, "watchdog/heartbeat", qos.HEARTBEATS)
        self._levels = make(msg.ServiceLevel, "service_level", qos.STATE)
        self._count = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def say_level(self, level: int) -> None:
        self._levels.publish(msg.ServiceLevel(level=level, reason="a test"))

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self._count += 1
            for name in ("scan", "odom", "people", "watchdog", "request"):
                if name not in self.silent:
                    getattr(self, f"_{name}")()

    def _stamp(self, header: Any, frame: str) -> None:
        header.stamp.sec, header.stamp.nanosec = divmod(
            time.time_ns() + self.clock_offset_ns, 1_000_000_000)
        header.frame_id = frame

    def _scan(self) -> None:
        if not self.frozen:
            self.ranges[self._count % RAYS] += 0.001
        scan = LaserScan(angle_min=-math.pi, angle_increment=2 * math.pi / RAYS,
                         range_min=0.05, range_max=12.0, ranges=self.ranges)
        self._stamp(scan.header, "base_link")
        self._scans.publish(scan)

    def _odom(self) -> None:
        odom = Odometry()
        self._stamp(odom.header, "odom")
        odom.pose.pose.position.x, odom.pose.pose.position.y = self.pose[:2]
        odom.pose.pose.orientation.z = math.sin(self.pose[2] / 2)
        odom.pose.pose.orientation.w = math.cos(self.pose[2] / 2)
        self._odoms.publish(odom)

    def _people(self) -> None:
        people = msg.TrackedPeople()
        self._stamp(people.header, "odom")
        for number, (x, y) in enumerate(self.people):
            person = msg.TrackedPerson(id=number, radius_m=0.25)
            person.position.x, person.position.y = x, y
            people.people.append(person)
        self._tracks.publish(people)

    def _watchdog(self) -> None:
        self._beats.publish(msg.Heartbeat(role="watchdog", period_s=0.05))

    def _request(self) -> None:
        if self.request is not None:
            twist = Twist()
            twist.linear.x, twist.angular.z = self.request
            self._requests.publish(twist)


def moving(command: Twist) -> bool:
    return abs(command.linear.x) > 0.01 or abs(command.angular.z) > 0.01


def provisioned(home: Path) -> Path:
    """A home with operators anna and ben, armed; returns the folder of their keys."""
    from brainos_ros.conscience.credentials import provision

    keys = home.parent / "keys"
    for name in ("anna", "ben"):
        provision(home, name, keys)
    return keys
