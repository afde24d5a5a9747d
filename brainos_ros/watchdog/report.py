"""What people are shown of each node: status, load, diagnosis."""

from collections.abc import Mapping
from dataclasses import dataclass

from brainos_ros.watchdog.state import ACTIVE, INACTIVE, Node
from brainos_ros.watchdog.supervisor import Supervisor

# The values of brainos_msgs/NodeStatus
STARTING, WORKING, STANDBY, SUSPECT, RECOVERING, FAILED, STOPPED = range(1, 8)
WORDS = {STARTING: "starting", WORKING: "active", STANDBY: "stand-by", SUSPECT: "suspect",
         RECOVERING: "recovering", FAILED: "failed", STOPPED: "stopped"}
_OK, _WARN, _ERROR = 0, 1, 2  # diagnostic_msgs/DiagnosticStatus


class Load:
    """CPU share of a process between two samples; -1 before the second."""

    def __init__(self) -> None:
        self.cpu_percent = self.memory_mb = -1.0
        self._last: tuple[float, float] | None = None

    def sample(self, now: float, cpu_s: float, memory_mb: float) -> None:
        if self._last and cpu_s >= self._last[1] and now > self._last[0]:
            self.cpu_percent = 100 * (cpu_s - self._last[1]) / (now - self._last[0])
        self._last = (now, cpu_s)
        self.memory_mb = memory_mb


@dataclass(frozen=True)
class Status:
    """As brainos_msgs/NodeStatus; `since` is steady time [s]."""

    role: str
    name: str
    status: int
    pid: int
    since: float
    restarts: int
    heartbeat_age_ms: float
    cpu_percent: float
    memory_mb: float
    last_failure: str


def nodes(supervisor: Supervisor, loads: Mapping[str, Load], now: float) -> list[Status]:
    """Every supervised node in start order."""
    found = []
    for node in supervisor.nodes.values():
        age = node.heart.age(now) if node.host.pid else None
        load = loads.get(node.host.name) if node.host.pid else None
        found.append(Status(
            role=node.spec.role, name=node.name, status=_status(supervisor, node),
            pid=node.host.pid, since=node.since, restarts=node.host.restarts,
            heartbeat_age_ms=-1.0 if age is None else age * 1000,
            cpu_percent=load.cpu_percent if load else -1.0,
            memory_mb=load.memory_mb if load else -1.0,
            last_failure=node.last_failure))
    return found


def _status(supervisor: Supervisor, node: Node) -> int:
    role = supervisor.roles[node.spec.role]
    if not node.host.pid and node.host.start_at is None:
        return FAILED if role.given_up or node.last_failure else STOPPED
    if node.host.kill_at is not None or not node.host.pid:
        return RECOVERING
    if node.heart.suspect:
        return SUSPECT
    if node.state == ACTIVE:
        return WORKING
    if node.state == INACTIVE and role.holder is not node:
        return STANDBY
    if role.aside and role.holder is node:
        return STOPPED
    return RECOVERING if role.failed and role.holder is node else STARTING


def diagnosis(node: Status) -> tuple[int, str, dict[str, str]]:
    """(level, message, values) for `/diagnostics`."""
    level = {WORKING: _OK, STANDBY: _OK, FAILED: _ERROR}.get(node.status, _WARN)
    message = WORDS[node.status]
    if node.last_failure and level != _OK:
        message += f": {node.last_failure}"
    return level, message, {
        "role": node.role,
        "pid": str(node.pid),
        "restarts": str(node.restarts),
        "heartbeat_age_ms": f"{node.heartbeat_age_ms:.0f}",
        "cpu_percent": f"{node.cpu_percent:.1f}",
        "memory_mb": f"{node.memory_mb:.1f}",
        "last_failure": node.last_failure,
    }
