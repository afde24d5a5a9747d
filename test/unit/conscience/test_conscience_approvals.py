"""Approvals: one life, one signature, one use; attacks on each step; a model of all of it."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from brainos_ros.conscience.approvals import (
    MOST_PENDING,
    MOST_REMEMBERED,
    Approval,
    Approvals,
    Status,
)
from brainos_ros.conscience.circuit import Circuit
from brainos_ros.conscience.credentials import Operator, Operators, sign
from brainos_ros.conscience.names import Names
from brainos_ros.conscience.rules import Level
from brainos_ros.conscience.rules_file import parse
from brainos_ros.errors import BrainError, ErrorCode

KEYS = {name: Ed25519PrivateKey.generate() for name in ("anna", "ben", "carl", "eve")}
ROLES = {"anna": ("operator",), "ben": ("operator", "engineer"), "carl": ("engineer",)}
OPERATORS = Operators("robot-1", {
    name: Operator(name, ROLES[name],
                   KEYS[name].public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    for name in ROLES})
LIFETIME = 60.0
VERSION = "v1"


class Clock:
    def __init__(self) -> None:
        self.steady, self.wall = 1000.0, 1.7e9


class House:
    """Approvals on clocks of their own and a ledger that can be full."""

    def __init__(self, operators: Operators = OPERATORS, epoch: str = "epoch-1") -> None:
        self.clock = Clock()
        self.full = False
        self.records: list[tuple[str, dict[str, Any]]] = []
        self.approvals = Approvals(operators, epoch, LIFETIME, self.record,
                                   lambda: self.clock.steady, lambda: self.clock.wall)

    def record(self, kind: str, body: dict[str, Any]) -> None:
        if self.full:
            raise BrainError("disk full", ErrorCode.LEDGER_REFUSED)
        self.records.append((kind, body))

    def ask(self, action: str = "go_to", requester: str = "pfc", **context: Any) -> Approval:
        return self.approvals.ask(action, context, requester, "Why.", VERSION, "evaluation")

    def token(self, approval: Approval, who: str = "anna", purpose: str = "approve",
              robot: str = "robot-1") -> str:
        return sign(KEYS[who], purpose, robot, {"challenge": approval.challenge})

    def approve(self, approval: Approval, who: str = "anna", token: str | None = None) -> Approval:
        return self.approvals.approve(
            approval.id, who, self.token(approval, who) if token is None else token)

    def redeem(self, approval: Approval, action: str = "go_to", requester: str = "pfc",
               version: str = VERSION, **context: Any) -> None:
        self.approvals.match(approval.id, action, context, requester, version)
        self.approvals.use(approval.id, "evaluation-2")


def test_it_says_when_it_was_made_and_when_it_expires() -> None:
    house = House()
    approval = house.ask()
    assert (approval.created_at, approval.expires_at) == (1.7e9, 1.7e9 + LIFETIME)


def code_of(call: Any, *args: Any, **kwargs: Any) -> ErrorCode:
    with pytest.raises(BrainError) as refusal:
        call(*args, **kwargs)
    return refusal.value.code


@pytest.fixture
def house() -> House:
    return House()


def test_the_whole_life_is_in_the_ledger(house: House) -> None:
    approval = house.ask(zone="public")
    assert house.approvals.pending() == [approval]
    house.approve(approval)
    assert house.approvals.pending() == []
    house.redeem(approval, zone="public")
    assert [kind for kind, _ in house.records] == [
        "approval.requested", "approval.granted", "approval.redeemed"]
    assert house.records[1][1]["operator"] == "anna"
    assert {body["approval_id"] for _, body in house.records} == {approval.id}


def test_asking_again_is_the_same_question(house: House) -> None:
    first = house.ask(zone="public")
    assert house.ask(zone="public") is first
    others = [house.ask(zone="roof"), house.ask("dig", zone="public"),
              house.ask(requester="gui", zone="public")]
    assert len({each.challenge for each in [first, *others]}) == 4
    house.approve(first)
    assert house.ask(zone="public") is first, "whoever asks again finds what may be used"
    house.approvals.use(first.id, "evaluation")
    assert house.ask(zone="public") is not first


def test_too_many_questions_are_refused_and_forgotten_ones_free_the_way(house: House) -> None:
    for number in range(MOST_PENDING):
        house.ask(n=number)
    assert code_of(house.ask, n=-1) == ErrorCode.UNAVAILABLE
    house.clock.steady += LIFETIME
    assert house.ask(n=-1).status is Status.PENDING


def test_what_is_over_is_forgotten_but_never_what_lives(house: House) -> None:
    kept = house.ask(n="kept")
    house.approve(kept)
    first = house.ask(n=0)
    for number in range(MOST_REMEMBERED + 10):
        each = house.ask(n=number)
        house.approvals.deny(each.id, "anna", house.token(each, purpose="deny"), "no")
    assert code_of(house.approve, first) == ErrorCode.NOT_FOUND
    house.redeem(kept, n="kept")


def test_a_thousand_that_are_over_are_remembered(house: House) -> None:
    denied = []
    for number in range(MOST_REMEMBERED):
        each = house.ask(n=number)
        house.approvals.deny(each.id, "anna", house.token(each, purpose="deny"), "no")
        denied.append(each)
    assert code_of(house.approve, denied[0]) == ErrorCode.CONSCIENCE_DENIED
    house.ask(n="one more")
    assert code_of(house.approve, denied[0]) == ErrorCode.NOT_FOUND
    assert code_of(house.approve, denied[1]) == ErrorCode.CONSCIENCE_DENIED


def test_a_ledger_that_is_full_changes_nothing_but_a_use(house: House) -> None:
    approval = house.ask(zone="public")
    house.full = True
    assert code_of(house.ask, zone="roof") == ErrorCode.LEDGER_REFUSED
    assert len(house.approvals.pending()) == 1
    assert code_of(house.approve, approval) == ErrorCode.LEDGER_REFUSED
    assert approval.status is Status.PENDING
    house.full = False
    house.approve(approval)
    house.full = True
    assert code_of(house.redeem, approval, zone="public") == ErrorCode.LEDGER_REFUSED
    house.full = False
    assert code_of(house.redeem, approval, zone="public") == ErrorCode.CONSCIENCE_APPROVAL_USED


@pytest.mark.parametrize(("late", "expired"), [(LIFETIME - 0.001, False), (LIFETIME, True)])
def test_the_deadline_is_exact_at_each_step(house: House, late: float, expired: bool) -> None:
    waiting, approved = house.ask(n=1), house.ask(n=2)
    house.approve(approved)
    house.clock.steady += late
    if expired:
        assert code_of(house.approve, waiting) == ErrorCode.CONSCIENCE_APPROVAL_EXPIRED
        assert code_of(house.redeem, approved, n=2) == ErrorCode.CONSCIENCE_APPROVAL_EXPIRED
        assert [kind for kind, _ in house.records].count("approval.expired") == 2
    else:
        house.approve(waiting)
        house.redeem(approved, n=2)


def test_expiry_between_match_and_use_wins(house: House) -> None:
    approval = house.ask(n=1)
    house.approve(approval)
    house.approvals.match(approval.id, "go_to", {"n": 1}, "pfc", VERSION)
    house.clock.steady += LIFETIME
    assert code_of(house.approvals.use, approval.id, "e") == ErrorCode.CONSCIENCE_APPROVAL_EXPIRED


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_stepped_wall_clock_revives_and_kills_nothing(house: House, step: float) -> None:
    alive, dead = house.ask(n=1), house.ask(n=2)
    house.clock.steady += LIFETIME / 2
    house.approve(alive)
    house.clock.wall += step
    house.redeem(alive, n=1)
    house.clock.steady += LIFETIME / 2
    house.clock.wall -= 2 * step
    assert code_of(house.approve, dead) == ErrorCode.CONSCIENCE_APPROVAL_EXPIRED


def test_expiring_everything_spares_nothing_that_lives(house: House) -> None:
    waiting, approved, used = house.ask(n=1), house.ask(n=2), house.ask(n=3)
    house.approve(approved)
    house.approve(used)
    house.redeem(used, n=3)
    assert house.approvals.expire(everything=True) == 2
    assert (waiting.status, approved.status, used.status) == (
        Status.EXPIRED, Status.EXPIRED, Status.USED)
    assert house.approvals.expire(everything=True) == 0


def test_it_expires_though_the_ledger_is_full(house: House) -> None:
    approval = house.ask(n=1)
    house.full = True
    assert house.approvals.expire(everything=True) == 1
    assert approval.status is Status.EXPIRED


def test_another_activation_knows_nothing_of_it(house: House) -> None:
    approval = house.ask(zone="public")
    token = house.token(approval)
    restarted = House(epoch="epoch-2")
    assert code_of(restarted.approvals.approve, approval.id, "anna", token) == ErrorCode.NOT_FOUND
    again = restarted.ask(zone="public")
    assert code_of(restarted.approve, again, token=token) == ErrorCode.UNAUTHORISED


@pytest.mark.parametrize("forge", [
    lambda h, a: ("anna", ""),
    lambda h, a: ("anna", "A" * 88),
    lambda h, a: ("anna", h.token(a) + "A"),
    lambda h, a: ("anna", "€"),
    lambda h, a: ("anna", h.token(a, "ben")),
    lambda h, a: ("anna", h.token(a, "eve")),
    lambda h, a: ("anna", h.token(a, purpose="deny")),
    lambda h, a: ("anna", h.token(a, purpose="reset")),
    lambda h, a: ("anna", h.token(a, robot="robot-2")),
    lambda h, a: ("anna", h.token(h.ask(n=99))),
    lambda h, a: ("eve", h.token(a, "eve")),
    lambda h, a: ("carl", h.token(a, "carl")),
    lambda h, a: ("", h.token(a)),
    lambda h, a: ("Anna", h.token(a)),
], ids=range(14))
def test_a_forged_approval_is_refused(house: House, forge: Any) -> None:
    approval = house.ask(n=1)
    who, token = forge(house, approval)
    assert code_of(house.approvals.approve, approval.id, who, token) == ErrorCode.UNAUTHORISED
    assert approval.status is Status.PENDING
    assert code_of(house.redeem, approval, n=1) == ErrorCode.UNAUTHORISED


@pytest.mark.parametrize("requester", ["anna", "Anna", " anna "])
def test_nobody_approves_or_denies_what_he_asked_for(house: House, requester: str) -> None:
    approval = house.ask(requester=requester, n=1)
    assert code_of(house.approve, approval) == ErrorCode.UNAUTHORISED
    deny = house.token(approval, purpose="deny")
    assert code_of(house.approvals.deny, approval.id, "anna", deny, "") == ErrorCode.UNAUTHORISED
    house.approve(approval, "ben")


@pytest.mark.parametrize("change", [
    {"action": "dig"}, {"requester": "gui"}, {"version": "v2"}, {"n": 2}, {"n": 1.0}, {"n": True},
    {"n": "1"}, {"n": [1]}, {"extra": 0}])
def test_another_action_is_not_what_was_approved(house: House, change: dict[str, Any]) -> None:
    approval = house.ask(n=1)
    house.approve(approval)
    assert code_of(house.redeem, approval, **{"n": 1, **change}) == ErrorCode.UNAUTHORISED
    house.redeem(approval, n=1)
    assert code_of(house.redeem, approval, n=1) == ErrorCode.CONSCIENCE_APPROVAL_USED


def test_the_order_of_arguments_does_not_matter(house: House) -> None:
    approval = house.ask(a=1, b=2)
    house.approve(approval)
    house.redeem(approval, b=2, a=1)


def test_a_denial_is_final_and_says_why(house: House) -> None:
    approval = house.ask(n=1)
    approve = house.token(approval)
    deny = house.token(approval, purpose="deny")
    assert code_of(house.approvals.deny, approval.id, "anna", approve, "") == ErrorCode.UNAUTHORISED
    assert house.approvals.deny(approval.id, "anna", deny, "too late").status is Status.DENIED
    assert house.records[-1][0] == "approval.denied"
    assert house.records[-1][1]["reason"] == "too late"
    assert code_of(house.approve, approval) == ErrorCode.CONSCIENCE_DENIED
    assert code_of(house.redeem, approval, n=1) == ErrorCode.CONSCIENCE_DENIED


def test_approving_twice_is_refused(house: House) -> None:
    approval = house.ask(n=1)
    house.approve(approval)
    assert code_of(house.approve, approval) == ErrorCode.UNAUTHORISED
    house.redeem(approval, n=1)
    assert code_of(house.approve, approval) == ErrorCode.CONSCIENCE_APPROVAL_USED


RULES = b"""
format: brainos-rules/1
inputs: {zone: {type: string}, deep: {type: bool}}
rules:
  - {id: go, level: HIGH, actions: [go_to], inputs: [zone], when: "zone == 'public'", reason: Ask.}
  - {id: near, level: MEDIUM, actions: [go_to], inputs: [zone], when: "zone == 'here'", reason: Ok.}
  - {id: dig, level: HIGH, actions: [dig], inputs: [deep], when: "!deep", reason: Ask.}
