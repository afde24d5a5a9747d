"""The parameters of the simulated robot, with their units and ranges."""

from __future__ import annotations

from brainos_ros.robots.navigator import Driving
from brainos_ros.robots.physics import Base
from brainos_ros.ros.parameters import Parameter

BASE_LIMITS = tuple(
    Parameter(name, getattr(Base(), name), text, unit=unit, minimum=low, maximum=20.0)
    for name, text, unit, low in (
        ("footprint_radius_m", "radius of the round footprint", "m", 0.15),
        ("max_speed_mps", "fastest the base drives", "m/s", 0.01),
        ("max_yaw_rate_radps", "fastest the base turns", "rad/s", 0.01),
        ("acceleration_mps2", "how hard it speeds up", "m/s²", 0.01),
        ("deceleration_mps2", "how hard it brakes at least", "m/s²", 0.01),
        ("actuation_delay_s", "from a command to its effect", "s", 0.0),
        ("command_timeout_s", "it stops by itself this long after a command", "s", 0.01),
    )
)
DRIVING = tuple(
    Parameter(
        name, getattr(Driving(), name), text, unit=unit, minimum=low, maximum=high, dynamic=True
    )
    for name, text, unit, low, high in (
        ("cruise_speed_mps", "how fast the navigator wants to drive", "m/s", 0.05, 20.0),
        ("lookahead_m", "how far ahead on its path it steers for", "m", 0.1, 5.0),
        ("turn_in_place_rad", "off by more than this, it stops and turns", "rad", 0.2, 3.0),
    )
)
PARAMETERS = (
    *BASE_LIMITS,
    Parameter("crowd_size", 6, "people of the built-in crowd", minimum=0, maximum=200),
    Parameter("seed", 0, "seed of the crowd and the lidar's noise", minimum=0),
    Parameter("people_file", "", "recorded people (`frame id x y`) instead of the crowd"),
    Parameter(
        "people_time_step_s",
        0.4,
        "between annotated frames of people_file",
        unit="s",
        minimum=0.001,
        maximum=60.0,
    ),
    *DRIVING,
    Parameter("cmd_vel_in_topic", "cmd_vel_raw", "where the navigator asks for speed"),
    Parameter("cmd_vel_out_topic", "cmd_vel", "what the base obeys"),
    Parameter("scan_topic", "scan", "laser scans"),
    Parameter("odom_topic", "odom", "odometry"),
    Parameter("tracked_people_topic", "tracked_people", "everybody in the hall; empty: not told"),
    Parameter("enable_stamped_cmd_vel", False, "TwistStamped instead of Twist"),
)
