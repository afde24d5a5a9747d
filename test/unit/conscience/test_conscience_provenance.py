"""What is recorded, when, and that a replay of it says the same; floods; lines; twins; people."""

import base64
import json
import math
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from waiting import wait_for

from brainos_ros.conscience import adopted, records, stream
from brainos_ros.conscience.approvals import Approvals
from brainos_ros.conscience.circuit import LONGEST_RECORD, Circuit, record_rules
from brainos_ros.conscience.credentials import (
    Operators,
    challenge_file,
    load_key,
    load_operators,
    operators_file,
    provision,
    reset_token,
    sign,
)
from brainos_ros.conscience.gate import Tick
from brainos_ros.conscience.lines import MOST_CHANGES_PER_S, Lines
from brainos_ros.conscience.names import Names
from brainos_ros.conscience.records import LAG_LIMIT_S, MOST_LINES, MOST_WAITING, Refusals, Writer
from brainos_ros.conscience.replay import replay
from brainos_ros.conscience.rules import Level, RuleSet
from brainos_ros.conscience.rules_file import load, parse
from brainos_ros.conscience.settings import DESCRIBED, base, people, periods
from brainos_ros.conscience.twins import LISTEN_S, Twins
from brainos_ros.errors import LEDGER_REFUSED, BrainError, ErrorCode
from brainos_ros.ledger import Stream

SHIPPED = load(adopted.rules_file(""))
TRIP = {"zone": "warehouse", "battery_percent": 80.0, "charging": False}


class Book:
    """A circuit whose ledger is a list, on a clock of its own."""

    def __init__(self, rules: RuleSet = SHIPPED, record: Any = None) -> None:
        self.now, self.hold = 1000.0, ""
        self.records: list[tuple[str, dict[str, Any]]] = []
        self.refuses: Exception | None = None
        write = record or self.record
        operators = Operators("robot-1", {})
        self.circuit = Circuit(rules, operators, Approvals(operators, "epoch", 60.0, write),
                               Names(), write, lambda: self.hold, "epoch", lambda: self.now)

    def record(self, kind: str, body: dict[str, Any]) -> None:
        if self.refuses:
            raise self.refuses
        self.records.append((kind, body))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [body for name, body in self.records if name == kind]


@pytest.fixture
def book() -> Book:
    return Book()


def test_a_verdict_is_recorded_whole_before_it_is_told(book: Book) -> None:
    result = book.circuit.evaluate("/go_to", TRIP, "pfc")
    (body,) = book.of("evaluation")
    assert body["evaluation_id"] == result.id
    assert json.loads(body["inputs"]) == TRIP
    assert (body["action"], body["requester"], body["level"]) == ("go_to", "pfc", "MEDIUM")
    assert (body["rules"], body["approved"], body["hold"]) == (["way.go"], True, "")
    assert body["rules_version"] == SHIPPED.version == result.rules_version


@pytest.mark.parametrize("error", [OSError(28, "disk full"), BrainError("frozen"), RuntimeError()])
@pytest.mark.parametrize("zone", ["warehouse", "public", "keep_out"])
def test_what_the_ledger_refuses_is_denied(book: Book, error: Exception, zone: str) -> None:
    book.refuses = error
    result = book.circuit.evaluate("go_to", {**TRIP, "zone": zone}, "pfc")
    assert (result.level, result.approved, result.approval) == (Level.CRITICAL, False, None)
    assert "ledger" in result.reason or "No approval" in result.reason


def test_while_held_everything_is_denied(book: Book) -> None:
    book.hold = "halted: button"
    result = book.circuit.evaluate("stop", {}, "pfc")
    assert (result.level, result.reason) == (
        Level.CRITICAL, "The robot may not act: halted: button.")
    assert book.of("evaluation")[0]["hold"] == "halted: button"


def test_a_guard_that_cannot_say_whether_it_holds_denies(book: Book) -> None:
    def broken() -> str:
        raise RuntimeError("bug")

    book.circuit._hold = broken
    assert book.circuit.evaluate("stop", {}, "pfc").level is Level.CRITICAL


@pytest.mark.parametrize("context", [
    {"a": "x" * 4000}, {f"k{n}": "x" * 4000 for n in range(9)}])
