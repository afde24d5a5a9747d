"""What people ask of the watchdog and are shown by it: status, restart, failover, diagnostics."""

import time
from typing import TYPE_CHECKING, Any

from brainos_msgs.msg import NodeStatus, ServiceLevel
from brainos_msgs.srv import Failover, GetSystemStatus, RestartNode
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robot_spec import Robot
from brainos_ros.ros.executor import Outgoing
from brainos_ros.watchdog import report
from brainos_ros.watchdog.keeper import Keeper
from brainos_ros.watchdog.level import Assessment, Level

if TYPE_CHECKING:
    from brainos_ros.watchdog.node import WatchdogNode

RECOVERY_S = 30.0  # limit of a restart or failover that a person asked for


class Desk:
    """The doors of the watchdog; made anew at each of its activations.

    On the thread `urgent` a failover does not wait for a restart that takes its time.
    """

    def __init__(
        self, owner: "WatchdogNode", keeper: Keeper, robot: Robot, urgent: Outgoing
    ) -> None:
        self._owner, self._keeper, self._robot = owner, keeper, robot
        self._loads: dict[str, report.Load] = {}
        owner.door(GetSystemStatus, "watchdog/get_status", self._get_status)
        owner.slow_door(RestartNode, "watchdog/restart", self._restart)
        owner.slow_door(Failover, "watchdog/failover", self._failover, urgent)

    def level(self, found: Assessment) -> ServiceLevel:
        return ServiceLevel(
            stamp=self._owner.get_clock().now().to_msg(), level=int(found.level),
            available_levels=[int(level) for level in Level],
            failed_components=list(found.failed),
            recommended_actions=list(found.actions), reason=found.reason)

    # ---------------------------------------------------------------- doors

    def _get_status(self, request: Any, response: Any) -> Any:
        now = time.monotonic()
        with self._keeper.lock:
            supervisor = self._keeper.supervisor
            current = supervisor.ladder.current or supervisor.assessment()
            found = report.nodes(supervisor, self._loads, now)
            response.lag_ms = supervisor.lag.worst_s(now) * 1000
        response.service_level = self.level(current)
        response.nodes = [self._status(node, now) for node in found]
        response.uptime_s = now - self._keeper.started
        return response

    def _status(self, node: report.Status, now: float) -> NodeStatus:
        clock_ns = self._owner.get_clock().now().nanoseconds - int((now - node.since) * 1e9)
        status = NodeStatus(
            role=node.role, node=f"{self._owner.get_namespace().rstrip('/')}/{node.name}",
            status=node.status, pid=node.pid, restarts=node.restarts,
            heartbeat_age_ms=node.heartbeat_age_ms, cpu_percent=node.cpu_percent,
            memory_mb=node.memory_mb, last_failure=node.last_failure)
        status.since.sec, status.since.nanosec = divmod(max(clock_ns, 0), 1_000_000_000)
        return status

    def _role(self, name: str) -> str:
        if name not in self._robot.nodes:
            raise BrainError(f"role {name!r} is not in {self._robot.path.name}; it has "
                             f"{', '.join(self._robot.nodes)}", ErrorCode.WATCHDOG_UNKNOWN_NODE)
        if self._keeper.ending:
            raise BrainError(f"the watchdog was told to stop, and {name} with it; start the brain "
                             "again", ErrorCode.CANCELLED)
        return name

    def _restart(self, request: Any, response: Any) -> Any:
        role, began = self._role(request.role), time.monotonic()
        with self._keeper.lock:
            self._keeper.supervisor.restart(role, request.reason, began)
        self._await(role)
        response.duration_ms = (time.monotonic() - began) * 1000
        return response

    def _failover(self, request: Any, response: Any) -> Any:
        role, began = self._role(request.role), time.monotonic()
        with self._keeper.lock:
            refusal = self._keeper.supervisor.failover(role, request.reason, began)
        if refusal:
            raise BrainError(refusal, ErrorCode.WATCHDOG_NO_STANDBY)
        self._await(role)
        response.node = self._keeper.supervisor.roles[role].holder.name
        response.duration_ms = (time.monotonic() - began) * 1000
        return response

    def _await(self, role: str) -> None:
        found = self._keeper.supervisor.roles[role]
        self._keeper.wake()
        if not self._keeper.wait_until(lambda: found.down_since is None, RECOVERY_S):
            if self._keeper.ending:
                raise BrainError(f"the watchdog was told to stop before {role} worked again",
                                 ErrorCode.CANCELLED)
            raise BrainError(f"{role} does not work {RECOVERY_S:g} s later: "
                             f"{found.holder.last_failure or 'it was not heard of'}",
                             ErrorCode.WATCHDOG_RECOVERY_FAILED)

    # ---------------------------------------------------------------- diagnostics

    def diagnostics(self) -> DiagnosticArray:
        """Of every supervised node; its load is that since the last call."""
        now = time.monotonic()
        for name, (cpu_s, memory_mb) in self._keeper.loads().items():
            history = self._loads.setdefault(name, report.Load())
            history.sample(now, cpu_s, memory_mb)
        with self._keeper.lock:
            found = report.nodes(self._keeper.supervisor, self._loads, now)
        array = DiagnosticArray()
        array.header.stamp = self._owner.get_clock().now().to_msg()
        for node in found:
            level, message, values = report.diagnosis(node)
            array.status.append(DiagnosticStatus(
                name=f"brainos: watchdog: {node.name}", hardware_id=self._robot.name,
                level=bytes([level]), message=message,
                values=[KeyValue(key=key, value=value) for key, value in values.items()]))
        return array
