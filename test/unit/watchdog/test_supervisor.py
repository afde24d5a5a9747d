"""The supervisor against simulated processes on a simulated clock."""

import errno
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainos_ros.robot_spec import Beat, NodeSpec, Output, Restart
from brainos_ros.watchdog.detect import Usage
from brainos_ros.watchdog.level import Level
from brainos_ros.watchdog.supervisor import Supervisor

UNCONFIGURED, INACTIVE, ACTIVE = 1, 2, 3
ACTIVATE = 3
STEP = 0.01


@dataclass
class Simulated:
    """One process with one node."""

    pid: int
    boots_at: float
    state: int = UNCONFIGURED
    hangs: bool = False
    stubborn: bool = False  # ignores SIGTERM
    dies_at: float | None = None
    killed_by: str = ""
    next_beat: float = 0.0
    asked: list[tuple[float, int]] = field(default_factory=list)


class World:
    """Simulated processes; also checks what must never happen."""

    def __init__(self, specs: Mapping[str, NodeSpec], autostart: bool = True) -> None:
        self.now = 0.0
        self.specs = specs
        self.processes: dict[str, Simulated] = {}
        self.events: list[tuple[float, str, dict[str, Any]]] = []
        self.refuses: set[str] = set()
        self.reasons: dict[str, str] = {}
        self.unstartable: dict[str, OSError] = {}
        self.deaf_to: set[str] = set()
        self.silent_output: set[str] = set()
        self.next_pid = 100
        self.activations: list[str] = []
        self.watchdog_pause_until = 0.0
        self.supervisor = Supervisor(specs, self, self.now, autostart=autostart, random=Random(1))
        self.until = 0.0

    # the supervisor's World

    def start(self, host: str) -> int:
        if host in self.unstartable:
            raise self.unstartable[host]
        assert host not in self.processes, "started twice"
        self.next_pid += 1
        self.processes[host] = Simulated(self.next_pid, self.now + 0.5)
        return self.next_pid

    def signal(self, host: str, number: signal.Signals) -> None:
        process = self.processes[host]
        if number is signal.SIGKILL:
            process.dies_at, process.killed_by = self.now + 0.005, "SIGKILL"
        elif not process.hangs and not process.stubborn and process.dies_at is None:
            process.dies_at, process.killed_by = self.now + 0.05, ""

    def usage(self, host: str) -> Usage | None:
        return Usage(1.0, 0.0, "S")

    def pressure(self) -> float:
        return 0.0

    def change_state(self, node: str, transition: int) -> bool:
        process = self.processes[node]
        if self.now < process.boots_at:
            return False
        if transition == ACTIVATE:
            self._check_order(node)
        if node not in self.deaf_to:
            process.asked.append((self.now + 0.03, transition))
        return True

    def record(self, kind: str, body: Mapping[str, Any]) -> None:
        self.events.append((self.now, kind, dict(body)))

    # driving it

    def new_watchdog(self) -> None:
        """One that adopts what lives and has yet to `begin`."""
        self.supervisor = Supervisor(self.specs, self, self.now, random=Random(2))
        for name, process in self.processes.items():
            self.supervisor.adopt(name, process.pid, self.now)
        self.until = 0.0

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = round(self.now + STEP, 6)
            for name, process in list(self.processes.items()):
                self._live(name, process)
            if self.now >= self.until - 1e-9 and self.now >= self.watchdog_pause_until:
                self.until = self.supervisor.tick(self.now)
            self._check()

    def _live(self, name: str, process: Simulated) -> None:
        if process.dies_at is not None and self.now >= process.dies_at:
            del self.processes[name]
            self.supervisor.ended(name, f"killed by {process.killed_by or 'itself'}", self.now)
            self.until = 0.0
            return
        if self.now < process.boots_at or process.hangs:
            return
        while process.asked and process.asked[0][0] <= self.now:
            _, transition = process.asked.pop(0)
            source, target = {1: (1, 2), 3: (2, 3)}[transition]
            ok = process.state == source and name not in self.refuses
            if ok:
                process.state = target
                if target == ACTIVE:
                    self.activations.append(name)
            self.supervisor.answered(name, transition, ok, self.now)
        if self.now >= process.next_beat:
            process.next_beat = self.now + 0.1
            reason = self.reasons.get(name, "")
            self.supervisor.beat(name, process.pid, process.state, self.now, reason)
            spec = self.supervisor.nodes[name].spec
            for output in spec.outputs:
                if process.state == ACTIVE and name not in self.silent_output:
                    self.supervisor.output(name, output.topic, "", self.now)

    def _check_order(self, name: str) -> None:
        for needed in self.supervisor.nodes[name].spec.after:
            holder = self.supervisor.roles[needed].holder.name
            assert self.processes[holder].state == ACTIVE, f"{name} before {needed}"

    def _check(self) -> None:
        for role in self.specs:
            acting = [n for n, p in self.processes.items()
                      if p.state == ACTIVE and self.supervisor.nodes[n].spec.role == role]
            assert len(acting) <= 1, f"two act as {role}: {acting}"

    def kill(self, name: str) -> None:
        if name in self.processes:
            self.processes[name].dies_at = self.now
            self.processes[name].killed_by = "somebody"

    def kinds(self, *wanted: str) -> list[str]:
        return [kind for _, kind, _ in self.events if kind in wanted]

    def kinds_of(self, wanted: str) -> list[dict[str, Any]]:
        return [body for _, kind, body in self.events if kind == wanted]

    def works(self, *roles: str) -> bool:
        return all(self.supervisor.roles[role].works for role in roles)

    @property
    def level(self) -> Level:
        assert self.supervisor.ladder.current
        return self.supervisor.ladder.current.level


