"""The conscience's door to ROS: `evaluate` and the approvals, the gate, the halt.

Three threads, each with a node of its own, so that none waits for another: the doors on the
lifecycle node, the gate with its sensors (while active), and the halt (from construction on).
"""

import sys
import time
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from brainos_msgs import msg, srv

from brainos_ros.conscience import adopted
from brainos_ros.conscience.approvals import Approvals
from brainos_ros.conscience.circuit import Circuit, Evaluation, record_rules
from brainos_ros.conscience.credentials import (
    UNPROVISIONED,
    Operators,
    file_version,
    load_operators,
    operators_file,
)
from brainos_ros.conscience.gate import HALTED, Gate
from brainos_ros.conscience.halt import Latch
from brainos_ros.conscience.lines import Lines
from brainos_ros.conscience.motion.node import GateSide, Side
from brainos_ros.conscience.names import Names
from brainos_ros.conscience.outlet import Outlet
from brainos_ros.conscience.records import Halts, Writer
from brainos_ros.conscience.reset import ResetDesk
from brainos_ros.conscience.rules import RuleSet
from brainos_ros.conscience.rules_file import read
from brainos_ros.conscience.settings import DESCRIBED, base, people, periods
from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import (
    attributes_to_dict,
    dict_to_attributes,
    refuse,
    s_to_time,
)
from brainos_ros.ros.lifecycle import BrainNode
from brainos_ros.ros.main import run
from brainos_ros.ros.parameters import Parameter


