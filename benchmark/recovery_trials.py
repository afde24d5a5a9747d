"""One fault at a time in a living brain, and what is seen of it from outside."""

import json
import os
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
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
    """Milliseconds from the fault; `two_active` says that a successor acted too early."""

    detected: float
    answering: float
    two_active: bool = False


class Observer:
    """A node beside the brain: hears heartbeats and commands, asks doors. Steady times [s]."""

    def __init__(self) -> None:
        import rclpy
        from brainos_msgs.msg import Heartbeat
        from geometry_msgs.msg import Twist
        from rclpy.node import Node

        from brainos_ros.ros import discovery, qos
        from brainos_ros.ros.executor import make_executor, spin

        discovery.prepare()
        rclpy.init()
        self.node = Node("bench_recovery")
        self.beats: dict[tuple[str, int], tuple[float, int]] = {}  # role, pid -> time, state
        self.acting_since: dict[tuple[str, int], float] = {}
        self.commands: list[tuple[float, float]] = []  # time, |command|
        for topic in ("heartbeats", "watchdog/heartbeat"):
            self.node.create_subscription(Heartbeat, topic, self._hear, qos.HEARTBEATS)
        self.node.create_subscription(Twist, "cmd_vel", self._command, qos.COMMAND)
        self._request = self.node.create_publisher(Twist, "cmd_vel_raw", qos.COMMAND)
        self._clients = {role: self.node.create_client(kind, door, qos_profile=qos.SERVICE)
                         for role, (kind, door) in doors().items()}
        self._kinds = {role: kind for role, (kind, _) in doors().items()}
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=spin, args=(self.node, make_executor(self.node), self._stop), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _hear(self, beat: Any) -> None:
        now, key = time.monotonic(), (beat.role, beat.pid)
        self.beats[key] = (now, beat.state)
        if beat.state == ACTIVE:
            self.acting_since.setdefault(key, now)

    def _command(self, twist: Any) -> None:
        self.commands.append((time.monotonic(), abs(twist.linear.x) + abs(twist.angular.z)))

    def ask_to_turn(self) -> None:
        from geometry_msgs.msg import Twist

        request = Twist()
        request.angular.z = 0.2
        self._request.publish(request)

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


def events(home: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the watchdog recorded so far."""
    from brainos_ros.ledger.layout import Layout
    from brainos_ros.ledger.log import frames_from, to_record

    for frame in frames_from(Layout(home / "ledger" / "watchdog"), 0):
        record = to_record(frame)
        try:
            yield record.kind, json.loads(record.payload)
        except ValueError:
            continue  # the ledger's own records


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
    fresh = {key: state for key, (at, state) in observer.beats.items() if now - at < 0.3}
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


def fail(observer: Observer, brain: Brain, role: str, fault: signal.Signals) -> Trial:
    """Inject a fault into the process that holds a role, and watch."""
    name, pid = holder(observer, brain, role)
    pidfd = os.pidfd_open(pid)
    began = time.monotonic()
    os.kill(pid, fault)
    if not select.select([pidfd], [], [], LIMIT_S)[0]:
        raise RuntimeError(f"{name} was not killed after signal {fault}")
    ended = time.monotonic()
    os.close(pidfd)
    answer = observer.first_answer(role)
    assert answer, f"{role} did not answer again"

    def detected() -> float | None:
        for kind, body in events(brain.home):
            mine = name in (body.get("node"), body.get("process"))
            if kind in ("detected", "failed") and mine and body["at_s"] >= began:
                return float(body["at_s"])
        return None

    seen = wait_until(detected)
    moment = Path(tempfile.gettempdir(), f"brainos-fault-{pid}")
    fault_at = began
    if moment.exists():
        fault_at = float(moment.read_text())
        moment.unlink()
    early = [p for (r, p), at in observer.acting_since.items()
             if r == role and p != pid and began < at < ended - 0.001]
    return Trial((seen - fault_at) * 1e3, (answer - began) * 1e3, bool(early))


def fail_watchdog(
    observer: Observer, brain: Brain, fault: signal.Signals
) -> tuple[float, float, int]:
    """(ms until the last command before the first zero, ms until a watchdog beats again, nodes
    restarted). The conscience may hear the new watchdog, and let go, before this process does."""
    stop = threading.Event()

    def turn() -> None:
        while not stop.wait(0.04):
            observer.ask_to_turn()

    threading.Thread(target=turn, daemon=True).start()
    try:
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
    finally:
        stop.set()