def brain(**changes: Any) -> dict[str, NodeSpec]:
    """memory, conscience and pfc, which needs both; `changes` are fields of every node."""
    return {
        "pfc": NodeSpec("pfc", after=("memory", "conscience"), **changes),
        "memory": NodeSpec("memory", **changes),
        "conscience": NodeSpec("conscience", essential=True, **changes),
    }


def started(specs: Mapping[str, NodeSpec] | None = None) -> World:
    world = World(specs or brain())
    world.supervisor.begin(0.0)
    world.run(2.0)
    assert world.works("pfc", "memory", "conscience"), world.events
    return world


def test_starts_in_dependency_order_and_is_online() -> None:
    world = started()
    assert world.activations[-1] == "pfc"
    assert world.level is Level.ONLINE
    assert world.kinds("working") == ["working"] * 3


def test_a_killed_node_comes_back_and_the_level_says_so() -> None:
    world = started()
    world.kill("memory")
    world.run(0.05)
    assert world.level is Level.DEGRADED_ONLINE
    assert world.supervisor.ladder.current.failed == ("memory",)
    world.run(1.0)
    assert world.works("memory")
    assert world.level is Level.DEGRADED_ONLINE, "better only after it held"
    world.run(2.5)
    assert world.level is Level.ONLINE
    assert world.kinds("failed", "recovered") == ["failed", "recovered"]


def test_a_hanging_loop_is_seen_within_400_ms_killed_and_replaced() -> None:
    world = started()
    world.processes["memory"].hangs = True
    began = world.now
    world.run(3.0)
    detected = next(event for event in world.events if event[1] == "detected")
    assert detected[0] - began <= 0.4
    assert "hangs" in detected[2]["evidence"]
    assert world.works("memory")


def test_a_loop_that_hangs_right_after_it_answered_gets_no_extra_time() -> None:
    world = started()
    world.processes["memory"].dies_at = world.now
    world.activations.clear()
    for _ in range(1000):
        world.run(STEP)
        if "memory" in world.activations:
            break
    world.processes["memory"].hangs = True
    began = world.now
    world.run(0.5)
    late = [body for at, kind, body in world.events if kind == "detected" and at > began]
    assert late, "not seen within 0.5 s"
    assert "no heartbeat" in late[0]["evidence"]


def test_the_stand_by_takes_over_only_after_the_end_of_the_holder() -> None:
    world = started(brain(standby=True))
    world.processes["pfc"].hangs = True
    world.run(3.0)
    assert world.supervisor.roles["pfc"].holder.name == "pfc_standby"
    assert world.processes["pfc"].state == INACTIVE, "the old holder is the new stand-by"
    world.kill("pfc_standby")
    world.run(0.2)
    assert world.works("pfc")
    assert world.supervisor.roles["pfc"].holder.name == "pfc"


def test_who_takes_over_is_not_disturbed_by_what_it_replaces() -> None:
    world = started(brain(standby=True))
    world.kill("pfc")
    world.run(0.4)
    assert world.works("pfc")
    assert "pfc" not in world.processes
    world.run(0.2)
    assert "pfc" in world.processes


