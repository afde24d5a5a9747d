"""`brainos up`, with processes that stand in for the watchdog and the driver."""

import signal
import sys

import pytest

from brainos_ros import robot_file
from brainos_ros.cli import up
from brainos_ros.watchdog.detect import Usage
from brainos_ros.watchdog.processes import Process

LIVING = """
import os, signal, socket, time
speaker = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(text):
    speaker.sendto(text, chr(0) + os.environ["NOTIFY_SOCKET"][1:])
say(b"STATUS=ONLINE: all roles work\\nWATCHDOG=1")
"""


def kept_up(lines: str, duration_s: float | None = None) -> int:
    """The exit code of an upkeep whose watchdog is a Python program of these lines."""
    robot = robot_file.load("sim", lambda package, name: ["true"])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    upkeep = up.Upkeep(robot, [sys.executable, "-c", lines], None)
    try:
        return upkeep.run(duration_s)
    finally:
        upkeep._socket.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says of every process that it waited for a processor since it was last asked."""
    waited = iter(range(1, 1000))
    monkeypatch.setattr(Process, "usage", lambda self: Usage(0.0, float(next(waited)), "S"))


@pytest.mark.usefixtures("waiting")
def test_a_watchdog_without_a_processor_is_excused(
        capfd: pytest.CaptureFixture[str]) -> None:
    assert kept_up(LIVING + "time.sleep(1.5); say(b'STOPPING=1'); time.sleep(9)") == 1
    assert "starting it again" not in capfd.readouterr().out


def test_a_watchdog_that_hangs_is_not_excused(
        capfd: pytest.CaptureFixture[str]) -> None:
    assert kept_up(LIVING + "time.sleep(9)", 1.5) == 0
    assert "its loop hangs without using the processor" in capfd.readouterr().out


def test_a_watchdog_that_ends_by_a_signal_without_a_name(
        capfd: pytest.CaptureFixture[str]) -> None:
    assert kept_up(LIVING + "os.kill(os.getpid(), 40)", 0.5) == 0
    assert "was killed by signal 40" in capfd.readouterr().out