class ConscienceNode(BrainNode):
    """May veto, never forgets."""

    role = "conscience"
    needs_ledger = False  # without one nothing moves, and the halt's door stays open
    parameters = tuple(Parameter(*described) for described in DESCRIBED)

    def __init__(self, **node_arguments: Any) -> None:
        super().__init__(**node_arguments)
        sys.setswitchinterval(0.0005)
        self.operators: Operators = UNPROVISIONED
        self.gated = tuple(self.resolve_topic_name(self.settings[f"cmd_vel_{way}_topic"])
                           for way in ("in", "out"))
        self.latch = Latch(self.home / "conscience", "")
        self._provision()
        self._outlet = Outlet(self.latch)
        self._gate_side: GateSide | None = None
        self._unrecorded = ""
        self._halts = Halts()
        self._halt_side = Side(self, "conscience_halt")
        self._halt_side.node.create_service(
            srv.Halt, self.resolve_service_name("conscience/halt"), self._halt,
            qos_profile=qos.SERVICE)
        self._halt_side.start()

    def end(self) -> None:
        """As the base does it, with the halt's door open until the last zero is out."""
        if self.is_active:
            self.trigger_deactivate()
        self._halt_side.close()
        super().end()

    # ---------------------------------------------------------------- lifecycle

    def configure(self) -> None:
        self._assumed = people(self.settings)
        self._load_rules()

    def activate(self) -> None:
        self._load_rules()  # a stand-by did not hear of a change
        self._provision()
        self.latch.read(self.operators.robot, anew=True)
        self.epoch = str(uuid.uuid4())
        self._states = self.create_publisher(
            msg.SafetyState, "conscience/safety_state", qos.STATE)
        self._evaluations = self.create_publisher(
            msg.SafetyEvaluation, "conscience/evaluations", qos.EVENT)
        self._begin_record()
        self._halts.begin(self._writer)
        self._gate = Gate(base(self.settings), self._assumed, periods(self.settings), self._rules)
        self._gate.expects_people = bool(self.settings["tracked_people_topic"])
        self._gate.halted = self.latch.look
        self._gate.held += [self._writer.problem, lambda _: self._unrecorded]
        self._open_desks()
        self._gate_side = GateSide(self, self._gate, self._outlet, Lines(self._writer.put),
                                   self._state_changed)
        for kind, name, handler in (
                (srv.Evaluate, "evaluate", self._evaluate), (srv.Redeem, "redeem", self._redeem),
                (srv.ListPending, "list_pending", self._list_pending),
                (srv.Approve, "approve", self._approve), (srv.Deny, "deny", self._deny),
                (srv.Reset, "reset", self._reset),
                (srv.ReloadRules, "reload_rules", self._reload_rules)):
            self.door(kind, f"conscience/{name}", handler)
        self.every(1.0, self._every_second)
        self.every(0.25, lambda: self._desk.challenge())
        self._gate_side.start()

    def deactivate(self) -> None:
        if self._gate_side is not None:
            self._gate_side.stop()
            self._outlet.close()
            self._tell(msg.SafetyState.INACTIVE, ("the gate is not active",))
            self._approvals.expire(everything=True)
            self._gate_side.close()
            self._gate_side = None
        self._halts.end()

    def diagnose(self) -> dict[str, object]:
        if self._gate_side is None:
            return {"halted": self.latch.cause}
        return {"halted": self.latch.cause, "holds": "; ".join(self._gate.protective),
                "rules": self._circuit.rules.version[:12]}

    def _provision(self) -> None:
        self._load_operators("halted until an operator is registered")
        self.latch.read(self.operators.robot)

    def _load_operators(self, otherwise: str) -> None:
        self._operators_read = file_version(operators_file(self.home))
        try:
            self.operators = load_operators(self.home)
        except BrainError as error:
            self.operators = UNPROVISIONED
            self.get_logger().warning(f"{otherwise}: {error}")

    def _heed_operators(self) -> None:
        """Who is registered or struck off while the robot works gains or loses his rights."""
        if file_version(operators_file(self.home)) == self._operators_read:
            return
        if self.operators.people:
            self._load_operators("nobody can approve or reset until this is mended")
            for desk in (self._approvals, self._circuit, self._desk):
                desk.operators = self.operators
        else:
            self._provision()
            self._open_desks()

    def _load_rules(self) -> None:
        self._rules, remark = adopted.in_force(
            self.home, adopted.rules_file(self.settings["rules_file"]))
        if remark:
            self.get_logger().warning(remark)

    def _begin_record(self) -> None:
        """The rules in force come first; where the ledger refuses, the writer tries again."""
        self._unrecorded = "the rules in force are not on record"
        self._writer = Writer(self._write)
        try:
            record_rules(self._write, self._rules, "", [])
        except BrainError as error:
            if error.code is not ErrorCode.LEDGER_REFUSED:
                self._writer.close()
                raise
            self.get_logger().error(f"nothing may move: {error}")
            record_rules(self._writer.put, self._rules, "", [])

    def _write(self, kind: str, body: dict[str, Any]) -> None:
        super().record(kind, body)
        self._unrecorded = ""

    def record(self, kind: str, body: Mapping[str, Any], *, durable: bool = False) -> int:
        """As the base does it, after the rules in force; no door waits for the ledger to open."""
        if self._unrecorded:
            raise BrainError(self._unrecorded, ErrorCode.LEDGER_REFUSED)
        return super().record(kind, body, durable=durable)

    def _open_desks(self) -> None:
        lifetime = self.settings["approval_lifetime_s"]
        self._approvals = Approvals(self.operators, self.epoch, lifetime, self.record)
        names = Names(self.get_namespace(), self.gated)
        self._circuit = Circuit(self._rules, self.operators, self._approvals, names, self.record,
                                self._hold, self.epoch)
        self._desk = ResetDesk(self.home, self.latch, self.operators, self.epoch,
                               partial(self.record, durable=True))
        self._desk.challenge()

    def _every_second(self) -> None:
        self._heed_operators()
        self._approvals.expire()
        self._circuit.flush()

    def _state_changed(self, causes: tuple[str, ...]) -> None:
        """Publishes the safety state; called by the gate's thread, which may not know yet of a halt
        or of its end."""
        states, halted = msg.SafetyState, self._halted()
        causes = tuple(each for each in causes if not each.startswith(HALTED))
        if halted:
            causes = (halted, *causes)
        self._tell(states.HALTED if halted else
                   states.PROTECTIVE_STOP if causes else states.RUNNING, causes)

    def _tell(self, state: int, causes: tuple[str, ...]) -> None:
        self._states.publish(msg.SafetyState(
            stamp=self.get_clock().now().to_msg(), state=state, causes=list(causes),
            reason="; ".join(causes) or "commands pass, limited by speed and separation",
            rules_version=self._circuit.rules.version, epoch=self.epoch))

    def _halted(self) -> str:
        cause = self.latch.cause
        return f"{HALTED}{cause}" if cause else ""

    def _hold(self) -> str:
        return self._halted() or self._gate.emergency

    # ---------------------------------------------------------------- doors

    def _halt(self, request: srv.Halt.Request, response: srv.Halt.Response) -> srv.Halt.Response:
        started, response.success = time.monotonic(), True
        cause = f"{request.requester[:100] or 'unknown'}: {request.reason[:400] or 'no reason'}"
        self.latch.halt(cause)
        unsent = ""
        try:
            self._outlet.zero()
        except Exception as error:  # the base stops by itself; the halt must last all the same
            unsent = f"halted, but the zero could not be sent: {error!r}"
        response.latency_ms = (time.monotonic() - started) * 1e3
        response.message = "; ".join(filter(None, (unsent, self.latch.forget_armed())))
        body = {"cause": cause, "latency_ms": response.latency_ms, "state": self.state_id}
        self._halts.put(body)
        return response

    def _reset(self, request: Any, response: Any) -> Any:
        causes = self._gate.protective
        asked = self.gated[0] if self._gate.asked(time.monotonic()) else ""
        try:
            self._desk.reset(request.operator_name, request.token, causes, asked)
        except BrainError as error:
            response.success, response.error_code = False, int(error.code)
            response.message, response.causes = str(error), list(causes)
        return response

    def _evaluate(self, request: Any, response: Any) -> Any:
        try:
            context = attributes_to_dict(request.context, "context")
        except BrainError as error:
            refused = self._circuit.refuse(request.action, request.requester, str(error))
            return refuse(self._answer(refused, response), error)
        result = self._circuit.evaluate(request.action, context, request.requester)
        return self._answer(result, response)

    def _redeem(self, request: Any, response: Any) -> Any:
        context = attributes_to_dict(request.context, "context")
        result = self._circuit.redeem(
            request.approval_id, request.action, context, request.requester)
        return self._answer(result, response)

    def _answer(self, result: Evaluation, response: Any) -> Any:
        evaluation = response.evaluation = msg.SafetyEvaluation(
            evaluation_id=result.id, stamp=s_to_time(result.stamp), action=result.action,
            requester=result.requester, safety_level=int(result.level), approved=result.approved,
            reason=result.reason, rules=list(result.rules), rules_version=result.rules_version,
            latency_ms=result.latency_ms)
        if result.approval is not None:
            evaluation.human_approval_required = True
            evaluation.approval_id = result.approval.id
            evaluation.approval_deadline = s_to_time(result.approval.expires_at)
        if self._evaluations.get_subscription_count():
            self._evaluations.publish(evaluation)
        return response

    def _list_pending(self, request: Any, response: Any) -> Any:
        response.pending = [msg.PendingApproval(
            approval_id=each.id, evaluation_id=each.evaluation_id, action=each.action,
            context=dict_to_attributes(each.context), requester=each.requester,
            safety_level=msg.SafetyEvaluation.HIGH, reason=each.reason, challenge=each.challenge,
            created_at=s_to_time(each.created_at), expires_at=s_to_time(each.expires_at),
            expires_in_s=max(0.0, each.deadline - time.monotonic()),
        ) for each in self._approvals.pending()]
        return response

    def _approve(self, request: Any, response: Any) -> Any:
        approval = self._approvals.approve(
            request.approval_id, request.operator_name, request.token)
        response.status, response.approved_at = approval.status.value, s_to_time(time.time())
        return response

    def _deny(self, request: Any, response: Any) -> Any:
        approval = self._approvals.deny(
            request.approval_id, request.operator_name, request.token, request.reason[:400])
        response.status, response.denied_at = approval.status.value, s_to_time(time.time())
        return response

    def _keep_rules(self, rules: RuleSet) -> None:
        self.ledger.sync()
        adopted.keep(self.home, rules)

    def _reload_rules(self, request: Any, response: Any) -> Any:
        path = adopted.rules_file(self.settings["rules_file"])
        rules = self._circuit.reload(read(path), request.operators, request.tokens,
                                     self._desk.challenge(), self._keep_rules)
        self._desk.renew()
        self._rules = self._gate.rules = rules
        response.rules_version, response.rules = rules.version, len(rules.rules)
        return response


def main() -> None:
    """Entry point of the `conscience` executable."""
    run(ConscienceNode)
