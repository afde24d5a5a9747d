"""The base node: what every node of the brain can rely on, whatever its room does."""

import itertools
import threading
import time
from collections.abc import Callable

import pytest
from brainos_msgs.msg import Heartbeat
from brainos_msgs.srv import Explain
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.parameter import Parameter as RclpyParameter
from std_msgs.msg import String
from waiting import DEADLINE_S, matched

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Stream, verify
from brainos_ros.ros import qos
from brainos_ros.ros.executor import make_executor, second_node, wake
from brainos_ros.ros.lifecycle import BrainNode
from brainos_ros.ros.parameters import Parameter

WRONG = (Transition.TRANSITION_CLEANUP, Transition.TRANSITION_DEACTIVATE, 77, 255)


class Sample(BrainNode):
    role = "pfc"
    parameters = (
        Parameter("limit", 0.5, "a limit", unit="m", minimum=0.0, maximum=1.0),
        Parameter("weights", [0.1], "some weights", minimum=0.0, maximum=1.0),
        Parameter("mode", "slow", "how", choices=("slow", "fast"), dynamic=True),
    )
    hooks: list[str]
    fails: str = ""

    def _hook(self, name: str) -> None:
        self.hooks = [*getattr(self, "hooks", []), name]
        if self.fails == name:
            raise RuntimeError(f"{name} broke")

    def configure(self) -> None:
        self.create_publisher(String, "made_at_configure", 1)
        self._hook("configure")

    def activate(self) -> None:
        self.door(Explain, "pfc/explain", self._explain)
        self.create_subscription(String, "poison", self._poison, qos.EVENT)
        self._hook("activate")

    def deactivate(self) -> None:
        self._hook("deactivate")

    def cleanup(self) -> None:
        self._hook("cleanup")

    def _poison(self, message: String) -> None:
        raise RuntimeError(message.data)

    def _explain(self, request: Explain.Request, response: Explain.Response) -> Explain.Response:
        answers: dict[str, Callable[[], object]] = {
            "refuse": lambda: self._raise(BrainError("no such thing", ErrorCode.NOT_FOUND)),
            "break": lambda: self._raise(ValueError("broken")),
            "record": lambda: self.record("note", {"asked": request.decision_id}),
        }
        answers.get(request.decision_id, lambda: None)()
        return response

    def _raise(self, error: Exception) -> None:
        raise error


def explain(graph, decision_id: str) -> Explain.Response:
    return graph.call(Explain, "pfc/explain", Explain.Request(decision_id=decision_id))


def test_doors_open_on_activation_and_close_with_it(graph) -> None:
    node = graph.start(Sample, state="inactive")
    assert not graph.tester.get_publishers_info_by_topic("nothing")
    with pytest.raises(BrainError) as refused:
        graph.call(Explain, "pfc/explain", timeout_s=0.3)
    assert refused.value.code == ErrorCode.UNAVAILABLE
    assert graph.change_state("pfc", Transition.TRANSITION_ACTIVATE)
    assert explain(graph, "").success
    assert graph.change_state("pfc", Transition.TRANSITION_DEACTIVATE)
    assert not [s for s in node.services if s.srv_name.endswith("pfc/explain")]
    assert graph.change_state("pfc", Transition.TRANSITION_CLEANUP)
    assert not [p for p in node.publishers if p.topic_name.endswith("made_at_configure")]
    assert node.hooks == ["configure", "activate", "deactivate", "cleanup"]


def test_refusals_and_defects_are_answers(graph) -> None:
    graph.start(Sample)
    refused = explain(graph, "refuse")
    assert (refused.success, refused.error_code) == (False, ErrorCode.NOT_FOUND)
    assert refused.message == "no such thing"
    broken = explain(graph, "break")
    assert (broken.success, broken.error_code) == (False, ErrorCode.INTERNAL)
    assert "broken" in broken.message
    assert explain(graph, "").success


def test_wrong_transitions_and_poison_do_not_end_it(graph) -> None:
    graph.start(Sample, state="unconfigured")
    for transition in WRONG:
        assert not graph.change_state("pfc", transition)
    assert graph.change_state("pfc", Transition.TRANSITION_CONFIGURE)
    assert not graph.change_state("pfc", Transition.TRANSITION_CONFIGURE)
    assert graph.change_state("pfc", Transition.TRANSITION_ACTIVATE)
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics", 10)
    poison = matched(graph.publisher(String, "poison"))
    explain(graph, "")
    poison.publish(String(data="arsenic"))
    shown = diagnostics.wait_for(
        lambda m: any("arsenic" in v.value for s in m.status for v in s.values)
    )
    assert shown.status[0].name == "brainos: pfc"
    assert explain(graph, "").success


@pytest.mark.parametrize(
    ("fails", "state", "hooks"),
    [
        ("configure", "unconfigured", ["configure", "cleanup"]),
        ("activate", "inactive", ["configure", "activate", "deactivate"]),
    ],
)
def test_a_failed_transition_is_rolled_back(graph, fails, state, hooks) -> None:
    node = graph.start(Sample, state="unconfigured")
    node.fails = fails
    done = [
        graph.change_state("pfc", transition)
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    ]
    assert not all(done)
    assert graph.state("pfc") == state
    assert node.hooks == hooks
    assert f"{fails} broke" in node.last_failure
    node.fails = ""
    if fails == "configure":
        assert graph.change_state("pfc", Transition.TRANSITION_CONFIGURE)
    assert graph.change_state("pfc", Transition.TRANSITION_ACTIVATE)
    assert explain(graph, "").success


def test_the_reason_outlives_a_roll_back_that_fails(graph) -> None:
    node = graph.start(Sample, state="inactive")
    node.fails = "activate"
    node.deactivate = lambda: node._raise(RuntimeError("worse"))
    assert not graph.change_state("pfc", Transition.TRANSITION_ACTIVATE)
    assert "activate broke" in node.last_failure


