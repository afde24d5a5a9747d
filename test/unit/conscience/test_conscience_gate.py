"""The gate on a clock of its own: what leaves, what holds it, how it rises."""

import dataclasses
import itertools
import math
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from brainos_ros.conscience import adopted
from brainos_ros.conscience.gate import Gate, Periods, Tick
from brainos_ros.conscience.rules import RuleSet
from brainos_ros.conscience.rules_file import load, parse
from brainos_ros.conscience.separation import Base, People, Scanner, path_separation

BASE = Base(0.3, 1.0, 1.5, 1.0, 2.0, 0.05, 0.3)
PEOPLE = People(2.5, 0.0, 0.1, 0.1)
PERIODS = Periods(gate=0.02, request=0.1, scan=0.05, odom=0.05, people=0.05)
RULES = load(adopted.rules_file(""))
AXES = (0.0, 0.0, 0.0, 0.0)


class Bench:
    """A gate with a clock; `run` feeds every input each tick unless it is left out."""

    def __init__(self, people: People = PEOPLE, rules: RuleSet = RULES) -> None:
        self.gate = Gate(BASE, people, PERIODS, rules)
        self.now, self.count = 100.0, 1
        self.ranges = array("f", [8.0] * 360)
        self.people: list[tuple[float, float, float]] = []
        self.pose = (0.0, 0.0, 0.0)
        self.request: tuple[float, float] | None = (0.5, 0.0)
        self.silent: set[str] = set()
        self.frozen_scan = False

    def feed(self) -> None:
        now, stamp, gate = self.now, self.count, self.gate
        if "scan" not in self.silent:
            if not self.frozen_scan:
                self.ranges[self.count % 360] += 1e-3
            self.scan(stamp)
        if "odom" not in self.silent:
            gate.odometry(now, stamp, "odom", *self.pose, 0.0, 0.0)
        if "people" not in self.silent:
            gate.people(now, stamp, "odom", self.people)
        if "watchdog" not in self.silent:
            gate.watchdog(now)
        if self.request is not None and "request" not in self.silent:
            gate.request(now, *self.request, AXES)

    def scan(self, stamp: int) -> None:
        self.gate.scan(self.now, stamp, self.ranges, -math.pi, math.tau / 360, 0.05, 12.0)

    def run(self, seconds: float = 0.02) -> Tick:
        for _ in range(max(1, round(seconds / 0.02))):
            self.now, self.count = self.now + 0.02, self.count + 1
            self.feed()
            tick = self.gate.tick(self.now)
        return tick


    def wall(self, distance_m: float, half: int = 20) -> None:
        """A wall across the way ahead, `half` rays to each side, that stays as it is."""
        for ray in range(180 - half, 181 + half):
            self.ranges[ray] = distance_m / math.cos(math.radians(ray - 180))
        self.frozen_scan = True


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_request_rises_by_the_acceleration_and_falls_at_once(bench: Bench) -> None:
    speeds = [bench.run().command[0] for _ in range(40)]
    assert speeds[0] <= 0.04
    assert all(b - a <= 0.02 + 1e-9 for a, b in itertools.pairwise(speeds))
    assert speeds[-1] == pytest.approx(0.5)
    bench.request = (0.1, 0.0)
    assert bench.run().command[0] == pytest.approx(0.1)
    bench.request = (-0.5, 0.0)
    assert bench.run().command[0] == pytest.approx(-0.02)
    bench.request = (0.0, 0.0)
    assert bench.run().command == (0.0, 0.0)


def test_a_long_pause_is_no_licence_to_jump(bench: Bench) -> None:
    bench.run(1.0)
    bench.request = (0.0, 0.0)
    bench.run(1.0)
    bench.now, bench.count = bench.now + 60.0, bench.count + 1
    bench.request = (0.5, 0.0)
    bench.feed()
    assert 0.0 < bench.gate.tick(bench.now).command[0] <= 0.04


def test_turning_rises_with_the_rim(bench: Bench) -> None:
    bench.request = (0.0, 1.0)
    first = bench.run().command[1]
    assert 0.0 < first <= 0.04 / 0.3 + 1e-9
    assert bench.run(1.0).command == (0.0, pytest.approx(1.0))


def test_more_than_the_base_can_is_cut_along_the_same_curve(bench: Bench) -> None:
    bench.request = (4.0, 2.0)
    linear, angular = bench.run(3.0).command
    assert linear == pytest.approx(1.0)
    assert angular == pytest.approx(0.5)
    bench.request = (0.5, -3.0)
    linear, angular = bench.run(3.0).command
    assert angular == pytest.approx(-1.5)
    assert linear == pytest.approx(0.25)


