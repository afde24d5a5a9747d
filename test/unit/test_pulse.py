"""Heartbeats as datagrams: who hears what, and what a listener that stands still costs."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from brainos_ros.errors import BrainError
from brainos_ros.ros.pulse import (
    KIND,
    MOST_AT_ONCE,
    Beat,
    Pulse,
    Pulses,
    abstract_name,
    address,
    claim,
    claim_brain,
)


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[Pulses]:
    pulses = Pulses(tmp_path)
    yield pulses
    pulses.close()


def test_a_beat_comes_with_the_pid_that_the_kernel_knows(tmp_path: Path, heard: Pulses) -> None:
    pulse = Pulse(tmp_path)
    pulse.send(12.5, "/pfc", 3, "it stumbled")
    pulse.send(12.6, "/pfc", 3, "")
    assert list(heard.take()) == [Beat(os.getpid(), 12.5, "/pfc", 3, "it stumbled"),
                                  Beat(os.getpid(), 12.6, "/pfc", 3, "")]
    assert list(heard.take()) == []
    child = subprocess.Popen([sys.executable, "-c", (
        "import sys; from pathlib import Path; from brainos_ros.ros.pulse import Pulse\n"
        "Pulse(Path(sys.argv[1])).send(1.0, '/memory', 2, '')"), str(tmp_path)])
    assert child.wait(20.0) == 0
    assert [(beat.pid, beat.node) for beat in heard.take()] == [(child.pid, "/memory")]


def test_nobody_listens_then_somebody_then_another(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path)
    pulse.send(1.0, "/pfc", 1, "")
    for number in (2.0, 3.0):
        pulses = Pulses(tmp_path)
        pulse.send(0.0, "/pfc", 1, "")  # tells it that the one before is gone
        pulse.send(number, "/pfc", 1, "")
        assert [beat.at for beat in pulses.take()][-1] == number
        pulses.close()
    pulse.close()


def test_brains_do_not_hear_each_other_and_one_has_one_listener(
        tmp_path: Path, heard: Pulses) -> None:
    other = Pulses(tmp_path / "other")
    Pulse(tmp_path / "other").send(1.0, "/pfc", 1, "")
    assert not list(heard.take())
    assert len(list(other.take())) == 1
    other.close()
    with pytest.raises(BrainError, match="another watchdog hears the nodes of"):
        Pulses(tmp_path)


def test_a_listener_that_stands_still_blocks_nobody_and_catches_up(
        tmp_path: Path, heard: Pulses) -> None:
    crowd, one = Pulse(tmp_path), Pulse(tmp_path)
    began = time.monotonic()
    for number in range(20_000):
        crowd.send(float(number), "/memory", 3, "")
    one.send(7.0, "/pfc", 3, "")
    assert time.monotonic() - began < 5.0, "it waited for the listener"
    first = list(heard.take())
    assert [beat.at for beat in first if beat.node == "/pfc"] == [7.0], "crowded out"
    assert len(first) <= MOST_AT_ONCE + 1, "one sender holds the listener up"
    while list(heard.take()):
        pass
    crowd.send(1.5, "/memory", 3, "")
    assert [beat.at for beat in heard.take()] == [1.5]


def test_a_name_is_had_by_one_and_may_be_long() -> None:
    name = abstract_name("watchdog", "0", "/fleet" * 50)
    first = claim(name, "another brain runs")
    with pytest.raises(BrainError, match=f"another brain runs; .*process {os.getpid()}"):
        claim(name, "another brain runs")
    first.close()
    claim(name, "another brain runs").close()
    with pytest.raises(OSError, match="too long"):
        claim("\0" + "x" * 200, "another brain runs")


def test_a_place_has_one_brain() -> None:
    first = claim_brain("84", "/r1")
    with pytest.raises(BrainError, match=r"another brain runs in ROS domain 84, namespace /r1; .*"
                       f"its watchdog is process {os.getpid()}"):
        claim_brain("84", "/r1")
    for domain, namespace in (("84", "/"), ("85", "/r1")):
        claim_brain(domain, namespace).close()
    first.close()


@pytest.mark.parametrize("junk", [
    b"\xc1", b"x" * 8192, msgpack.packb([1.0, "/pfc"]), msgpack.packb(["now", "/pfc", 3, ""]),
    msgpack.packb([1.0, "/pfc", 3, "", 4]), msgpack.packb({"a": 1}), msgpack.packb(7)])
def test_junk_is_left_out(tmp_path: Path, heard: Pulses, junk: bytes) -> None:
    raw = socket.socket(socket.AF_UNIX, KIND)
    raw.connect(address(tmp_path))
    raw.send(junk)
    raw.send(msgpack.packb([2.0, "/pfc", 3, ""]))
    assert [beat.at for beat in heard.take()] == [2.0]
    raw.close()
    assert not list(heard.take())
    assert not heard._connections, "who hung up is forgotten"
