"""`brainos up`: starts the watchdog, which starts everything else, and keeps it running.

This process knows no ROS. It restarts a watchdog that ends or falls silent; the new one adopts the
living nodes. With one that was told to stop it ends. If it is killed itself, the kernel ends its
watchdog too and the nodes stay, for whoever runs `brainos up` next.
"""

import argparse
import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import yaml

from brainos_ros import quoted_yaml, robot_file
from brainos_ros.checked_yaml import meant
from brainos_ros.cli import options
from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robot_spec import Beat, Driver, Robot
from brainos_ros.ros import discovery
from brainos_ros.ros.pulse import claim_brain
from brainos_ros.watchdog import processes
from brainos_ros.watchdog.detect import Heart, Lag

BEAT = Beat(period_s=0.13, misses=3, grace_s=15.0)  # of WATCHDOG=1
STOP_S = 25.0  # for the watchdog to take the nodes down
AGAIN_S = 1.0  # from one start of the watchdog to the next
TRIES = 3  # of a watchdog that never said anything
REFUSED = 2  # exit code of a watchdog or driver that was given a wrong parameter
FAILED = 3  # our exit code: ended in order, but the driver or the watchdog had failed for good
_UCRED = struct.Struct("3i")  # pid, uid, gid: SCM_CREDENTIALS of unix(7)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("robot", help="a name in config/robots, or the path of a robot file")
    parser.add_argument("--home", type=Path, help="state directory (default: ~/.ros/brainos/ROBOT)")
    parser.add_argument("--namespace", type=options.namespace, default="",
                        help="put every node under this namespace")
    parser.add_argument("--composed", action="store_true",
                        help="all nodes but the watchdog in one process")
    parser.add_argument("--no-driver", action="store_true",
                        help="do not start the robot file's driver")
    parser.add_argument("--no-autostart", action="store_true",
                        help="start the nodes, but leave them unconfigured")
    parser.add_argument("--params-file", type=Path, action="append", default=[],
                        help="ROS parameters that override the robot file's")
    parser.add_argument("--driver-parameter", type=options.parameter, metavar="NAME:=VALUE",
                        action="append", default=[])
    parser.add_argument("--remap", type=options.remap, metavar="FROM:=TO", action="append",
                        default=[])
    parser.add_argument("--use-sim-time", action="store_true", help="take the time from /clock")
    parser.add_argument("--log-level", type=options.log_level,
                        help="debug, info, warn or error")
    parser.add_argument("--duration", type=options.seconds, metavar="SECONDS",
                        help="stop by itself then")


def run(args: argparse.Namespace) -> int:
    robot = robot_file.load(args.robot)
    home = (args.home or robot.home()).expanduser().resolve()
    for path in args.params_file:
        if not path.is_file():
            raise BrainError(f"--params-file {path}: no such file", ErrorCode.NOT_FOUND)
    driver = None if args.no_driver else robot.driver
    if args.driver_parameter:
        _check_driver_parameters(robot, driver, args.driver_parameter)
    with _claim(home) if home.exists() else contextlib.nullcontext():
        refuse_another(_namespace(args))  # before there is a new home
    with _claim(home):
        if advice := discovery.advice():
            print(f"[brainos] {robot.name}: {advice}", flush=True)
        started = _start_driver(robot, driver, home, args) if driver else None
        try:
            return Upkeep(robot, _watchdog_command(robot, home, args), started).run(args.duration)
        finally:
            if started:
                _end(started, 3.0)


def _check_driver_parameters(
    robot: Robot, driver: Driver | None, given: Sequence[str]
) -> None:
    """Raises `BrainError` for one that nobody would take."""
    from brainos_ros.ros.tables import table  # imports ROS, and is seldom needed

    if driver is None:
        why = "--no-driver" if robot.driver else f"{robot.path} names none"
        raise BrainError(f"--driver-parameter {given[0]}: no driver starts ({why}); leave it out")
    known = table(driver.package, driver.executable)
    if known is None:
        return
    for name, _, text in (each.partition(":=") for each in given):
        if name not in known:
            raise BrainError(f"--driver-parameter: {driver.executable} has no parameter {name!r}"
                             f"{meant(name, sorted(known))}")
        try:
            problem = known[name].problem(yaml.safe_load(text))
        except (yaml.YAMLError, ValueError):
            problem = f"parameter {name} is {text!r}, which is not YAML; put a text between quotes"
        if problem:
            raise BrainError(f"--driver-parameter: {problem}")