@pytest.mark.parametrize(("lost", "cause", "patience"), [
    ("scan", "scan stale", 0.15), ("odom", "odom stale", 0.15),
    ("people", "tracked_people stale", 0.15), ("watchdog", "watchdog silent", 0.2)])
def test_a_lost_input_stops_within_its_age_and_a_tick(
        bench: Bench, lost: str, cause: str, patience: float) -> None:
    assert bench.run(1.0).command[0] > 0.4
    lost_at = bench.now
    bench.silent = {lost}
    while (tick := bench.run()).command != (0.0, 0.0):
        assert bench.now - lost_at <= patience + 1e-9
    assert bench.now - lost_at <= patience + 0.02 + 1e-9
    assert tick.causes == (cause,)
    bench.silent = set()
    assert bench.run().causes == ()


@pytest.mark.parametrize("missing", ["scan", "odom", "people"])
def test_before_the_first_message_nothing_moves(bench: Bench, missing: str) -> None:
    bench.silent = {missing}
    tick = bench.run(0.5)
    assert tick.command == (0.0, 0.0)
    assert tick.causes[0] == f"no {missing.replace('people', 'tracked_people')} yet"


def test_without_requests_it_is_zero_and_nothing_holds(bench: Bench) -> None:
    bench.run(1.0)
    bench.silent = {"request"}
    assert bench.run(0.3).command[0] > 0.0
    tick = bench.run(0.02)
    assert (tick.command, tick.causes) == ((0.0, 0.0), ())
    assert math.isnan(tick.requested[0])
    assert not bench.gate.asked(bench.now)


@pytest.mark.parametrize(("linear", "angular", "others"), [
    (math.nan, 0.0, AXES), (0.5, math.inf, AXES), (-math.inf, 0.0, AXES),
    (0.5, 0.0, (0.1, 0.0, 0.0, 0.0)), (0.5, 0.0, (0.0, 0.0, 0.0, -1.0)),
    (0.5, 0.0, (math.nan, 0.0, 0.0, 0.0))])
def test_a_malformed_request_is_zero(
        bench: Bench, linear: float, angular: float, others: tuple[float, ...]) -> None:
    bench.run(1.0)
    bench.request = None
    bench.run()
    bench.gate.request(bench.now, linear, angular, others)
    tick = bench.gate.tick(bench.now)
    assert tick.command == (0.0, 0.0)
    assert "request" in tick.causes[0]


Breaks = Callable[[Bench], Any]


@pytest.mark.parametrize(("breaks", "cause"), [
    (lambda b: b.gate.odometry(b.now, -7, "odom", math.nan, 0, 0, 0, 0), "odom not finite"),
    (lambda b: b.gate.odometry(b.now, -7, "odom", 0, 0, 0, 0, math.inf), "odom not finite"),
    (lambda b: b.gate.people(b.now, -7, "odom", [(math.nan, 0, 0.2)]), "tracked_people not finite"),
    (lambda b: b.gate.people(b.now, -7, "odom", [(0, 0, -1.0)]), "tracked_people not finite"),
    (lambda b: b.gate.people(b.now, -7, "map", []), "in frame `map`"),
    (lambda b: b.gate.scan(b.now, -7, array("f", [5.0]), 0, 0.1, 0.0, 9.0), "scan invalid"),
    (lambda b: b.gate.scan(b.now, -7, b.ranges, 0, math.nan, 0.0, 9.0), "scan invalid"),
    (lambda b: setattr(b.gate, "emergency", "EMERGENCY: a test"), "EMERGENCY: a test"),
    (lambda b: setattr(b.gate, "halted", lambda: "a test"), "halted: a test"),
    (lambda b: b.gate.held.append(lambda now: "ledger lags"), "ledger lags")])
def test_whatever_is_wrong_stops_it_and_is_named(bench: Bench, breaks: Breaks, cause: str) -> None:
    bench.run(1.0)
    breaks(bench)
    bench.gate.request(bench.now, 0.5, 0.0, AXES)
    tick = bench.gate.tick(bench.now)
    assert tick.command == (0.0, 0.0)
    assert cause in " ".join(tick.causes)
    assert bench.gate.tick(bench.now).causes == tick.causes


@pytest.mark.parametrize("spoil", [
    lambda b: b.gate.odometry(b.now, -7, "odom", math.nan, 0, 0, 0, 0),
    lambda b: b.gate.people(b.now, -7, "odom", [(math.nan, 0, 0.2)]),
    lambda b: b.gate.people(b.now, -7, "map", []),
    lambda b: b.gate.scan(b.now, -7, array("f", [5.0]), 0, 0.1, 0.0, 9.0)])
