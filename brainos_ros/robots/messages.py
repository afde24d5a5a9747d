"""From the simulator's and the log's arrays to the messages of a real base."""

from __future__ import annotations

import array
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import LaserScan

Point = tuple[float, float, float]
ODOM, BASE, LIDAR = "odom", "base_link", "lidar_link"


def scan_message(
    ranges: Iterable[float],
    stamp: Time,
    angle_min: float,
    increment: float,
    period_s: float,
    range_min: float,
    range_max: float,
    frame: str = LIDAR,
) -> LaserScan:
    """A LaserScan of beams `increment` [rad] apart, taken at once; +Inf is free space."""
    values = array.array("f", ranges)
    message = LaserScan()
    message.header.stamp = stamp
    message.header.frame_id = frame
    message.angle_min = angle_min
    message.angle_max = angle_min + increment * (len(values) - 1)
    message.angle_increment = increment
    message.scan_time = period_s
    message.range_min = range_min
    message.range_max = range_max
    message.ranges = values
    return message


def odometry_message(
    pose: tuple[float, float, float], linear: float, lateral: float, angular: float, stamp: Time
) -> Odometry:
    """Odometry of `pose` (x, y, yaw) in `odom`; the twist is in the frame of the base."""
    message = Odometry()
    message.header.stamp = stamp
    message.header.frame_id = ODOM
    message.child_frame_id = BASE
    position, turn = message.pose.pose.position, message.pose.pose.orientation
    position.x, position.y = pose[0], pose[1]
    turn.z, turn.w = math.sin(pose[2] / 2), math.cos(pose[2] / 2)
    twist = message.twist.twist
    twist.linear.x, twist.linear.y, twist.angular.z = linear, lateral, angular
    return message


def velocity_message(
    linear: float, angular: float, stamp: Time, stamped: bool
) -> Twist | TwistStamped:
    """A velocity command as Twist, or TwistStamped in the frame of the base."""
    message = TwistStamped() if stamped else Twist()
    twist = message
    if stamped:
        message.header.stamp = stamp
        message.header.frame_id = BASE
        twist = message.twist
    twist.linear.x, twist.angular.z = linear, angular
    return message


def links(urdf: str) -> dict[str, Point]:
    """Where each link is in the first one [m]; of a URDF that only shifts them."""
    found = {}
    for joint in ElementTree.fromstring(urdf).iter("joint"):
        child, origin = joint.find("child"), joint.find("origin")
        assert child is not None and origin is not None
        x, y, z = map(float, origin.attrib["xyz"].split())
        found[child.attrib["link"]] = (x, y, z)
    return found


def _fixed(link: str, at: Point, stamp: Time) -> TransformStamped:
    message = TransformStamped()
    message.header.stamp = stamp
    message.header.frame_id, message.child_frame_id = BASE, link
    shift = message.transform.translation
    shift.x, shift.y, shift.z = at
    message.transform.rotation.w = 1.0
    return message


class Transforms:
    """odom → base_link on TF, and from there to what is `fixed` to it, where `tf2_ros` is
    installed."""

    def __init__(self, node: Any, fixed: Mapping[str, Point]) -> None:
        try:
            from tf2_ros import StaticTransformBroadcaster, TransformBroadcaster
        except ImportError:
            self._moving = None
            node.get_logger().info("tf2_ros is not installed: no TF")
            return
        self._moving = TransformBroadcaster(node)
        self._fixed = StaticTransformBroadcaster(node)
        stamp = node.get_clock().now().to_msg()
        self._fixed.sendTransform([_fixed(link, at, stamp) for link, at in fixed.items()])

    def send(self, odometry: Odometry) -> None:
        """Publish where the base is, as in `odometry`."""
        if self._moving is None:
            return
        message = TransformStamped()
        message.header = odometry.header
        message.child_frame_id = odometry.child_frame_id
        message.transform.translation.x = odometry.pose.pose.position.x
        message.transform.translation.y = odometry.pose.pose.position.y
        message.transform.rotation = odometry.pose.pose.orientation
        self._moving.sendTransform(message)
