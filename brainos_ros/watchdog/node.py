"""The watchdog's door to ROS: starts, drives and watches the other nodes, says how they are."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from brainos_msgs.msg import Heartbeat, SafetyState, ServiceLevel
from lifecycle_msgs.srv import ChangeState
from rclpy.client import Client
from rclpy.subscription import Subscription
from rosidl_generator_py import import_type_support

from brainos_ros import robot_file
from brainos_ros.errors import LEDGER_REFUSED, BrainError
from brainos_ros.offline.reach import Reach
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import message_type
from brainos_ros.ros.ears import Ears
from brainos_ros.ros.executor import Outgoing
from brainos_ros.ros.lifecycle import BrainNode
from brainos_ros.ros.main import run
from brainos_ros.ros.parameters import Parameter
from brainos_ros.ros.pulse import Beat, Pulses, claim_brain
from brainos_ros.ros.tables import table
from brainos_ros.watchdog import plan
from brainos_ros.watchdog.desk.node import Desk
from brainos_ros.watchdog.finite import not_finite
from brainos_ros.watchdog.fork_server import ForkServer, begin
from brainos_ros.watchdog.journal import Journal
from brainos_ros.watchdog.keeper import Keeper
from brainos_ros.watchdog.level import Assessment, Level
from brainos_ros.watchdog.notify import Notifier
from brainos_ros.watchdog.sentences import sentence

BEAT_S = 0.065
SILENT_S = 0.15  # the keeper's loop stands so long: no heartbeat, no ping
STOP_S = 20.0
CONSCIENCE = "conscience"


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

    def __init__(self, fork_server: ForkServer | None = None, **node_arguments: Any) -> None:
        self._fork_server = fork_server
        super().__init__(**node_arguments)
        try:
            self._start()
        except BrainError:
            self.end()
            raise

    def _start(self) -> None:
        self._robot = robot_file.load(
            self.settings["robot_file"], find_type=message_type, find_table=table)
        self._notifier = Notifier()
        self._running = ExitStack()
        self._pids: set[int] = set()  # that were heard, of supervised processes or not
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
        sole = claim_brain(str(self.context.get_domain_id()), self.get_namespace())
        self._running.callback(sole.close)
        self._pulses = Pulses(self.home)
        self._running.callback(self._pulses.close)
        self._ears = ears = Ears(self)
        self._running.callback(ears.close)
        self._outputs = [
            (role, output.topic,
             ears.subscribe(message_type(output.type), output.topic, qos.WATCHED))
            for role, spec in self._robot.nodes.items() for output in spec.outputs]
        self._strangers: dict[str, str] = {}  # topic -> who else publishes on it
        self._refused: dict[str, str] = {}  # role -> what its ledger said
        self._foreign = {
            role for role, spec in self._robot.nodes.items() if spec.package != "brainos_ros"}
        if self._foreign:
            self._heard = ears.subscribe(Heartbeat, "heartbeats", qos.HEARTBEATS)
        self._journal = Journal(self._tell, self.record, self._ledger_refused)
        self._running.callback(self._journal.close)
        self._keeper = Keeper(self._robot, self._commands, self, self.home, self.get_namespace(),
                              self._composed, self.settings["autostart"], self._fork_server)
        self._running.callback(self._keeper.stop, STOP_S)
        if CONSCIENCE in self._robot.nodes:
            self.create_subscription(
                SafetyState, "conscience/safety_state", self._note_safety, qos.STATE)
        urgent = self._owned(Outgoing(self, "urgent"), Outgoing.close)
        self._desk = Desk(self, self._keeper, self._robot, urgent)
        self.every(1.0, lambda: self._diagnostics.publish(self._desk.diagnostics()))
        self.every(1.0, self._look_around)
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
        self._level.publish(self._desk.level(assessment))
        self._notifier.say("READY=1", f"STATUS={assessment.level.name}: {assessment.reason}")
        if assessment.level is self._said:
            return
        self._said = assessment.level
        self.event("service_level", {"level": assessment.level.name, "reason": assessment.reason,
                             "failed": list(assessment.failed),
                             "actions": list(assessment.actions)})

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
                    self._see(role, topic, output, message, at)

    def _hear(self, beat: Beat | Heartbeat, at: float) -> None:
        known = self._keeper.hear(_name(beat), beat.pid, beat.state, at, beat.last_failure)
        if beat.pid in self._pids:
            return
        self._pids.add(beat.pid)
        if not known:
            self.get_logger().warning(f"{beat.node} (pid {beat.pid}) beats and is not supervised")

    def _see(self, role: str, topic: str, heard: Subscription, message: Any, at: float) -> None:
        wrong, supervisor = not_finite(message), self._keeper.supervisor
        if wrong and (self._strangers.get(topic) or self._look(role, topic, heard)):
            return  # nobody knows whose it is
        supervisor.output(supervisor.roles[role].holder.name, topic, wrong, at)
        if wrong:
            self._keeper.wake()

    def _look_around(self) -> None:
        for role, topic, output in self._outputs:
            self._look(role, topic, output)

    def _look(self, role: str, topic: str, heard: Subscription) -> bool:
        """Whether a node that is not the role's publishes what is watched of it, which is said."""
        own, names = f"{self.get_namespace().rstrip('/')}/{role}", self._ears.rivals(heard)
        strangers = sorted(n for n in names if n != own and not n.startswith(f"{own}_"))
        why = f"{heard.topic_name} is also published by {', '.join(strangers)}"
        found = why if strangers and len(names) > 1 else ""
        with self._keeper.lock:
            if found != self._strangers.get(topic, ""):
                self._strangers[topic] = found
                self._note_hindered()
        return bool(found)

    def _note_hindered(self) -> None:
        strange = {role: why for role, topic, _ in self._outputs
                   if (why := self._strangers.get(topic))}
        with self._keeper.lock:
            self._keeper.supervisor.hindered = strange | self._refused
        self._keeper.wake()

    def _note_reach(self, unreachable: Sequence[str]) -> None:
        with self._keeper.lock:
            self._keeper.supervisor.unreachable = unreachable
        self._keeper.wake()

    def _note_safety(self, message: SafetyState) -> None:
        """A conscience without its ledger lives on, so that it can halt, and lets nothing move."""
        refused = next((each for each in message.causes if each.startswith(LEDGER_REFUSED)), "")
        self._refused = {CONSCIENCE: refused} if refused else {}
        self._note_hindered()

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


def _name(beat: Beat | Heartbeat) -> str:
    return str(beat.node.rpartition("/")[2])


def _preload() -> None:
    """Load what takes each of the other nodes longest: the nodes and the type supports."""
    import brainos_ros.ros.composed  # noqa: F401

    for package in {name.split(".")[0] for name in sys.modules if name.endswith((".msg", ".srv"))}:
        import_type_support(package)


def main() -> None:
    """Entry point of the `watchdog` executable."""
    run(partial(WatchdogNode, begin(_preload)))
