"""One fault at a time in a living brain, and what is seen of it from outside."""

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import acting
from brain import Brain

ACTIVE = 3
KILL, STOP = signal.SIGKILL, signal.SIGSTOP
DEADLOCK, SPIN = signal.SIGUSR1, signal.SIGUSR2
FREEZE, NAN = signal.SIGRTMIN + 1, signal.SIGRTMIN + 2
LIMIT_S = 20.0


def doors() -> dict[str, tuple[Any, str]]:
    """Role -> a cheap door to see whether it answers."""
    from brainos_msgs import srv

    return {
        "pfc": (srv.Explain, "pfc/explain"),
        "conscience": (srv.ListPending, "conscience/list_pending"),
        "memory": (srv.GetMemoryStats, "memory/get_stats"),
        "world_model": (srv.GetSnapshot, "world_model/get_snapshot"),
        "genome_sync": (srv.GetGenomeStatus, "genome_sync/get_status"),
    }


@dataclass
class Trial:
    """Milliseconds from the fault."""

    detected: float
    answering: float


class Observer:
    """A node beside the brain: hears heartbeats and commands, asks doors. Steady times [s].

    Made before the brains, it lets their processes write down in `folder` when they first acted.
    """

    def __init__(self, folder: Path) -> None:
        import rclpy
        from brainos_msgs.msg import Heartbeat, SafetyState, ServiceLevel
        from geometry_msgs.msg import Twist
        from rclpy.node import Node

        from brainos_ros.ros import discovery, qos
        from brainos_ros.ros.executor import Outgoing, make_executor, spin

        sys.setswitchinterval(0.0005)  # the end of a process is to be noted when it happens
        self._acts, self.ends = folder / "acts", acting.Ends()
        os.environ[acting.VARIABLE] = str(self._acts)
        discovery.prepare()
        rclpy.init()
        self.node = Node("bench_recovery")
        self.outgoing, self._doors = Outgoing(self.node), {}
        self.beats: dict[tuple[str, int], tuple[float, int]] = {}  # role, pid -> time, state
        self.acting_since: dict[tuple[str, int], float] = {}
        self.commands: list[tuple[float, float]] = []  # time, |command|
        self.states: list[tuple[float, SafetyState]] = []
        self.level = ServiceLevel()
        self._listen = lambda: [
            self.node.create_subscription(Heartbeat, topic, self._hear, qos.HEARTBEATS)
            for topic in ("heartbeats", "watchdog/heartbeat")]
        self._hearing = self._listen()
        self.node.create_subscription(Twist, "cmd_vel", self._command, qos.COMMAND)
        self.node.create_subscription(
            SafetyState, "conscience/safety_state",
            lambda state: self.states.append((time.monotonic(), state)), qos.STATE)
        self.node.create_subscription(ServiceLevel, "service_level", self._note_level, qos.STATE)
        self._request = self.node.create_publisher(Twist, "cmd_vel_raw", qos.COMMAND)
        self._clients = {role: self.node.create_client(kind, door, qos_profile=qos.SERVICE)
                         for role, (kind, door) in doors().items()}
        self._kinds = {role: kind for role, (kind, _) in doors().items()}
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=spin, args=(self.node, make_executor(self.node), self._stop), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.outgoing.close()
        self._stop.set()
        self._thread.join()

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Hear no heartbeats: nodes publish them only where somebody listens."""
        while self._hearing:
            self.node.destroy_subscription(self._hearing.pop())
        yield
        self._hearing = self._listen()

    def acts(self) -> list[acting.Act]:
        return acting.read(self._acts)

    def kill_configuring(self, role: str) -> None:
        """Let the next process that configures itself for this role die of SIGKILL in it."""
        self._acts.with_name(f"configuring-{role}").touch()

    def call(self, kind: Any, door: str, request: Any = None, limit_s: float = LIMIT_S) -> Any:
        if door not in self._doors:
            self._doors[door] = self.outgoing.client(kind, door)
        return self.outgoing.call(self._doors[door], request or kind.Request(), limit_s)

    def _note_level(self, level: Any) -> None:
        self.level = level

    def _hear(self, beat: Any) -> None:
        self.ends.watch(beat.pid)
        now, key = time.monotonic(), (beat.role, beat.pid)
        self.beats[key] = (now, beat.state)
        if beat.state == ACTIVE:
            self.acting_since.setdefault(key, now)

    def _command(self, twist: Any) -> None:
        self.commands.append((time.monotonic(), abs(twist.linear.x) + abs(twist.angular.z)))

    @contextmanager
    def asking(self, linear: float = 0.0, angular: float = 0.2) -> Iterator[None]:
        """Ask for this motion [m/s, rad/s] 20 times a second."""
        from geometry_msgs.msg import Twist
        from rclpy.clock import Clock, ClockType

        request = Twist()
        request.linear.x, request.angular.z = linear, angular
        timer = self.node.create_timer(0.05, lambda: self._request.publish(request),
                                       clock=Clock(clock_type=ClockType.STEADY_TIME))
        try:
            yield
        finally:
            self.node.destroy_timer(timer)

    def moves(self, since: float) -> float | None:
        """When the first command to move came since then."""
        return next((at for at, size in list(self.commands) if at > since and size > 0.0), None)

    def first_answer(self, role: str, limit_s: float = LIMIT_S) -> float | None:
        """When the role first answered; asked every 20 ms, any answer counts."""
        asked, answered = [], threading.Event()
        deadline = time.monotonic() + limit_s
        moment: list[float] = []

        def note(_: Any) -> None:
            moment.append(time.monotonic())
            answered.set()

        client = self._clients[role]
        while not answered.is_set() and time.monotonic() < deadline:
            if client.service_is_ready():
                future = client.call_async(self._kinds[role].Request())
                future.add_done_callback(note)
                asked.append(future)
            answered.wait(0.02)
        for future in asked:
            client.remove_pending_request(future)
        return moment[0] if moment else None


Event = tuple[str, dict[str, Any]]


class Told:
    """What the watchdog records in its ledger, read on from where it was read before."""

    def __init__(self, home: Path) -> None:
        from brainos_ros.ledger.layout import Layout

        self._layout, self._next = Layout(home / "ledger" / "watchdog"), 0
        self._events: list[Event] = []

    def since(self, time_s: float) -> list[Event]:
        """The events of after this moment."""
        from brainos_ros.ledger.log import frames_from, to_record

        for frame in frames_from(self._layout, self._next):
            self._next = frame.sequence + 1
            record = to_record(frame)
            if b'"at_s"' in record.payload:
                self._events.append((record.kind, json.loads(record.payload)))
        return [event for event in self._events if event[1]["at_s"] >= time_s]


def wait_until(holds: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(0.02)
    raise RuntimeError("it did not come to be")


def settled(observer: Observer, brain: Brain, names: set[str]) -> bool:
    """Every process lives, beats, and every role has one that acts."""
    pids, now = brain.pids(), time.monotonic()
    if set(pids) != names:
        return False
    fresh = {key: state for key, (at, state) in dict(observer.beats).items() if now - at < 0.3}
    roles = {name.removesuffix("_standby") for name in names}
    acting = {role for (role, pid), state in fresh.items() if state == ACTIVE}
    heard = {pid for (_, pid), state in fresh.items() if state in (2, ACTIVE)}
    return roles <= acting and set(pids.values()) <= heard


def holder(observer: Observer, brain: Brain, role: str) -> tuple[str, int]:
    """Name and pid of the process that acts in this role."""

    def found() -> tuple[str, int] | None:
        now = time.monotonic()
        for name, pid in brain.pids().items():
            at, state = observer.beats.get((role, pid), (0.0, 0))
            if now - at < 0.5 and state == ACTIVE:
                return name, pid
        return None

    acting: tuple[str, int] = wait_until(found)
    return acting


def fail(observer: Observer, brain: Brain, told: Told, role: str, fault: int) -> Trial:
    """Inject a fault into the process that holds a role, and watch."""
    name, pid = holder(observer, brain, role)
    began = time.monotonic()
    hit(observer, pid, fault)
    answer = observer.first_answer(role)
    assert answer, f"{role} did not answer again"

    def detected() -> float | None:
        return next((float(body["at_s"]) for kind, body in told.since(began)
                     if kind in ("detected", "failed")
                     and name in (body.get("node"), body.get("process"))), None)

    seen = wait_until(detected)
    moment = Path(tempfile.gettempdir(), f"brainos-fault-{pid}")
    fault_at = began
    if moment.exists():
        fault_at = float(moment.read_text())
        moment.unlink()
    return Trial((seen - fault_at) * 1e3, (answer - began) * 1e3)


def hit(observer: Observer, pid: int, fault: int) -> None:
    """Send the signal, and wait until the process has ended of it or of what is done about it."""
    observer.ends.watch(pid)
    os.kill(pid, fault)
    if not observer.ends.wait(pid, LIMIT_S):
        raise RuntimeError(f"{pid} was not killed after signal {fault}")


def fail_both(
    observer: Observer, brain: Brain, told: Told, roles: tuple[str, str], after_s: float
) -> tuple[float, bool]:
    """Kill the holders of two roles, the second `after_s` later: (ms until both answer, whether
    the first worked before the second)."""
    pids = [holder(observer, brain, role)[1] for role in roles]
    began = time.monotonic()
    os.kill(pids[0], KILL)
    time.sleep(after_s)
    hit(observer, pids[1], KILL)
    answers = [observer.first_answer(role) for role in roles]
    assert all(answers), f"{roles} did not answer again"

    def recovered() -> list[str] | None:
        found = [body["role"] for kind, body in told.since(began) if kind == "recovered"]
        return found if set(roles) <= set(found) else None

    order = wait_until(recovered)
    return ((max(filter(None, answers)) - began) * 1e3,
            order.index(roles[0]) < order.index(roles[1]))


def fail_configuring(observer: Observer, brain: Brain, told: Told, role: str) -> float:
    """Kill the holder of a role, and its successor while that configures itself: ms until the
    role answers."""
    name, pid = holder(observer, brain, role)
    observer.kill_configuring(role)
    began = time.monotonic()
    os.kill(pid, KILL)
    wait_until(lambda: failures(told, name, began) == 2)
    answer = observer.first_answer(role)
    assert answer, f"{role} did not answer again"
    return (answer - began) * 1e3


def failures(told: Told, name: str, since: float) -> int:
    """How often this process failed since then."""
    return sum(kind == "failed" and body["process"] == name for kind, body in told.since(since))


@dataclass
class CrashLoop:
    """What came of a process that ended each time it was started."""

    given_up_ms: float
    starts: int
    starts_later: int
    level: int
    failed: list[str]


def crash_loop(observer: Observer, brain: Brain, told: Told, role: str) -> CrashLoop:
    """Kill the process of a role as often as it is started, then have it restarted by hand."""
    from brainos_msgs.srv import RestartNode

    _, pid = holder(observer, brain, role)
    began = time.monotonic()

    def told_of(kind: str) -> list[float]:
        return [body["at_s"] for each, body in told.since(began)
                if each == kind and body["process"] == role]

    while not told_of("given_up"):
        hit(observer, pid, KILL)
        wait_until(lambda was=pid: brain.pids().get(role) not in (None, was)
                   or told_of("given_up"))
        pid = brain.pids().get(role, 0)
    (given_up,) = told_of("given_up")
    wait_until(lambda: observer.level.reason.startswith(f"failed for good: {role}"))
    level = observer.level
    time.sleep(1.0)  # a storm would go on
    starts = told_of("started")
    later = [at for at in starts if at > given_up]
    observer.call(RestartNode, "watchdog/restart",
                  RestartNode.Request(role=role, reason="the crash loop is over"))
    wait_until(lambda: observer.level.level == level.ONLINE)
    return CrashLoop((given_up - began) * 1e3, len(starts), len(later), level.level,
                     list(level.failed_components))


def fail_watchdog(observer: Observer, brain: Brain, fault: int) -> tuple[float, float, int]:
    """(ms until the last command before the first zero, ms until a watchdog beats again, nodes
    restarted). The conscience may hear the new watchdog, and let go, before this process does."""
    with observer.asking():
        wait_until(lambda: observer.commands and observer.commands[-1][1] > 0.0)
        before, pid = brain.pids(), brain.watchdog()
        began = time.monotonic()
        os.kill(pid, fault)
        back = wait_until(lambda: next(
            (at for (role, p), at in observer.acting_since.items()
             if role == "watchdog" and p != pid and at > began), None))
        later = [(at, size) for at, size in list(observer.commands) if at > began]
        zero = next((at for at, size in later if size == 0.0), back)
        moving = [at for at, size in later if at < zero and size != 0.0]
        time.sleep(1.0)
        after = brain.pids()
        return ((max(moving, default=began) - began) * 1e3, (back - began) * 1e3,
                sum(after.get(name) != p for name, p in before.items()))
