"""Real processes: started, seen to end, adopted, found."""

import contextlib
import errno
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_disk import fill, small_disk

from brainos_ros import robot_spec
from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.watchdog import plan, processes
from brainos_ros.watchdog.fork_server import ForkServer
from brainos_ros.watchdog.journal import Journal
from brainos_ros.watchdog.keeper import Keeper
from brainos_ros.watchdog.level import Assessment

SLEEPER = (sys.executable, "-c", "import time; time.sleep(60)  # brainos sleeper")


def wait_for_end(process: processes.Process) -> str:
    assert select.select([process.pidfd], [], [], 10)[0]
    return process.ended()


@pytest.fixture
def sleeper() -> Iterator[processes.Process]:
    process = processes.start(SLEEPER, os.environ)
    yield process
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)


def test_a_start_in_a_session_of_its_own_and_an_end_in_words(sleeper: processes.Process) -> None:
    assert os.getsid(sleeper.pid) == sleeper.pid
    sleeper.signal(signal.SIGKILL)
    assert "killed by SIGKILL" in wait_for_end(sleeper)
    assert processes.start_time(sleeper.pid) is None
    quick = processes.start((sys.executable, "-c", "raise SystemExit(3)"), os.environ)
    assert "code 3" in wait_for_end(quick)


def test_an_end_by_a_signal_without_a_name(sleeper: processes.Process) -> None:
    os.kill(sleeper.pid, 40)
    assert "killed by signal 40" in wait_for_end(sleeper)


def test_usage_and_load_of_a_living_process(sleeper: processes.Process) -> None:
    usage = sleeper.usage()
    assert usage is not None
    assert usage.ran_s >= 0
    assert sleeper.load()[1] >= 0


