"""The simulated robot over DDS: its topics, its obedience, and the action that drives it."""

import math
import queue
import threading

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")
pytest.importorskip("mujoco", reason="MuJoCo is not installed")

from action_msgs.msg import GoalStatus
from brainos_msgs.action import Execute
from brainos_msgs.msg import SimTruth, TrackedPeople
from brainos_msgs.srv import GetGenomeStatus
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import ParameterEvent
from rclpy.action import ActionClient
from rclpy.parameter import Parameter
from sensor_msgs.msg import LaserScan
from std_msgs.msg import String

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robots import sim_robot_node
from brainos_ros.robots.messages import links
from brainos_ros.robots.navigator import Driving
from brainos_ros.robots.physics import LIDAR_HEIGHT_M
from brainos_ros.robots.sim_robot_node import SimRobotNode
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import attributes_to_dict, dict_to_attributes


def make(**parameters):
    return SimRobotNode(
        parameter_overrides=[Parameter(name, value=value) for name, value in parameters.items()]
    )


@pytest.fixture
def robot(graph):
    def start(**parameters):
        node = make(**parameters)
        graph._run(node)
        return node

    return start


def test_it_drives_by_the_genome_once_that_has_evolved(graph, robot, monkeypatch):
    monkeypatch.setattr(sim_robot_node, "GENOME_S", 0.2)
    changes = graph.listen(ParameterEvent, "/parameter_events")
    status = GetGenomeStatus.Response(success=True)
    status.active.genome_hash, status.active.origin = "a" * 64, "default"
    status.parameters = dict_to_attributes({"cruise_speed_mps": 0.5, "another_gene": 3.0})
    asked = threading.Semaphore(0)

    def answer(request, response):
        asked.release()
        return status

    graph.tester.create_service(
        GetGenomeStatus, "genome_sync/get_status", answer, qos_profile=qos.SERVICE
    )
    node = robot()
    for _ in range(2):
        assert asked.acquire(timeout=10.0)
    assert node.get_parameter("cruise_speed_mps").value == Driving().cruise_speed_mps
    status.active.genome_hash, status.active.origin = "b" * 64, "evolve"
    changes.wait_for(lambda event: [each.name for each in event.changed_parameters]
                     == ["cruise_speed_mps"])
    assert node.get_parameter("cruise_speed_mps").value == 0.5


def test_it_works_where_nobody_is_told_of_people(graph, robot):
    truths = graph.listen(SimTruth, "sim_truth", qos.EVENT)
    robot(tracked_people_topic="")
    truths.wait_for()


def test_it_says_what_it_looks_like(graph, robot):
    descriptions = graph.listen(String, "robot_description", qos.STATE)
    robot()
    where = links(descriptions.wait_for().data)
    assert where["lidar_link"] == (0.0, 0.0, LIDAR_HEIGHT_M)
    assert where.keys() == {"lidar_link", "left_wheel_link", "right_wheel_link"}


def obey_blindly(graph):
    """In place of the conscience: what is asked for is what is done."""
    out = graph.publisher(Twist, "cmd_vel", qos.COMMAND)
    graph.tester.create_subscription(Twist, "cmd_vel_raw", out.publish, qos.COMMAND)


class Action:
    """One goal sent to `execute`, with waiting."""

    def __init__(self, graph, action, **context):
        self._client = ActionClient(graph.tester, Execute, "execute")
        assert self._client.wait_for_server(10.0)
        self.feedback = []
        goal = Execute.Goal(action=action, context=dict_to_attributes(context))
        sent = queue.SimpleQueue()

        def send():
            """On the executor's thread: off it, rclpy may drop an answer that comes at once."""
            timer.cancel()
            sent.put(self._client.send_goal_async(
                goal, feedback_callback=lambda message: self.feedback.append(message.feedback)))

        timer = graph.tester.create_timer(0.001, send)
        self.handle = self._wait(sent.get(timeout=10.0))
        self._ended = self.handle.get_result_async()

    @staticmethod
    def _wait(future, timeout_s=20.0):
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        assert done.wait(timeout_s)
        return future.result()

    def cancel(self):
        return self._wait(self.handle.cancel_goal_async())

    def result(self):
        answer = self._wait(self._ended)
        return answer.status, answer.result


def stands(node):
    vx, vy, turn = node.simulation.body.velocity
    return math.hypot(vx, vy) < 0.03 and abs(turn) < 0.03


def test_it_says_what_it_sees_as_a_real_base_does(graph, robot):
    scans = graph.listen(LaserScan, "scan", qos.SENSOR)
    odometry = graph.listen(Odometry, "odom", qos.SENSOR)
    people = graph.listen(TrackedPeople, "tracked_people", qos.SENSOR)
    truth = graph.listen(SimTruth, "sim_truth")
    robot(crowd_size=4, seed=1)
    scan = scans.wait_for()
    assert len(scan.ranges) == 360
    assert scan.angle_min == pytest.approx(-math.pi)
    assert scan.angle_min + 359 * scan.angle_increment == pytest.approx(scan.angle_max)
    assert scan.scan_time == pytest.approx(0.05)
    assert scan.ranges[0] == pytest.approx(1.6, abs=0.06)
    assert scan.header.frame_id == "lidar_link"
    here = odometry.wait_for()
    assert (here.header.frame_id, here.child_frame_id) == ("odom", "base_link")
    assert here.pose.pose.position.x == pytest.approx(-7.4, abs=0.01)
    tracked = people.wait_for(lambda message: len(message.people) == 4)
    assert {person.id for person in tracked.people} == {1, 2, 3, 4}
    assert all(person.radius_m > 0 for person in tracked.people)
    seen = truth.wait_for(lambda message: message.people == 4)
    assert seen.separation_m >= seen.min_separation_m > 0


