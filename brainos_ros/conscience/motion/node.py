"""The gate's door to ROS: a node and thread of its own, with the sensors and `cmd_vel`."""

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from brainos_msgs import msg
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import LaserScan

from brainos_ros.conscience.gate import Gate, Tick
from brainos_ros.conscience.lines import Lines
from brainos_ros.conscience.outlet import Outlet
from brainos_ros.conscience.twins import Twins
from brainos_ros.ros import qos
from brainos_ros.ros.ears import publishers
from brainos_ros.ros.executor import WOKEN_IDLE_S, make_executor, spin, wake
from brainos_ros.ros.lifecycle import BrainNode

LOOK_TICKS = 10
REST_TICKS = 5  # at rest one tick in so many is made
REST_AFTER_S = 1.0  # without a request to move
MOST_PER_PERIOD = 100


def _stamp(header: Any) -> int:
    """Nanoseconds of a header, or a number that never repeats where nobody stamps."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec or time.monotonic_ns()


class Side:
    """A node of its own on a thread of its own."""

    def __init__(self, owner: Node, name: str) -> None:
        self.node = Node(name, namespace=owner.get_namespace(), context=owner.context,
                         use_global_arguments=False, enable_rosout=False,
                         start_parameter_services=False)
        self._executor, self._stop = make_executor(self.node), threading.Event()
        self._thread = threading.Thread(
            target=spin, args=(self.node, self._executor, self._stop), name=name, daemon=True,
            kwargs={"idle_s": WOKEN_IDLE_S})

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; what the node publishes still works."""
        self._stop.set()
        wake(self._executor)
        if self._thread.is_alive():
            self._thread.join()

    def close(self) -> None:
        self.stop()
        self._executor.shutdown()
        self.node.destroy_node()


