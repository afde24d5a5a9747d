"""The unit for systemd is one that systemd understands."""

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[3] / "config" / "systemd" / "brainos@.service"


def test_systemd_understands_all_of_it(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    named = shutil.copy(UNIT, tmp_path / "brainos@my_robot.service")
    command = ["systemd-analyze", "verify", str(named)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not [line for line in done.stderr.splitlines() if "brainos@" in line]