def test_a_good_message_ends_what_a_bad_one_began(bench: Bench, spoil: Breaks) -> None:
    bench.run(1.0)
    spoil(bench)
    bench.gate.request(bench.now, 0.5, 0.0, AXES)
    assert bench.gate.tick(bench.now).causes
    assert bench.run().causes == ()


def test_only_the_halt_is_not_a_protective_stop(bench: Bench) -> None:
    bench.gate.halted = lambda: "a test"
    assert bench.run(0.1).causes == ("halted: a test",)
    assert bench.gate.protective == ()


def test_a_scan_that_repeats_its_stamp_is_not_a_new_one(bench: Bench) -> None:
    bench.run(1.0)
    bench.silent = {"scan"}
    for _ in range(8):
        bench.run()
        bench.scan(stamp=7)
    bench.run(0.1)
    assert "scan stale" in bench.run().causes


def test_stamps_that_step_back_an_hour_stop_nothing(bench: Bench) -> None:
    bench.run(1.0)
    bench.count -= 3600 * 10**9
    assert bench.run(0.5).command[0] == pytest.approx(0.5)
    bench.count += 7200 * 10**9
    assert bench.run(0.5).command[0] == pytest.approx(0.5)


def test_a_frozen_scan_with_fresh_stamps_stops_a_robot_that_moves(bench: Bench) -> None:
    bench.run(1.0)
    bench.frozen_scan = True
    assert bench.run(0.5).causes == ()
    bench.pose = (0.09, 0.0, 0.0)
    assert bench.run(0.1).causes == ()
    bench.pose = (0.11, 0.0, 0.0)
    assert bench.run().causes == ("scan frozen",)
    bench.frozen_scan = False
    assert bench.run().causes == ()
    bench.frozen_scan = True
    bench.run(0.1)
    bench.pose = (0.11, 0.0, 0.11)
    assert bench.run().causes == ("scan frozen",)


def test_open_space_is_not_a_frozen_scan(bench: Bench) -> None:
    bench.ranges = array("f", [math.inf] * 360)
    bench.run(1.0)
    bench.pose = (5.0, 0.0, 0.0)
    assert bench.run(0.1).causes == ()


def independent_limit(separation: float, person: float, reaction: float) -> float:
    a, margin = 2.0, 0.2
    c = person * reaction + margin - separation
    k = reaction + person / a
    return 0.0 if c >= 0 else a * (-k + math.sqrt(k * k - 2 * c / a))


def test_a_person_limits_the_rim_speed(bench: Bench) -> None:
    bench.people = [(2.4, 0.0, 0.25)]
    bench.request = (0.8, 0.5)
    tick = bench.run(2.0)
    expected = independent_limit(2.4 - 0.25 - 0.3, 2.5, 0.05 + 0.02 + 0.3)
    assert tick.person_m == pytest.approx(1.85)
    assert tick.limit_mps == pytest.approx(expected)
    assert tick.command[0] + 0.3 * tick.command[1] == pytest.approx(expected)
    assert tick.command[0] / tick.command[1] == pytest.approx(0.8 / 0.5)
    assert tick.slowed
    assert not tick.causes


def test_what_was_asked_is_known_to_the_reset(bench: Bench) -> None:
    gate = bench.gate
    assert not gate.asked(100.0)
    for request, asked in (((0.5, 0.0), True), ((0.0, 0.1), True), ((0.5, 0.1), True),
                           ((0.0, 0.0), False)):
        gate.request(100.0, *request, AXES)
        assert gate.asked(100.1) is asked
        assert not gate.asked(100.4)


def test_every_age_limit_is_exact() -> None:
    """Powers of two, so that the ages are exact: three periods old is not stale yet."""
    bench = Bench()
    bench.gate.periods = Periods(0.25, 0.25, 0.25, 0.25, 0.25, 0.75)
    bench.now = 128.0
    bench.feed()
    assert bench.gate.causes(128.75) == ()
    assert bench.gate.asked(128.75)
    assert not math.isnan(bench.gate.tick(128.75).requested[0])
    late = bench.gate.causes(128.7501)
    assert late == ("watchdog silent", "scan stale", "odom stale", "tracked_people stale")
    assert not bench.gate.asked(128.7501)
    assert math.isnan(bench.gate.tick(128.7501).requested[0])


def test_a_good_request_follows_a_bad_one(bench: Bench) -> None:
    bench.run(1.0)
    bench.gate.request(bench.now, math.nan, 0.0, AXES)
    assert bench.gate.tick(bench.now).causes == ("request not finite",)
    assert bench.run(0.1).command[0] > 0.0