def test_inputs_too_long_for_the_ledger_are_denied(book: Book, context: dict[str, Any]) -> None:
    result = book.circuit.evaluate("aisle_1", context, "pfc")
    long = len(json.dumps(context)) > LONGEST_RECORD
    assert result.approved is not long
    assert len(json.dumps(book.of("evaluation")[0])) < LONGEST_RECORD + 2000


def test_a_requester_of_any_length_and_a_wrong_name_are_recorded_short(book: Book) -> None:
    assert not book.circuit.evaluate("stop", {}, "x" * 200).approved
    assert not book.circuit.evaluate("y" * 300, {}, "pfc").approved
    assert len(book.of("evaluation")[0]["requester"]) == 128
    assert len(book.of("evaluation")[1]["action"]) == 80


def test_a_flood_of_refusals_becomes_one_record_a_second(book: Book) -> None:
    for _ in range(1000):
        assert not book.circuit.evaluate("launch", {}, "pfc").approved
    assert len(book.of("evaluation")) == 1
    book.circuit.flush()
    assert book.of("refusals") == [
        {"counts": {"launch": 999}, "rules_version": SHIPPED.version}]
    book.circuit.flush()
    assert len(book.of("refusals")) == 1
    book.now += 1.0
    book.circuit.evaluate("launch", {}, "pfc")
    assert len(book.of("evaluation")) == 2


def test_a_flood_of_ever_new_refusals_is_bounded_too(book: Book) -> None:
    for number in range(5000):
        book.now += 0.001
        book.circuit.evaluate(f"launch_{number}", {}, "pfc")
    assert len(book.of("evaluation")) <= 100 + 5 * 20 + 1
    book.circuit.flush()
    (counts,) = [body["counts"] for body in book.of("refusals")]
    assert len(counts) <= 33
    assert sum(counts.values()) == 5000 - len(book.of("evaluation"))


def test_permissions_are_never_coalesced(book: Book) -> None:
    for _ in range(300):
        assert book.circuit.evaluate("go_to", TRIP, "pfc").approved
    assert len(book.of("evaluation")) == 300


def test_refusals_refill_with_time() -> None:
    refusals = Refusals(rate=2.0, burst=2.0)
    assert [refusals.admit(0.0, n, "a") for n in range(3)] == [True, True, False]
    assert [refusals.admit(0.5, n, "a") for n in (9, 10)] == [True, False]
    assert refusals.admit(10.0, 0, "a")
    assert refusals.take() == {"a": 2}
    assert refusals.take() == {}


def write_history(home: Path) -> Book:
    with Stream.open(home / "ledger", "conscience") as ledger:
        book = Book(record=ledger.event)
        record_rules(ledger.event, SHIPPED, "", [])
        for zone in ("warehouse", "public", "keep_out", 7):
            book.circuit.evaluate("go_to", {**TRIP, "zone": zone}, "pfc")
        book.circuit.evaluate("go_to", {**TRIP, "battery_percent": math.nan}, "pfc")
        book.circuit.evaluate("aisle_1", {"n": 1, "x": 1.0, "bytes": b"\x00"}, "pfc")
        book.circuit.evaluate("no name", {}, "pfc")
        assert not book.circuit.refuse("stop", "pfc", "a key is repeated").approved
        book.hold = "halted: button"
        book.circuit.evaluate("stop", {}, "pfc")
        book.hold = ""
        for _ in range(5):
            book.circuit.evaluate("launch", {}, "pfc")
        book.circuit.flush()
    return book


def test_a_replay_gives_the_same_verdicts(tmp_path: Path) -> None:
    write_history(tmp_path)
    report = replay(stream.events(tmp_path))
    assert (report.verdicts, report.unknown, report.coalesced) == (10, 0, 4)
    assert report.differences == ()


def test_a_shadow_says_what_other_rules_would_have_decided(tmp_path: Path) -> None:
    write_history(tmp_path)
    stricter = parse(SHIPPED.source.replace(b"['warehouse', 'corridor']", b"['corridor']"))
    report = replay(stream.events(tmp_path), stricter)
    (difference,) = report.differences
    assert (difference.action, difference.recorded, difference.replayed) == (
        "go_to", "MEDIUM", "CRITICAL")


