"""`BrainNode`: what every node of the brain is, so that a room's `node.py` only converts and calls.

A subclass names its `role` and `parameters` and fills four hooks:

    class MemoryNode(BrainNode):
        role = "memory"
        parameters = (Parameter("max_episodes", 100_000, "…", minimum=1),)

        def configure(self) -> None:      # allocate; raise to stay unconfigured
        def activate(self) -> None:       # open the doors; raise to stay inactive
        def deactivate(self) -> None:     # stop acting; doors close by themselves afterwards
        def cleanup(self) -> None:        # release what configure allocated

Whatever a hook creates through the node (publishers, subscriptions, timers, doors, clients), the
opposite transition destroys. Every callback is guarded: an exception becomes a refusal and a log
line with its traceback, never the end of the process.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from brainos_msgs.msg import Heartbeat
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lifecycle_msgs.msg import State
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Stream
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import refuse
from brainos_ros.ros.executor import Outgoing
from brainos_ros.ros.guarded import GuardedNode
from brainos_ros.ros.parameters import Parameter, Parameters
from brainos_ros.ros.pulse import Pulse

COMMON = (
    Parameter("home", "", "where the brain keeps its state; empty for ~/.ros/brainos/<robot>"),
    Parameter("robot", "robot", "name of the robot, as in its file"),
    Parameter(
        "heartbeat_period_s", 0.1, "time between heartbeats", unit="s", minimum=0.01, maximum=10.0
    ),
)
_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
DIAGNOSTICS_PERIOD_S = 1.0


class BrainNode(GuardedNode):
    """Base of the six nodes. Raises `BrainError` at construction for a refused parameter."""

    role: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    beats: ClassVar[bool] = True
    """Whether the base sends the heartbeat (the watchdog sends its own)."""
    needs_ledger: ClassVar[bool] = True
    """Whether a ledger that cannot be opened refuses activation."""

    def __init__(self, **node_arguments: Any) -> None:
        self._configured: list[Callable[[], None]] = []
        self._activated: list[Callable[[], None]] = []
        self._ledger: Stream | None = None
        self._ledger_wanted = False
        self._ledger_lock = threading.Lock()
        self._outgoing: Outgoing | None = None
        self._beat = Heartbeat(role=self.role, pid=os.getpid())
        super().__init__(self.role, **node_arguments)
        try:
            self.settings = Parameters(self, (*COMMON, *self.parameters), self._is_unconfigured)
        except BrainError:
            self.destroy_node()
            raise
        self._beat.node = self.get_fully_qualified_name()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.every(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics)
        if self.beats:
            self._beat.period_s = self.settings["heartbeat_period_s"]
            self._heartbeats = self.create_publisher(Heartbeat, "heartbeats", qos.HEARTBEATS)
            self._pulse = Pulse(self.home)
            self._heard = False

    # ---------------------------------------------------------------- hooks of a room

    def configure(self) -> None:
        """Allocate what the node needs; raise to stay unconfigured."""

    def activate(self) -> None:
        """Open the doors and begin to act; raise to stay inactive."""

    def deactivate(self) -> None:
        """Stop acting; what `activate` created is destroyed afterwards."""

    def cleanup(self) -> None:
        """Release what `configure` allocated outside the node."""

    def diagnose(self) -> Mapping[str, object]:
        """What a person should see in `/diagnostics`, cheap to make."""
        return {}

    # ---------------------------------------------------------------- what a room builds with

    @property
    def home(self) -> Path:
        """The brain's state directory."""
        given = self.settings["home"] or os.environ.get("BRAINOS_HOME", "")
        return Path(given or Path.home() / ".ros" / "brainos" / self.settings["robot"])

    @property
    def state_id(self) -> int:
        """The lifecycle state, as in lifecycle_msgs/State."""
        return int(self._state_machine.current_state[0])

    @property
    def is_active(self) -> bool:
        """True in the active state."""
        return self.state_id == State.PRIMARY_STATE_ACTIVE

    @property
    def outgoing(self) -> Outgoing:
        """For calls to other nodes from inside a callback; made when first used."""
        if self._outgoing is None:
            self._outgoing = Outgoing(self)
        return self._outgoing

    def door(self, srv_type: Any, name: str, handler: Callable[[Any, Any], Any]) -> None:
        """Offer the service `name`: `handler(request, response)` fills the response.

        It is answered with success unless the handler set the result fields itself or raised:
        a `BrainError` is a refusal with its code, anything else is INTERNAL.
        """
        answer = self.answering(srv_type, name, handler)
        self.create_service(srv_type, name, answer, qos_profile=qos.SERVICE)

    def slow_door(
        self,
        srv_type: Any,
        name: str,
        handler: Callable[[Any, Any], Any],
        thread: Outgoing | None = None,
    ) -> None:
        """A door for work of seconds: on the outgoing thread, so that the node works meanwhile.

        Its handler runs beside the other callbacks, and cannot use `outgoing.call`. Where it must
        not wait for other slow doors either, `thread` is one of its own.
        """
        side, resolved = (thread or self.outgoing).node, self.resolve_service_name(name)
        answer = self.answering(srv_type, name, handler)
        service = side.create_service(srv_type, resolved, answer, qos_profile=qos.SERVICE)
        self._owned(service, side.destroy_service)

    def answering(
        self, srv_type: Any, name: str, handler: Callable[[Any, Any], Any]
    ) -> Callable[[Any, Any], Any]:
        """A service callback that answers whatever `handler` does, as `door` describes."""

        def answer(request: Any, response: Any) -> Any:
            self._beat.outputs += 1
            response.success = True
            try:
                return handler(request, response)
            except BrainError as error:
                return refuse(srv_type.Response(), error)
            except Exception as error:
                self.note_failure(f"{name} failed: {error!r}")
                internal = BrainError(f"{name} failed inside: {error!r}", ErrorCode.INTERNAL)
                return refuse(srv_type.Response(), internal)

        return answer

    def record(self, kind: str, body: Mapping[str, Any], *, durable: bool = False) -> int:
        """Append an event to this node's ledger stream; returns its sequence number.

        Raises `BrainError` (LEDGER_REFUSED) if the ledger does not accept it.
        """
        try:
            return self._stream().event(kind, body, durable=durable)
        except BrainError:
            raise
        except Exception as error:
            raise BrainError(
                f"the ledger refused a {kind}: {error}", ErrorCode.LEDGER_REFUSED
            ) from error

    @property
    def ledger(self) -> Stream:
        """This node's ledger stream, open from activation or first use after it to deactivation.

        Raises `BrainError`: LEDGER_REFUSED where the node is not active, and as `Stream.open`.
        """
        return self._stream()

    # ---------------------------------------------------------------- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._enter("configure", self.configure, self._configured, self.cleanup)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        def activate() -> None:
            self._ledger_wanted = True
            if self.needs_ledger:
                self._stream()
            self.activate()

        return self._enter(
            "activate", activate, self._activated, self.deactivate, self._close_ledger
        )

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._leave("deactivate", self.deactivate, self._activated, self._close_ledger)
        return _SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._leave("clean up", self.cleanup, self._configured, self._close_ledger)
        return _SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if state.state_id == State.PRIMARY_STATE_ACTIVE:
            self.on_deactivate(state)
        if state.state_id != State.PRIMARY_STATE_UNCONFIGURED:
            self.on_cleanup(state)
        return _SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.on_shutdown(state)
        return _SUCCESS

    def _enter(
        self,
        name: str,
        hook: Callable[[], None],
        scope: list[Callable[[], None]],
        *undo: Callable[[], None],
    ) -> TransitionCallbackReturn:
        self._scope = scope
        try:
            hook()
            return _SUCCESS
        except Exception as error:
            if isinstance(error, BrainError):
                sentence = f"could not {name}: {error}"
                self.keep_failure(sentence)
                self.get_logger().error(sentence)
            else:
                self.note_failure(f"could not {name}: {error!r}")
            self._scope, reason = None, self.last_failure
            self._leave(f"roll {name} back", undo[0], scope, *undo[1:])
            self.last_failure = reason
            return _FAILURE
        finally:
            self._scope = None

    def _leave(
        self,
        name: str,
        hook: Callable[[], None],
        scope: list[Callable[[], None]],
        *afterwards: Callable[[], None],
    ) -> None:
        steps = [hook, *reversed(scope), *afterwards]
        scope.clear()
        for step in steps:
            try:
                step()
            except Exception as error:
                self.note_failure(f"could not {name} cleanly: {error!r}")

    def _is_unconfigured(self) -> bool:
        return self.state_id == State.PRIMARY_STATE_UNCONFIGURED

    def _stream(self) -> Stream:
        stream = self._ledger
        if stream is not None:
            return stream
        if self._ledger_wanted:
            stream = Stream.open(self.home / "ledger", self.role)
            with self._ledger_lock:
                if self._ledger_wanted:
                    self._ledger = stream
                    return stream
            stream.close()
        raise BrainError(
            f"the ledger of {self.get_name()} is closed: the node is not active",
            ErrorCode.LEDGER_REFUSED,
        )

    def _close_ledger(self) -> None:
        with self._ledger_lock:
            self._ledger_wanted, self._ledger, stream = False, None, self._ledger
        if stream is not None:
            stream.close()

    def end(self) -> None:
        """Deactivate, clean up and destroy, whatever the state; the last thing a process does."""
        if self.state_id in (
            State.PRIMARY_STATE_UNCONFIGURED,
            State.PRIMARY_STATE_INACTIVE,
            State.PRIMARY_STATE_ACTIVE,
        ):
            self.trigger_shutdown()
        self._close_ledger()
        if self._outgoing is not None:
            self._outgoing.close()
        if self.beats:
            self._pulse.close()
        self.destroy_node()

    # ---------------------------------------------------------------- heartbeat, diagnostics

    def beat(self) -> None:
        """The working loop turned: called by that loop itself every `beat_period_s`.

        The watchdog hears it as a datagram; the message is for who listens to the topic.
        """
        beat = self._beat
        beat.sequence += 1
        beat.state = self.state_id
        self._pulse.send(time.monotonic(), beat.node, beat.state, self.last_failure)
        if self._heard:
            self._publish_heartbeat()

    @property
    def beat_period_s(self) -> float:
        """Time between heartbeats [s]."""
        return float(self._beat.period_s)

    def _publish_heartbeat(self) -> None:
        self._beat.last_failure = self.last_failure
        self._beat.stamp = self.get_clock().now().to_msg()
        self._heartbeats.publish(self._beat)

    def _publish_diagnostics(self) -> None:
        if self.beats:  # here, because a beat should cost as little as it can
            self._heard = self._heartbeats.get_subscription_count() > 0
        status = DiagnosticStatus(
            name=f"brainos: {self.get_name()}",
            hardware_id=self.settings["robot"],
            level=DiagnosticStatus.OK if self.is_active else DiagnosticStatus.WARN,
            message=self._state_machine.current_state[1],
        )
        values = {"answered": self._beat.outputs, "failures": self._failures, **self.diagnose()}
        if self.last_failure:
            values["last_failure"] = self.last_failure
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)