def test_slowed_means_less_than_asked_though_nothing_stops_it() -> None:
    def tick(command: tuple[float, float], *causes: str) -> Tick:
        return Tick((0.5, 0.1), command, 1.0, 2.0, 2.0, 0.37, causes)

    assert tick((0.4, 0.1)).slowed
    assert tick((0.5, 0.0)).slowed
    assert not tick((0.5, 0.1)).slowed
    assert not tick((0.0, 0.0), "halted").slowed
    assert not Tick((math.nan, math.nan), (0.0, 0.0), 1.0, 2.0, 2.0, 0.37, ()).slowed


def test_the_limit_told_is_that_of_the_wall_too(bench: Bench) -> None:
    bench.wall(1.0)
    bench.request = (1.0, 0.0)
    tick = bench.run(2.0)
    assert tick.limit_mps == pytest.approx(independent_limit(0.7, 0.0, 0.37), rel=1e-5)
    assert tick.command[0] == pytest.approx(tick.limit_mps)
    assert tick.obstacle_m == pytest.approx(0.7)


def test_an_old_scan_makes_for_a_longer_reaction(bench: Bench) -> None:
    bench.people = [(2.4, 0.0, 0.25)]
    bench.run(2.0)
    for lost in ("scan", "people"):
        bench.silent = {lost}
        tick = bench.run(0.1)
        assert tick.reaction_s == pytest.approx(0.1 + 0.02 + 0.3, abs=1e-6)
        bench.silent = set()
        assert bench.run().reaction_s == pytest.approx(0.37)


def test_a_wall_ahead_stops_it_but_lets_it_turn_away(bench: Bench) -> None:
    bench.wall(0.5)
    tick = bench.run(0.5)
    assert tick.obstacle_m == pytest.approx(0.2)
    assert tick.command == (0.0, 0.0)
    bench.request = (0.5, 1.0)
    linear, angular = bench.run(0.5).command
    assert linear == 0.0
    assert angular > 0.5
    bench.request = (-0.5, 0.0)
    assert bench.run(0.5).command[0] == pytest.approx(-0.5)


@pytest.mark.parametrize("speed", [1.6, 0.5])
def test_what_nobody_recognised_may_move_from_anywhere(speed: float) -> None:
    bench = Bench(People(2.5, speed, 0.1, 0.1))
    bench.ranges[0] = 1.5
    bench.frozen_scan = True
    tick = bench.run(1.0)
    assert tick.obstacle_m == pytest.approx(1.2)
    assert tick.limit_mps == pytest.approx(independent_limit(1.2, speed, 0.37), rel=1e-5)
    bench.ranges[0] = math.nan
    assert bench.run(0.1).command == (0.0, 0.0)


def test_without_a_tracker_it_does_not_wait_for_people() -> None:
    bench = Bench(People(2.5, 1.6, 0.1, 0.1))
    bench.gate.expects_people = False
    bench.silent = {"people"}
    assert bench.run(1.0).command[0] == pytest.approx(0.5)


def test_the_rules_have_the_last_word(bench: Bench) -> None:
    bench.request = (-1.0, 0.0)
    assert bench.run(3.0).command[0] == pytest.approx(-1.0)
    bench.gate.rules = parse(
        b"format: brainos-rules/1\n"
        b"rules: [{id: a, level: LOW, actions: [say], when: 'true', reason: Talk.}]")
    tick = bench.run()
    assert tick.command == (0.0, 0.0)
    assert tick.causes == ("rules: No rule covers the action `cmd_vel`.",)


requests = st.tuples(st.floats(-3, 3), st.floats(-4, 4))
persons = st.lists(st.tuples(st.floats(-6, 6), st.floats(-6, 6), st.just(0.25)), max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(requests, persons, st.integers(0, 359), st.floats(0.2, 12)),
                min_size=1, max_size=12))
@example([((0.0, 0.0), [], 1, 0.25), ((2e-309, 1.0), [], 0, 1.0)])
def test_whatever_comes_the_command_stays_within_every_bound(steps: Any) -> None:
    bench = Bench()
    last = (0.0, 0.0)
    for request, people, ray, distance in steps:
        bench.request, bench.people = request, people
        bench.ranges[ray] = distance
        tick = bench.run()
        (linear, angular), (asked, turn) = tick.command, request
        assert abs(linear) <= min(abs(asked), 1.0) + 1e-9
        assert abs(angular) <= min(abs(turn), 1.5) + 1e-9
        assert linear * asked >= 0.0
        assert angular * turn >= 0.0
        assert abs(linear) <= abs(last[0]) + 1.0 * 0.04 + 1e-9
        rim = abs(linear) + 0.3 * abs(angular)
        nearest = min((max(0.0, math.hypot(x, y) - 0.55) for x, y, _ in people),
                      default=math.inf)
        if nearest < math.inf:
            assert rim <= independent_limit(nearest, 2.5, 0.37) + 1e-9
        assert rim <= tick.limit_mps + 1e-9
        last = tick.command


