"""A robot's brain: `ros2 launch brainos_ros brainos.launch.py robot:=sim`.

Runs `brainos up`, which keeps the watchdog up, which starts and drives the nodes. Dead, it is
started again; its orderly end, and what it refuses (a wrong robot file or parameter), end the
launch.
"""

from collections.abc import Callable
from typing import Any

ARGUMENTS = {
    "robot": ("sim", "a name in config/robots, or the path of a robot file"),
    "namespace": ("", "put every node under this namespace"),
    "use_sim_time": ("false", "take the time from /clock"),
    "params_file": ("", "ROS parameters that override the robot file's"),
    "autostart": ("true", "take the nodes through configure and activate"),
    "log_level": ("info", "debug, info, warn or error"),
    "use_composition": ("false", "all nodes but the watchdog in one process"),
    "home": ("", "state directory (default: ~/.ros/brainos/ROBOT)"),
    "driver": ("true", "start the driver the robot file names, if it names one"),
}
ENDS = {  # by its exit code
    0: "brainos up ended", 2: "brainos up refused", 3: "its driver or watchdog failed for good"}


def up(context: Any, *options: str) -> list[Any]:
    """`brainos up` with what the launch was given, and with `options`."""
    from launch.actions import ExecuteProcess
    from launch_ros.substitutions import ExecutableInPackage

    given = {name: context.launch_configurations[name] for name in ARGUMENTS}

    def on(name: str) -> bool:
        value = given[name].lower()
        if value not in ("true", "false", "1", "0"):
            raise ValueError(f"{name}:={given[name]} is neither true nor false")
        return value in ("true", "1")

    command = ["up", given["robot"], "--log-level", given["log_level"]]
    for name, option in (("namespace", "--namespace"), ("home", "--home"),
                         ("params_file", "--params-file")):
        command += [option, given[name]] if given[name] else []
    command += options
    for option, wanted in (("--use-sim-time", on("use_sim_time")),
                           ("--composed", on("use_composition")),
                           ("--no-autostart", not on("autostart")),
                           ("--no-driver", not on("driver"))):
        command += [option] if wanted else []
    return [ExecuteProcess(
        cmd=[ExecutableInPackage(package="brainos_ros", executable="brainos"), *command],
        name="brainos", output="screen", emulate_tty=True, respawn=True, respawn_delay=1.0,
        on_exit=_end_with_it, sigterm_timeout="5", sigkill_timeout="30")]


def _end_with_it(event: Any, _: Any) -> list[Any]:
    from launch.actions import Shutdown

    reason = ENDS.get(event.returncode)
    return [Shutdown(reason=reason)] if reason else []


def description(arguments: dict[str, tuple[str, str]], start: Callable[[Any], Any]) -> Any:
    """A launch description that declares `arguments` (default, what it is), and calls `start`."""
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    from launch import LaunchDescription

    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in arguments.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def generate_launch_description() -> Any:
    """Called by launch."""
    return description(ARGUMENTS, up)