def test_failover_on_request() -> None:
    world = started(brain(standby=True))
    assert world.supervisor.failover("pfc", "", world.now) is None
    world.run(0.5)
    assert world.supervisor.roles["pfc"].holder.name == "pfc_standby"
    assert world.works("pfc")


def test_failover_without_a_stand_by_is_refused_with_what_to_do() -> None:
    world = started()
    refusal = world.supervisor.failover("memory", "", world.now)
    assert refusal
    assert "standby: true" in refusal
    assert world.works("memory")


def test_a_crash_loop_of_an_essential_role_ends_in_emergency_without_a_storm() -> None:
    world = started(brain(restart=Restart(max_restarts=3)))
    for _ in range(3000):
        world.kill("conscience")
        world.run(STEP)
    starts = [e for e in world.events if e[1] == "started" and e[2]["process"] == "conscience"]
    assert len(starts) == 4
    assert world.level is Level.EMERGENCY
    assert any("brainos restart conscience" in a for a in world.supervisor.ladder.current.actions)
    world.supervisor.restart("conscience", "repaired", world.now)
    world.run(5.0)
    assert world.level is Level.ONLINE


def test_a_crash_loop_of_another_role_degrades() -> None:
    world = started(brain(restart=Restart(max_restarts=0)))
    world.kill("memory")
    world.run(10.0)
    assert world.level is Level.DEGRADED_ONLINE
    assert world.kinds("given_up") == ["given_up"]
    assert world.works("pfc", "conscience")


def test_a_role_that_lives_and_cannot_do_its_job_is_in_the_level() -> None:
    world = started()
    world.supervisor.hindered = {"conscience": "ledger refused: stream is frozen"}
    world.run(0.1)
    assert world.level is Level.DEGRADED_ONLINE
    current = world.supervisor.ladder.current
    assert current.failed == ("conscience",)
    assert current.reason == "conscience: ledger refused: stream is frozen"
    assert not world.kinds("detected", "failed"), "a restart would not help"
    world.supervisor.hindered = {}
    world.run(2.5)
    assert world.level is Level.ONLINE


def test_only_those_given_up_are_tried_again() -> None:
    world = started(brain(standby=True, restart=Restart(max_restarts=1)))
    for _ in range(300):
        world.kill("pfc")
        world.kill("conscience")
        world.kill("conscience_standby")
        world.run(STEP)
    lost = {"pfc", "conscience", "conscience_standby"}
    assert {host.name for host in world.supervisor.given_up} == lost
    assert world.level is Level.EMERGENCY
    living = {name: process.pid for name, process in world.processes.items()}
    world.supervisor.try_again("the disk has room again", world.now)
    world.run(5.0)
    assert world.works("pfc", "memory", "conscience")
    assert world.level is Level.ONLINE
    assert world.processes.keys() == living.keys() | lost
    assert living.items() <= {name: p.pid for name, p in world.processes.items()}.items()
    world.supervisor.stop(world.now)
    world.run(5.0)
    world.supervisor.try_again("the disk has room again", world.now)
    world.run(1.0)
    assert not world.processes


def test_rest_for_one_takes_those_along_that_need_it() -> None:
    world = started(brain(restart=Restart("rest_for_one")))
    before = {name: process.pid for name, process in world.processes.items()}
    world.kill("memory")
    world.run(3.0)
    assert world.works("pfc", "memory")
    assert world.processes["pfc"].pid != before["pfc"]
    assert world.processes["conscience"].pid == before["conscience"]
    assert world.activations[-2:] == ["memory", "pfc"]


def test_one_for_all_restarts_everything_in_order() -> None:
    world = started(brain(restart=Restart("one_for_all")))
    before = {process.pid for process in world.processes.values()}
    world.kill("memory")
    world.run(3.0)
    assert not before & {process.pid for process in world.processes.values()}
    assert world.works("pfc", "memory", "conscience")
    assert world.activations[-1] == "pfc"


def test_a_refused_configure_is_a_failure_with_its_name() -> None:
    world = World(brain(restart=Restart(max_restarts=1)))
    world.refuses.add("memory")
    world.supervisor.begin(0.0)
    world.run(6.0)
    assert world.kinds("given_up") == ["given_up"]
    assert "configure failed" in world.supervisor.nodes["memory"].last_failure
    assert not world.works("pfc"), "it needs memory"


