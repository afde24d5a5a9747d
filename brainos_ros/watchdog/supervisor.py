"""The supervisor: what is known of each node, and what is done about it.

Plain and driven from outside: every method gets the steady time [s], what must happen in the world
goes through `World`. It compares the state each node reports in its heartbeat with the state it
should be in, so a lost request, a restart of the watchdog or a node started by hand need no case of
their own.
"""

import errno
import signal
from collections.abc import Container, Iterable, Mapping, Sequence
from random import Random
from typing import Any

from brainos_ros.robot_spec import NodeSpec
from brainos_ros.watchdog.detect import Freshness, Heart, Lag
from brainos_ros.watchdog.level import Assessment, Ladder
from brainos_ros.watchdog.order import affected, start_order
from brainos_ros.watchdog.restarts import History
from brainos_ros.watchdog.state import (
    ACTIVATE,
    ACTIVE,
    CONFIGURE,
    FINALIZED,
    INACTIVE,
    TARGET,
    UNCONFIGURED,
    UNKNOWN,
    VERB,
    Host,
    Node,
    World,
    assessment,
    cast,
)

SETTLED_S = 1.0  # a beat that says otherwise so soon after an activation was sent before it
RESEND_S = 0.25  # a request is sent again if two later beats still show the old state
ADOPTED_GRACE_S = 3.0  # for an adopted process to be heard
STOP_S = 3.0  # from SIGTERM to SIGKILL
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM}
SHORTAGE_S = 0.5  # until a start is tried again that failed for one of those
UNDISTURBED_S = 0.5  # who takes over has the processors, before what it replaces starts again
TICK_S = 0.065  # at least so often everything is looked at
LOOK_AGAIN_S = 0.01  # for the services of a new process


