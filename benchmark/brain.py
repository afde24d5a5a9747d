"""A whole brain under `brainos up`, for benchmarks: started, looked at, ended."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from brainos_ros.watchdog import fork_server
from brainos_ros.watchdog.processes import PidFile

ROOT = Path(__file__).resolve().parents[1]
DOMAIN = os.environ.setdefault("ROS_DOMAIN_ID", "47")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


class Brain:
    """`brainos up <robot>` with its own home; `began` is when it was called (time.monotonic)."""

    def __init__(self, robot: str, home: Path, *options: str, **variables: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.log = home, home / "up.log"
        self.began = time.monotonic()
        self.up = subprocess.Popen(
            [sys.executable, "-m", "brainos_ros.cli.main", "up", robot, "--home", str(home),
             *options],
            cwd=ROOT, env=os.environ | variables, stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT, start_new_session=True)

    def wait_for(self, text: str, timeout_s: float = 60.0) -> float:
        """Seconds from the start until the console said `text`."""
        while text not in self.log.read_text(errors="replace"):
            if self.up.poll() is not None or time.monotonic() - self.began > timeout_s:
                raise RuntimeError(f"no {text!r} in:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.005)
        return time.monotonic() - self.began

    def pids(self) -> dict[str, int]:
        """Process name -> pid of everything the watchdog keeps."""
        body = json.loads((self.home / "watchdog/processes.json").read_text())
        return {name: pid for name, (pid, _) in body["processes"].items()}

    def watchdog(self) -> int:
        """The pid of the watchdog, child of `brainos up`."""
        return next(_children(self.up.pid, "brainos_ros.watchdog.node"))

    def all_pids(self) -> list[int]:
        """The pids of the nodes, the watchdog and its fork server."""
        watchdog = self.watchdog()
        return [*self.pids().values(), watchdog, *_children(watchdog, fork_server.TITLE[-1])]

    def stop(self) -> None:
        """End everything: nodes outlive a `brainos up` that did not end in order."""
        self.up.send_signal(signal.SIGTERM)
        try:
            self.up.wait(40)
        except subprocess.TimeoutExpired:
            os.kill(self.watchdog(), signal.SIGKILL)
            self.up.kill()
            self.up.wait()
        for process in PidFile(self.home / "watchdog/processes.json").read().living.values():
            process.signal(signal.SIGKILL)


def _children(pid: int, mark: str) -> Iterator[int]:
    """Children of a process that have `mark` in their command line."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if mark in Path(f"/proc/{child}/cmdline").read_text():
            yield int(child)


def cpu_s(pid: int) -> float:
    """CPU time of a process since its start, over all its threads [s]."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def cpu_percent(pids: Iterable[int], seconds: float) -> float:
    """Load of these processes together [% of one core]."""
    pids = list(pids)
    before, started = sum(map(cpu_s, pids)), time.monotonic()
    time.sleep(seconds)
    return 100 * (sum(map(cpu_s, pids)) - before) / (time.monotonic() - started)


def pss_mb(pids: Iterable[int]) -> float:
    """Proportional set size of these processes together [MB]."""
    return sum(
        int(line.split()[1]) / 1024
        for pid in pids
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:"))
