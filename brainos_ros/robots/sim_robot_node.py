"""The simulated robot as a node: the topics of a real base, and the action `execute`.

Publishes `scan` (20 Hz), `odom` (50 Hz), `tracked_people` (20 Hz), `robot_description` (its URDF,
for rviz) and `sim_truth` (20 Hz, what really happened, for reports; the brain does not listen to
it); listens to `cmd_vel`; drives
actions by publishing `cmd_vel_raw`, so that its own navigator is held back like anybody's. Once a
genome has evolved, its driving genes become this node's parameters.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

from brainos_msgs.action import Execute
from brainos_msgs.msg import SimTruth, TrackedPeople, TrackedPerson
from brainos_msgs.srv import GetGenomeStatus
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import LaserScan
from std_msgs.msg import String

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robots.messages import (
    ODOM,
    Transforms,
    links,
    odometry_message,
    scan_message,
    velocity_message,
)
from brainos_ros.robots.navigator import Driving, Errand, Navigator
from brainos_ros.robots.people import PERSON_RADIUS_M
from brainos_ros.robots.physics import TIMESTEP_S, Base
from brainos_ros.robots.sim_parameters import BASE_LIMITS, DRIVING, PARAMETERS
from brainos_ros.robots.simulation import build
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import attributes_to_dict, dict_to_attributes, refuse
from brainos_ros.ros.main import run
from brainos_ros.ros.parameters import Parameters
from brainos_ros.shipped import shipped

TICK_S = 0.01
STEPS_PER_ODOM, STEPS_PER_SCAN, STEPS_PER_COMMAND = 4, 10, 10
MOST_STEPS_PER_TICK = 20
GENOME_S = 2.0


class SimRobotNode(Node):
    """Raises `BrainError` at construction for a refused parameter or without MuJoCo."""

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__("sim_robot", **node_arguments)
        try:
            self._build()
        except BaseException:
            self.destroy_node()
            raise

    def _build(self) -> None:
        self._settings = settings = Parameters(self, PARAMETERS, lambda: False)
        base = Base(**{limit.name: settings[limit.name] for limit in BASE_LIMITS})
        self.simulation = build(
            settings["crowd_size"],
            settings["people_file"],
            settings["people_time_step_s"],
            settings["seed"],
            base,
        )
        self.navigator = Navigator(self.simulation.layout, base)
        self._stamped: bool = settings["enable_stamped_cmd_vel"]
        command = TwistStamped if self._stamped else Twist
        self._ask = self.create_publisher(command, settings["cmd_vel_in_topic"], qos.COMMAND)
        self._scan = self.create_publisher(LaserScan, settings["scan_topic"], qos.SENSOR)
        self._odom = self.create_publisher(Odometry, settings["odom_topic"], qos.SENSOR)
        people = settings["tracked_people_topic"]
        self._people = people and self.create_publisher(TrackedPeople, people, qos.SENSOR)
        self._truth = self.create_publisher(SimTruth, "sim_truth", qos.EVENT)
        urdf = shipped("urdf/sim_base.urdf").read_text()
        self._description = self.create_publisher(String, "robot_description", qos.STATE)
        self._description.publish(String(data=urdf))
        self._transforms = Transforms(self, links(urdf))
        self.create_subscription(command, settings["cmd_vel_out_topic"], self._obey, qos.COMMAND)
        self._errand: Errand | None = None
        self._goal: Any = None
        # Awaiting in an execute callback keeps rclpy's events executor at 100 % of a core, so a
        # goal is only noted when it is accepted and executed, in rclpy's sense, when it is over.
        self._server = ActionServer(
            self,
            Execute,
            "execute",
            self._conclude,
            handle_accepted_callback=self._accept,
            goal_callback=lambda _: GoalResponse.ACCEPT,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )
        self._known = [
            TrackedPerson(radius_m=PERSON_RADIUS_M) for _ in range(self.simulation.people.capacity)
        ]
        self._steps = 0
        self._begin = time.monotonic()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(TICK_S, self._tick, clock=steady)
        self._genome = ""
        self._genomes = self.create_client(
            GetGenomeStatus, "genome_sync/get_status", qos_profile=qos.SERVICE
        )
        self.create_timer(GENOME_S, self._ask_for_genome, clock=steady)
        layout = self.simulation.layout
        self.get_logger().info(
            f"{layout.name}: stations {', '.join(layout.stations)};"
            f" actions {', '.join(self.navigator.actions())}"
        )

    def _obey(self, message: Any) -> None:
        twist = message.twist if self._stamped else message
        self.simulation.command(twist.linear.x, twist.angular.z)

    def _tick(self) -> None:
        due = int((time.monotonic() - self._begin) / TIMESTEP_S) - self._steps
        if due > 2 * MOST_STEPS_PER_TICK:
            self.get_logger().warning(
                f"the simulation is {due * TIMESTEP_S:.2f} s late; time stands still for that long",
                throttle_duration_sec=5.0,
            )
            self._begin += (due - MOST_STEPS_PER_TICK) * TIMESTEP_S
        for _ in range(min(due, MOST_STEPS_PER_TICK)):
            self.simulation.step()
            self._steps += 1
            if self._steps % STEPS_PER_COMMAND == 0:
                self._drive()
            if self._steps % STEPS_PER_ODOM == 0:
                self._publish_odometry()
            if self._steps % STEPS_PER_SCAN == 0:
                self._publish_surroundings()

    def _body_speed(self) -> tuple[float, float, float]:
        """Forward and sideways speed [m/s] in the frame of the base, and the yaw rate."""
        yaw = self.simulation.body.pose[2]
        vx, vy, turn = self.simulation.body.velocity
        cos, sin = math.cos(yaw), math.sin(yaw)
        return cos * vx + sin * vy, cos * vy - sin * vx, turn

    def _publish_odometry(self) -> None:
        forward, sideways, turn = self._body_speed()
        message = odometry_message(
            self.simulation.body.pose, forward, sideways, turn, self.get_clock().now().to_msg()
        )
        self._odom.publish(message)
        self._transforms.send(message)

    def _publish_surroundings(self) -> None:
        simulation, stamp = self.simulation, self.get_clock().now().to_msg()
        lidar = simulation.body.lidar
        self._scan.publish(
            scan_message(
                simulation.scan(),
                stamp,
                -math.pi,
                2 * math.pi / lidar.rays,
                STEPS_PER_SCAN * TIMESTEP_S,
                lidar.range_min_m,
                lidar.range_max_m,
            )
        )
        crowd = simulation.people
        tracked = TrackedPeople()
        tracked.header.stamp, tracked.header.frame_id = stamp, ODOM
        tracked.people = self._known[: len(crowd.ids)]
        for person, identity, place, velocity in zip(
            tracked.people,
            crowd.ids.tolist(),
            crowd.positions.tolist(),
            crowd.velocities.tolist(),
            strict=True,
        ):
            person.id = identity % 2**32
            person.position.x, person.position.y = place
            person.velocity.x, person.velocity.y = velocity
        if self._people:
            self._people.publish(tracked)
        self._publish_truth(len(crowd.ids))

    def _publish_truth(self, people: int) -> None:
        simulation, truth = self.simulation, self.simulation.truth
        message = SimTruth()
        message.header.frame_id = ODOM
        message.header.stamp.sec = int(simulation.time_s)
        message.header.stamp.nanosec = int(simulation.time_s % 1 * 1e9)
        message.robot.x, message.robot.y, message.robot.theta = simulation.body.pose
        vx, vy, message.angular_radps = simulation.body.velocity
        message.linear_mps = math.hypot(vx, vy)
        message.separation_m = truth.separation_m
        message.min_separation_m = truth.min_separation_m
        message.speed_at_min_separation_mps = truth.speed_at_min_separation_mps
        message.contacts = truth.contacts
        message.contacts_while_moving = truth.contacts_while_moving
        message.people = people
        self._truth.publish(message)

    # ------------------------------------------------------------------ the genome

    def _ask_for_genome(self) -> None:
        if self._genomes.service_is_ready():
            asked = self._genomes.call_async(GetGenomeStatus.Request())
            asked.add_done_callback(self._take_genome)

    def _take_genome(self, answer: Any) -> None:
        reply = answer.result()
        active = reply.active
        if not reply.success or active.origin == "default" or active.genome_hash == self._genome:
            return
        self._genome = active.genome_hash
        genes = attributes_to_dict(reply.parameters, "parameters")
        mine = [Parameter(each.name, value=genes[each.name]) for each in DRIVING
                if each.name in genes]
        taken = self.set_parameters_atomically(mine)
        if taken.successful:
            self.get_logger().info(f"drives by generation {active.generation}")
        else:
            self.get_logger().error(f"cannot drive by {active.genome_hash[:12]}: {taken.reason}")

    # ------------------------------------------------------------------ execute

    def _accept(self, goal: Any) -> None:
        try:
            if self._errand is not None:
                raise BrainError(
                    f"the robot is busy with {self._errand.name}; cancel that first",
                    ErrorCode.UNAVAILABLE,
                )
            self.navigator.driving = Driving(
                **{each.name: self._settings[each.name] for each in DRIVING}
            )
            context = attributes_to_dict(goal.request.context, "context")
            self._errand = self.navigator.begin(
                goal.request.action, context, self.simulation.body.pose
            )
            self._goal = goal
        except BrainError as error:
            goal.execute(partial(_turn_down, error=error))

    def _drive(self) -> None:
        errand, goal = self._errand, self._goal
        if errand is None or errand.over:
            return
        if goal.is_cancel_requested:
            errand.cancel()
        linear, angular = errand.step(self.simulation.body.pose, STEPS_PER_COMMAND * TIMESTEP_S)
        self._request(linear, angular)
        if errand.over:
            goal.execute()
        elif errand.outcome is None and self._steps % (4 * STEPS_PER_COMMAND) == 0:
            goal.publish_feedback(self._feedback(errand))

    def _request(self, linear: float, angular: float) -> None:
        self._ask.publish(
            velocity_message(linear, angular, self.get_clock().now().to_msg(), self._stamped)
        )

    def _feedback(self, errand: Errand) -> Execute.Feedback:
        feedback = Execute.Feedback(progress=errand.progress)
        feedback.pose.x, feedback.pose.y, feedback.pose.theta = self.simulation.body.pose
        doing = "held" if errand.held else "driving" if errand.path else "waiting"
        feedback.text = f"{errand.name}: {doing}, {100 * errand.progress:.0f} %"
        return feedback

    def _conclude(self, goal: Any) -> Execute.Result:
        errand, self._errand = self._errand, None
        assert errand is not None and errand.outcome is not None
        outcome = errand.outcome
        result = Execute.Result(
            success=outcome.outcome == "success",
            message=outcome.message,
            outcome=outcome.outcome,
            reward=outcome.reward,
            duration_s=outcome.duration_s,
        )
        if result.success:
            goal.succeed()
        elif goal.is_cancel_requested:
            goal.canceled()
            result.error_code = int(ErrorCode.CANCELLED)
        else:
            goal.abort()
            result.error_code = int(ErrorCode.TIMEOUT)
        result.facts = dict_to_attributes(
            {"ideal_s": outcome.ideal_s, "held_s": errand.held_s, "progress": outcome.progress}
        )
        return result

    def end(self) -> None:
        """Stop: end the errand, ask for zero, close the action."""
        if self._errand is not None:
            self._errand.cancel()
            self._errand = None
        if self.context.ok():
            self._request(0.0, 0.0)
        self._server.destroy()
        self.destroy_node()


def _turn_down(goal: Any, error: BrainError) -> Execute.Result:
    goal.abort()
    result: Execute.Result = refuse(Execute.Result(outcome="failure"), error)
    return result


def main() -> None:
    """Entry point of the `sim_robot` executable."""
    run(SimRobotNode)  # type: ignore[arg-type]
