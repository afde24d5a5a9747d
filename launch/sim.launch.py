"""The brain and the simulated robot: `ros2 launch brainos_ros sim.launch.py`.

All arguments of brainos.launch.py, and `people_file` with `people_time_step_s`. As in `brainos up`,
what `params_file` says goes for the simulator too.
"""

from pathlib import Path
from typing import Any


def _robot(context: Any) -> list[Any]:
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    from launch_ros.actions import Node

    from brainos_ros import robot_file

    given = context.launch_configurations
    robot = robot_file.load(given["robot"])
    driver = robot.driver.parameters if robot.driver else {}
    parameters: list[Any] = [{**robot.shared_parameters(), **driver}]
    if given["params_file"]:
        parameters.append(given["params_file"])
    if given["people_file"]:
        parameters.append({"people_file": given["people_file"],
                           "people_time_step_s": float(given["people_time_step_s"])})
    simulated = Node(
        package="brainos_ros", executable="sim_robot", namespace=given["namespace"],
        output="screen", parameters=parameters,
        arguments=["--ros-args", "--log-level", given["log_level"]])
    brain = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).parent / "brainos.launch.py")),
        launch_arguments={"driver": "false", **{n: given[n] for n in _arguments()}}.items())
    return [simulated, brain]


def _arguments() -> dict[str, tuple[str, str]]:
    from runpy import run_path

    known: dict[str, tuple[str, str]] = run_path(
        str(Path(__file__).parent / "brainos.launch.py"))["ARGUMENTS"]
    return {name: value for name, value in known.items() if name != "driver"}


def generate_launch_description() -> Any:
    """Called by launch."""
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    from launch import LaunchDescription

    own = {
        "people_file": ("", "recorded people (`frame id x y`) instead of the built-in crowd"),
        "people_time_step_s": ("0.4", "seconds between the recording's frames"),
    }
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in {**_arguments(), **own}.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_robot)])