def test_a_verdict_that_was_tampered_with_shows() -> None:
    book = Book()
    record_rules(book.record, SHIPPED, "", [])
    book.circuit.evaluate("go_to", {**TRIP, "zone": "keep_out"}, "pfc")
    book.of("evaluation")[0]["level"] = "LOW"
    numbered = [(n, kind, body) for n, (kind, body) in enumerate(book.records)]
    (difference,) = replay(numbered).differences
    assert (difference.sequence, difference.recorded, difference.replayed) == (
        1, "LOW", "CRITICAL")
    assert replay(numbered[1:]).unknown == 1


def test_a_stream_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BrainError, match="nothing was recorded"):
        list(stream.events(tmp_path))


class Slow:
    """A ledger that takes a record only when let, or refuses."""

    def __init__(self) -> None:
        self.let, self.took = threading.Event(), threading.Event()
        self.error: Exception | None = None
        self.records: list[dict[str, Any]] = []

    def __call__(self, kind: str, body: dict[str, Any]) -> None:
        self.let.wait(10.0)
        if self.error:
            self.took.set()
            raise self.error
        self.records.append(body)
        self.took.set()


def test_a_writer_that_lags_or_fails_says_so_until_it_has_caught_up() -> None:
    slow = Slow()
    writer = Writer(slow)
    now = time.monotonic()
    assert writer.problem(now) == ""
    writer.put("gate", {"n": 1})
    assert writer.problem(now) == ""
    assert writer.problem(time.monotonic() + LAG_LIMIT_S + 0.01) == "ledger lags"
    slow.error = OSError("disk full")
    slow.let.set()
    slow.took.wait(10.0)
    refused = f"{LEDGER_REFUSED}: disk full"  # what the watchdog looks for
    wait_for(lambda: writer.problem(time.monotonic()) == refused)
    slow.error = None
    while writer.problem(time.monotonic()):
        pass
    assert slow.records == [{"n": 1}]
    writer.put("gate", {"n": 2})
    writer.close()
    assert slow.records == [{"n": 1}, {"n": 2}]


def test_a_writer_keeps_no_more_than_it_may_and_says_what_was_lost() -> None:
    slow = Slow()
    slow.error = OSError("gone")
    slow.let.set()
    writer = Writer(slow)
    for number in range(MOST_LINES + 10):
        writer.put("gate", {"n": number})
    for number in range(MOST_WAITING):
        writer.put("halt", {"halt": number})
    assert len(writer._waiting) == MOST_WAITING
    slow.error = None
    wait_for(lambda: not writer._waiting)
    writer.put("gate", {"n": "later"})
    writer.close()
    assert slow.records == [
        *({"n": number} for number in range(MOST_LINES)),
        *({"halt": number} for number in range(MOST_WAITING - MOST_LINES)),
        {"records_lost": 10 + MOST_LINES}, {"n": "later"}]
    assert not writer._thread.is_alive()


def test_a_writer_that_is_closed_gives_back_what_the_ledger_refuses() -> None:
    slow = Slow()
    slow.error = OSError("disk full")
    slow.let.set()
    writer = Writer(slow)
    for number in range(3):
        writer.put("halt", {"n": number})
    assert writer.close() == [("halt", {"n": number}) for number in range(3)]
    assert not writer._thread.is_alive()


def test_a_writer_whose_ledger_hangs_writes_nothing_more_once_it_is_closed(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "CLOSE_S", 0.01)
    slow = Slow()
    writer = Writer(slow)
    for number in range(2):
        writer.put("halt", {"n": number})
    assert writer.close() == [("halt", {"n": 0}), ("halt", {"n": 1})]
    slow.let.set()
    writer._thread.join(10.0)
    assert not writer._thread.is_alive()
    assert slow.records == [{"n": 0}]


def tick(command: float = 0.0, causes: tuple[str, ...] = (), asked: float = 0.5) -> Tick:
    return Tick((asked, 0.0), (command, 0.0), 1.0, 2.0, math.inf, 0.37, causes)