def test_a_refusal_is_explained_by_what_the_heartbeat_says() -> None:
    world = World(brain(restart=Restart(max_restarts=1)))
    world.refuses.add("memory")
    world.reasons["memory"] = "could not configure: the disk is read-only"
    world.supervisor.begin(0.0)
    world.run(6.0)
    evidence = [body["evidence"] for _, kind, body in world.events if kind == "failed"]
    assert evidence and set(evidence) == {"could not configure: the disk is read-only"}


def test_a_lost_request_is_sent_again() -> None:
    world = World(brain())
    world.deaf_to.add("memory")
    world.supervisor.begin(0.0)
    world.run(1.0)
    world.deaf_to.clear()
    world.run(1.5)
    assert world.works("memory")
    assert not world.kinds("failed")


def test_a_beat_from_before_a_transition_does_not_undo_it() -> None:
    world = World(brain())
    world.supervisor.begin(0.0)
    while world.supervisor.nodes["memory"].state != ACTIVE:
        world.run(STEP)
    node, process = world.supervisor.nodes["memory"], world.processes["memory"]
    assert world.supervisor.beat("memory", process.pid, INACTIVE, world.now + 0.2)
    assert node.state == ACTIVE


def test_a_restart_drives_the_role_that_was_asked_for_and_no_other() -> None:
    world = World(brain(), autostart=False)
    world.supervisor.begin(0.0)
    world.run(3.0)
    world.supervisor.restart("memory", "", world.now)
    world.run(5.0)
    assert world.works("memory")
    assert {world.processes[name].state for name in ("conscience", "pfc")} == {UNCONFIGURED}


def test_a_watched_output_is_expected_of_an_active_node_only() -> None:
    world = started(brain(outputs=(Output("out", "std_msgs/msg/Int8", 0.1),)))
    world.processes["memory"].state = INACTIVE
    world.run(3.0)
    assert not world.supervisor.uneasy(world.now)
    assert world.supervisor.tick(world.now) - world.now > 0.03


def test_a_stand_by_that_stood_by_for_long_is_started_anew_at_once() -> None:
    world = started(brain(standby=True))
    for _ in range(4):
        world.run(60.0)
        world.kill("pfc_standby")
        world.run(0.1)
    assert "pfc_standby" in world.processes


def test_a_stand_by_that_was_given_up_stays_so_under_a_new_watchdog() -> None:
    world = started(brain(standby=True))
    del world.processes["pfc_standby"]
    world.new_watchdog()
    world.supervisor.begin(world.now, ["pfc_standby"])
    world.until = 0.0
    world.run(3.0)
    assert "pfc_standby" not in world.processes
    assert [host.name for host in world.supervisor.given_up] == ["pfc_standby"]
    assert world.works("pfc")
    assert "pfc_standby failed for good" in world.supervisor.ladder.current.reason


def test_a_role_without_the_stand_by_it_should_have_is_in_the_level() -> None:
    world = started(brain(standby=True, restart=Restart(max_restarts=0)))
    world.kill("pfc")
    world.run(5.0)
    assert world.works("pfc", "memory", "conscience")
    current = world.supervisor.ladder.current
    assert current.level is Level.DEGRADED_ONLINE
    assert current.reason == "pfc has no stand-by: pfc failed for good"
    assert current.failed == (), "all roles work"
    assert any("brainos restart pfc" in action for action in current.actions)
    world.supervisor.restart("pfc", "", world.now)
    world.run(5.0)
    assert world.level is Level.ONLINE


def test_what_somebody_deactivates_is_left_so_and_said() -> None:
    world = started(brain(standby=True))
    world.processes["pfc"].state = INACTIVE
    world.run(3.0)
    assert world.processes["pfc"].state == INACTIVE, "not fought against"
    assert world.processes["pfc_standby"].state == INACTIVE
    assert world.kinds("set_aside", "failed", "detected") == ["set_aside"]
    assert world.level is Level.DEGRADED_ONLINE
    assert world.supervisor.ladder.current.reason == "pfc: deactivated by somebody"
    world.new_watchdog()
    world.supervisor.set_aside(["pfc"])
    world.supervisor.begin(world.now)
    world.until = 0.0
    world.run(3.0)
    assert world.processes["pfc"].state == INACTIVE, "a new watchdog was told of it"
    world.kill("pfc")
    world.run(3.0)
    assert world.processes["pfc"].state == INACTIVE, "so that a person can activate it"
    assert world.processes["pfc_standby"].state == INACTIVE
    failed = [body for _, kind, body in world.events if kind == "failed"]
    assert failed[-1]["taken_over_by"] == {}
    world.supervisor.restart("pfc", "", world.now)
    world.run(5.0)
    assert world.works("pfc")
    assert world.level is Level.ONLINE


