"""A short demo to its end, and what its report says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from whole_brain import LIMIT_S, ROOT

pytest.importorskip("rclpy", reason="no ROS 2 here")
pytest.importorskip("mujoco", reason="MuJoCo is not installed")

WORK_S = 12.0


def test_a_demo_ends_with_a_report_that_agrees_with_itself(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    demo = subprocess.run(
        [sys.executable, "-m", "brainos_ros.cli.main", "demo", "--duration", str(WORK_S),
         "--kill", "memory", "--home", str(tmp_path / "home"), "--report", str(path)],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=WORK_S + 2 * LIMIT_S)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    report = json.loads(path.read_text())

    assert report["contacts_while_moving"] == 0 <= report["contacts"]
    assert report["records_verified"] == report["records_written"] > 0
    assert report["records_written"] == sum(
        stream["records"] for stream in report["streams"].values())
    assert all(stream["verified"] for stream in report["streams"].values())
    assert report["answered"]["decisions"] >= report["decisions"] > 0
    assert report["answered"]["evaluations"] > 0
    assert not any(report["not_on_record"].values())
    assert 0 < report["decide_ms"]["p50"] <= report["decide_ms"]["p95"]
    assert report["vetoes"] >= 0 and report["slow_downs"] >= 0 and report["stops"] >= 0
    assert 0 <= report["deliveries"] <= report["decisions"]
    assert report["min_separation_m"] >= 0 and report["speed_at_min_separation_mps"] >= 0
    (recovery,) = report["recoveries"]
    assert (recovery["node"], recovery["fault"]) == ("memory", "SIGKILL")
    assert 0 < recovery["detected_ms"] <= recovery["answering_ms"]
    assert "contacts" in demo.stdout
