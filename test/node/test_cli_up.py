"""`brainos up`, with processes that stand in for the watchdog and the driver."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.node import Node

from brainos_ros import robot_file
from brainos_ros.cli import up
from brainos_ros.cli.main import main
from brainos_ros.errors import BrainError
from brainos_ros.ros import discovery, tables
from brainos_ros.ros.pulse import claim_brain
from brainos_ros.watchdog import plan
from brainos_ros.watchdog.detect import Usage
from brainos_ros.watchdog.processes import Process

LIVING = """
import os, signal, socket, time
speaker = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(text):
    speaker.sendto(text, chr(0) + os.environ["NOTIFY_SOCKET"][1:])
say(b"STATUS=ONLINE: all roles work\\nWATCHDOG=1")
"""
GO_ON = "while True: say(b'WATCHDOG=1'); time.sleep(0.05)\n"
KEEPER = """
import sys
from brainos_ros import robot_file
from brainos_ros.cli import up
robot = robot_file.load("sim", lambda package, name: ["true"])
raise SystemExit(up.Upkeep(robot, [sys.executable, "-c", sys.argv[1]], None).run(None))
"""


def kept_up(lines: str, duration_s: float | None = None, driver: str = "") -> int:
    """The exit code of an upkeep whose watchdog and driver are Python programs of these lines."""
    robot = robot_file.load("sim", lambda package, name: ["true"])
    handlers = {number: signal.getsignal(number)
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    upkeep = up.Upkeep(robot, [sys.executable, "-c", lines],
                       subprocess.Popen([sys.executable, "-c", driver]) if driver else None)
    try:
        return upkeep.run(duration_s)
    finally:
        upkeep._socket.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def parsed(*given: str) -> argparse.Namespace:
    """These arguments of `brainos up`, as it sees them."""
    parser = argparse.ArgumentParser()
    up.add_arguments(parser)
    return parser.parse_args(given)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says of every process that it waited for a processor since it was last asked."""
    waited = iter(range(1, 1000))
    monkeypatch.setattr(Process, "usage", lambda self: Usage(0.0, float(next(waited)), "S"))


@pytest.mark.usefixtures("waiting")
def test_a_watchdog_without_a_processor_is_excused(
        capfd: pytest.CaptureFixture[str]) -> None:
    assert kept_up(LIVING + "time.sleep(1.5); say(b'STOPPING=1'); time.sleep(9)") == up.FAILED
    assert "starting it again" not in capfd.readouterr().out


def test_a_watchdog_that_hangs_is_not_excused(
        capfd: pytest.CaptureFixture[str]) -> None:
    kept_up(LIVING + "time.sleep(9)", 1.5)
    assert "its loop hangs without using the processor" in capfd.readouterr().out


def test_a_watchdog_that_keeps_ending_is_started_once_a_second(
        capfd: pytest.CaptureFixture[str]) -> None:
    assert kept_up(LIVING, 2.5) == 0
    assert 1 <= capfd.readouterr().out.count("starting it again") <= 3


def test_a_watchdog_that_ends_by_a_signal_without_a_name(
        capfd: pytest.CaptureFixture[str]) -> None:
    assert kept_up(LIVING + "os.kill(os.getpid(), 40)", 0.5) == 0
    assert "was killed by signal 40" in capfd.readouterr().out


