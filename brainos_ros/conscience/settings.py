"""The conscience's parameters, described once, and what is made of them."""

from typing import Any, Protocol

from brainos_ros.conscience.gate import Periods
from brainos_ros.conscience.separation import Base, People
from brainos_ros.errors import BrainError


class Settings(Protocol):
    """Values by parameter name."""

    def __getitem__(self, name: str, /) -> Any: ...


#: (name, default, what it is, unit, minimum, maximum) as `brainos_ros.ros.parameters.Parameter`.
DESCRIBED: tuple[tuple[Any, ...], ...] = (
    ("footprint_radius_m", 0.3,
     "radius of a circle around the base that holds it", "m", 0.01, 10.0),
    ("max_speed_mps", 0.5, "fastest the base may go", "m/s", 0.01, 20.0),
    ("max_yaw_rate_radps", 1.0, "fastest the base may turn", "rad/s", 0.01, 20.0),
    ("acceleration_mps2", 0.5, "how fast commands may rise", "m/s^2", 0.01, 50.0),
    ("deceleration_mps2", 0.5, "what the base brakes with at least", "m/s^2", 0.01, 50.0),
    ("actuation_delay_s", 0.1, "from a command to its effect", "s", 0.0, 2.0),
    ("command_timeout_s", 0.5,
     "the base stops by itself this long after a command", "s", 0.01, 5.0),
    ("person_speed_mps", 2.5, "how fast a tracked person may walk", "m/s", 0.0, 10.0),
    ("unrecognised_speed_mps", 2.5, "how fast anything else may move; 0 if all that moves is "
     "tracked", "m/s", 0.0, 10.0),
    ("position_uncertainty_m", 0.1, "error of a measured position (Z)", "m", 0.0, 5.0),
    ("intrusion_m", 0.1,
     "how far a body part reaches ahead of what is measured (C)", "m", 0.0, 5.0),
    ("cmd_vel_in_topic", "cmd_vel_raw", "where velocity is asked for"),
    ("cmd_vel_out_topic", "cmd_vel", "where commands leave; nobody else may publish there"),
    ("enable_stamped_cmd_vel", False, "TwistStamped on both instead of Twist"),
    ("scan_topic", "scan", "laser scan (sensor_msgs/LaserScan), the sensor at the base's centre"),
    ("odom_topic", "odom", "odometry (nav_msgs/Odometry)"),
    ("tracked_people_topic", "tracked_people", "people; empty if nobody tracks them"),
    ("gate_period_s", 0.02, "period of the gate", "s", 0.001, 1.0),
    ("request_period_s", 0.1, "longest time between requests; stale after three", "s", 0.001, 10.0),
    ("scan_period_s", 0.1, "longest time between scans; stale after three", "s", 0.001, 10.0),
    ("odom_period_s", 0.05, "longest time between odometry messages; stale after three", "s",
     0.001, 10.0),
    ("people_period_s", 0.1, "longest time between lists of people; stale after three", "s",
     0.001, 10.0),
    ("watchdog_silence_s", 0.2, "the watchdog silent this long stops the robot", "s", 0.01, 10.0),
    ("rules_file", "", "rules (YAML); empty for the shipped ones"),
    ("approval_lifetime_s", 300.0, "time a person has to approve", "s", 1.0, 86400.0),
)


def base(settings: Settings) -> Base:
    """The robot's own numbers."""
    return Base(*(settings[name] for name in (
        "footprint_radius_m", "max_speed_mps", "max_yaw_rate_radps", "acceleration_mps2",
        "deceleration_mps2", "actuation_delay_s", "command_timeout_s")))


def people(settings: Settings) -> People:
    """What is assumed of people. Raises BrainError if nobody would be reckoned with at all."""
    found = People(*(settings[name] for name in (
        "person_speed_mps", "unrecognised_speed_mps", "position_uncertainty_m", "intrusion_m")))
    if not settings["tracked_people_topic"] and found.unrecognised_speed_mps == 0.0:
        raise BrainError("unrecognised_speed_mps is 0 and tracked_people_topic is empty: nothing "
                         "would see a person; set one of them")
    return found


def periods(settings: Settings) -> Periods:
    """How often inputs are promised."""
    return Periods(*(settings[name] for name in (
        "gate_period_s", "request_period_s", "scan_period_s", "odom_period_s", "people_period_s",
        "watchdog_silence_s")))