def refuse_another(namespace: str) -> None:
    """Raises `BrainError` if a brain runs in this ROS domain, in this namespace (`/r1`).

    Its watchdog finds that out too, but when a driver already talks to that brain.
    """
    claim_brain(os.environ.get("ROS_DOMAIN_ID") or "0", namespace).close()


def _namespace(args: argparse.Namespace) -> str:
    """Of the watchdog, as ROS will have it: of several rules the first holds."""
    ruled = (rule.partition(":=")[2] for rule in args.remap if rule.startswith("__ns:="))
    return "/" + str(args.namespace or next(ruled, "")).strip("/")


def _claim(home: Path) -> IO[str]:
    """Be the only one who keeps a brain up in this home; the lock ends with the process."""
    path = home / "watchdog" / "up.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        raise BrainError(f"a brain is up in {home} already (pid {lock.read() or 'unknown'}); "
                         "stop it, or give another --home", ErrorCode.ALREADY_EXISTS) from None
    with contextlib.suppress(OSError):  # a full disk: then nobody learns the pid
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return lock


def _watchdog_command(
    robot: Robot, home: Path, args: argparse.Namespace
) -> list[str]:
    command = robot_file.executable("brainos_ros", "watchdog")
    if command is None:
        raise BrainError("the watchdog is not installed; build and source brainos_ros",
                         ErrorCode.NOT_FOUND)
    return [
        *command, *_ros_arguments(args),
        "-p", f"robot:={quoted_yaml.dump(robot.name)}",
        "-p", f"robot_file:={quoted_yaml.dump(str(robot.path.resolve()))}",
        "-p", f"home:={quoted_yaml.dump(str(home))}",
        "-p", f"composition:={_yaml(args.composed)}",
        "-p", f"autostart:={_yaml(not args.no_autostart)}",
        "-p", f"use_sim_time:={_yaml(args.use_sim_time)}",
    ]


def _ros_arguments(args: argparse.Namespace) -> list[str]:
    given = ["--ros-args"]
    if args.namespace:
        given += ["-r", f"__ns:=/{args.namespace.strip('/')}"]
    for rule in args.remap:
        given += ["-r", rule]
    for path in args.params_file:
        given += ["--params-file", str(path.resolve())]
    if args.log_level:
        given += ["--log-level", args.log_level]
    return given


def _yaml(value: bool) -> str:
    return "true" if value else "false"


def _start_driver(
    robot: Robot, driver: Driver, home: Path, args: argparse.Namespace
) -> "subprocess.Popen[bytes]":
    command = robot_file.executable(driver.package, driver.executable)
    assert command, "the robot file was checked"
    path = home / "watchdog" / "driver.yaml"
    content = {**robot.shared_parameters(), "robot": robot.name, "home": str(home),
               **driver.parameters}
    try:
        path.write_text(quoted_yaml.dump({"/**": {"ros__parameters": content}}) + "\n")
    except OSError as error:  # of a full disk it does not name the file
        raise BrainError(f"{path}: {error.strerror}", ErrorCode.UNAVAILABLE) from error
    overrides = [part for given in args.driver_parameter for part in ("-p", given)]
    arguments = ["--ros-args", "--params-file", str(path), *_ros_arguments(args)[1:], *overrides]
    return _start([*command, *arguments], {})


# mallopt(3): one heap, and its end given back; set, this threshold does not grow with what is freed
_MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072"}