class GateSide(Side):
    """Feeds the gate from its topics, ticks it, and sends what it decides."""

    def __init__(self, owner: BrainNode, gate: Gate, outlet: Outlet, lines: Lines,
                 changed: Callable[[tuple[str, ...]], None]) -> None:
        super().__init__(owner, "conscience_gate")
        self._gate, self._outlet, self._lines = gate, outlet, lines
        self._changed = changed
        settings, node = owner.settings, self.node
        asked, out = (owner.resolve_topic_name(settings[f"cmd_vel_{way}_topic"])
                      for way in ("in", "out"))
        self._twins = Twins(node.get_fully_qualified_name(), out)
        self._out, self._twin_ear = out, None
        stamped = settings["enable_stamped_cmd_vel"]
        kind = TwistStamped if stamped else Twist
        message = kind()
        twist, clock = message.twist if stamped else message, owner.get_clock()
        self._commands = node.create_publisher(kind, out, qos.COMMAND)
        self._ticks = node.create_publisher(
            msg.GateTick, owner.resolve_topic_name("conscience/gate"), qos.SENSOR)
        self._clock = clock
        self._kind, self._told, self._count, self._asked = kind, True, 0, 0
        self._watched, self._moved_at = False, -math.inf

        def publish(linear: float, angular: float) -> None:
            twist.linear.x, twist.angular.z = linear, angular
            if stamped:
                message.header.stamp = clock.now().to_msg()
            self._commands.publish(message)
            self._twins.sent()

        outlet.publish = publish
        gate.held.append(lambda now: self._twins.problem)

        def listen(kind: Any, topic: str, callback: Any, profile: Any) -> None:
            node.create_subscription(kind, owner.resolve_topic_name(topic), callback, profile)

        listen(kind, asked, self._on_stamped if stamped else self._on_twist, qos.COMMAND)
        listen(LaserScan, settings["scan_topic"], self._on_scan, qos.SENSOR)
        listen(Odometry, settings["odom_topic"], self._on_odom, qos.SENSOR)
        if settings["tracked_people_topic"]:
            listen(msg.TrackedPeople, settings["tracked_people_topic"], self._on_people, qos.SENSOR)
        listen(msg.Heartbeat, "watchdog/heartbeat", self._on_beat, qos.HEARTBEATS)
        listen(msg.ServiceLevel, "service_level", self._on_level, qos.STATE)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(gate.periods.gate, self._on_timer, clock=steady)
        node.create_timer(REST_TICKS * gate.periods.gate, self._on_rest, clock=steady)

    def _on_stamped(self, message: TwistStamped) -> None:
        self._on_twist(message.twist)

    def _on_twist(self, twist: Twist) -> None:
        now, linear, angular = time.monotonic(), twist.linear, twist.angular
        self._gate.request(now, linear.x, angular.z, (linear.y, linear.z, angular.x, angular.y))
        self._asked += 1
        if linear.x or angular.z:
            self._moved_at = now
            if self._timer.is_canceled():
                self._timer.reset()
        if self._asked <= MOST_PER_PERIOD:
            self._step(now)

    def _on_scan(self, scan: LaserScan) -> None:
        self._gate.scan(time.monotonic(), _stamp(scan.header), scan.ranges, scan.angle_min,
                        scan.angle_increment, scan.range_min, scan.range_max)

    def _on_odom(self, odom: Odometry) -> None:
        pose, q, twist = odom.pose.pose.position, odom.pose.pose.orientation, odom.twist.twist
        yaw = math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y * q.y + q.z * q.z))
        self._gate.odometry(time.monotonic(), _stamp(odom.header), odom.header.frame_id,
                            pose.x, pose.y, yaw, twist.linear.x, twist.angular.z)

    def _on_people(self, people: msg.TrackedPeople) -> None:
        places = [(p.position.x, p.position.y, p.radius_m) for p in people.people]
        self._gate.people(time.monotonic(), _stamp(people.header), people.header.frame_id, places)

    def _on_beat(self, beat: msg.Heartbeat) -> None:
        self._gate.watchdog(time.monotonic())

    def _on_level(self, level: msg.ServiceLevel) -> None:
        emergency = level.level == msg.ServiceLevel.EMERGENCY
        self._gate.emergency = f"EMERGENCY: {level.reason}" if emergency else ""

    def _on_timer(self) -> None:
        now = time.monotonic()
        if now - self._moved_at > REST_AFTER_S and self._told and self._count % REST_TICKS == 0:
            self._timer.cancel()
        else:
            self._tick(now, 1)

    def _on_rest(self) -> None:
        if self._timer.is_canceled():
            self._tick(time.monotonic(), REST_TICKS)

    def _tick(self, now: float, ticks: int) -> None:
        self._asked = 0
        self._count += ticks
        if self._count % LOOK_TICKS == 0:
            self._look_around(now)
        self._step(now)

    def _look_around(self, now: float) -> None:
        self._watched = self._ticks.get_subscription_count() > 0
        if self._twins.listening or self.node.count_publishers(self._out) > 1:
            self._twins.publishers(now, publishers(self.node, self._out))
        if self._twins.listening and self._twin_ear is None:
            self._twin_ear = self.node.create_subscription(
                self._kind, self._out, lambda _: self._twins.heard(), qos.EVENT)
        elif self._twin_ear is not None and not self._twins.listening:
            self.node.destroy_subscription(self._twin_ear)
            self._twin_ear = None

    def _step(self, now: float) -> None:
        try:
            tick = self._gate.tick(now)
        except Exception:
            self._outlet.zero()
            raise
        rests = tick.command == (0.0, 0.0)
        if not rests or not self._told or self._count % REST_TICKS == 0:
            self._outlet.send(*tick.command)
            self._told = rests
        if self._lines.see(now, tick):
            self._changed(tick.causes)
        if self._watched:
            self._ticks.publish(_tick_message(tick, self._clock.now().to_msg()))


def _tick_message(tick: Tick, stamp: Any) -> msg.GateTick:
    return msg.GateTick(
        stamp=stamp, requested_linear_mps=tick.requested[0],
        requested_angular_radps=tick.requested[1], linear_mps=tick.command[0],
        angular_radps=tick.command[1], limit_mps=tick.limit_mps, person_separation_m=tick.person_m,
        obstacle_separation_m=tick.obstacle_m, reaction_time_s=tick.reaction_s,
        causes=list(tick.causes))