"""


class Whole:
    """Circuit and approvals together, with a hold that can be set."""

    def __init__(self) -> None:
        self.house = House()
        self.hold = ""
        self.circuit = Circuit(parse(RULES), OPERATORS, self.house.approvals, Names("/r1"),
                               self.house.record, lambda: self.hold, "epoch-1")

    def approved(self, **context: Any) -> str:
        result = self.circuit.evaluate("go_to", context, "pfc")
        assert result.approval is not None
        self.house.approve(result.approval)
        return result.approval.id


def test_a_redemption_is_judged_again() -> None:
    whole = Whole()
    approval = whole.approved(zone="public")
    whole.hold = "halted: button"
    held = whole.circuit.redeem(approval, "go_to", {"zone": "public"}, "pfc")
    assert (held.approved, held.level) == (False, Level.CRITICAL)
    whole.hold = ""
    for spelling in ("/r1/go_to/", "go_to"):
        if spelling == "/r1/go_to/":
            done = whole.circuit.redeem(approval, spelling, {"zone": "public"}, "pfc")
            assert done.approved
            assert "Approved by anna" in done.reason
        else:
            assert code_of(whole.circuit.redeem, approval, spelling, {"zone": "public"},
                           "pfc") == ErrorCode.CONSCIENCE_APPROVAL_USED
    redeemed = [body for kind, body in whole.house.records if kind == "evaluation"][-1]
    assert (redeemed["redeems"], redeemed["approved"]) == (approval, True)


def test_a_use_the_ledger_does_not_take_is_refused_and_spent() -> None:
    whole = Whole()
    approval = whole.approved(zone="public")
    whole.house.full = True
    assert code_of(whole.circuit.redeem, approval, "go_to", {"zone": "public"},
                   "pfc") == ErrorCode.LEDGER_REFUSED
    whole.house.full = False
    assert code_of(whole.circuit.redeem, approval, "go_to", {"zone": "public"},
                   "pfc") == ErrorCode.CONSCIENCE_APPROVAL_USED


CHALLENGE = {"epoch": "epoch-1", "nonce": "1"}


def reload_tokens(circuit: Circuit, source: bytes, *names: str) -> list[str]:
    fields = {"rules_version": parse(source).version, "replaces": circuit.rules.version,
              **CHALLENGE}
    return [sign(KEYS[name], "rules", "robot-1", fields) for name in names]


def test_a_change_of_rules_needs_two_people_and_expires_what_waits() -> None:
    whole, kept = Whole(), []
    changed = RULES + b"# changed\n"
    approval = whole.approved(zone="public")
    good = reload_tokens(whole.circuit, changed, "ben", "carl")

    def reload(names: list[str], tokens: list[str], source: bytes = changed, nonce: str = "1"
               ) -> Any:
        return whole.circuit.reload(
            source, names, tokens, {**CHALLENGE, "nonce": nonce}, kept.append)

    for names, tokens in (
            ([], []), (["ben"], good[:1]), (["ben", "ben"], [good[0], good[0]]),
            (["ben", "carl"], good[::-1]), (["anna", "carl"], good), (["ben", "carl"], good[:1]),
            (["ben", "carl", "carl"], [*good, good[1]]), (["ben", "eve"], good)):
        assert code_of(reload, names, tokens) == ErrorCode.UNAUTHORISED
    assert code_of(reload, ["ben", "carl"], good, RULES + b"# other\n") == ErrorCode.UNAUTHORISED
    assert code_of(reload, ["ben", "carl"], good, changed, "2") == ErrorCode.UNAUTHORISED
    assert code_of(reload, ["ben", "carl"], good, b"{") == ErrorCode.CONSCIENCE_RULES_INVALID
    whole.house.full = True
    assert code_of(reload, ["ben", "carl"], good) == ErrorCode.LEDGER_REFUSED
    whole.house.full = False
    assert whole.circuit.rules.version == parse(RULES).version
    assert not kept
    reload(["ben", "carl"], good)
    assert whole.circuit.rules.version == parse(changed).version == kept[0].version
    loaded = [body for kind, body in whole.house.records if kind == "rules.loaded"]
    assert (loaded[-1]["operators"], loaded[-1]["source"]) == (["ben", "carl"], changed.decode())
    assert code_of(whole.circuit.redeem, approval, "go_to", {"zone": "public"},
                   "pfc") == ErrorCode.CONSCIENCE_APPROVAL_EXPIRED
    assert code_of(reload, ["ben", "carl"], good) == ErrorCode.UNAUTHORISED


class LifeOfApprovals(RuleBasedStateMachine):
    """Against a model: a dictionary of what each approval must be."""

    asked = Bundle("asked")

    def __init__(self) -> None:
        super().__init__()
        self.whole = Whole()
        self.model: dict[str, list[Any]] = {}  # id -> [status, context, deadline]
        self.used: list[str] = []

    @property
    def now(self) -> float:
        return self.whole.house.clock.steady

    def status(self, key: str) -> str:
        entry = self.model[key]
        if entry[0] in ("pending", "approved") and self.now >= entry[2]:
            entry[0] = "expired"
        return str(entry[0])

    @rule(target=asked, zone=st.sampled_from(["public", "here", "nowhere"]))
    def ask(self, zone: str) -> Any:
        result = self.whole.circuit.evaluate("go_to", {"zone": zone}, "pfc")
        if self.whole.hold:
            assert (result.level, result.approval) == (Level.CRITICAL, None)
            return None
        if zone != "public":
            assert result.approved is (zone == "here")
            assert result.approval is None
            return None
        assert not result.approved
        approval = result.approval
        assert approval is not None
        if approval.id in self.model:
            assert self.status(approval.id) in ("pending", "approved")
        else:
            self.model[approval.id] = ["pending", {"zone": zone}, self.now + LIFETIME]
        return approval

    @rule(approval=asked, who=st.sampled_from(sorted(KEYS)), signer=st.sampled_from(sorted(KEYS)),
          purpose=st.sampled_from(["approve", "deny", "reset"]),
          door=st.sampled_from(["approve", "deny"]))
    def answer(self, approval: Any, who: str, signer: str, purpose: str, door: str) -> None:
        if approval is None:
            return
        allowed = (self.status(approval.id) == "pending" and who == signer and purpose == door
                   and who in ("anna", "ben"))
        token = self.whole.house.token(approval, signer, purpose)
        try:
            if door == "approve":
                self.whole.house.approvals.approve(approval.id, who, token)
            else:
                self.whole.house.approvals.deny(approval.id, who, token, "")
        except BrainError:
            assert not allowed
        else:
            assert allowed
            self.model[approval.id][0] = "approved" if door == "approve" else "denied"

    @rule(approval=asked, zone=st.sampled_from(["public", "here"]),
          requester=st.sampled_from(["pfc", "anna"]))
    def redeem(self, approval: Any, zone: str, requester: str) -> None:
        if approval is None:
            return
        fits = zone == "public" and requester == "pfc"
        allowed = fits and self.status(approval.id) == "approved" and not self.whole.hold
        try:
            result = self.whole.circuit.redeem(approval.id, "go_to", {"zone": zone}, requester)
        except BrainError:
            assert not allowed
        else:
            assert result.approved is allowed
            if result.approved:
                assert approval.id not in self.used
                self.used.append(approval.id)
                self.model[approval.id][0] = "used"

    @rule(seconds=st.sampled_from([1.0, LIFETIME / 2, LIFETIME]), step=st.floats(-4e3, 4e3))
    def wait(self, seconds: float, step: float) -> None:
        self.whole.house.clock.steady += seconds
        self.whole.house.clock.wall += step

    @rule(reason=st.sampled_from(["", "halted: a test"]))
    def hold(self, reason: str) -> None:
        self.whole.hold = reason

    @precondition(lambda self: not self.whole.hold)
    @rule()
    def restart(self) -> None:
        self.whole.house.approvals.expire(everything=True)
        for entry in self.model.values():
            if entry[0] in ("pending", "approved"):
                entry[0] = "expired"

    @invariant()
    def pending_is_what_the_model_says(self) -> None:
        expected = {key for key in self.model if self.status(key) == "pending"}
        assert {each.id for each in self.whole.house.approvals.pending()} == expected


LifeOfApprovals.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None)
TestLifeOfApprovals = LifeOfApprovals.TestCase

