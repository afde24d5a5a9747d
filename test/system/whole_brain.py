"""`brainos up` in a process of its own, for tests of the whole brain."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 40.0
BASE = """\
name: test
base: {footprint_radius_m: 0.3, max_speed_mps: 1, max_yaw_rate_radps: 1.5, acceleration_mps2: 1,
       deceleration_mps2: 2, actuation_delay_s: 0.05, command_timeout_s: 0.3}
nodes:
"""


class Brain:
    """`brainos up` on a robot file of its own, which lies with its log in `place`."""

    def __init__(self, place: Path, nodes: str, home: Path | None = None, **variables: str) -> None:
        self.home, self.log, self.robot = home or place, place / "up.log", place / "test.yaml"
        self.robot.write_text(nodes)
        self.up = subprocess.Popen(
            [sys.executable, "-m", "brainos_ros.cli.main", "up", str(self.robot),
             "--home", str(self.home)],
            cwd=ROOT, env=os.environ | variables, stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT)

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, holds: Callable[[], Any]) -> Any:
        return wait_for(holds, self.text, LIMIT_S)

    def said(self, text: str, times: int = 1) -> None:
        self.wait_for(lambda: self.text().count(text) >= times)

    def pids(self) -> dict[str, int]:
        body = json.loads((self.home / "watchdog/processes.json").read_text())
        return {name: pid for name, (pid, _) in body["processes"].items()}

    def watchdog(self) -> int:
        children = Path(f"/proc/{self.up.pid}/task/{self.up.pid}/children").read_text().split()
        return int(children[0])

    def stop(self) -> int:
        self.up.send_signal(signal.SIGTERM)
        return self.up.wait(LIMIT_S)