class Supervisor:
    """Policy over all roles. Not thread-safe: its owner calls it under one lock."""

    def __init__(self, specs: Mapping[str, NodeSpec], world: World, now: float,
                 composed: bool = False, autostart: bool = True, hold_s: float = 2.0,
                 random: Random | None = None) -> None:
        self._world = world
        self._driven = set(specs) if autostart else set()  # roles
        self._graph = {role: spec.after for role, spec in specs.items()}
        self._order = start_order(self._graph)
        self._stopping = False
        self._look_again = now
        self.roles, self.hosts, self.nodes = cast(
            {role: specs[role] for role in self._order}, composed, now)
        self.lag = Lag(now)
        self.ladder = Ladder(hold_s)
        self.unreachable: Sequence[str] = ()
        self.hindered: dict[str, str] = {}  # role -> why it cannot do its job, though it lives
        random = random or Random()
        self._history = {name: History(host.policy, random) for name, host in self.hosts.items()}

    # ---------------------------------------------------------------- what the world reports

    def adopt(self, host: str, pid: int, now: float) -> None:
        """A process of this host lives already; its nodes will be heard soon."""
        self._begun(self.hosts[host], pid, now, ADOPTED_GRACE_S)
        self._world.record("adopted", {"process": host, "pid": pid})

    def holds(self, role: str, node: str) -> None:
        """An earlier watchdog left the role with this node."""
        if role in self.roles and node in self.nodes and self.nodes[node].alive:
            self.roles[role].holder = self.nodes[node]

    def set_aside(self, roles: Iterable[str]) -> None:
        """Somebody deactivated these under an earlier watchdog."""
        for name in self.roles.keys() & set(roles):
            self.roles[name].aside = True

    def begin(self, now: float, given_up: Container[str] = ()) -> None:
        """Have every process started that does not live.

        Those that an earlier watchdog has `given_up` stay so: a new one is no reason to try again.
        One whose stand-by lives waits, so that the stand-by takes over once it is heard.
        """
        for host in self.hosts.values():
            held = [self.roles[role] for role in self._held(host)]
            if host.name in given_up and not host.pid:
                for role in held:
                    role.given_up = True
            elif not host.pid:
                waits = any(n.alive for role in held if not role.aside for n in role.others)
                host.start_at = now + UNDISTURBED_S if waits else now

    def beat(self, name: str, pid: int, state: int, now: float, failure: str = "") -> bool:
        """A heartbeat. False if it is of a process that is not supervised."""
        node = self.nodes.get(name)
        if node is None or not pid or node.host.pid != pid:
            return False
        if node.heart.last is not None and now < node.heart.last:
            return True  # overtaken by a later one
        node.heart.beat(now)
        if now < node.since + (SETTLED_S if node.state == ACTIVE else 0.0):
            state = node.state  # it may be older than an answer heard already
        if node.asked:
            node.heart.allow_until(node.asked_at + node.spec.configure_s)
        if state != node.state:
            self._entered(node, state, now)
        elif node.refused_at is not None and now > node.refused_at:
            self._fail(node, failure or f"{VERB[node.asked]} failed; its log says why", now)
        elif node.asked:
            node.beats_since += 1
        return True

    def answered(self, name: str, transition: int, ok: bool, now: float) -> None:
        """The answer to a transition. A refusal counts once a beat shows the old state after it."""
        node = self.nodes[name]
        if node.asked != transition or not node.alive:
            return
        if ok:
            node.heart.beat(now)  # the loop answered, and is given no more time than any other
            self._entered(node, TARGET[transition], now)
        else:
            node.refused_at = now

    def output(self, name: str, topic: str, wrong: str, now: float) -> None:
        """A message on a topic that is watched; `wrong` says which number in it is not finite."""
        freshness = self.nodes[name].outputs.get(topic)
        if freshness:
            freshness.message(now, wrong)

    def ended(self, name: str, how: str, now: float) -> None:
        """The process of a host has ended, seen through its pidfd."""
        host = self.hosts[name]
        asked_for = host.kill_at is not None and not host.blamed
        evidence = host.blamed or how
        host.pid, host.kill_at, host.blamed = 0, None, ""
        for node in host.nodes:
            node.state, node.since = UNKNOWN, now
            node.asked, node.refused_at, node.may_act, node.outputs = 0, None, False, {}
        if asked_for or self._stopping:
            self._world.record("stopped", {"process": name, "how": how})
        else:
            self._recover(host, evidence, now)
        self._elect(now)

    # ---------------------------------------------------------------- what people ask for

    def restart(self, role: str, reason: str, now: float) -> None:
        """Stop the node that holds a role and bring it back, whatever happened before."""
        found = self.roles[role]
        self._world.record("restart", {"role": role, "reason": reason})
        found.given_up = found.aside = False
        self._driven.add(role)
        found.fail(now)
        for node in found.nodes:
            self._history[node.host.name].forgive()
            if not node.host.pid:
                node.host.start_at = now
        self._cycle(found.holder.host, now)

    def failover(self, role: str, reason: str, now: float) -> str | None:
        """Let the stand-by take a role; None, or why not."""
        found = self.roles[role]
        node = found.successor
        if node is None:
            if found.spec.standby:
                return f"the stand-by of {role} is not configured and alive at the moment"
            return f"{role} has no stand-by; set nodes.{role}.standby: true in the robot file"
        self._world.record("failover", {"role": role, "to": node.name, "reason": reason})
        found.aside = False
        found.fail(now)
        self._cycle(found.holder.host, now)
        return None

    @property
    def given_up(self) -> list[Host]:
        """The processes that nothing will start again, stand-bys included."""
        return [host for host in self.hosts.values() if host.given_up]

    def try_again(self, reason: str, now: float) -> None:
        """What may have kept processes from working is over: start those that were given up."""
        for host in () if self._stopping else self.given_up:
            self._world.record("tried_again", {"process": host.name, "reason": reason})
            self._history[host.name].forgive()
            host.restarts += 1
            host.start_at = now
            for node in host.nodes:
                self.roles[node.spec.role].given_up = False

    def stop(self, now: float) -> None:
        """Take everything down in reverse start order."""
        self._stopping = True
        for host in self.hosts.values():
            host.start_at = None
        self._stop_next(now)

    @property
    def all_stopped(self) -> bool:
        return self._stopping and not any(host.pid for host in self.hosts.values())

    # ---------------------------------------------------------------- the clock

    def tick(self, now: float, deaf: bool = False) -> float:
        """Look at everything; returns when to look again at the latest.

        `deaf` says that heartbeats may lie unread, so that silence proves nothing.
        """
        if self.lag.ran(now) or deaf:
            for node in self.nodes.values():
                node.excuse(now)
        for host in self.hosts.values():
            if host.start_at is not None and now >= host.start_at and not host.pid:
                self._start(host, now)
            if host.kill_at is not None and now >= host.kill_at:
                self._world.signal(host.name, signal.SIGKILL)
                host.kill_at = now + STOP_S
        if self._stopping:
            self._stop_next(now)
        else:
            self._elect(now)
            for node in self.nodes.values():
                evidence = node.examine(now, self._world) if node.alive else None
                if evidence:
                    self._fail(node, evidence, now)
                elif node.alive:
                    self._advance(node, now)
            self._welcome(now)
            self.ladder.update(now, self.assessment())
        until = self._deadline(now)
        self.lag.expect(until)
        return until

    def assessment(self) -> Assessment:
        """The level that all this calls for, before it is held."""
        return assessment(self.roles, self.unreachable, self.hindered)

    def uneasy(self, now: float) -> bool:
        """Whether somebody seems silent: listen once more before the next tick."""
        return any(node.uneasy(now) for node in self.nodes.values())

    def _deadline(self, now: float) -> float:
        times = [now + TICK_S, self.ladder.deadline()]
        if self._look_again > now:
            times.append(self._look_again)
        for host in self.hosts.values():
            times += host.deadlines()
        for node in self.nodes.values():
            times += node.deadlines()
        return max(now + 0.005, min(times))

    # ---------------------------------------------------------------- how it starts and drives

    def _start(self, host: Host, now: float) -> None:
        host.start_at = None
        if self._stopping:
            return
        try:
            pid = self._world.start(host.name)
        except OSError as error:
            evidence = f"it cannot be started: {error}"
            then = self._put_off if error.errno in SHORTAGES else self._recover
            then(host, evidence, now)
            return
        host.short = False
        self._begun(host, pid, now, None)
        self._world.record("started", {"process": host.name, "pid": pid})

    def _put_off(self, host: Host, evidence: str, now: float) -> None:
        """The machine has no room for a process now, which is not to the blame of that one."""
        host.start_at = now + SHORTAGE_S
        for node in host.nodes:
            node.last_failure = evidence
        if not host.short:
            host.short = True
            self._world.record("put_off", {"process": host.name, "evidence": evidence})

    def _begun(self, host: Host, pid: int, now: float, grace_s: float | None) -> None:
        host.pid, host.start_at = pid, None
        for node in host.nodes:
            node.heart = Heart(node.spec.heartbeat, now, grace_s)
            node.since, node.may_act = now, grace_s is not None

    def _entered(self, node: Node, state: int, now: float) -> None:
        """A node reports another lifecycle state than before."""
        was, node.state, node.since, node.beats_since = node.state, state, now, 0
        node.outputs = {}
        if node.asked and state in (TARGET[node.asked], FINALIZED):
            node.asked, node.refused_at = 0, None
        if was == UNKNOWN and state in (UNCONFIGURED, INACTIVE):
            node.may_act = False  # adopted, and found not to act
        role = self.roles[node.spec.role]
        if state == FINALIZED:
            self._fail(node, "it was shut down, by somebody or after an error", now)
        if was == ACTIVE and state == INACTIVE and role.holder is node and node.alive:
            role.aside, role.down_since = True, now
            self._world.record("set_aside", {"role": node.spec.role, "node": node.name})
        if state == ACTIVE:
            node.may_act, role.aside = True, False
            if role.holder is not node:
                if role.holder.may_act:
                    self._fail(node, f"it became active while {role.holder.name} may act", now)
                    return
                role.holder = node
            node.outputs = {o.topic: Freshness(o.topic, o.period_s, now) for o in node.spec.outputs}

    def _advance(self, node: Node, now: float) -> None:
        """Ask for the transition that brings a node nearer to where it should be."""
        waits = node.heart.last is None or node.refused_at is not None
        if waits or node.spec.role not in self._driven:
            return
        if node.asked and not (node.beats_since >= 2 and now - node.asked_at > RESEND_S):
            return
        if node.state == UNCONFIGURED:
            wanted = CONFIGURE
        elif node.state == INACTIVE and self._may_activate(node):
            wanted = ACTIVATE
            node.may_act = True
        else:
            return
        if not self._world.change_state(node.name, wanted):
            self._look_again = now + LOOK_AGAIN_S
            return
        if not node.asked:
            node.asked_at = now
        node.asked, node.beats_since = wanted, 0
        node.heart.allow_until(now + node.spec.configure_s)

    def _may_activate(self, node: Node) -> bool:
        role = self.roles[node.spec.role]
        return (
            role.holder is node
            and not role.aside
            and not any(rival.may_act for rival in role.others)
            and all(self.roles[needed].works for needed in node.spec.after)
        )

    # ---------------------------------------------------------------- how it recovers

    def _fail(self, node: Node, evidence: str, now: float) -> None:
        """A living node does not work: its process must go before anything takes its place."""
        host = node.host
        if not host.blamed:
            host.blamed = f"{node.name}: {evidence}" if len(host.nodes) > 1 else evidence
            host.kill_at = now + STOP_S
            if self.roles[node.spec.role].holder is node:
                self.roles[node.spec.role].fail(now)
            self._world.record("detected", {"node": node.name, "evidence": evidence})
            self._world.signal(host.name, signal.SIGKILL)

    def _welcome(self, now: float) -> None:
        """Note which roles work again, and which stand-bys stand by."""
        for name, role in self.roles.items():
            if ready := role.successor:
                self._history[ready.host.name].healthy(now)
            if not role.works:
                continue
            role.given_up = False
            self._history[role.holder.host.name].healthy(now)
            if role.down_since is not None:
                took = round((now - role.down_since) * 1000, 1)
                self._world.record(
                    "recovered" if role.failed else "working",
                    {"role": name, "node": role.holder.name, "after_ms": took})
                role.down_since, role.failed = None, False

    def _recover(self, host: Host, evidence: str, now: float) -> None:
        """The process of a host ended without being asked to: decide what happens next."""
        held = self._held(host)
        for node in host.nodes:
            node.last_failure = evidence
        for role in held:
            self.roles[role].fail(now)
        delay = self._history[host.name].failed(now)
        successors = {r: s.name for r in held if (s := self.roles[r].heir)}
        body: dict[str, Any] = {"process": host.name, "roles": held, "evidence": evidence,
                                "taken_over_by": successors}
        if delay is None:
            limit = self._history[host.name].limit
            self._world.record("given_up", {**body, "limit": limit})
            for role in held:
                self.roles[role].given_up = role not in successors
            return
        host.restarts += 1
        if successors:
            delay = max(delay, UNDISTURBED_S)
        host.start_at = now + delay
        self._world.record("failed", {**body, "restart_in_s": round(delay, 3)})
        if held and not successors:
            self._take_along(held[0], host, now)

    def _take_along(self, role: str, host: Host, now: float) -> None:
        """Rest-for-one and one-for-all: the others go down now and come up again in order."""
        for other in reversed(affected(self._graph, role, host.policy.strategy)):
            theirs = self.roles[other].holder.host
            if theirs is not host and theirs.pid and theirs.kill_at is None:
                self.roles[other].fail(now)
                self._world.record("taken_along", {"process": theirs.name, "because_of": role})
                self._cycle(theirs, now)

    def _cycle(self, host: Host, now: float) -> None:
        """Stop a process, if there is one, and start it again."""
        host.restarts += 1
        host.start_at = now
        self._terminate(host, now)

    def _terminate(self, host: Host, now: float) -> None:
        if host.pid and host.kill_at is None:
            host.kill_at = now + STOP_S
            self._world.signal(host.name, signal.SIGTERM)

    def _held(self, host: Host) -> list[str]:
        """The roles whose holder is in this process."""
        return [name for name, role in self.roles.items() if role.holder.host is host]

    def _elect(self, now: float) -> None:
        """A role whose holder has no process goes to a stand-by that is ready."""
        if self._stopping:
            return
        for role in self.roles.values():
            if heir := role.heir:
                role.holder, role.given_up = heir, False
                self._advance(heir, now)

    def _stop_next(self, now: float) -> None:
        """A process goes once no role that needs one of its roles has a process."""
        left: set[str] = set()
        for role in reversed(self._order):
            hosts = [node.host for node in self.roles[role].nodes if node.host.pid]
            if not any(role in self._graph[later] for later in left):
                for host in hosts:
                    self._terminate(host, now)
            if hosts:
                left.add(role)
