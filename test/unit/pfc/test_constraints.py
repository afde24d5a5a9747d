import pytest
import yaml

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.pfc.constraints import (
    ConstraintSet,
    load_constraints,
    parse_constraint,
)
from brainos_ros.shipped import shipped


def hard(when, **more):
    return parse_constraint({"id": "c", "level": "hard", "when": when, **more})


def soft(cost, **more):
    return parse_constraint({"id": "c", "level": "soft", "cost": cost, **more})


def test_hard_excludes_only_where_true():
    constraint = hard("option.stairs", reason="stairs")
    assert constraint.judge({"stairs": False}, {}) is None
    verdict = constraint.judge({"stairs": True}, {})
    assert (verdict.excluded, verdict.text) == (True, "stairs")


def test_soft_cost_is_limited():
    constraint = soft("0.1 * option.length_m", max_cost=0.5)
    assert constraint.judge({"length_m": 3.0}, {}).cost == pytest.approx(0.3)
    assert constraint.judge({"length_m": 300.0}, {}).cost == 0.5
    assert constraint.judge({"length_m": -3.0}, {}) is None


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({}, "option.wet is not known"),
        ({"wet": "very"}, "instead of true or false"),
        ({"wet": 1.0}, "instead of true or false"),
    ],
)
def test_hard_fails_closed(attributes, said):
    verdict = hard("option.wet").judge(attributes, {})
    assert verdict.excluded
    assert said in verdict.text


def test_an_unknown_attribute_is_not_hidden_by_an_or():
    assert hard("option.a || context.b > 3.0").judge({}, {"b": 1.0}).excluded


@pytest.mark.parametrize("value", [None, "far", True])
def test_soft_fails_to_its_highest_cost(value):
    attributes = {} if value is None else {"length_m": value}
    assert soft("2.0 * option.length_m", max_cost=0.7).judge(attributes, {}).cost == 0.7


def test_soft_infinity_costs_the_most():
    assert soft("1.0 / option.x", max_cost=0.7).judge({"x": 0.0}, {}).cost == 0.7


def test_what_it_said_before_depends_on_the_values_and_their_types():
    constraint = hard("option.x == true")
    for _ in range(2):
        assert constraint.judge({"x": True}, {}).text == "c is hurt"
        assert constraint.judge({"x": 1}, {}) is None
        assert constraint.judge({"x": False}, {}) is None
    listed = hard("'human' in option.near")
    for _ in range(2):
        assert listed.judge({"near": ["human"]}, {}).excluded
        assert listed.judge({"near": []}, {}) is None


def test_default_is_taken_where_nothing_was_said():
    constraint = hard("option.stairs", defaults={"option.stairs": False})
    assert constraint.judge({}, {}) is None
    assert constraint.judge({"stairs": True}, {}).excluded


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("avoid", "needs an `id`"),
        ({"level": "hard", "when": "true"}, "needs an `id`"),
        ({"id": "c", "level": "firm", "when": "true"}, "must be hard or soft"),
        ({"id": "c", "level": "hard", "cost": "1.0"}, "unknown field `cost`"),
        ({"id": "c", "level": "hard"}, "needs `when`"),
        ({"id": "c", "level": "soft", "cost": "1.0 +"}, "Failed to parse"),
        ({"id": "c", "level": "soft", "cost": "1.0", "max_cost": 0}, "max_cost"),
        ({"id": "c", "level": "hard", "when": "true", "defaults": {"stairs": 1}}, "defaults"),
        ({"id": "c", "level": "hard", "when": "true", "defaults": [1]}, "defaults"),
    ],
)
def test_a_wrong_entry_is_named(entry, said):
    with pytest.raises(BrainError, match=said):
        parse_constraint(entry)


def test_select_names_the_unknown_and_the_known():
    constraints = ConstraintSet([hard("false")])
    with pytest.raises(BrainError, match="`d` is not defined; known are c") as caught:
        constraints.select(["c", "d"])
    assert caught.value.code is ErrorCode.PFC_UNKNOWN_CONSTRAINT
    assert [each.id for each in constraints.select(["c", "c"])] == ["c"]


def test_load_names_file_and_repeated_id(tmp_path):
    path = tmp_path / "c.yaml"
    with pytest.raises(BrainError, match=r"c\.yaml"):
        load_constraints(path)
    path.write_text("constraints: 3")
    with pytest.raises(BrainError, match="needs a list"):
        load_constraints(path)
    entry = {"id": "twice", "level": "hard", "when": "false"}
    path.write_text(yaml.safe_dump({"constraints": [entry, entry]}))
    with pytest.raises(BrainError, match="`twice` is there twice"):
        load_constraints(path)


def test_the_file_that_ships():
    constraints = load_constraints(shipped("constraints.yaml"))
    stairs, energy = constraints.select(["avoid_stairs", "energy_efficient"])
    assert stairs.judge({"stairs": True}, {}).excluded
    assert stairs.judge({}, {}) is None
    assert energy.judge({"length_m": 10, "stairs": True}, {}).cost == pytest.approx(0.1)
    (wet,) = constraints.select(["indoors_when_wet"])
    assert wet.judge({"outdoor": True}, {"weather": "rain"}).excluded
    assert wet.judge({"outdoor": True}, {"weather": "clear"}) is None
