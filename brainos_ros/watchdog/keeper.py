"""The watchdog's loop: waits for process ends and deadlines, drives the supervisor, keeps the
processes. Plain Python; what needs ROS comes in through `Ports`."""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from brainos_ros.robot_spec import Robot
from brainos_ros.watchdog import notify, processes
from brainos_ros.watchdog.detect import Usage
from brainos_ros.watchdog.fork_server import ForkServer
from brainos_ros.watchdog.level import Assessment
from brainos_ros.watchdog.plan import Command
from brainos_ros.watchdog.supervisor import Supervisor

STOP_S = 3.0  # from SIGTERM to SIGKILL for a process that no longer belongs here
PRELOADED_S = 5.0  # for the fork server to import the nodes, before the first of them is started
DEAF_S = 0.15  # the other loop (heartbeats) did not run for so long: silence proves nothing


class Ports(Protocol):
    """What the loop needs from ROS."""

    def change_state(self, node: str, transition: int) -> bool:
        """As `World.change_state`."""

    def listen(self, now: float) -> None:
        """`hear` of what came since it was listened last."""

    def event(self, kind: str, body: Mapping[str, Any]) -> None:
        """Something happened; called with the lock held, so it must only queue."""

    def level(self, assessment: Assessment) -> None:
        """Publish the service level."""