def test_the_gate_writes_changes_and_one_line_a_second() -> None:
    lines: list[tuple[str, dict[str, Any]]] = []
    watch = Lines(lambda kind, body: lines.append((kind, body)))
    now = 100.0
    assert watch.see(now, tick(0.5))
    for _ in range(99):
        now += 1 / 64
        assert not watch.see(now, tick(0.3))
    assert watch.see(now, tick(0.0, ("scan stale",)))
    kinds = [kind for kind, _ in lines]
    assert kinds.count("stop") == 1
    assert len(lines) == 3
    assert lines[0][1]["obstacle_m"] is None
    summary = lines[1][1]
    assert (summary["ticks"], summary["fastest_mps"], summary["slowed"]) == (64, 0.5, 63)
    idle = Tick((math.nan, math.nan), (0.0, 0.0), math.inf, math.inf, math.inf, math.nan, ())
    before = len(lines)
    for _ in range(500):
        now += 0.02
        watch.see(now, idle)
    assert len(lines) == before + 2


def test_a_flapping_cause_does_not_fill_the_ledger() -> None:
    lines: list[dict[str, Any]] = []
    watch = Lines(lambda kind, body: lines.append(body))
    for number in range(200):
        assert watch.see(100.0, tick(0.0, (f"cause {number}",)))
    assert len(lines) == MOST_CHANGES_PER_S
    watch.see(101.0, tick(0.0, ("cause 199",)))
    assert lines[-1]["unwritten_changes"] == 180


def test_a_foreign_name_is_foreign_at_once_and_gone_when_it_goes() -> None:
    twins = Twins("/conscience_gate", "/cmd_vel")
    twins.publishers(0.0, ["/conscience_gate"])
    assert (twins.problem, twins.listening) == ("", False)
    twins.publishers(0.2, ["/conscience_gate", "/teleop"])
    assert "/teleop" in twins.problem
    twins.publishers(0.4, ["/conscience_gate"])
    assert (twins.problem, twins.listening) == ("", False)


def test_a_ghost_is_tolerated_and_a_twin_is_not() -> None:
    names = ["/conscience_gate", "/conscience_gate"]
    for copies, ends in ((1, ""), (2, "another gate publishes on /cmd_vel")):
        twins = Twins("/conscience_gate", "/cmd_vel")
        now = 0.0
        while now <= LISTEN_S + 0.5:
            twins.publishers(now, names)
            if now < LISTEN_S:
                assert twins.problem
            for _ in range(2):
                twins.sent()
                for _ in range(copies):
                    twins.heard()
            now += 0.2
        assert twins.problem == ends
        twins.publishers(now, names[:1])
        assert twins.problem == ""


def test_a_command_heard_late_is_no_twin() -> None:
    twins = Twins("/g", "/cmd_vel")
    twins.publishers(0.0, ["/g", "/g"])
    for _ in range(50):
        twins.sent()
    for _ in range(50):
        twins.heard()
        twins.sent()
    twins.publishers(2.0, ["/g", "/g"])
    assert twins.problem == ""


def test_provisioning_makes_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    home, keys = tmp_path / "home", tmp_path / "keys"
    path = provision(home, "anna", keys)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert (home / "conscience" / "armed").exists()
    private = path.read_bytes()
    assert not any(
        b"PRIVATE" in file.read_bytes() for file in home.rglob("*") if file.is_file())
    (home / "conscience" / "armed").unlink()
    assert provision(home, "anna", keys) == path
    assert path.read_bytes() == private
    assert not (home / "conscience" / "armed").exists()
    provision(home, "ben", keys, ["engineer"])
    assert not (home / "conscience" / "armed").exists()
    known = load_operators(home)
    assert set(known.people) == {"anna", "ben"}
    assert (known.people["anna"].may("reset"), known.people["ben"].may("reset")) == (True, False)
    assert (known.people["anna"].may("rules"), known.people["ben"].may("approve")) == (True, False)


def test_a_name_belongs_to_one_key_and_has_a_form(tmp_path: Path) -> None:
    provision(tmp_path / "home", "anna", tmp_path / "keys")
    with pytest.raises(BrainError) as refusal:
        provision(tmp_path / "home", "anna", tmp_path / "other")
    assert refusal.value.code == ErrorCode.ALREADY_EXISTS
    for name in ("", "Anna", "a/b", "../a", "a b", "x" * 65):
        with pytest.raises(BrainError, match="operator"):
            provision(tmp_path / "home", name, tmp_path / "keys")