def test_who_activates_again_by_hand_ends_it() -> None:
    world = started()
    world.processes["memory"].state = INACTIVE
    world.run(1.0)
    assert world.supervisor.roles["memory"].aside
    world.processes["memory"].state = ACTIVE
    world.run(3.0)
    assert not world.supervisor.roles["memory"].aside
    assert world.level is Level.ONLINE


def test_a_shut_down_node_comes_back_with_a_sentence() -> None:
    world = started()
    world.processes["memory"].state = 4
    world.run(3.0)
    assert "shut down, by somebody" in world.kinds_of("failed")[0]["evidence"]
    assert world.works("memory")


def test_a_process_that_never_speaks() -> None:
    world = World(brain(heartbeat=Beat(grace_s=1.0)))
    world.supervisor.begin(0.0)
    world.processes.clear()
    world.run(0.02)
    world.processes["memory"].boots_at = 1e9
    world.run(1.5)
    assert "no heartbeat within 1.0 s" in world.supervisor.nodes["memory"].last_failure
    world.run(2.0)
    assert world.works("memory")


def test_an_executable_that_cannot_be_started() -> None:
    world = World(brain(restart=Restart(max_restarts=1)))
    world.unstartable["conscience"] = FileNotFoundError(errno.ENOENT, "No such file")
    world.supervisor.begin(0.0)
    world.run(5.0)
    assert "cannot be started" in world.supervisor.nodes["conscience"].last_failure
    assert world.level is Level.EMERGENCY


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM])
def test_a_machine_without_room_for_a_process_is_not_to_its_blame(number: int) -> None:
    world = World(brain(restart=Restart(max_restarts=1)))
    world.unstartable["conscience"] = OSError(number, os.strerror(number))
    world.supervisor.begin(0.0)
    world.run(60.0)
    assert world.kinds("put_off", "failed", "given_up") == ["put_off"]
    assert os.strerror(number) in world.supervisor.nodes["conscience"].last_failure
    world.unstartable.clear()
    world.run(5.0)
    assert world.works("pfc", "memory", "conscience")
    world.unstartable["conscience"] = OSError(number, os.strerror(number))
    world.kill("conscience")
    world.run(1.0)
    assert world.kinds("put_off") == ["put_off"] * 2


def test_output_that_stops_with_the_heart_beating() -> None:
    specs = brain()
    specs["memory"] = NodeSpec("memory", outputs=(Output("out", "std_msgs/msg/Int8", 0.1),))
    world = started(specs)
    world.silent_output.add("memory")
    began = world.now
    world.run(0.3)
    detected = next(event for event in world.events if event[1] == "detected")
    assert detected[0] - began <= 0.2 + 2 * STEP
    assert "out: nothing for" in detected[2]["evidence"]
    world.silent_output.clear()
    world.run(2.0)
    assert world.works("memory")


def test_a_number_that_is_not_finite() -> None:
    specs = brain()
    specs["memory"] = NodeSpec("memory", outputs=(Output("out", "std_msgs/msg/Int8", 0.1),))
    world = started(specs)
    world.supervisor.output("memory", "out", "linear.x is nan", world.now)
    world.run(0.1)
    assert "linear.x is nan" in world.kinds_of("detected")[0]["evidence"]


def test_the_watchdogs_own_stall_is_nobodys_death() -> None:
    world = started()
    world.watchdog_pause_until = world.now + 2.0
    for process in world.processes.values():
        process.next_beat = world.now + 2.0  # nothing is heard meanwhile
    world.run(4.0)
    assert not world.kinds("detected", "failed")


def test_a_new_watchdog_adopts_the_living() -> None:
    world = started(brain(standby=True))
    world.supervisor.failover("pfc", "", world.now)
    world.run(2.0)
    pids = {name: process.pid for name, process in world.processes.items()}
    world.new_watchdog()
    world.supervisor.holds("pfc", "pfc_standby")
    world.supervisor.begin(world.now)
    world.until = 0.0
    world.run(2.0)
    assert {name: process.pid for name, process in world.processes.items()} == pids
    assert world.works("pfc", "memory", "conscience")
    assert world.supervisor.roles["pfc"].holder.name == "pfc_standby"