def test_heartbeats_come_from_construction_on(graph) -> None:
    beats = graph.listen(Heartbeat, "heartbeats", qos.HEARTBEATS)
    graph.start(Sample, state="unconfigured")
    first = beats.wait_for()
    assert (first.role, first.node, first.state) == ("pfc", "/pfc", 1)
    graph.change_state("pfc", Transition.TRANSITION_CONFIGURE)
    graph.change_state("pfc", Transition.TRANSITION_ACTIVATE)
    active = beats.wait_for(lambda beat: beat.state == 3)
    assert active.sequence > first.sequence


class Slow(Sample):
    """Takes its time to activate, and makes timers in it."""

    def activate(self) -> None:
        time.sleep(0.3)
        for _ in range(5):
            self.every(10.0, lambda: None)


def test_heartbeats_go_on_at_once_after_a_slow_activation(graph) -> None:
    slow = graph.start(Slow, "inactive")
    beats: list[float] = []
    send = slow._pulse.send
    slow._pulse.send = lambda *beat: (send(*beat), beats.append(time.monotonic()))
    assert graph.change_state("pfc", Transition.TRANSITION_ACTIVATE)
    active = time.monotonic()
    wait = threading.Event()
    while time.monotonic() < active + 1.0:
        wait.wait(0.05)
    times = [active, *(at for at in beats if at > active)]
    assert max(after - before for before, after in itertools.pairwise(times)) < 0.2


def test_a_record_is_in_the_ledger(graph) -> None:
    node = graph.start(Sample)
    assert explain(graph, "record").success
    graph.stop(node)
    report = verify(graph.home / "ledger" / "pfc")
    assert report.verified
    assert report.records == 2  # the first says that the stream was created


def refuse_a_record(node: BrainNode) -> None:
    with pytest.raises(BrainError, match="not active") as refused:
        node.record("note", {"late": True})
    assert refused.value.code == ErrorCode.LEDGER_REFUSED


def test_a_callback_that_is_late_does_not_open_the_ledger_again(graph) -> None:
    node = graph.start(Sample)
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        assert graph.change_state("pfc", transition)
        refuse_a_record(node)
        Stream.open(graph.home / "ledger", "pfc").close()
    assert graph.change_state("pfc", Transition.TRANSITION_CONFIGURE)
    assert graph.change_state("pfc", Transition.TRANSITION_ACTIVATE)
    assert explain(graph, "record").success


class Tardy(Sample):
    needs_ledger = False


def test_a_ledger_that_opens_when_nobody_wants_it_any_more_is_closed(graph, monkeypatch) -> None:
    node = graph.start(Tardy)
    opened = Stream.open

    def slowly(*where: object) -> Stream:
        stream = opened(*where)
        assert graph.change_state("pfc", Transition.TRANSITION_DEACTIVATE)
        return stream

    with monkeypatch.context() as slow:
        slow.setattr(Stream, "open", slowly)
        refuse_a_record(node)
    Stream.open(graph.home / "ledger", "pfc").close()


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("limit", 1.5, "at most 1 m"),
        ("limit", float("nan"), "finite"),
        ("weights", [0.5, 9.0], "at most 1"),
        ("mode", "warp", "one of slow, fast"),
        ("limit", "wide", "limit"),
    ],
)
def test_a_bad_parameter_is_refused_with_the_reason(graph, name, value, wanted) -> None:
    with pytest.raises(BrainError, match=wanted):
        Sample(parameter_overrides=[RclpyParameter(name, value=value)])


def test_parameters_change_only_when_they_can_take_effect(graph) -> None:
    node = graph.start(Sample, state="unconfigured")

    def set_to(name: str, value: ParameterValue) -> object:
        request = SetParameters.Request(parameters=[ParameterMessage(name=name, value=value)])
        return graph.call(SetParameters, "pfc/set_parameters", request).results[0]

    assert set_to("limit", ParameterValue(type=3, double_value=0.25)).successful
    assert node.settings["limit"] == 0.25
    assert not set_to("weights", ParameterValue(type=8, double_array_value=[0.5, 9.0])).successful
    graph.change_state("pfc", Transition.TRANSITION_CONFIGURE)
    late = set_to("limit", ParameterValue(type=3, double_value=0.5))
    assert not late.successful
    assert "read at configure" in late.reason
    assert node.settings["limit"] == 0.25
    assert set_to("mode", ParameterValue(type=4, string_value="fast")).successful
    assert node.settings["mode"] == "fast"
    described = graph.call(
        DescribeParameters, "pfc/describe_parameters", DescribeParameters.Request(names=["limit"])
    ).descriptors[0]
    assert described.description == "a limit [m]"
    assert described.floating_point_range[0].to_value == 1.0


def test_the_namespace_reaches_the_doors(graph) -> None:
    node = graph.start(Sample, state="unconfigured")
    assert node.outgoing.client(Explain, "memory/x").srv_name == "/memory/x"
    other = Sample(namespace="r1")
    try:
        assert other.outgoing.client(Explain, "memory/x").srv_name == "/r1/memory/x"
    finally:
        other.end()


def test_what_waits_for_work_can_be_woken(graph) -> None:
    node = graph.start(Sample, state="unconfigured")
    idle = second_node(node, "idle")
    executor = make_executor(idle)
    waiting = threading.Thread(target=executor.spin_once, args=(DEADLINE_S,), daemon=True)
    waiting.start()
    wake(executor)
    waiting.join(DEADLINE_S / 2)
    assert not waiting.is_alive(), "it waits to the end of its time-out"
    executor.shutdown()
    idle.destroy_node()