def test_a_process_inherits_nothing_but_the_standard_streams() -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    try:
        process = processes.start(SLEEPER, os.environ)
        kept = set()
        for path in Path(f"/proc/{process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # what it opens and closes as it begins
                kept.add(os.readlink(path))
        assert os.readlink(f"/proc/self/fd/{read_end}") not in kept
        process.end(1.0)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_an_executable_that_is_missing() -> None:
    with pytest.raises(OSError, match="No such file"):
        processes.start(("/nowhere/brain",), os.environ)


def test_what_cannot_be_watched_is_not_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def refuse(pid: int) -> int:
        started.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        processes.start(SLEEPER, os.environ)
    assert processes.start_time(started[0]) is None


def test_the_pid_file_gives_the_living_back(sleeper: processes.Process, tmp_path: Path) -> None:
    file = processes.PidFile(tmp_path / "processes.json")
    assert file.read() == processes.Found()
    other = processes.Process(sleeper.pid, sleeper.start_time + 1, -1)
    both = {"memory": sleeper, "pfc": other}
    file.write(processes.Found(both, {"memory": "memory"}, ["pfc"], ["memory"]))
    left = file.read()
    assert list(left.living) == ["memory"], "the other had the same pid but another start"
    os.close(left.living["memory"].pidfd)
    assert (left.active, left.given_up, left.aside) == ({"memory": "memory"}, ["pfc"], ["memory"])
    (tmp_path / "processes.json").write_text("{")
    assert file.read() == processes.Found()


@pytest.mark.parametrize("changed", [
    {"processes": {"memory": [float("inf"), 5]}},
    {"processes": {"memory": ["many", 5]}},
    {"processes": ["memory"]},
    {"active": ["memory"]},
    {"given_up": 7},
    {"boot": None},
])
def test_a_pid_file_that_makes_no_sense_says_nothing(
        sleeper: processes.Process, tmp_path: Path, changed: dict[str, Any]) -> None:
    path, before = tmp_path / "processes.json", os.listdir("/proc/self/fd")
    processes.PidFile(path).write(processes.Found({"other": sleeper}))
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert processes.PidFile(path).read() == processes.Found()
    path.write_text("[" * 100_000)
    assert processes.PidFile(path).read() == processes.Found()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("pid", [0, -1, 43210987654, 10**30])
def test_a_pid_that_no_process_can_have_is_of_none(
        sleeper: processes.Process, tmp_path: Path, pid: int) -> None:
    file = processes.PidFile(tmp_path / "processes.json")
    file.write(processes.Found({"pfc": processes.Process(pid, 5, -1), "memory": sleeper}))
    left = file.read()
    assert list(left.living) == ["memory"]
    os.close(left.living["memory"].pidfd)


@pytest.mark.parametrize("changed", [
    {"active": {"memory": ["memory"]}}, {"given_up": [["memory"]]}, {"aside": [["memory"]]}])
def test_a_keeper_begins_whatever_its_pid_file_says(
        tmp_path: Path, changed: dict[str, Any]) -> None:
    ports = Ports()
    keeping = keeper(tmp_path, ports)
    path = tmp_path / "watchdog/processes.json"
    processes.PidFile(path).write(processes.Found())
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    keeping.begin()
    assert ports.wait_for("started")
    keeping.stop(10.0)


@contextlib.contextmanager
def playing(*arguments: str) -> Iterator[int]:
    """The pid of a process with these arguments in ROS domain 99."""
    child = subprocess.Popen(
        arguments, env={**os.environ, "ROS_DOMAIN_ID": "99"}, stdout=subprocess.PIPE,
        start_new_session=True)
    try:
        assert child.stdout
        child.stdout.readline()  # now it surely runs what it was given
        yield child.pid
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def test_processes_are_found_by_what_they_run(tmp_path: Path) -> None:
    code = f"print(flush=True); {SLEEPER[-1]} {tmp_path}"
    marks = (code, "lib/brainos_ros/memory")

    def found(name: str, namespace: str, domain: str, parameters: str = "") -> list[int]:
        argv = ("memory", "--ros-args", "--params-file", parameters)
        return list(processes.running(argv, marks, name, namespace, domain))

    by_hand = [*SLEEPER[:-1], code, "--ros-args", "-r", "__ns:=/r1"]
    ours, theirs = (f"/home/{robot}/{processes.PARAMETERS}" for robot in ("ours", "theirs"))
    with playing(*by_hand) as pid:
        assert not found("memory", "/r1", "99", ours), "it knows nothing of this robot"
    with playing(*by_hand, "--params-file", ours) as pid:
        assert found("memory", "/r1", "99", ours) == [pid], "started by hand"
        assert not found("memory", "/", "99", ours)
        assert not found("memory", "/r1", "98", ours)
        assert not found("memory_standby", "/r1", "99", ours), "it is no stand-by of itself"
    with playing(*by_hand, "-r", "__node:=memory_standby", "--params-file", ours) as pid:
        assert found("memory_standby", "/r1", "99", ours) == [pid]
        assert not found("memory", "/r1", "99", ours)
        assert not found("memory_standby", "/r1", "99", theirs), "of another brain"
    with playing("sh", "-c", f"echo; sleep 60 # {code}", *by_hand[1:]):
        assert not found("memory", "/r1", "99", ours), "a wrapper is not what it wraps"


class Ports:
    """Collects what the keeper says; nothing ever gets a heartbeat."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.came = threading.Condition()

    def change_state(self, node: str, transition: int) -> bool:
        return True

    def listen(self, now: float) -> None:
        """There is nothing to hear."""

    def event(self, kind: str, body: Mapping[str, Any]) -> None:
        with self.came:
            self.events.append((kind, body))
            self.came.notify_all()

    def level(self, assessment: Assessment) -> None:
        """Not of interest here."""

    def wait_for(self, kind: str, count: int = 1) -> Mapping[str, Any]:
        def found() -> list[Mapping[str, Any]]:
            return [body for name, body in self.events if name == kind]

        with self.came:
            assert self.came.wait_for(lambda: len(found()) >= count, 10), self.events
            return found()[-1]


class Forks(ForkServer):
    """Starts without forking, and counts; the third time it is lost."""

    def __init__(self) -> None:
        self.started, self.lost = 0, ""

    def ready(self, timeout_s: float = 0.0) -> bool:
        return True

    def start(self, argv: Sequence[str]) -> processes.Process | None:
        self.started += 1
        if self.started == 3:
            self.lost = "it does not answer"
            return None
        return processes.start(argv, os.environ)


def keeper(home: Path, ports: Ports, forks: ForkServer | None = None) -> Keeper:
    nodes = {"memory": robot_spec.NodeSpec("memory")}
    robot = robot_spec.Robot("test", Path("test.yaml"), {}, {}, {}, nodes)
    (home / "watchdog").mkdir(exist_ok=True)
    command = plan.Command(SLEEPER, (f"nothing like {home}",))
    return Keeper(robot, {"memory": command}, ports, home, "/", False, True, forks)


def test_a_killed_process_is_started_again_and_all_are_stopped(tmp_path: Path) -> None:
    ports = Ports()
    keeping = keeper(tmp_path, ports)
    keeping.begin()
    first = ports.wait_for("started")["pid"]
    os.kill(first, signal.SIGKILL)
    assert "SIGKILL" in ports.wait_for("failed")["evidence"]
    assert ports.wait_for("started", 2)["pid"] != first
    keeping.stop(10.0)
    assert ports.wait_for("stopped")
    assert not keeping.loads()


def test_without_a_free_descriptor_a_start_is_put_off_and_counts_for_nothing(
        tmp_path: Path) -> None:
    ports, limit = Ports(), resource.getrlimit(resource.RLIMIT_NOFILE)
    keeping = keeper(tmp_path, ports)
    keeping.begin()
    first = ports.wait_for("started")["pid"]
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))  # poll(2) needs some
    try:
        os.kill(first, signal.SIGKILL)
        assert "cannot be started: [Errno 24]" in ports.wait_for("put_off")["evidence"]
        assert not keeping.hear("memory", os.getppid(), 1, time.monotonic())
        ran = keeping.ran_at
        assert keeping.wait_until(lambda: keeping.ran_at > ran + 0.6, 10), "it runs on"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    ports.wait_for("started", 2)
    assert [kind for kind, _ in ports.events].count("put_off") == 1, "said once"
    assert keeping.supervisor.hosts["memory"].restarts == 1
    keeping.stop(10.0)


def test_what_ended_unheard_is_not_forked_next_time(tmp_path: Path) -> None:
    ports, forks = Ports(), Forks()
    keeping = keeper(tmp_path, ports, forks)
    keeping.begin()
    for times, forked in ((1, 1), (2, 1), (3, 2)):
        pid = ports.wait_for("started", times)["pid"]
        assert forks.started == forked
        if times == 3:
            assert keeping.hear("memory", pid, 1, time.monotonic())
        os.kill(pid, signal.SIGKILL)
    assert ports.wait_for("fork_server_lost")["evidence"] == "it does not answer"
    ports.wait_for("started", 4)
    keeping.stop(10.0)


def test_the_next_keeper_adopts(tmp_path: Path) -> None:
    ports = Ports()
    keeping = keeper(tmp_path, ports)
    keeping.begin()
    pid = ports.wait_for("started")["pid"]
    assert keeping.wait_until((tmp_path / "watchdog/processes.json").is_file, 10)
    later = Ports()
    next_one = keeper(tmp_path, later)
    next_one.begin()
    assert later.wait_for("adopted")["pid"] == pid
    assert not next_one.hear("memory", 0, 1, time.monotonic())
    assert next_one.hear("memory", pid, 1, time.monotonic())
    assert not next_one.hear("memory", pid + 1, 1, time.monotonic())
    next_one.stop(10.0)
    keeping.stop(10.0)


def test_a_heartbeat_does_not_make_any_process_a_node(tmp_path: Path) -> None:
    """It may come from another machine, where the pid means another process."""
    ports = Ports()
    keeping = keeper(tmp_path, ports)
    keeping.begin()
    os.kill(ports.wait_for("started")["pid"], signal.SIGKILL)
    ports.wait_for("failed")
    assert not keeping.hear("memory", os.getppid(), 3, time.monotonic())
    assert not keeping.hear("memory", 0, 3, time.monotonic())
    keeping.stop(10.0)


def test_what_no_longer_belongs_is_ended_before_anything_starts(tmp_path: Path) -> None:
    old = processes.start(SLEEPER, os.environ)
    old.signal(signal.SIGSTOP)
    os.waitid(os.P_PIDFD, old.pidfd, os.WSTOPPED | os.WNOWAIT)
    ports = Ports()
    keeping = keeper(tmp_path, ports)
    processes.PidFile(tmp_path / "watchdog/processes.json").write(
        processes.Found({"composed": old}))
    keeping.begin()
    assert "was killed by SIGKILL" in old.ended()
    ports.wait_for("started")
    keeping.stop(10.0)


def test_a_role_that_was_given_up_stays_so_until_somebody_asks(tmp_path: Path) -> None:
    file = processes.PidFile(tmp_path / "watchdog/processes.json")
    ports = Ports()
    keeping = keeper(tmp_path, ports)
    file.write(processes.Found(given_up=["memory"]))
    keeping.begin()
    assert keeping.wait_until(lambda: keeping.supervisor.ladder.current is not None, 10)
    assert keeping.supervisor.ladder.current
    assert "failed for good: memory" in keeping.supervisor.ladder.current.reason
    assert not keeping.loads()
    with keeping.lock:
        keeping.supervisor.restart("memory", "repaired", time.monotonic())
    keeping.wake()
    ports.wait_for("started")
    keeping.stop(10.0)
    assert file.read().given_up == [], "an orderly end forgets it"


def test_the_next_keeper_leaves_aside_what_somebody_deactivated(tmp_path: Path) -> None:
    file = processes.PidFile(tmp_path / "watchdog/processes.json")
    ports = Ports()
    keeping = keeper(tmp_path, ports)
    file.write(processes.Found(aside=["memory"]))
    keeping.begin()
    ports.wait_for("started")
    assert keeping.wait_until(lambda: file.read().aside == ["memory"], 10)
    with keeping.lock:
        assert keeping.supervisor.roles["memory"].aside
    keeping.stop(10.0)
    assert file.read().aside == [], "an orderly end forgets it"


def test_the_journal_keeps_events_until_the_ledger_takes_them() -> None:
    full, told, written = [True], [], []
    tried = threading.Event()

    def write(kind: str, body: Mapping[str, Any]) -> None:
        if full[0]:
            tried.set()
            raise BrainError("no space", ErrorCode.LEDGER_REFUSED)
        written.append(kind)

    journal = Journal(lambda kind, _: told.append(kind), write, lambda _: None)
    journal.add("failed", {})
    assert tried.wait(10)
    full[0] = False
    journal.add("recovered", {})
    journal.close()
    assert told == written == ["failed", "recovered"]


def test_what_cannot_be_said_is_written_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*_: object) -> None:
        raise ValueError("no words")

    written: list[str] = []
    journal = Journal(fails, lambda kind, _: written.append(kind), fails)
    journal.add("failed", {})
    journal.add("recovered", {})
    journal.close()
    assert written == ["failed", "recovered"]
    assert "no words" in capsys.readouterr().err


def test_parameters_remaps_and_log_level_are_passed_on(tmp_path: Path) -> None:
    given = ["watchdog", "--ros-args", "-r", "__ns:=/r1", "-r", "__node:=guard", "-p", "a:=1",
             "-r", "scan:=scan2", "--params-file", "x.yaml", "--log-level", "debug",
             "--", "-r", "b:=c"]
    passed = plan.passed_on(given)
    assert passed == ["-r", "__ns:=/r1", "-r", "scan:=scan2", "--params-file", "x.yaml",
                      "--log-level", "debug"]
    assert plan.passed_on(["watchdog"]) == []
    nodes = {"memory": robot_spec.NodeSpec(
        "memory", executable="memory", standby=True, parameters={"a": 1})}
    robot = robot_spec.Robot("test", Path("t"), {"max_speed_mps": 1.0}, {"speed_mps": 2.5},
                             {"scan": "scan"}, nodes)
    content = plan.parameters(robot, tmp_path, False, composed=False)
    plan.write_parameters(tmp_path / "p.yaml", content)
    written = (tmp_path / "p.yaml").stat().st_mtime_ns
    plan.write_parameters(tmp_path / "p.yaml", content)
    assert (tmp_path / "p.yaml").stat().st_mtime_ns == written, "nothing new, nothing written"
    assert content["/**"]["ros__parameters"]["scan_topic"] == "scan"
    assert content["/**/memory_standby"]["ros__parameters"]["a"] == 1
    commands = plan.commands(robot, tmp_path / "p.yaml", passed, composed=False)
    assert commands["memory_standby"].argv[-1] == "__node:=memory_standby"
    assert list(plan.commands(robot, tmp_path / "p.yaml", passed, composed=True)) == ["composed"]


@pytest.mark.parametrize("spec", [
    robot_spec.NodeSpec("lamp", package="lamps", executable="lamp"),
    robot_spec.NodeSpec("memory", package="mine", executable="memory"),
    robot_spec.NodeSpec("memory", executable="pfc"),
    robot_spec.NodeSpec("watch", executable="watch"),
])
def test_what_is_not_ours_is_not_composed(spec: robot_spec.NodeSpec) -> None:
    robot = robot_spec.Robot("test", Path("t"), {}, {}, {}, {spec.role: spec})
    with pytest.raises(BrainError, match=f"'{spec.role}' cannot be in one process"):
        plan.commands(robot, Path("p.yaml"), [], composed=True)


def test_a_disk_has_room_again_only_after_it_was_nearly_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "96m") as place:
        room = processes.Room(place)
        assert not room.returned(well=True)
        ballast = fill(place)
        assert not room.returned(well=False)
        os.truncate(ballast, 88 << 20)
        assert not room.returned(well=False), "8 MiB are not enough"
        os.truncate(ballast, 76 << 20)
        assert room.returned(well=False)
        assert not room.returned(well=False), "once"
        os.truncate(ballast, 56 << 20)
        assert room.returned(well=False), "there may have been room for some only"
        assert not room.returned(well=True)
        os.truncate(ballast, 0)
        assert room.returned(well=False)
        (place / "more").write_bytes(bytes(16 << 20))
        assert not room.returned(well=False)
        (place / "more").unlink()
        assert not room.returned(well=False), "it was far from full"


def test_nothing_follows_from_a_disk_that_cannot_be_asked(tmp_path: Path) -> None:
    room = processes.Room(tmp_path / "not there yet")
    (tmp_path / "not there yet").mkdir()
    assert not room.returned(well=False)


def test_a_keeper_that_stopped_leaves_nothing_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    ports = Ports()
    keeping = keeper(tmp_path, ports)
    keeping.begin()
    ports.wait_for("started")
    keeping.stop(10.0)
    assert os.listdir("/proc/self/fd") == before
