"""A CARMEN log on the topics of a robot."""

import math

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import LaserScan

from brainos_ros.errors import BrainError
from brainos_ros.robots.log_player_node import LogPlayerNode
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import time_to_s


def make(**parameters):
    return LogPlayerNode(
        parameter_overrides=[Parameter(name, value=value) for name, value in parameters.items()]
    )


def small_log(folder):
    """Three seconds, written in the wrong order, with a line that is broken."""
    beams = " ".join(["81.9", "2.0", *["1.0"] * 179])
    lines = [f"ODOM {i / 10} 0 1.5707963 0.3 0.1 0 {100 + i / 10} h 0" for i in range(30)]
    lines += [f"FLASER 181 {beams} 0 0 0 0 0 0 {100 + i} h 0" for i in (2, 1, 0)]
    lines += ["RLASER 2 3.0 4.0 0 0 0 0 0 0 100.5 h 0", "ODOM broken"]
    path = folder / "robot.log"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_it_plays_scans_and_odometry(graph, tmp_path):
    scans = graph.listen(LaserScan, "scan", qos.SENSOR)
    rear = graph.listen(LaserScan, "scan_rear", qos.SENSOR)
    odometry = graph.listen(Odometry, "odom", qos.SENSOR)
    player = make(log_file=small_log(tmp_path), rate=10.0, loop=True)
    assert player.log.malformed == 1
    graph._run(player)
    scan = scans.wait_for()
    assert len(scan.ranges) == 181
    assert scan.angle_min == pytest.approx(-math.pi / 2)
    assert scan.angle_max == pytest.approx(math.pi / 2)
    assert scan.angle_increment == pytest.approx(math.radians(1.0))
    assert scan.ranges[0] == math.inf and scan.ranges[1] == 2.0
    assert scan.scan_time == pytest.approx(0.1), "one scan a second, ten times as fast"
    assert rear.wait_for().angle_min == pytest.approx(math.pi / 2)
    row = odometry.wait_for(lambda message: message.pose.pose.position.x > 1.0)
    assert 2 * math.asin(row.pose.pose.orientation.z) == pytest.approx(math.pi / 2, abs=1e-6)
    assert (row.twist.twist.linear.x, row.twist.twist.angular.z) == (0.3, 0.1)


def test_the_clock_is_the_log_s(graph, tmp_path):
    clocks = graph.listen(Clock, "/clock", qos.COMMAND)
    scans = graph.listen(LaserScan, "scan", qos.SENSOR)
    graph._run(make(log_file=small_log(tmp_path), rate=10.0, loop=True, publish_clock=True))
    assert time_to_s(clocks.wait_for().clock) >= 100.0
    assert time_to_s(scans.wait_for().header.stamp) in (100.0, 101.0, 102.0)


def test_a_log_without_odometry_rows_gives_the_odometry_of_its_scans(graph, tmp_path):
    path = tmp_path / "robot.log"
    path.write_text("\n".join(f"FLASER 2 1 1 0 0 0 4 5 0 {i / 10} h 0" for i in range(9)))
    odometry = graph.listen(Odometry, "odom", qos.SENSOR)
    graph._run(make(log_file=str(path), loop=True))
    assert odometry.wait_for().pose.pose.position.y == 5.0


def test_a_log_that_cannot_be_read_is_refused(graph, tmp_path):
    with pytest.raises(BrainError, match="log_file"):
        make(log_file=str(tmp_path / "none.log"))
    with pytest.raises(BrainError, match="log_file is empty"):
        make()


def test_the_intel_lab_log_plays(graph, shared_data):
    scans = graph.listen(LaserScan, "scan", qos.SENSOR)
    graph._run(make(log_file=str(shared_data / "intel-lab.carmen.log.gz"), rate=1000.0))
    assert len(scans.wait_for().ranges) == 180
