"""The shipped robot `intel_log`: a recording played through the brain fills what it feeds."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for
from whole_brain import LIMIT_S, ROOT

pytest.importorskip("rclpy", reason="no ROS 2 here")

from brainos_msgs import srv

from brainos_ros.errors import BrainError
from brainos_ros.ros.conversions import attributes_to_dict

WAY_M, WALL_M = 4.0, 2.0


def write_log(path: Path) -> None:
    """Ten drives of 4 m, each followed by 2 s of standing, with a wall 2 m around."""
    beams = " ".join([str(WALL_M)] * 180)
    lines, time_s, x = [], 0.0, 0.0
    for _ in range(10):
        for step in range(40):
            x += WAY_M / 20 if step < 20 else 0.0
            time_s += 0.1
            lines.append(f"ODOM {x:.2f} 0 0 0.5 0 0 {time_s:.1f} h 0")
        lines.append(f"FLASER 180 {beams} {x:.2f} 0 0 {x:.2f} 0 0 {time_s:.1f} h 0")
    path.write_text("\n".join(lines) + "\n")


def test_a_log_fills_the_world_model_and_the_memory(graph: Any, tmp_path: Path) -> None:
    write_log(tmp_path / "drives.log")
    said = tmp_path / "up.log"
    with said.open("wb") as file:
        up = subprocess.Popen(
            [sys.executable, "-m", "brainos_ros.cli.main", "up", "intel_log",
             "--home", str(tmp_path / "home"),
             "--driver-parameter", f"log_file:={tmp_path / 'drives.log'}",
             "--driver-parameter", "rate:=10.0", "--driver-parameter", "loop:=true"],
            cwd=ROOT, stdout=file, stderr=file)

    def ask(kind: Any, door: str, **fields: Any) -> Any:
        try:
            return graph.call(kind, door, kind.Request(**fields))
        except BrainError:  # it is not up yet
            return None

    def robot() -> dict[str, Any]:
        """What the world model knows of the robot beyond that there is one."""
        reply = ask(srv.GetEntity, "world_model/get_entity", entity_id="intel_log")
        return attributes_to_dict(reply.entity.attributes, "attributes") if reply else {}

    def drives() -> list[Any]:
        reply = ask(srv.Retrieve, "memory/retrieve", query="drive", limit=20)
        return [hit.episode for hit in reply.results] if reply else []

    try:
        facts = wait_for(
            lambda: (found := robot()).get("nearest_obstacle_m") and found,
            said.read_text, LIMIT_S)
        assert facts["nearest_obstacle_m"] == pytest.approx(WALL_M)
        episodes = wait_for(lambda: len(found := drives()) >= 3 and found, said.read_text, LIMIT_S)
        lived = [attributes_to_dict(each.metadata, "metadata") for each in episodes]
        assert any(math.isclose(each["distance_m"], WAY_M, rel_tol=0.06) for each in lived)
        assert {each.objective for each in episodes} == {"drive"}
    finally:
        up.terminate()
        assert up.wait(LIMIT_S) == 0