def _start(command: Sequence[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start a process in a session of its own that the kernel kills when this one ends."""
    variables = {**_MALLOC, **os.environ, **environment}
    steady_wait = Path(sys.prefix, "lib/libbrainos_steady_wait.so")
    if steady_wait.exists():
        loaded = variables.get("LD_PRELOAD", "")
        variables["LD_PRELOAD"] = f"{loaded}:{steady_wait}".lstrip(":")
    return subprocess.Popen(
        command, env=variables, start_new_session=True,
        preexec_fn=lambda: processes.end_with_parent(signal.SIGKILL))


def _end(process: "subprocess.Popen[bytes]", limit_s: float) -> int:
    process.terminate()
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


class Upkeep:
    """Keeps one watchdog running until told to stop. Speaks sd_notify(3) with it, like systemd."""

    def __init__(
        self, robot: Robot, command: list[str],
        driver: "subprocess.Popen[bytes] | None",
    ) -> None:
        self._robot, self._command, self._driver = robot, command, driver
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(f"\0brainos-up-{os.getpid()}")
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stop = False
        self._ready = self._heard = self._failed = False
        self._pid = 0
        self._began = time.monotonic()

    def run(self, duration_s: float | None) -> int:
        """Until told to end, `duration_s`, or an orderly end of the watchdog; the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup(1)
                signal.signal(number, self._ask_to_stop)
        until = self._began + duration_s if duration_s else float("inf")
        started, tries = -AGAIN_S, 0
        while True:
            self._read()  # what the last one said is no sign of life of the next
            self._wait([], started + AGAIN_S)
            if self._stop or time.monotonic() >= until:
                return FAILED if self._failed else 0
            started = time.monotonic()
            watchdog = _start(self._command, {
                "NOTIFY_SOCKET": f"@brainos-up-{os.getpid()}",
                "WATCHDOG_USEC": str(int(BEAT.period_s * BEAT.misses * 1e6))})
            self._pid = watchdog.pid
            how = self._watch(watchdog, until)
            if how is None:
                return FAILED if _end(watchdog, STOP_S) or self._failed else 0
            if watchdog.returncode == REFUSED and not self._heard:
                return REFUSED
            tries += 1
            if tries >= TRIES and not self._heard:
                self._say(f"the watchdog {how}, as each of {TRIES} times; its output says why")
                return FAILED
            self._say(f"the watchdog {how}; starting it again, the nodes keep running")

    def _ask_to_stop(self, *_: object) -> None:
        self._stop = True
        os.write(self._woken, b".")

    def _watch(self, watchdog: "subprocess.Popen[bytes]", until: float) -> str | None:
        """What happened to the watchdog; None if it is to be stopped."""
        now = time.monotonic()
        process = processes.adopt(watchdog.pid)
        if process is None:
            return f"exited with code {watchdog.wait()}"
        heart, lag = Heart(BEAT, now), Lag(now)
        try:
            while True:
                expected = min(heart.deadline(), until, now + 1.0)
                lag.expect(expected)
                ready = self._wait([process.pidfd], expected)
                now = time.monotonic()
                if self._read():
                    heart.beat(now)
                if self._stop or now >= until:
                    return None
                if process.pidfd in ready:
                    code = watchdog.wait()
                    return f"was killed by {processes.signal_name(-code)}" if code < 0 else (
                        f"exited with code {code}")
                if lag.ran(now):
                    heart.allow_until(now + BEAT.period_s * BEAT.misses)
                if heart.suspicious(now):
                    heart.suspected(now, process.usage())
                evidence = heart.verdict(now, process.usage()) if heart.due(now) else None
                if evidence:
                    watchdog.kill()
                    watchdog.wait()
                    return f"was killed: {evidence}"
                self._check_driver()
        finally:
            os.close(process.pidfd)

    def _wait(self, pidfds: list[int], until: float) -> list[int]:
        timeout = max(0.0, until - time.monotonic())
        ready, _, _ = select.select([self._socket.fileno(), self._wake, *pidfds], [], [], timeout)
        if self._wake in ready:
            os.read(self._wake, 64)
        return ready

    def _read(self) -> bool:
        """True if the watchdog, and nobody else, said that it lives."""
        alive = False
        while True:
            try:
                said, credentials, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(_UCRED.size))
            except BlockingIOError:
                return alive
            if not credentials or _UCRED.unpack(credentials[0][2])[0] != self._pid:
                continue
            lines = said.decode(errors="replace").splitlines()
            alive = alive or "WATCHDOG=1" in lines
            self._heard = True
            if "STOPPING=1" in lines:
                self._say("the watchdog was told to stop, and so is the brain")
                self._stop = True
            works = any(line.startswith(("STATUS=ONLINE", "STATUS=OFFLINE")) for line in lines)
            if works and not self._ready:
                self._ready = True
                took = time.monotonic() - self._began
                self._say(f"is up after {took:.1f} s; stop it with Ctrl-C")

    def _check_driver(self) -> None:
        """Tell of a driver that ended; where it never worked there is nothing to keep up."""
        code = self._driver.poll() if self._driver else None
        if code is None:
            return
        self._driver, self._failed = None, code != 0
        useless = self._failed and (not self._ready or code == REFUSED)
        self._stop = self._stop or useless
        self._say(f"the driver ended with code {code}" + (
            "; its output says why, the brain ends with it" if self._stop else ""))

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that is closed
            print(f"[brainos] {self._robot.name}: {text}", flush=True)