def test_two_robots_of_one_name_are_two_robots(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        provision(tmp_path / folder / "sim", "anna", tmp_path / "keys")
    first, second = (load_operators(tmp_path / folder / "sim") for folder in ("a", "b"))
    assert first.robot != second.robot
    token = sign(load_key("anna", tmp_path / "keys"), "deny", first.robot, {"challenge": "x"})
    assert first.check("anna", token, "deny", {"challenge": "x"}, "approve").name == "anna"
    with pytest.raises(BrainError):
        second.check("anna", token, "deny", {"challenge": "x"}, "approve")


KEY = base64.b64encode(b"k" * 32).decode()


@pytest.mark.parametrize("body", [
    None, [], {"operators": {}}, {"robot": "", "operators": {}}, {"robot": "r", "operators": []},
    {"robot": "r", "operators": {"a": None}}, {"robot": 1, "operators": {}},
    {"robot": "r", "operators": {"A": {"roles": ["operator"], "public_key": KEY}}},
    {"robot": "r", "operators": {"a": {"roles": [], "public_key": KEY}}},
    {"robot": "r", "operators": {"a": {"roles": ["king"], "public_key": KEY}}},
    {"robot": "r", "operators": {"a": {"roles": ["operator"], "public_key": "AAAA"}}},
    {"robot": "r", "operators": {"a": {"roles": ["operator"], "public_key": "?"}}},
    {"robot": "r", "operators": {n: {"roles": ["operator"], "public_key": KEY} for n in "ab"}}])
def test_an_operators_file_that_is_wrong_is_refused(tmp_path: Path, body: Any) -> None:
    operators_file(tmp_path).parent.mkdir()
    operators_file(tmp_path).write_text(yaml.safe_dump(body))
    with pytest.raises(BrainError, match="operators"):
        load_operators(tmp_path)


def test_a_missing_key_or_challenge_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrainError, match="brainos conscience init"):
        load_operators(tmp_path)
    with pytest.raises(BrainError, match="there is no key"):
        load_key("anna", tmp_path)
    (tmp_path / "anna.pem").write_text("hello")
    with pytest.raises(BrainError, match="not a private key"):
        load_key("anna", tmp_path)
    provision(tmp_path / "home", "ben", tmp_path)
    with pytest.raises(BrainError, match="is the conscience active"):
        reset_token(tmp_path / "home", "ben", tmp_path)
    challenge_file(tmp_path / "home").write_text("{")
    with pytest.raises(BrainError, match="is the conscience active"):
        reset_token(tmp_path / "home", "ben", tmp_path)


def test_settings_are_those_of_the_robot_file() -> None:
    settings: dict[str, Any] = {row[0]: row[1] for row in DESCRIBED}
    assert base(settings).deceleration_mps2 == 0.5
    assert people(settings).unrecognised_speed_mps == 2.5
    assert periods(settings).watchdog_silence == 0.2
    settings |= {"tracked_people_topic": "", "unrecognised_speed_mps": 0.0}
    with pytest.raises(BrainError, match="nothing would see a person"):
        people(settings)
    settings["tracked_people_topic"] = "people"
    assert people(settings).unrecognised_speed_mps == 0.0


@pytest.mark.parametrize("action", ["cmd_vel", "/cmd_vel", "/cmd_vel/", "/r1/cmd_vel", "wheels",
                                    "/r1/wheels/", "/base/cmd", "base//cmd/"])
def test_the_gated_topic_has_one_name(action: str) -> None:
    names = Names("/r1", ("/r1/wheels", "/base/cmd"))
    assert names.normalise(action) == "cmd_vel"


@pytest.mark.parametrize(("action", "name"), [
    ("/r1/go", "go"), ("r1/go", "r1/go"), ("/r10/go", "r10/go"), ("/r1", "r1"), ("go:a", "go:a"),
    ("a/b//c/", "a/b/c"), ("cmd_vel_raw", "cmd_vel_raw")])
def test_other_names_stay_what_they_are(action: str, name: str) -> None:
    assert Names("/r1", ("/r1/wheels",)).normalise(action) == name
