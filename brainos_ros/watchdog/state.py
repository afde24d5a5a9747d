"""What the supervisor keeps of each process, node and role, and what it can do to the world."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from brainos_ros.robot_spec import NodeSpec, Restart
from brainos_ros.watchdog.detect import Freshness, Heart, Usage
from brainos_ros.watchdog.level import Assessment, assess

UNKNOWN, UNCONFIGURED, INACTIVE, ACTIVE, FINALIZED = 0, 1, 2, 3, 4  # lifecycle_msgs/State
CONFIGURE, ACTIVATE = 1, 3  # lifecycle_msgs/Transition
TARGET = {CONFIGURE: INACTIVE, ACTIVATE: ACTIVE}
VERB = {CONFIGURE: "configure", ACTIVATE: "activate"}


class World(Protocol):
    """What the supervisor can do; nothing here may block."""

    def start(self, host: str) -> int:
        """Start the process of a host, give its pid; raises OSError."""

    def signal(self, host: str, number: signal.Signals) -> None:
        """Send a signal to the process of a host."""

    def usage(self, host: str) -> Usage | None:
        """What the process of a host has used; None if it is gone."""

    def pressure(self) -> float:
        """Share of the last half second in which somebody waited for a processor."""

    def change_state(self, node: str, transition: int) -> bool:
        """Ask for a transition; the answer comes to `Supervisor.answered`. False if the node's
        service is not to be seen yet."""

    def record(self, kind: str, body: Mapping[str, Any]) -> None:
        """Keep an event in the ledger and tell the console."""


@dataclass
class Host:
    """A process and the nodes in it: one, or all of them in composition."""

    name: str
    policy: Restart
    nodes: list["Node"] = field(default_factory=list)
    pid: int = 0  # 0: no process
    start_at: float | None = None  # when to start it, if it is to be started
    kill_at: float | None = None  # it is being stopped; SIGKILL follows then
    short: bool = False  # the machine has no room to start it
    blamed: str = ""  # why it was killed; empty if it was asked to stop
    restarts: int = 0

    @property
    def given_up(self) -> bool:
        """Nothing will start it again."""
        return not self.pid and self.start_at is None

    def deadlines(self) -> list[float]:
        """When it must be started or killed."""
        start_at = None if self.pid else self.start_at
        return [at for at in (start_at, self.kill_at) if at is not None]


@dataclass
class Node:
    """One node: the holder of its role, or its stand-by."""

    name: str
    spec: NodeSpec
    host: Host
    heart: Heart
    state: int = UNKNOWN
    asked: int = 0  # transition in flight
    asked_at: float = 0.0
    beats_since: int = 0  # beats with the old state since it was asked
    refused_at: float | None = None
    outputs: dict[str, Freshness] = field(default_factory=dict)
    may_act: bool = False  # was asked to activate, or seen active, since its process started
    since: float = 0.0
    last_failure: str = ""

    @property
    def alive(self) -> bool:
        """It has a process that is not being stopped."""
        return self.host.pid != 0 and self.host.kill_at is None

    def deadlines(self) -> list[float]:
        """When it must be examined."""
        if not self.alive:
            return []
        return [self.heart.deadline(), *(out.deadline() for out in self.outputs.values())]

    def uneasy(self, now: float) -> bool:
        """Whether it seems silent."""
        silent = any(freshness.due(now) for freshness in self.outputs.values())
        return self.alive and (silent or self.heart.uneasy(now))

    def excuse(self, now: float) -> None:
        """It may have spoken without being heard: what was silent gets time to speak again."""
        beat = self.spec.heartbeat
        self.heart.allow_until(now + beat.period_s * beat.misses)
        for freshness in self.outputs.values():
            freshness.allow_until(now + beat.period_s)

    def examine(self, now: float, world: World) -> str | None:
        """The evidence that it does not work, of the first detector that has one."""
        evidence: str | None = None
        if self.heart.suspicious(now):
            self.heart.suspected(now, world.usage(self.host.name))
        if self.heart.due(now):
            evidence = self.heart.verdict(now, world.usage(self.host.name), world.pressure())
        if not evidence and self.asked and now >= self.asked_at + self.spec.configure_s:
            evidence = f"{VERB[self.asked]} not done within {self.spec.configure_s:g} s"
        if not evidence and self.state == ACTIVE and self.outputs:
            pressure = world.pressure()
            verdicts = (output.verdict(now, pressure) for output in self.outputs.values())
            evidence = next((verdict for verdict in verdicts if verdict), None)
        return evidence


@dataclass
class Role:
    """What the rest of the brain needs: some node that does this job."""

    spec: NodeSpec
    holder: Node
    down_since: float | None
    nodes: Sequence[Node]  # that can hold it
    failed: bool = False  # down because of a failure, not because it is starting
    given_up: bool = False
    aside: bool = False  # somebody deactivated its holder: it stays so until somebody says else

    @property
    def works(self) -> bool:
        """Configured, active, its working loop alive and its output seen and sound."""
        node = self.holder
        return (
            node.alive
            and node.state == ACTIVE
            and node.heart.last is not None
            and all(freshness.seen for freshness in node.outputs.values())
        )

    def fail(self, now: float) -> None:
        """It is down, and not because it is starting."""
        self.failed = True
        if self.down_since is None:
            self.down_since = now

    @property
    def others(self) -> list[Node]:
        """The nodes that can hold it and do not."""
        return [node for node in self.nodes if node is not self.holder]

    @property
    def successor(self) -> Node | None:
        """A stand-by that is configured and alive."""
        ready = (node for node in self.others if node.alive and node.state == INACTIVE)
        return next(ready, None)

    @property
    def heir(self) -> Node | None:
        """Who takes over where the holder has no process, if nobody deactivated that."""
        return None if self.aside or self.holder.host.pid else self.successor


def cast(
    specs: Mapping[str, NodeSpec], composed: bool, now: float
) -> tuple[dict[str, Role], dict[str, Host], dict[str, Node]]:
    """Every role with its holder, stand-bys where they are wanted, and the processes for them."""
    roles: dict[str, Role] = {}
    hosts: dict[str, Host] = {}
    nodes: dict[str, Node] = {}

    def add(name: str, spec: NodeSpec, host_name: str) -> Node:
        policy = Restart() if composed else spec.restart
        host = hosts.setdefault(host_name, Host(host_name, policy))
        nodes[name] = Node(name, spec, host, Heart(spec.heartbeat, now), since=now)
        host.nodes.append(nodes[name])
        return nodes[name]

    for role, spec in specs.items():
        able = [add(role, spec, "composed" if composed else role)]
        if spec.standby and not composed:
            able.append(add(f"{role}_standby", spec, f"{role}_standby"))
        roles[role] = Role(spec, able[0], now, able)
    return roles, hosts, nodes


def assessment(
    roles: Mapping[str, Role], unreachable: Sequence[str], hindered: Mapping[str, str]
) -> Assessment:
    """The level that the state of the roles calls for."""
    given_up = [name for name, role in roles.items() if role.given_up]
    working = [name for name, role in roles.items() if role.works]
    aside = [name for name, role in roles.items() if role.aside and not role.given_up]
    return assess(
        working,
        [name for name in roles if name not in (*working, *given_up, *aside)],
        given_up,
        [name for name, role in roles.items() if role.spec.essential],
        unreachable,
        {name: why for name, why in hindered.items() if name in working}
        | dict.fromkeys(aside, "deactivated by somebody"),
        {name: node.name for name, role in roles.items() for node in role.others
         if node.host.given_up},
    )