class Keeper:
    """Owns the supervisor, its lock, its thread and all processes. All times are `time.monotonic`.

    Other threads use `with keeper.lock:` around `keeper.supervisor`, then `keeper.wake()`.
    """

    def __init__(
        self,
        robot: Robot,
        commands: Mapping[str, Command],
        ports: Ports,
        home: Path,
        namespace: str,
        composed: bool,
        autostart: bool,
        fork_server: ForkServer | None = None,
    ) -> None:
        self._commands, self._ports, self._namespace = commands, ports, namespace
        self._fork_server = fork_server
        self._unforked: set[str] = set()  # processes to be started without the fork server
        if fork_server and composed:
            fork_server.close()  # one process is there for its little memory, and shares none
        self._processes: dict[str, processes.Process] = {}
        self._pid_file = processes.PidFile(home / "watchdog" / "processes.json")
        self._poll = select.poll()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wakeup, select.POLLIN)
        self._pressure = processes.Pressure()
        self._room = processes.Room(home)
        self._finished = self.ending = False
        self._saved: processes.Found | None = None
        self.started = time.monotonic()
        self.ran_at = self.heard_at = self.started
        self.lock = threading.RLock()  # an answer that is there at once comes from inside a request
        self.changed = threading.Condition(self.lock)
        self.supervisor = Supervisor(
            robot.nodes, self, self.started, composed=composed, autostart=autostart)
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def begin(self) -> list[str]:
        """Adopt what lives, start the rest; returns the processes adopted."""
        with self.lock:
            now = time.monotonic()
            left = self._pid_file.read()
            for name, process in left.living.items():
                if name in self._commands:
                    self._take(name, process, now)
                else:
                    process.end(STOP_S)
            for name in self._commands:
                if name not in self._processes:
                    other = next(filter(None, map(processes.adopt, self._running(name))), None)
                    if other:
                        self._take(name, other, now)
            for role, node in left.active.items():
                self.supervisor.holds(role, node)
            self.supervisor.set_aside(left.aside)
            self.supervisor.begin(now, left.given_up)
            adopted = list(self._processes)
        if self._fork_server and not adopted:
            self._fork_server.ready(PRELOADED_S)
        self._thread.start()
        return adopted

    def stop(self, deadline_s: float) -> None:
        """Take everything down in reverse order, then end the loop; blocks."""
        with self.lock:
            self.ending = True
            self.supervisor.stop(time.monotonic())
            self.wake()
            self.changed.wait_for(lambda: self.supervisor.all_stopped, deadline_s)
            self._finished = True
            self.wake()
        if self._thread.is_alive():
            self._thread.join()
        with self.lock:
            os.close(self._wakeup)
            self._wakeup = -1
            self._pressure.close()

    def wake(self) -> None:
        """Let the loop look at once, if it has not ended."""
        with self.lock:
            if self._wakeup >= 0:
                os.eventfd_write(self._wakeup, 1)

    def wait_until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait, without the lock, until `holds()`, which is called with it, or the end."""
        with self.lock:
            self.changed.wait_for(lambda: self.ending or holds(), timeout_s)
            return holds()

    def hear(self, name: str, pid: int, state: int, now: float, failure: str = "") -> bool:
        """A heartbeat that came at `now`. False if its process is not supervised."""
        with self.lock:
            node = self.supervisor.nodes.get(name)
            was = node.state if node else None
            known = self.supervisor.beat(name, pid, state, now, failure)
            if node and not known and not node.host.pid and pid in self._running(node.host.name):
                process = processes.adopt(pid)
                if process:
                    self._take(node.host.name, process, now)
                    known = True
            if node and node.state != was:
                self.wake()
            return known

    def loads(self) -> dict[str, tuple[float, float]]:
        """Process name -> CPU time since its start [s] and resident memory [MB]."""
        with self.lock:
            return {name: process.load() for name, process in self._processes.items()}

    # ---------------------------------------------------------------- the supervisor's world

    def start(self, host: str) -> int:
        argv = self._commands[host].argv
        process = None
        if self._fork_server and host not in self._unforked:
            process = self._fork_server.start(argv)
            self._note_lost(self._fork_server)
        if process is None:
            environment = {k: v for k, v in os.environ.items() if k not in notify.VARIABLES}
            process = processes.start(argv, environment)
        self._hold(host, process)
        return process.pid

    def _note_lost(self, server: ForkServer) -> None:
        if server.lost:
            self.record("fork_server_lost", {"evidence": server.lost})
            server.lost = ""

    def signal(self, host: str, number: signal.Signals) -> None:
        self._processes[host].signal(number)

    def usage(self, host: str) -> Usage | None:
        return self._processes[host].usage()

    def pressure(self) -> float:
        return self._pressure.share()

    def change_state(self, node: str, transition: int) -> bool:
        return self._ports.change_state(node, transition)

    def record(self, kind: str, body: Mapping[str, Any]) -> None:
        self._ports.event(kind, {**body, "at_s": round(time.monotonic(), 4)})

    # ---------------------------------------------------------------- the loop

    def _hold(self, name: str, process: processes.Process) -> None:
        self._processes[name] = process
        self._poll.register(process.pidfd, select.POLLIN)

    def _running(self, name: str) -> Iterator[int]:
        command = self._commands[name]
        domain = os.environ.get("ROS_DOMAIN_ID", "0")
        return processes.running(command.argv, command.marks, name, self._namespace, domain)

    def _take(self, name: str, process: processes.Process, now: float) -> None:
        self._hold(name, process)
        self.supervisor.adopt(name, process.pid, now)

    def _run(self) -> None:
        until = time.monotonic()
        while not self._finished:
            ready = {fd for fd, _ in self._poll.poll(max(0.0, until - time.monotonic()) * 1000)}
            if self._wakeup in ready:
                os.eventfd_read(self._wakeup)
            with self.lock:
                now = self.ran_at = time.monotonic()
                self._pressure.sample(now)
                for name, process in list(self._processes.items()):
                    if process.pidfd in ready:
                        self._poll.unregister(process.pidfd)
                        del self._processes[name]
                        self._note_unheard(name)
                        self.supervisor.ended(name, process.ended(), now)
                if self._room.returned(well=all(r.works for r in self.supervisor.roles.values())):
                    self.supervisor.try_again("the disk has room again", now)
                if self.supervisor.uneasy(now):
                    self._ports.listen(now)
                level = self.supervisor.ladder.current
                until = self.supervisor.tick(now, deaf=now - self.heard_at > DEAF_S)
                current = self.supervisor.ladder.current
                self.changed.notify_all()
                self._save()
            if current is not level and current is not None:
                self._ports.level(current)

    def _note_unheard(self, name: str) -> None:
        """What ends before its first beat is started the other way next: that may be why."""
        if all(node.heart.last is None for node in self.supervisor.hosts[name].nodes):
            self._unforked ^= {name}
        else:
            self._unforked.discard(name)

    def _save(self) -> None:
        roles, ending = self.supervisor.roles, self.ending
        left = processes.Found(
            dict(self._processes), {name: role.holder.name for name, role in roles.items()},
            [] if ending else [host.name for host in self.supervisor.given_up],
            [] if ending else [name for name, role in roles.items() if role.aside])
        if left != self._saved:
            try:
                self._pid_file.write(left)
                self._saved = left
            except OSError:
                pass  # a full disk: the next watchdog finds the processes by their command lines
