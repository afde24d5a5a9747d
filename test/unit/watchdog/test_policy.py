"""Order, restart history, level ladder and detectors: each rule by itself."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainos_ros.robot_spec import Beat, Restart
from brainos_ros.watchdog.detect import STARVED_LIMIT_S, Freshness, Heart, Lag, Usage, starved
from brainos_ros.watchdog.finite import not_finite
from brainos_ros.watchdog.level import Assessment, Ladder, Level, assess
from brainos_ros.watchdog.order import affected, dependents, start_order
from brainos_ros.watchdog.restarts import History


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Graphs without cycles: a role needs only roles of lower number."""
    size = draw(st.integers(1, 8))
    return {
        f"r{i}": [f"r{j}" for j in range(i) if draw(st.booleans())]
        for i in draw(st.permutations(range(size)))
    }


@given(graphs())
def test_each_role_follows_all_it_needs(graph: dict[str, list[str]]) -> None:
    order = start_order(graph)
    assert sorted(order) == sorted(graph)
    for role, needs in graph.items():
        assert all(order.index(needed) < order.index(role) for needed in needs)


@given(graphs(), st.data())
def test_the_strategies_reach_as_far_as_they_say(
    graph: dict[str, list[str]], data: st.DataObject
) -> None:
    role = data.draw(st.sampled_from(sorted(graph)))
    rest = set(dependents(graph, role))
    assert affected(graph, role, "one_for_one") == []
    assert set(affected(graph, role, "rest_for_one")) == rest
    assert set(affected(graph, role, "one_for_all")) == set(graph) - {role}
    for other in graph:
        needs_it = role in graph[other] or any(needed in rest for needed in graph[other])
        assert (other in rest) == (needs_it and other != role)


@given(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=60), st.integers(0, 6))
def test_never_more_restarts_in_a_window_than_allowed(gaps: list[float], limit: int) -> None:
    history = History(Restart(max_restarts=limit, window_s=30.0), Random(0))
    now, restarts = 0.0, []
    for gap in gaps:
        now += gap
        if history.failed(now) is not None:
            restarts.append(now)
            assert len([t for t in restarts if t > now - 30.0]) <= max(limit, 0)


@given(st.integers(2, 40), st.randoms(use_true_random=False))
def test_backoff_doubles_with_jitter_up_to_its_limit(times: int, random: Random) -> None:
    history = History(Restart(max_restarts=1000, backoff_s=0.25, backoff_max_s=8.0), random)
    assert history.failed(0.0) == 0.0
    for n in range(2, times):
        delay = history.failed(0.0)
        full = min(0.25 * 2 ** (n - 2), 8.0)
        assert delay is not None
        assert full / 2 <= delay <= full


def test_stable_uptime_and_a_person_both_forgive() -> None:
    history = History(Restart(stable_s=30.0, max_restarts=5, window_s=10.0), Random(0))
    history.failed(0.0)
    assert history.failed(0.1)
    history.healthy(1.0)
    assert history.failed(31.5) == 0.0
    for _ in range(9):
        last = history.failed(32.0)
    assert last is None
    history.forgive()
    assert history.failed(33.0) == 0.0


ONLINE = assess(["a"], [], [], [])
DOWN = assess([], ["a"], [], [])


def test_levels_from_the_state_of_the_roles() -> None:
    assert assess(["a"], [], [], []).level is Level.ONLINE
    cut_off = assess(["a"], [], [], [], unreachable=["10.0.0.2:22"])
    assert cut_off.level is Level.OFFLINE
    assert "10.0.0.2:22" in cut_off.reason
    assert assess(["a"], ["b"], [], []).level is Level.DEGRADED_ONLINE
    assert assess(["a"], ["b"], [], [], unreachable=["10.0.0.2:22"]).level is Level.DEGRADED_ONLINE
    assert assess(["a"], [], ["b"], ["a"]).level is Level.DEGRADED_ONLINE
    lost = assess(["a"], [], ["b"], ["b"])
    assert lost.level is Level.EMERGENCY
    assert lost.failed == ("b",)
    assert any("brainos restart b" in action for action in lost.actions)