def test_it_obeys_and_stops_by_itself(graph, robot):
    odometry = graph.listen(Odometry, "odom", qos.SENSOR)
    robot(crowd_size=0)
    odometry.wait_for()
    publisher = graph.publisher(Twist, "cmd_vel", qos.COMMAND)
    command = Twist()
    command.linear.x = 0.5
    timer = graph.tester.create_timer(0.05, lambda: publisher.publish(command))
    odometry.wait_for(lambda message: message.twist.twist.linear.x > 0.45)
    timer.cancel()
    odometry.messages.clear()
    odometry.wait_for(lambda message: abs(message.twist.twist.linear.x) < 0.01)


def test_stamped_commands(graph, robot):
    odometry = graph.listen(Odometry, "odom", qos.SENSOR)
    robot(crowd_size=0, enable_stamped_cmd_vel=True)
    publisher = graph.publisher(TwistStamped, "cmd_vel", qos.COMMAND)
    command = TwistStamped()
    command.twist.angular.z = 1.0
    graph.tester.create_timer(0.05, lambda: publisher.publish(command))
    odometry.wait_for(lambda message: message.twist.twist.angular.z > 0.9)


def test_it_drives_to_a_station_and_says_what_it_was_worth(graph, robot):
    obey_blindly(graph)
    asked = graph.listen(Twist, "cmd_vel_raw", qos.COMMAND)
    node = robot(crowd_size=0, max_speed_mps=2.0, cruise_speed_mps=2.0, acceleration_mps2=2.0)
    action = Action(graph, "go:station_c")
    status, result = action.result()
    assert stands(node)
    assert (status, result.outcome) == (GoalStatus.STATUS_SUCCEEDED, "success")
    assert result.success and result.error_code == ErrorCode.NONE
    assert 0.4 < result.reward <= 1.0
    facts = attributes_to_dict(result.facts, "facts")
    assert facts["progress"] == 1.0
    assert facts["ideal_s"] == pytest.approx(result.reward * result.duration_s, rel=0.01)
    assert action.feedback and "go:station_c" in action.feedback[-1].text
    assert asked.messages[-1] == Twist(), "the last command is zero"


@pytest.mark.parametrize("speed", [0.0, 0.8])
def test_a_cancelled_goal_ends_once_it_stands(graph, robot, speed):
    obey_blindly(graph)
    asked = graph.listen(Twist, "cmd_vel_raw", qos.COMMAND)
    odometry = graph.listen(Odometry, "odom", qos.SENSOR)
    node = robot(crowd_size=0)
    action = Action(graph, "aisle_2", to="station_b")
    asked.wait_for(lambda message: message.linear.x > 0 or message.angular.z != 0)
    odometry.wait_for(lambda message: message.twist.twist.linear.x >= speed)
    assert len(action.cancel().goals_canceling) == 1
    status, result = action.result()
    assert stands(node)
    assert status == GoalStatus.STATUS_CANCELED
    assert (result.success, result.error_code) == (False, ErrorCode.CANCELLED)
    assert asked.messages[-1] == Twist()


def test_time_out_is_an_aborted_goal_with_its_outcome(graph, robot):
    robot(crowd_size=0)
    status, result = Action(graph, "aisle_1", to="station_b", timeout_s=0.5).result()
    assert status == GoalStatus.STATUS_ABORTED
    assert (result.outcome, result.error_code) == ("failure", ErrorCode.TIMEOUT)
    assert "not there after" in result.message


@pytest.mark.parametrize(
    ("action", "context", "code"),
    [("dance", {}, ErrorCode.NOT_FOUND), ("aisle_1", {}, ErrorCode.INVALID_ARGUMENT)],
)
def test_what_it_cannot_do_is_refused_with_the_reason(graph, robot, action, context, code):
    robot(crowd_size=0)
    status, result = Action(graph, action, **context).result()
    assert status == GoalStatus.STATUS_ABORTED
    assert (result.success, result.error_code) == (False, code)
    assert result.message


def test_a_second_errand_is_refused_while_the_first_goes_on(graph, robot):
    robot(crowd_size=0)
    first = Action(graph, "wait", seconds=60.0)
    _, refused = Action(graph, "wait", seconds=0.1).result()
    assert refused.error_code == ErrorCode.UNAVAILABLE
    assert "busy with wait" in refused.message
    first.cancel()
    assert first.result()[0] == GoalStatus.STATUS_CANCELED
    assert Action(graph, "wait", seconds=0.1).result()[0] == GoalStatus.STATUS_SUCCEEDED


def test_recorded_people_are_tracked(graph, robot, tmp_path):
    path = tmp_path / "people.txt"
    path.write_text("".join(f"{frame} 1 0.0 {frame * 0.1}\n" for frame in range(60)))
    people = graph.listen(TrackedPeople, "tracked_people", qos.SENSOR)
    robot(people_file=str(path), people_time_step_s=0.2)
    walker = people.wait_for(lambda message: len(message.people) == 1).people[0]
    assert walker.velocity.y == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"people_file": "/nowhere.txt"}, "people_file /nowhere.txt"),
        ({"crowd_size": 201}, "crowd_size is 201"),
        ({"max_speed_mps": math.nan}, "max_speed_mps is nan"),
    ],
)
def test_a_wrong_parameter_is_refused_at_the_start(graph, parameters, said):
    with pytest.raises(BrainError, match=said):
        make(**parameters)
