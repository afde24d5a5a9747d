"""The demo leaves nothing behind, however it is ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait_for
from whole_brain import LIMIT_S, ROOT

pytest.importorskip("rclpy", reason="no ROS 2 here")


@pytest.mark.parametrize(("ending", "when"), [
    ("SIGTERM", "awake after"), ("SIGHUP", ""), ("SIGKILL", "awake after")])
def test_a_demo_that_is_ended_takes_everything_with_it(
    tmp_path: Path, ending: str, when: str
) -> None:
    home, said = tmp_path / "home", tmp_path / "said"
    with said.open("wb") as file:
        demo = subprocess.Popen(
            [sys.executable, "-m", "brainos_ros.cli.main", "demo", "--home", str(home)],
            cwd=ROOT, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))  # nohup(1) ignores it
    try:
        wait_for(lambda: when in said.read_text() and len(pids_of(home)) > 3,
                 said.read_text, LIMIT_S)
        number = signal.Signals[ending]
        demo.send_signal(number)
        if ending == "SIGKILL":
            demo.wait()
            wait_for(lambda: pids_of(home) == [], said.read_text, LIMIT_S)
        else:
            assert demo.wait(LIMIT_S) == 128 + number
            assert pids_of(home) == []
    finally:
        for pid in pids_of(home):
            os.kill(pid, signal.SIGKILL)


def pids_of(home: Path) -> list[int]:
    """Processes with this home on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(home) in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found
