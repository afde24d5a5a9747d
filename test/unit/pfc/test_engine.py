import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.pfc.constraints import ConstraintSet, parse_constraint
from brainos_ros.pfc.engine import Decision, Engine, Option, Permission
from brainos_ros.pfc.learning import Learning

CONSTRAINTS = ConstraintSet(
    [
        parse_constraint(
            {
                "id": "avoid_stairs",
                "level": "hard",
                "reason": "stairs",
                "when": "option.stairs",
                "defaults": {"option.stairs": False},
            }
        ),
        parse_constraint(
            {"id": "short", "level": "soft", "reason": "long", "cost": "0.1 * option.length_m"}
        ),
        parse_constraint({"id": "few_people", "level": "hard", "when": "context.people > 3.0"}),
    ]
)


def allow(action, inputs):
    return Permission(True, "allowed", "evaluation-1")


def engine():
    return Engine(CONSTRAINTS, Learning())


def options(*names, **attributes):
    return [Option(name, attributes) for name in names]


def test_a_decision_has_every_option_once_and_a_score_made_of_its_contributions():
    decision = engine().decide("go", options("a", "b", "c", length_m=2.0), {}, ["short"], allow)
    actions = [decision.recommended_action, *(each.action for each in decision.alternatives)]
    assert sorted(actions) == ["a", "b", "c"]
    assert decision.evaluation_id == "evaluation-1"
    for each in decision.alternatives:
        assert sum(part.value for part in each.contributions) == pytest.approx(each.score)
        assert "less than" in each.reason
    scores = [each.score for each in decision.alternatives]
    own = sum(part.value for part in decision.contributions)
    assert [own, *scores] == sorted([own, *scores], reverse=True)


def test_the_reasoning_names_what_counted():
    brain = engine()
    for _ in range(8):
        brain.learning.learn("go", "a", {"x": 1}, "success", 1.0)
        brain.learning.learn("go", "b", {"x": 1}, "failure", -1.0)
    ways = [
        Option("a", {"length_m": 1.0}),
        Option("b", {"length_m": 1.0}),
        Option("c", {"stairs": True, "length_m": 0.0}),
    ]
    decision = brain.decide("go", ways, {"x": 1}, ["avoid_stairs", "short"], allow)
    assert decision.recommended_action == "a"
    assert decision.confidence > 0.8
    for words in (
        "similar outcomes were successes",
        "constraint:short -0.10: long",
        "c (avoid_stairs excludes it: stairs)",
        "ahead of b",
    ):
        assert words in decision.reasoning


def test_the_same_id_and_beliefs_give_the_same_ranking():
    first = engine().decide("go", options(*"abcdef"), {}, [], allow)
    again = engine().decide("go", options(*"abcdef"), {}, [], allow, decision_id=first.decision_id)
    other = engine().decide("go", options(*"abcdef"), {}, [], allow)
    assert again.alternatives == first.alternatives
    assert other.alternatives != first.alternatives


def test_the_next_is_tried_when_the_conscience_refuses():
    asked = []

    def ask(action, inputs):
        asked.append((action, inputs))
        return Permission(len(asked) == 3, "too fast", f"e{len(asked)}")

    decision = engine().decide("go", options("a", "b", "c", "d", fast=True), {"x": 1}, [], ask)
    assert len(asked) == 3
    assert decision.recommended_action == asked[2][0]
    assert decision.evaluation_id == "e3"
    assert asked[0][1] == {"x": 1, "fast": True}
    refused = [each for each in decision.alternatives if each.excluded]
    assert {each.action for each in refused} == {asked[0][0], asked[1][0]}
    assert all(each.reason == "the conscience refuses it: too fast" for each in refused)


def test_a_silent_conscience_refuses_everything_and_is_asked_once():
    asked = []

    def ask(action, inputs):
        asked.append(action)
        raise BrainError("no answer within 0.5 s", ErrorCode.TIMEOUT)

    decision = engine().decide("go", options("a", "b", "c"), {}, [], ask)
    assert len(asked) == 1
    assert (decision.recommended_action, decision.confidence) == ("", 0.0)
    assert all(each.excluded and "no answer" in each.reason for each in decision.alternatives)
    assert decision.reasoning.startswith("No option is left: ")


def test_the_conscience_is_not_asked_about_what_is_excluded():
    def ask(action, inputs):
        raise AssertionError

    decision = engine().decide("go", options("a", stairs=True), {}, ["avoid_stairs"], ask)
    assert decision.recommended_action == ""


def test_what_is_observed_is_for_the_constraints_alone():
    asked = []

    def ask(action, inputs):
        asked.append(inputs)
        return allow(action, inputs)

    brain = engine()
    crowded = brain.decide("go", options("a"), {}, ["few_people"], ask, {"people": 9})
    assert crowded.recommended_action == ""
    free = brain.decide("go", options("a"), {}, ["few_people"], ask, {"people": 1})
    assert (free.recommended_action, free.context) == ("a", {"people": 1})
    assert asked == [{}]


@pytest.mark.parametrize(
    ("objective", "ways", "context", "constraints", "said"),
    [
        ("", options("a"), {}, [], "objective: is empty"),
        (" ", options("a"), {}, [], "objective: is empty"),
        ("go", [], {}, [], "options: is empty"),
        ("go", options("a", ""), {}, [], r"options\[1\].name: is empty"),
        ("go", options("a", "b", "a"), {}, [], r"options\[2\].name: `a` is there twice"),
        ("go", options("a"), {}, ["avoid_lifts"], "`avoid_lifts` is not defined"),
        ("go", options("a"), {"x": math.nan}, [], "context: `x` is nan"),
        ("go", options("a", y=[1.0, math.inf]), {}, [], "`y` is inf"),
        ("go", options("a", y=b"0"), {}, [], "`y` is bytes"),
        ("go", options(*map(str, range(1001))), {}, [], "at most 1000"),
    ],
)
def test_a_malformed_request_is_named(objective, ways, context, constraints, said):
    with pytest.raises(BrainError, match=said):
        engine().decide(objective, ways, context, constraints, allow)


@given(
    st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=8, unique=True),
    st.lists(st.booleans(), min_size=8, max_size=8),
    st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_only_what_both_allow_is_ever_taken(names, stairs, permitted):
    ways = [Option(name, {"stairs": up}) for name, up in zip(names, stairs, strict=False)]
    allowed = dict(zip(names, permitted, strict=False))
    decision = engine().decide(
        "go", ways, {}, ["avoid_stairs"], lambda action, _: Permission(allowed[action], "r", "e")
    )
    possible = {way.name for way in ways if not way.attributes["stairs"] and allowed[way.name]}
    assert (
        (decision.recommended_action in possible)
        if possible
        else (decision.recommended_action == "")
    )


def test_a_decision_survives_json():
    decision = engine().decide("go", options("a", "b", length_m=1.0), {"x": "y"}, ["short"], allow)
    assert Decision.from_dict(json.loads(json.dumps(decision.to_dict()))) == decision
