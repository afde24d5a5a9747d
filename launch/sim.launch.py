"""The brain and the simulated robot: `ros2 launch brainos_ros sim.launch.py`.

All arguments of brainos.launch.py, and `people_file` with `people_time_step_s`. The robot file
names the simulator as its driver, and `brainos up` starts that.
"""

import contextlib
from pathlib import Path
from runpy import run_path
from typing import Any

BRAIN = run_path(str(Path(__file__).parent / "brainos.launch.py"))
ARGUMENTS = {
    **BRAIN["ARGUMENTS"],
    "people_file": ("", "recorded people (`frame id x y`) instead of the built-in crowd"),
    "people_time_step_s": ("0.4", "seconds between the recording's frames"),
}


def _up(context: Any) -> Any:
    from brainos_ros import quoted_yaml, robot_file

    given = context.launch_configurations
    if not robot_file.load(given["robot"]).driver:
        raise ValueError(f"robot:={given['robot']} has no simulator; add the line "
                         "`driver: {executable: sim_robot}` to its file")
    people, step_s = given["people_file"], given["people_time_step_s"]
    with contextlib.suppress(ValueError):  # `brainos up` says what is wrong with it
        step_s = str(float(step_s))
    return BRAIN["up"](context, *(
        ["--driver-parameter", f"people_file:={quoted_yaml.dump(people)}",
         "--driver-parameter", f"people_time_step_s:={step_s}"] if people else []))


def generate_launch_description() -> Any:
    """Called by launch."""
    return BRAIN["description"](ARGUMENTS, _up)