@pytest.mark.parametrize(("given", "why"), [
    ("person_spede_mps: 2.0", "did you mean 'person_speed_mps'?"),
    ("person_speed_mps: -5.0", "parameter person_speed_mps is -5.0; it must be at least 0 m/s"),
    ("person_speed_mps: 5", "parameter person_speed_mps is 5; it must be a number with a point"),
    ("person_speed_mps: null", "parameter person_speed_mps is None; it must be a number"),
    ("person_speed_mps: {a: 1.0}", "it must be a number with a point"),
])
def test_a_parameter_that_no_node_would_take_is_refused(
        given: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    text = robot_file.find("sim").read_text()
    file.write_text(text.replace("parameters: {", f"parameters: {{{given}, ", 1))
    line = text[:text.index("parameters: {")].count("\n") + 1
    with pytest.raises(BrainError) as refused:
        robot_file.load(file, find_table=tables.table)
    assert str(refused.value).startswith(f"{file}:{line}: nodes.conscience.parameters")
    assert why in str(refused.value)


def test_a_brain_with_a_wrong_parameter_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(robot_file.find("sim").read_text().replace("scan_period_s", "scan_priod_s"))
    done = subprocess.run(
        [sys.executable, "-m", "brainos_ros.cli.main", "up", str(file), "--no-driver",
         "--home", str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"error: {file}:" in done.stderr
    assert "did you mean 'scan_period_s'?" in done.stderr
    assert "started" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["sim", "sim_standby", "intel_log", "example_base"])
def test_the_parameters_of_every_robot_that_is_shipped_are_right(name: str) -> None:
    robot_file.load(name, find_table=tables.table)


@pytest.mark.parametrize(("given", "why"), [
    (("--log-level", "loud"), "argument --log-level: 'loud' is no log level; give debug, info"),
    (("--namespace", "9bad/x"), "argument --namespace: '9bad/x' is no namespace; give e.g. r1"),
    (("--remap", "junk"), "argument --remap: 'junk' is no remap rule; give FROM:=TO"),
    (("--remap", "conscience:cmd_vel:=wheels"), "argument --remap: 'conscience:cmd_vel:=wheels' is "
     "for the node conscience alone, so nobody else"),
    (("--remap", "pfc:/a:=~/b"), "argument --remap: 'pfc:/a:=~/b' is for the node pfc alone"),
    (("--duration", "-1"), "argument --duration: '-1' is no span of time; give seconds above 0"),
    (("--driver-parameter", "foo"), "argument --driver-parameter: 'foo' is no parameter; give N"),
])
def test_an_option_that_cannot_be_right_is_refused(
        given: tuple[str, str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["up", "sim", *given])
    assert refused.value.code == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("given", [
    ("--log-level", "INFO"), ("--log-level", "pfc:=debug"), ("--namespace", ""),
    ("--namespace", "/fleet/r1/"), ("--remap", "scan:=/front/scan"), ("--remap", "a:=~/b"),
    ("--remap", "rostopic://scan:=/scan"),
    ("--remap", "__node:=x"), ("--driver-parameter", "seed:=5"), ("--duration", "0.5"),
    ("--driver-parameter", "sim_robot:people_file:=/a b.txt"),
])
def test_an_option_that_is_right_is_taken(given: tuple[str, str]) -> None:
    parsed("sim", *given)


@pytest.mark.parametrize("old", [True, False])
def test_a_second_brain_is_refused_before_it_does_anything(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], old: bool) -> None:
    home = tmp_path / "home"
    if old:
        up._claim(home).close()
    there = sorted(tmp_path.rglob("*"))
    with claim_brain(os.environ["ROS_DOMAIN_ID"], "/r1"):
        assert main(["up", "sim", "--home", str(home), "--namespace", "r1"]) == up.REFUSED
    assert "another brain runs in ROS domain" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize(("given", "namespace"), [
    ((), "/"), (("--namespace", "/fleet/r1/"), "/fleet/r1"), (("--remap", "__ns:=/r2"), "/r2"),
    (("--remap", "a:=b", "--remap", "__ns:=/r2", "--namespace", "r1"), "/r1"),
])
def test_the_namespace_is_that_of_the_watchdog(given: tuple[str, ...], namespace: str) -> None:
    args = parsed("sim", *given)
    assert up._namespace(args) == namespace
    with started(up._ros_arguments(args)) as node:
        assert node.get_namespace() == namespace


@contextlib.contextmanager
def started(arguments: list[str]) -> Iterator[Node]:
    """A node that was given these arguments and has every parameter in them."""
    discovery.prepare()
    context = rclpy.Context()
    rclpy.init(args=arguments, context=context)
    node = Node("watchdog", context=context, enable_rosout=False, start_parameter_services=False,
                automatically_declare_parameters_from_overrides=True)
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


@pytest.mark.parametrize("name", ["n", "nan", "sim"])
@pytest.mark.parametrize("folder", ["h #1", "a: b", "über \"quotes\" and \\", "x" * 120])
def test_a_name_and_a_path_reach_the_nodes_as_they_are(
        tmp_path: Path, name: str, folder: str) -> None:
    home = tmp_path / folder
    home.mkdir()
    file = home / "robot.yaml"
    file.write_text(robot_file.find("sim").read_text().replace("name: sim", f"name: '{name}'"))
    robot = robot_file.load(file)
    command = up._watchdog_command(robot, home, parsed(str(file)))
    wanted = {"robot": name, "robot_file": str(file), "home": str(home)}
    with started(command[command.index("--ros-args"):]) as node:
        assert {each: node.get_parameter(each).value for each in wanted} == wanted
    path = home / "parameters.yaml"
    plan.write_parameters(path, plan.parameters(robot, home, False, False))
    del wanted["robot_file"]
    with started(["--ros-args", "--params-file", str(path)]) as node:
        assert {each: node.get_parameter(each).value for each in wanted} == wanted


@pytest.mark.parametrize("name", ["n", "nan"])
def test_a_name_reaches_the_driver_as_it_is(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(robot_file.find("sim").read_text().replace("name: sim", f"name: '{name}'"))
    robot = robot_file.load(file)
    assert robot.driver
    commands: list[list[str]] = []
    monkeypatch.setattr(up, "_start", lambda command, environment: commands.append(command))
    (tmp_path / "watchdog").mkdir()
    up._start_driver(robot, robot.driver, tmp_path, parsed(str(file)))
    (command,) = commands
    with started(command[command.index("--ros-args"):]) as node:
        assert node.get_parameter("robot").value == name


def test_a_next_watchdog_that_is_refused_leaves_no_brain_without_one(
        tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mark = tmp_path / "was here"
    lines = f"""
import pathlib, time
mark = pathlib.Path({str(mark)!r})
tried = int(mark.read_text()) if mark.exists() else 0
mark.write_text(str(tried + 1))
if tried == 1:
    raise SystemExit(2)
""" + LIVING.replace("STATUS=ONLINE: all roles work", "STATUS=DEGRADED_ONLINE: pfc") + """
if tried:
    say(b"STOPPING=1")
    time.sleep(9)
"""
    kept_up(lines, 30.0)
    assert mark.read_text() == "3"
    assert "exited with code 2; starting it again" in capfd.readouterr().out


def test_a_watchdog_that_never_speaks_is_not_tried_for_ever(
        capfd: pytest.CaptureFixture[str]) -> None:
    assert kept_up("raise SystemExit(7)", 60.0) == up.FAILED
    said = capfd.readouterr().out
    assert said.count("starting it again") == 2
    assert "as each of 3 times" in said


@pytest.mark.parametrize(("lines", "code", "ends"), [
    ("time.sleep(60)", 5, True), (LIVING + GO_ON, 5, False), (LIVING + GO_ON, up.REFUSED, True)])
def test_a_driver_that_fails_is_told(
        lines: str, code: int, ends: bool, capfd: pytest.CaptureFixture[str]) -> None:
    driver = f"import time; time.sleep(1); raise SystemExit({code})"
    began = time.monotonic()
    assert kept_up("import time\n" + lines, 8.0, driver) == up.FAILED
    assert (time.monotonic() - began < 6.0) is ends
    said = capfd.readouterr().out
    assert f"the driver ended with code {code}" in said
    assert ("the brain ends with it" in said) is ends


@pytest.mark.parametrize("ignored", [False, True])
def test_the_brain_ends_with_its_terminal_unless_that_is_ignored(ignored: bool) -> None:
    """What nohup(1) starts ignores SIGHUP."""
    disposition = signal.SIG_IGN if ignored else signal.SIG_DFL
    told = ("import signal\n"
            "signal.signal(signal.SIGTERM, lambda *_: exit(print('told to stop', flush=True)))\n")
    keeper = subprocess.Popen(
        [sys.executable, "-c", KEEPER, told + LIVING + GO_ON], stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, disposition))
    assert keeper.stdout
    assert "is up after" in keeper.stdout.readline()
    keeper.send_signal(signal.SIGHUP)
    if ignored:
        with pytest.raises(subprocess.TimeoutExpired):
            keeper.wait(0.5)
        keeper.terminate()
    out, _ = keeper.communicate(timeout=30)
    assert (keeper.returncode, out) == (0, "told to stop\n")


def test_a_closed_terminal_does_not_end_the_brain() -> None:
    keeper = subprocess.Popen(
        [sys.executable, "-c", KEEPER, "import time\ntime.sleep(1)\n" + LIVING + GO_ON],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert keeper.stdout
    keeper.stdout.close()
    with pytest.raises(subprocess.TimeoutExpired):
        keeper.wait(3.0)
    keeper.terminate()
    keeper.wait(30.0)


@pytest.mark.parametrize(("robot", "given", "why"), [
    ("sim", ("seeed:=5",), "sim_robot has no parameter 'seeed'; did you mean 'seed'? Known here:"),
    ("sim", ("seed:=5", "sim_robot:seed:=5"), "no parameter 'sim_robot:seed' Known here: acc"),
    ("sim", ("people_time_step_s:=100.0",), "people_time_step_s is 100.0; it must be at most 60 s"),
    ("sim", ("people_time_step_s:=.nan",), "people_time_step_s is nan; it must be finite"),
    ("sim", ("people_time_step_s:=abc",), "'abc'; it must be a number with a point, as 2.0"),
    ("sim", ("people_file:={a",), "people_file is '{a', which is not YAML; put a text between q"),
    ("intel_log", ("log_fil:=x.log",), "log_player has no parameter 'log_fil'; did you mean 'log_"),
    ("example_base", ("seed:=5",), "example_base.yaml names none); leave it out"),
])
def test_a_driver_parameter_that_nobody_would_take_is_refused(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], robot: str, given: tuple[str, ...],
        why: str) -> None:
    words = [word for each in given for word in ("--driver-parameter", each)]
    assert main(["up", robot, "--home", str(tmp_path / "home"), *words]) == up.REFUSED
    said = capsys.readouterr().err
    assert said.startswith("brainos up: --driver-parameter")
    assert why in said
    assert not list(tmp_path.iterdir())


def test_a_driver_parameter_without_a_driver_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "sim", "--no-driver", "--driver-parameter", "seed:=5"]) == up.REFUSED
    assert "seed:=5: no driver starts (--no-driver); leave it out" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["seed:=5", "people_time_step_s:=0.5", "people_file:=/a b.txt"])
def test_a_driver_parameter_that_is_right_is_taken(given: str) -> None:
    robot = robot_file.load("sim", lambda package, name: ["true"])
    up._check_driver_parameters(robot, robot.driver, [given])
