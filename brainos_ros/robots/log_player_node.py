"""Plays a CARMEN log on the topics of a robot, as fast as `rate` says.

Publishes `scan` (front laser, frame `lidar_link`), `scan_rear` (if the log has one), `odom`, an
episode for each leg that was driven, and `/clock` where asked. Messages carry the time of playing,
or the log's own time with `/clock`.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from brainos_msgs.msg import Episode
from nav_msgs.msg import Odometry
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import LaserScan

from brainos_ros.errors import BrainError
from brainos_ros.robots import carmen
from brainos_ros.robots.legs import Leg, Legs
from brainos_ros.robots.messages import LIDAR, Transforms, odometry_message, scan_message
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import dict_to_attributes, s_to_time
from brainos_ros.ros.main import run
from brainos_ros.ros.parameters import Parameter, Parameters

TICK_S = 0.005
RANGE_MIN_M = 0.02

PARAMETERS = (
    Parameter("log_file", "", "the CARMEN log to play, plain or .gz"),
    Parameter("rate", 1.0, "times real speed", minimum=0.01, maximum=10_000.0),
    Parameter("loop", False, "begin again at the end"),
    Parameter("publish_clock", False, "publish /clock and stamp with the log's time"),
    Parameter("scan_topic", "scan", "laser scans"),
    Parameter("odom_topic", "odom", "odometry"),
)


class LogPlayerNode(Node):
    """Raises `BrainError` at construction for a refused parameter or a log that cannot be read."""

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("log_player", **node_arguments)
        try:
            self._build()
        except BaseException:
            self.destroy_node()
            raise

    def _build(self) -> None:
        settings = Parameters(self, PARAMETERS, lambda: False)
        if not settings["log_file"]:
            raise BrainError("log_file is empty; name the CARMEN log to play")
        self.log = carmen.read(Path(settings["log_file"]).expanduser())
        self._report()
        self._rate: float = settings["rate"]
        self._loop: bool = settings["loop"]
        self._odom = self.create_publisher(Odometry, settings["odom_topic"], qos.SENSOR)
        self._scans = {
            rear: self.create_publisher(LaserScan, topic, qos.SENSOR)
            for rear, topic in (
                (False, settings["scan_topic"]),
                (True, f"{settings['scan_topic']}_rear"),
            )
        }
        self._episodes = self.create_publisher(Episode, "episodes", qos.EVENT)
        self._legs = Legs()
        self._log_clock = (
            self.create_publisher(ClockMessage, "/clock", qos.COMMAND)
            if settings["publish_clock"]
            else None
        )
        offset = self.log.parameters.get("robot_frontlaser_offset", "0")
        self._transforms = Transforms(self, {LIDAR: (_number(offset), 0.0, 0.0)})
        self._period_s = self._scan_period()
        self._has_odometry = any(isinstance(row, carmen.OdometryRow) for row in self.log.rows)
        self.ended = False
        self._next = 0
        self._begin = time.monotonic()
        self._timer = self.create_timer(
            TICK_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def _report(self) -> None:
        log, say = self.log, self.get_logger()
        for problem in log.problems:
            say.warning(f"left out {problem}")
        if log.malformed > len(log.problems):
            say.warning(f"left out {log.malformed - len(log.problems)} lines more")
        scans = sum(isinstance(row, carmen.ScanRow) for row in log.rows)
        other = ", ".join(f"{count} {kind}" for kind, count in log.left_out.items())
        say.info(
            f"{scans} scans and {len(log.rows) - scans} odometry rows of"
            f" {log.duration_s:.0f} s" + (f"; not played: {other}" if other else "")
        )

    def _scan_period(self) -> float:
        times = [
            row.time_s for row in self.log.rows if isinstance(row, carmen.ScanRow) and not row.rear
        ]
        return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0

    def _tick(self) -> None:
        rows = self.log.rows
        now = rows[0].time_s + (time.monotonic() - self._begin) * self._rate
        while self._next < len(rows) and rows[self._next].time_s <= now:
            self._play(rows[self._next])
            self._next += 1
        if self._next < len(rows):
            return
        if self._loop:
            self._next, self._begin, self._legs = 0, time.monotonic(), Legs()
        else:
            self.ended = True
            self._timer.cancel()
            self.get_logger().info("the log has ended")

    def _play(self, row: carmen.OdometryRow | carmen.ScanRow) -> None:
        stamp = self.get_clock().now().to_msg()
        if self._log_clock is not None:
            stamp = s_to_time(row.time_s)
            self._log_clock.publish(ClockMessage(clock=stamp))
        if isinstance(row, carmen.OdometryRow):
            message = odometry_message(row.pose, row.linear_mps, 0.0, row.angular_radps, stamp)
            self._odom.publish(message)
            self._transforms.send(message)
            if leg := self._legs.feed(row):
                self._episodes.publish(_episode(leg))
            return
        if not self._has_odometry:
            self._odom.publish(odometry_message(row.pose, 0.0, 0.0, 0.0, stamp))
        turned = math.pi if row.rear else 0.0
        self._scans[row.rear].publish(
            scan_message(
                row.ranges,
                stamp,
                row.angle_min + turned,
                row.angle_increment,
                self._period_s / self._rate,
                RANGE_MIN_M,
                carmen.NO_RETURN_M,
            )
        )

    def end(self) -> None:
        """Stop playing."""
        self.destroy_node()


def _episode(leg: Leg) -> Episode:
    """A leg as it was lived: it paid as far as it led somewhere."""
    (x, y, _), (end_x, end_y, _) = leg.begin, leg.end
    facts = {"distance_m": leg.distance_m, "duration_s": leg.duration_s}
    return Episode(
        objective="drive",
        action="drive" if leg.distance_m > 0.1 else "turn",
        context=dict_to_attributes({"x": x, "y": y}),
        outcome="success",
        reward=leg.straightness,
        metadata=dict_to_attributes({**facts, "end_x": end_x, "end_y": end_y}),
    )


def _number(text: str) -> float:
    try:
        return float(text) if math.isfinite(float(text)) else 0.0
    except ValueError:
        return 0.0


def main() -> None:
    """Entry point of the `log_player` executable."""
    run(LogPlayerNode)  # type: ignore[arg-type]