def test_a_stand_by_that_is_given_up_on_is_named_amid_what_else_is_wrong() -> None:
    alone = {"a": "a_standby"}
    for found in (assess(["a"], [], [], [], ["10.0.0.2:22"], {}, alone),
                  assess([], ["a"], [], [], alone=alone),
                  assess(["a"], [], ["b"], [], alone=alone)):
        assert found.level is Level.DEGRADED_ONLINE
        assert any("log of a_standby" in action for action in found.actions)
        assert "a_standby" not in found.failed


def test_down_at_once_up_only_after_it_held() -> None:
    ladder = Ladder(2.0)
    assert ladder.update(0.0, DOWN)
    assert ladder.update(1.0, ONLINE), "the first time there is nothing to hold for"
    assert ladder.update(10.0, DOWN)
    assert not ladder.update(11.0, ONLINE)
    assert not ladder.update(12.9, ONLINE)
    assert ladder.update(13.1, ONLINE)


@given(st.lists(st.tuples(st.floats(0.01, 1.0), st.sampled_from(list(Level))), max_size=60))
def test_a_level_never_rises_within_the_hold(steps: list[tuple[float, Level]]) -> None:
    severity = {Level.ONLINE: 0, Level.OFFLINE: 1, Level.DEGRADED_ONLINE: 2, Level.EMERGENCY: 3}
    ladder, now, worse_at = Ladder(2.0), 0.0, -10.0
    ladder.update(now, DOWN)
    ladder.update(now, ONLINE)
    for gap, level in steps:
        now += gap
        before = ladder.current
        assert before
        ladder.update(now, Assessment(level, level.name))
        assert ladder.current
        if severity[ladder.current.level] < severity[before.level]:
            assert now - worse_at >= 2.0
        if severity[level] >= severity[ladder.current.level]:
            worse_at = now


def silent(usages: list[Usage], until: float = 0.4, pressure: float = 0.0) -> str | None:
    """The verdict on a heart that beat at 0 and then fell silent."""
    heart = Heart(Beat(), 0.0)
    heart.beat(0.0)
    assert not heart.suspicious(0.15)
    assert heart.suspicious(0.17)
    heart.suspected(0.17, usages[0])
    assert heart.suspect
    assert not heart.due(0.3)
    assert heart.due(0.36)
    return heart.verdict(until, usages[1], pressure)


def test_silence_is_looked_at_when_it_is_odd_and_again_when_it_is_due() -> None:
    heart = Heart(Beat(period_s=0.1, misses=3), 0.0)
    heart.beat(0.0)
    odd = heart.deadline()
    assert odd == pytest.approx(0.16)
    assert heart.suspicious(odd)
    assert not heart.due(odd)
    heart.suspected(odd, None)
    assert heart.deadline() == pytest.approx(0.35)
    assert heart.due(heart.deadline())


def test_what_a_silent_loop_is_found_to_do() -> None:
    assert "stopped" in (silent([Usage(1, 0, "S"), Usage(1, 0, "T")]) or "")
    assert "spins" in (silent([Usage(1, 0, "R"), Usage(1.2, 0, "R")]) or "")
    assert "hangs" in (silent([Usage(1, 0, "S"), Usage(1, 0, "S")]) or "")
    assert silent([Usage(1, 1, "R"), Usage(1.01, 1.2, "R")]) is None, "it waited for a processor"


def test_a_starved_machine_is_no_excuse_for_ever() -> None:
    heart = Heart(Beat(), 0.0)
    heart.beat(0.0)
    heart.suspected(0.2, Usage(1, 0, "R"))
    now, waited = 0.4, 0.2
    while (evidence := heart.verdict(now, Usage(1, waited, "R"))) is None:
        assert not heart.due(now)
        now, waited = now + 0.1, waited + 0.1
    assert now == pytest.approx(STARVED_LIMIT_S, abs=0.11)
    assert "missed" in evidence


