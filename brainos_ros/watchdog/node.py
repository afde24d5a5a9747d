"""The watchdog's door to ROS: starts, drives and watches the other nodes, says how they are."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from brainos_msgs.msg import Heartbeat, NodeStatus, ServiceLevel
from brainos_msgs.srv import Failover, GetSystemStatus, RestartNode
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lifecycle_msgs.srv import ChangeState
from rclpy.client import Client

from brainos_ros import robot_file
from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.offline.reach import Reach
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import message_type
from brainos_ros.ros.ears import Ears
from brainos_ros.ros.lifecycle import BrainNode
from brainos_ros.ros.main import run
from brainos_ros.ros.parameters import Parameter
from brainos_ros.ros.pulse import Beat, Pulses
from brainos_ros.watchdog import plan, report
from brainos_ros.watchdog.finite import not_finite
from brainos_ros.watchdog.journal import Journal
from brainos_ros.watchdog.keeper import Keeper
from brainos_ros.watchdog.level import Assessment, Level
from brainos_ros.watchdog.notify import Notifier
from brainos_ros.watchdog.sentences import sentence
from brainos_ros.watchdog.state import assessment

BEAT_S = 0.065
SILENT_S = 0.15  # the keeper's loop stands so long: no heartbeat, no ping
RECOVERY_S = 30.0  # limit of a restart or failover that a person asked for
STOP_S = 20.0


class WatchdogNode(BrainNode):
    """Activates itself; deactivating it takes the other nodes down."""

    role = "watchdog"
    beats = False
    parameters = (
        Parameter("robot_file", "sim", "robot file: a name in config/robots, or a path"),
        Parameter("composition", False, "the other nodes in one process; the robot file's "
                  "`composition: true` does the same"),
        Parameter("autostart", True, "take the nodes through configure and activate"),
    )

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__(**node_arguments)
        self._robot = robot_file.load(self.settings["robot_file"], find_type=message_type)
        self._notifier = Notifier()
        self._running = ExitStack()
        self._pids: set[int] = set()  # that were heard, of supervised processes or not
        self._loads: dict[str, report.Load] = {}
        self._clients_by_node: dict[str, tuple[int, Client]] = {}
        self._beat.period_s = BEAT_S
        self._said: Level | None = None
        self.trigger_configure()
        self.trigger_activate()
        if not self.is_active:
            raise BrainError(f"the watchdog could not start: {self.last_failure}")

    @property
    def home(self) -> Path:
        given = self.settings["home"]
        return Path(given) if given else self._robot.home()

    # ---------------------------------------------------------------- lifecycle

    def configure(self) -> None:
        composed = self.settings["composition"] or self._robot.composition
        path = self.home / "watchdog" / "parameters.yaml"
        use_sim_time = self.get_parameter("use_sim_time").value
        content = plan.parameters(self._robot, self.home, use_sim_time, composed)
        self._file_changed = plan.write_parameters(path, content)
        self._commands = plan.commands(self._robot, path, plan.passed_on(sys.argv), composed)
        self._composed = composed

    def activate(self) -> None:
        self._level = self.create_publisher(ServiceLevel, "service_level", qos.STATE)
        self._heartbeats = self.create_publisher(Heartbeat, "watchdog/heartbeat", qos.HEARTBEATS)
        self._pulses = Pulses(self.home)
        self._running.callback(self._pulses.close)
        self._ears = ears = Ears(self)
        self._running.callback(ears.close)
        self._outputs = [
            (role, output.topic,
             ears.subscribe(message_type(output.type), output.topic, qos.SENSOR))
            for role, spec in self._robot.nodes.items() for output in spec.outputs]
        self._foreign = {
            role for role, spec in self._robot.nodes.items() if spec.package != "brainos_ros"}
        if self._foreign:
            self._heard = ears.subscribe(Heartbeat, "heartbeats", qos.HEARTBEATS)
        self._journal = Journal(self._tell, self.record, self._ledger_refused)
        self._running.callback(self._journal.close)
        self._keeper = Keeper(self._robot, self._commands, self, self.home, self.get_namespace(),
                              self._composed, self.settings["autostart"])
        self._running.callback(self._keeper.stop, STOP_S)
        self.door(GetSystemStatus, "watchdog/get_status", self._get_status)
        self.slow_door(RestartNode, "watchdog/restart", self._restart)
        self.slow_door(Failover, "watchdog/failover", self._failover)
        self.every(1.0, self._publish_nodes)
        adopted = self._keeper.begin()
        if adopted and self._file_changed:
            self.get_logger().warning(
                f"the robot file changed; {', '.join(adopted)} live on with what they were started "
                "with: brainos restart <role>")
        self._running.callback(Reach(self._robot.network, self._note_reach).close)
        self._running.callback(self._notifier.say, "STOPPING=1")

    def deactivate(self) -> None:
        self._running.close()

    # ---------------------------------------------------------------- what the keeper needs

    def change_state(self, node: str, transition: int) -> bool:
        client = self._client(node)
        if not client.service_is_ready():
            return False
        request = ChangeState.Request()
        request.transition.id = transition
        client.call_async(request).add_done_callback(partial(self._answered, node, transition))
        return True

    def _client(self, node: str) -> Client:
        """A client made for this very process: a new process learns of an old client up to a second
        later than of a new one."""
        pid = self._keeper.supervisor.nodes[node].host.pid
        made_for, client = self._clients_by_node.get(node, (0, None))
        if client is None or made_for != pid:
            if client:
                self.destroy_client(client)
            client = self.create_client(ChangeState, f"{node}/change_state")
            self._clients_by_node[node] = (pid, client)
        return client

    def _answered(self, node: str, transition: int, future: Any) -> None:
        with self._keeper.lock:
            self._keeper.supervisor.answered(
                node, transition, future.result().success, time.monotonic())
        self._keeper.wake()

    def event(self, kind: str, body: Mapping[str, Any]) -> None:
        self._journal.add(kind, body)

    def _tell(self, kind: str, body: Mapping[str, Any]) -> None:
        severity, text = sentence(kind, body)
        if severity == "info":
            self.get_logger().info(text)
        elif severity == "warning":
            self.get_logger().warning(text)
        else:
            self.get_logger().error(text)

    def level(self, assessment: Assessment) -> None:
        self._level.publish(self._to_message(assessment))
        self._notifier.say("READY=1", f"STATUS={assessment.level.name}: {assessment.reason}")
        if assessment.level is self._said:
            return
        self._said = assessment.level
        self.event("service_level", {"level": assessment.level.name, "reason": assessment.reason,
                             "failed": list(assessment.failed),
                             "actions": list(assessment.actions)})

    def _to_message(self, assessment: Assessment) -> ServiceLevel:
        return ServiceLevel(
            stamp=self.get_clock().now().to_msg(), level=int(assessment.level),
            available_levels=[int(level) for level in Level],
            failed_components=list(assessment.failed),
            recommended_actions=list(assessment.actions), reason=assessment.reason)

    def _ledger_refused(self, reason: str) -> None:
        self.get_logger().error(f"events wait for the ledger: {reason}",
                                throttle_duration_sec=10.0)

    # ---------------------------------------------------------------- what is heard and seen

    def listen(self, now: float) -> None:
        """Take the heartbeats and outputs that came since the last time, in either of the loops."""
        with self._keeper.lock:
            for beat in self._pulses.take():
                self._hear(beat, beat.at if beat.at <= now else now)
            if self._foreign:
                for at, message in self._ears.take(self._heard, now, BEAT_S):
                    if _name(message).removesuffix("_standby") in self._foreign:
                        self._hear(message, at)
            for role, topic, output in self._outputs:
                for at, message in self._ears.take(output, now, BEAT_S):
                    self._see(role, topic, message, at)

    def _hear(self, beat: Beat | Heartbeat, at: float) -> None:
        known = self._keeper.hear(_name(beat), beat.pid, beat.state, at, beat.last_failure)
        if beat.pid in self._pids:
            return
        self._pids.add(beat.pid)
        if not known:
            self.get_logger().warning(f"{beat.node} (pid {beat.pid}) beats and is not supervised")

    def _see(self, role: str, topic: str, message: Any, at: float) -> None:
        wrong, supervisor = not_finite(message), self._keeper.supervisor
        supervisor.output(supervisor.roles[role].holder.name, topic, wrong, at)
        if wrong:
            self._keeper.wake()

    def _note_reach(self, unreachable: Sequence[str]) -> None:
        with self._keeper.lock:
            self._keeper.supervisor.unreachable = unreachable
        self._keeper.wake()

    def beat(self) -> None:
        if not self.is_active:
            return
        now = time.monotonic()
        self.listen(now)
        self._keeper.heard_at = now
        if now - self._keeper.ran_at > SILENT_S:
            return
        self._beat.outputs += 1
        self._beat.sequence += 1
        self._beat.state = self.state_id
        self._publish_heartbeat()
        if self._beat.sequence % 2:
            self._notifier.say("WATCHDOG=1")

    # ---------------------------------------------------------------- doors

    def _get_status(self, request: Any, response: Any) -> Any:
        now = time.monotonic()
        with self._keeper.lock:
            supervisor = self._keeper.supervisor
            current = supervisor.ladder.current or assessment(
                supervisor.roles, supervisor.unreachable)
            found = report.nodes(supervisor, self._loads, now)
            response.lag_ms = supervisor.lag.worst_s(now) * 1000
        response.service_level = self._to_message(current)
        response.nodes = [self._status(node, now) for node in found]
        response.uptime_s = now - self._keeper.started
        return response

    def _status(self, node: report.Status, now: float) -> NodeStatus:
        clock_ns = self.get_clock().now().nanoseconds - int((now - node.since) * 1e9)
        status = NodeStatus(
            role=node.role, node=f"{self.get_namespace().rstrip('/')}/{node.name}",
            status=node.status, pid=node.pid, restarts=node.restarts,
            heartbeat_age_ms=node.heartbeat_age_ms, cpu_percent=node.cpu_percent,
            memory_mb=node.memory_mb, last_failure=node.last_failure)
        status.since.sec, status.since.nanosec = divmod(max(clock_ns, 0), 1_000_000_000)
        return status

    def _role(self, name: str) -> str:
        if name not in self._robot.nodes:
            raise BrainError(f"role {name!r} is not in {self._robot.path.name}; it has "
                             f"{', '.join(self._robot.nodes)}", ErrorCode.WATCHDOG_UNKNOWN_NODE)
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
            raise BrainError(f"{role} does not work {RECOVERY_S:g} s later: "
                             f"{found.holder.last_failure or 'it was not heard of'}",
                             ErrorCode.WATCHDOG_RECOVERY_FAILED)

    # ---------------------------------------------------------------- diagnostics

    def diagnose(self) -> Mapping[str, object]:
        if not self.is_active:
            return {}
        level = self._keeper.supervisor.ladder.current
        return {
            "service_level": level.level.name if level else "starting",
            "reason": level.reason if level else "",
            "lag_ms": round(self._keeper.supervisor.lag.worst_s(time.monotonic()) * 1000, 1),
        }

    def _publish_nodes(self) -> None:
        now = time.monotonic()
        for name, (cpu_s, memory_mb) in self._keeper.loads().items():
            history = self._loads.setdefault(name, report.Load())
            history.sample(now, cpu_s, memory_mb)
        with self._keeper.lock:
            found = report.nodes(self._keeper.supervisor, self._loads, now)
        array = DiagnosticArray()
        array.header.stamp = self.get_clock().now().to_msg()
        for node in found:
            level, message, values = report.diagnosis(node)
            array.status.append(DiagnosticStatus(
                name=f"brainos: watchdog: {node.name}", hardware_id=self._robot.name,
                level=bytes([level]), message=message,
                values=[KeyValue(key=key, value=value) for key, value in values.items()]))
        self._diagnostics.publish(array)


def _name(beat: Beat | Heartbeat) -> str:
    return str(beat.node.rpartition("/")[2])


def main() -> None:
    """Entry point of the `watchdog` executable."""
    run(WatchdogNode)