@pytest.mark.parametrize("state", [UNCONFIGURED, INACTIVE, ACTIVE])
def test_the_stand_by_of_who_died_with_the_old_watchdog_takes_over(state: int) -> None:
    world = started(brain(standby=True))
    del world.processes["pfc"]
    world.processes["pfc_standby"].state = state
    world.new_watchdog()
    world.supervisor.begin(world.now)
    world.run(0.4)
    assert "pfc" not in world.processes, "who takes over is not disturbed"
    assert world.works("pfc")
    world.run(3.0)
    assert world.supervisor.roles["pfc"].holder.name == "pfc_standby"
    assert world.processes["pfc"].state == INACTIVE


def test_a_stand_by_that_a_new_watchdog_never_hears_keeps_nobody_waiting() -> None:
    world = started(brain(standby=True))
    del world.processes["pfc"]
    world.processes["pfc_standby"].hangs = True
    world.new_watchdog()
    world.supervisor.begin(world.now)
    world.run(0.6)
    assert "pfc" in world.processes
    world.run(8.0)
    assert world.works("pfc", "memory", "conscience")


def test_who_died_deactivated_does_not_wait_for_its_stand_by() -> None:
    world = started(brain(standby=True))
    del world.processes["pfc"]
    world.new_watchdog()
    world.supervisor.set_aside(["pfc"])
    world.supervisor.begin(world.now)
    world.run(0.1)
    assert "pfc" in world.processes


def test_stops_in_reverse_order_and_kills_what_does_not_go() -> None:
    world = started()
    world.processes["pfc"].stubborn = True
    world.supervisor.stop(world.now)
    world.run(1.0)
    assert "memory" in world.processes, "pfc still needs it"
    world.run(4.0)
    assert world.supervisor.all_stopped


def test_nothing_is_started_once_it_is_to_stop() -> None:
    world = started(brain(standby=True))
    world.kill("pfc")
    world.run(0.1)
    world.supervisor.stop(world.now)
    world.events.clear()
    for role in ("conscience", "pfc"):
        world.supervisor.restart(role, "", world.now)
        world.supervisor.failover(role, "", world.now)
        world.run(0.2)
    world.run(8.0)
    assert world.supervisor.all_stopped
    world.supervisor.restart("memory", "", world.now)
    world.run(1.0)
    assert world.supervisor.all_stopped
    assert not world.kinds("started")


def test_without_autostart_nodes_are_left_alone() -> None:
    world = World(brain(), autostart=False)
    world.supervisor.begin(0.0)
    world.run(2.0)
    assert {process.state for process in world.processes.values()} == {UNCONFIGURED}


def test_composed_nodes_share_one_fate() -> None:
    specs = brain()
    world = World(specs)
    supervisor = Supervisor(specs, world, 0.0, composed=True)
    assert list(supervisor.hosts) == ["composed"]
    assert len(supervisor.hosts["composed"].nodes) == 3


FAULTS = st.lists(
    st.tuples(
        st.sampled_from(["pfc", "memory", "conscience", "pfc_standby"]),
        st.sampled_from(["kill", "hang", "failover", "restart"]),
        st.floats(0.0, 1.0),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(faults=FAULTS, strategy=st.sampled_from(["one_for_one", "rest_for_one", "one_for_all"]),
       standby=st.booleans())
def test_whatever_fails_when_it_recovers_and_two_never_act(
    faults: list[tuple[str, str, float]], strategy: str, standby: bool
) -> None:
    restart = Restart(strategy, max_restarts=100, backoff_max_s=1.0)
    beat = Beat(grace_s=1.5)  # a process can also hang before its first beat
    world = started(brain(standby=standby, restart=restart, heartbeat=beat))
    for name, fault, pause in faults:
        if fault == "kill":
            world.kill(name)
        elif fault == "hang" and name in world.processes:
            world.processes[name].hangs = True
        elif fault == "failover":
            world.supervisor.failover(name.removesuffix("_standby"), "", world.now)
        elif fault == "restart":
            world.supervisor.restart(name.removesuffix("_standby"), "", world.now)
        world.run(pause)
    world.run(30.0)  # one that hangs while it configures is given configure_s
    assert world.works("pfc", "memory", "conscience")
    assert world.level is Level.ONLINE
