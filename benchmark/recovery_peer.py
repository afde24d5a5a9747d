"""What users have today: launch respawns a process 2 s after it ended, a bond breaks after 4 s
without a heartbeat, and a lifecycle manager then resets all nodes and brings all up again, asking
once a second whether they are back, for ten seconds. The figures are those Nav2 ships
(`respawn_delay` 2.0, `bond_timeout` 4.0, `attempt_respawn_reconnection`,
`bond_respawn_max_duration` 10.0, nav2_bringup and nav2_lifecycle_manager).

The nodes, their parameters and the middleware's settings are the same as ours. Where a full ROS 2
is present, the real ones would take this place: `nav2_lifecycle_manager` with these roles as its
`node_names`, under a launch file that respawns each; a role would then need a `bond::Bond`, which
our nodes do not have, so each would be wrapped by a node that forms it and passes its state on.
"""

import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from acting import VARIABLE
from recovery_trials import ACTIVE, KILL, Observer, doors, hit

from brainos_ros import robot_file
from brainos_ros.watchdog import order, plan

RESPAWN_S, BOND_S, POLL_S = 2.0, 4.0, 1.0
LIMIT_S = BOND_S + 10.0 + 2.0  # then the manager has given up, and had time to bring all up
CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = 1, 2, 3, 4


class Peer:
    """The nodes under launch-like respawn and a Nav2-like lifecycle manager."""

    def __init__(self, robot: str, home: Path, observer: Observer) -> None:
        loaded = robot_file.load(robot)
        path = home / "parameters.yaml"
        plan.write_parameters(path, plan.parameters(loaded, home, False, composed=False))
        self._commands = {name: command.argv for name, command in
                          plan.commands(loaded, path, [], composed=False).items()
                          if not name.endswith("_standby")}
        self._order = order.start_order({r: s.after for r, s in loaded.nodes.items()})
        self._observer = observer
        self._closing = threading.Event()
        self._bonds: dict[str, int] = {}  # role -> pid whose heartbeat is its bond
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.detected: dict[str, float] = {}
        self._threads = [threading.Thread(target=self._respawn, args=(name,), daemon=True)
                         for name in self._commands]
        self._threads.append(threading.Thread(target=self._manage, daemon=True))
        for thread in self._threads:
            thread.start()

    def _respawn(self, name: str) -> None:
        while not self._closing.is_set():
            self.processes[name] = subprocess.Popen(
                self._commands[name], start_new_session=True, env=os.environ | {VARIABLE: ""})
            self.processes[name].wait()
            self._closing.wait(RESPAWN_S)

    def _manage(self) -> None:
        self._bring_up()
        while not self._closing.wait(0.1):
            broken = [role for role in self._order if not self._bonded(role)]
            if broken:
                self.detected = dict.fromkeys(broken, time.monotonic())
                for role in reversed(self._order):
                    if role not in broken:
                        self._change(role, DEACTIVATE)
                        self._change(role, CLEANUP)
                self._bonds.clear()
                while not self._closing.is_set() and not all(
                        self._beats(role, self.processes[role].pid) for role in self._order):
                    self._closing.wait(POLL_S)
                self._bring_up()

    def _bonded(self, role: str) -> bool:
        """Whether the process that was brought up beats; one that was respawned has no bond yet."""
        return self._beats(role, self._bonds.setdefault(role, self.processes[role].pid))

    def _beats(self, role: str, pid: int) -> bool:
        at, _ = self._observer.beats.get((role, pid), (-BOND_S, 0))
        return time.monotonic() - at < BOND_S

    def _bring_up(self) -> None:
        for transition in (CONFIGURE, ACTIVATE):
            for role in self._order:
                while not self._closing.is_set() and not self._change(role, transition):
                    self._closing.wait(0.1)

    def _change(self, role: str, transition: int) -> bool:
        from lifecycle_msgs.srv import ChangeState

        client = self._observer.node.create_client(ChangeState, f"{role}/change_state")
        try:
            if not client.wait_for_service(2.0):
                return False
            done = threading.Event()
            request = ChangeState.Request()
            request.transition.id = transition
            future = client.call_async(request)
            future.add_done_callback(lambda _: done.set())
            return done.wait(2.0) and bool(future.result().success)
        finally:
            self._observer.node.destroy_client(client)

    def ready(self) -> bool:
        now = time.monotonic()
        beats: dict[Any, Any] = dict(self._observer.beats)
        return all(
            role in self.processes
            and now - beats.get((role, self.processes[role].pid), (0.0, 0))[0] < 0.3
            and beats[role, self.processes[role].pid][1] == ACTIVE for role in doors())

    def fail(self, role: str, fault: int) -> tuple[float, float | None]:
        """(detected, answering) [ms]; no answer if it does not come back by itself, and then the
        process is killed, as a person would."""
        pid, began = self.processes[role].pid, time.monotonic()
        if fault == KILL:
            hit(self._observer, pid, fault)
        else:
            os.kill(pid, fault)
        answer = self._observer.first_answer(role, LIMIT_S)
        if answer is None:
            os.kill(pid, KILL)
        return (self.detected[role] - began) * 1e3, answer and (answer - began) * 1e3

    def close(self) -> None:
        self._closing.set()
        for process in self.processes.values():
            process.kill()