def test_who_suspects_too_late_looks_before_he_judges() -> None:
    heart = Heart(Beat(), 0.0)
    heart.beat(0.0)
    assert heart.suspicious(0.5)
    heart.suspected(0.5, Usage(1, 0, "R"))
    assert heart.due(0.5)
    assert heart.verdict(0.5, Usage(1.001, 0, "R")) is None
    assert not heart.due(0.59)
    assert "spins" in (heart.verdict(0.6, Usage(1.1, 0, "R")) or "")


def test_an_overloaded_machine_earns_a_second_of_doubt() -> None:
    idle = [Usage(1, 0, "S"), Usage(1, 0, "S")]
    assert silent(idle, pressure=0.95) is None
    assert silent(idle, pressure=0.5)
    assert silent(idle, until=1.1, pressure=0.95)
    assert silent([Usage(1, 0, "S"), Usage(1, 0, "T")], pressure=0.95)
    fresh = Freshness("out", 0.1, 0.0)
    fresh.message(5.0)
    assert fresh.verdict(5.3, pressure=0.95) is None
    assert fresh.verdict(5.3, pressure=0.5)
    assert fresh.verdict(5.9, pressure=0.95)


def test_a_starved_watcher_doubts_what_it_did_not_hear() -> None:
    assert silent([Usage(1, 0, "S", 5.0), Usage(1, 0, "S", 5.2)]) is None
    assert "stopped" in (silent([Usage(1, 0, "S", 5.0), Usage(1, 0, "T", 5.2)]) or "")
    assert "spins" in (silent([Usage(1, 0, "R", 5.0), Usage(1.1, 0, "R", 5.2)]) or "")


@given(st.floats(0.5, 1.0), st.floats(0.05, 2.0))
def test_a_loop_that_had_the_processor_is_never_called_starved(share: float, window: float) -> None:
    before = Usage(5.0, 5.0, "R")
    after = Usage(5.0 + share * window, 5.0 + (1 - share) * window, "R")
    assert not starved(before, after, window)


def test_freshness_and_sound_numbers() -> None:
    fresh = Freshness("out", 0.1, 0.0, grace_s=1.0)
    assert fresh.verdict(1.1) is None
    fresh.message(1.1)
    assert fresh.verdict(1.29) is None
    assert "nothing for 210 ms" in (fresh.verdict(1.31) or "")
    fresh.message(1.4, "x is nan")
    assert "x is nan" in (fresh.verdict(1.4) or "")


def test_own_lag() -> None:
    lag = Lag(0.0)
    lag.expect(0.1)
    assert not lag.ran(0.15)
    lag.expect(0.2)
    assert lag.ran(0.5)
    assert lag.worst_s(0.6) == pytest.approx(0.3)
    assert lag.worst_s(2.0) == 0.0


def message(**fields: tuple[str, object]) -> object:
    """Looks like a ROS message; each field with its type."""

    class Message:
        @classmethod
        def get_fields_and_field_types(cls) -> dict[str, str]:
            return {name: kind for name, (kind, _) in fields.items()}

    made = Message()
    made.__dict__.update((name, value) for name, (_, value) in fields.items())
    return made


def test_the_number_that_is_not_finite_is_named() -> None:
    linear = message(x=("double", 0.1), y=("double", 0.0))
    angular = message(z=("double", float("nan")))
    vector = "geometry_msgs/Vector3"
    assert not_finite(message(linear=(vector, linear), angular=(vector, angular))) == (
        "angular.z is nan")
    scan = message(ranges=("sequence<float>", [1.0, float("inf")]))
    assert not_finite(scan) == "ranges[1] is inf"
    name, count = ("string", "nan"), ("uint32", 3)
    assert not_finite(message(name=name, count=count, data=("int32[2]", [1, 2]))) == ""


def test_a_bounded_array_is_looked_through() -> None:
    assert not_finite(message(x=("sequence<double, 4>", [float("nan")]))) == "x[0] is nan"
    assert not_finite(message(x=("double[2]", [0.0, float("-inf")]))) == "x[1] is -inf"