def test_a_robot_that_stands_is_not_frozen_wherever_it_stands(bench: Bench) -> None:
    bench.pose = (3.0, -2.0, 1.0)
    bench.run(0.1)
    bench.frozen_scan = True
    assert bench.run(0.5).causes == ()


def test_a_slow_base_passes_what_it_can_as_it_is(bench: Bench) -> None:
    bench.gate.base = dataclasses.replace(BASE, max_speed_mps=0.4, max_yaw_rate_radps=0.4)
    for request in ((0.1, 0.0), (0.0, 0.1)):
        bench.request = request
        assert bench.run(1.0).command == pytest.approx(request)


@pytest.mark.parametrize("person", [(5.0, 0.0, 0.0), (math.nan, 0.0, 0.3), (0.0, math.nan, 0.3),
                                    (math.inf, -math.inf, 0.3), (5.0, 0.0, -0.1),
                                    (math.inf, math.inf, 0.3), (5.0, 0.0, math.inf)])
def test_a_person_may_be_a_point_but_not_nowhere(
        bench: Bench, person: tuple[float, float, float]) -> None:
    bench.people = [person]
    fine = person == (5.0, 0.0, 0.0)
    assert bench.run(0.1).causes == (() if fine else ("tracked_people not finite",))


def test_an_invalid_scan_leaves_no_room_at_all(bench: Bench) -> None:
    bench.run(0.5)
    bench.silent = {"scan"}
    bench.gate.scan(bench.now, -7, array("f", [5.0]), 0, 0.1, 0.0, 9.0)
    tick = bench.run()
    assert (tick.command, tick.limit_mps, tick.obstacle_m) == ((0.0, 0.0), 0.0, 0.0)


def test_near_a_wall_it_keeps_its_curve_while_it_can_do_more_than_creep(bench: Bench) -> None:
    bench.wall(1.0)
    bench.request = (1.0, 0.1)
    tick = bench.run(2.0)
    assert 0.1 < tick.command[0] < 1.0
    assert tick.command[1] == pytest.approx(0.1 * tick.command[0])


def test_a_command_bent_by_its_rise_is_checked_against_the_wall_again(bench: Bench) -> None:
    """From straight on into a curve: the rise to it leads nearer to the post than the curve."""
    bench.request = (0.5, 0.0)
    bench.run(1.0)
    bench.ranges[174:179] = array("f", [0.55] * 5)
    bench.frozen_scan = True
    bench.request = (0.2, 0.5)
    tick = bench.run()
    points = Scanner(0.3).points(bench.ranges, -math.pi, math.tau / 360, 0.05, 12.0)
    way = path_separation(points, *tick.command, 0.3)
    limit = independent_limit(way, 0.0, 0.37)
    rim = abs(tick.command[0]) + 0.3 * abs(tick.command[1])
    assert rim == pytest.approx(limit, rel=1e-5)
    assert tick.limit_mps == pytest.approx(limit, rel=1e-5)


def test_a_post_beside_the_way_gives_the_limit_told_without_a_look_along_it(bench: Bench) -> None:
    bench.ranges[90] = 1.0
    bench.frozen_scan = True
    tick = bench.run(1.0)
    assert (tick.command, tick.obstacle_m) == ((0.5, 0.0), pytest.approx(0.7))
    assert tick.limit_mps == pytest.approx(independent_limit(0.7, 0.0, 0.37), rel=1e-5)


def test_a_scan_seen_before_the_first_odometry_froze_at_the_origin(bench: Bench) -> None:
    bench.frozen_scan, bench.silent = True, {"odom"}
    bench.run(0.1)
    bench.silent = set()
    assert bench.run().causes == ()


@pytest.mark.parametrize("pose", [(0.1, 0.0, 0.0), (0.0, 0.0, 0.1)])
def test_a_tenth_of_a_metre_or_radian_is_motion(
        bench: Bench, pose: tuple[float, float, float]) -> None:
    bench.frozen_scan = True
    bench.run(0.1)
    bench.pose = pose
    assert bench.run().causes == ("scan frozen",)
