import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainos_ros.pfc import learning as learning_module
from brainos_ros.pfc.learning import MOST_CONTEXTS, Learning, similarity

VALUES = st.one_of(st.booleans(), st.integers(-100, 100), st.floats(-1e6, 1e6), st.text(max_size=3))
CONTEXTS = st.dictionaries(st.sampled_from("abcde"), VALUES, max_size=5)


@given(CONTEXTS, CONTEXTS)
def test_similarity_is_symmetric_and_bounded(a, b):
    assert 0.0 <= similarity(a, b) <= 1.0
    assert similarity(a, b) == pytest.approx(similarity(b, a))
    assert similarity(a, a) == 1.0


def test_similarity_counts_numbers_by_degree():
    assert similarity({"t": 20.0}, {"t": 21.0}) > similarity({"t": 20.0}, {"t": 40.0}) > 0.0
    assert similarity({"t": 1.0}, {"t": -1.0}) == 0.0
    assert similarity({"t": 1.0}, {}) == 0.0


@pytest.mark.parametrize("one", [math.inf, math.nan, 1e308])
@pytest.mark.parametrize("other", [-math.inf, -1e308, 1.2e308, 5e-324, 0, 2**63 - 1])
def test_any_two_numbers_have_a_similarity(one, other):
    assert 0.0 <= similarity({"t": one}, {"t": other}) <= 1.0
    learning = Learning()
    for t in (one, other):
        learning.learn("go", "a", {"t": t}, "success", 1.0)
    assert 0.5 <= learning.believe("go", ["a"], {"t": other})["a"].mean < 1.0


def test_nothing_known_is_indifferent():
    belief = Learning().believe("go", ["a"], {})["a"]
    assert (belief.mean, belief.confidence, belief.seen) == (0.5, 0.5, 0.0)


@given(st.lists(st.sampled_from(["success", "partial", "failure"]), max_size=50))
def test_beliefs_are_probabilities(outcomes):
    learning = Learning()
    for outcome in outcomes:
        learning.learn("go", "a", {}, outcome, 1.0 if outcome == "success" else -1.0)
    belief = learning.believe("go", ["a", "b"], {})["a"]
    assert 0.0 < belief.mean < 1.0
    assert 0.0 < belief.confidence < 1.0
    assert belief.seen <= len(outcomes)


def test_success_and_payoff_are_learnt_apart():
    learning = Learning()
    for _ in range(20):
        learning.learn("go", "slow", {}, "success", -0.5)
        learning.learn("go", "fast", {}, "success", 0.9)
    beliefs = learning.believe("go", ["slow", "fast"], {})
    assert beliefs["fast"].mean > beliefs["slow"].mean + 0.4
    assert beliefs["slow"].confidence > 0.9


def test_the_like_context_counts_most():
    learning = Learning()
    for _ in range(20):
        learning.learn("go", "a", {"time": "day", "floor": "dry"}, "success", 1.0)
        learning.learn("go", "a", {"time": "night", "floor": "wet"}, "failure", -1.0)
    day = learning.believe("go", ["a"], {"time": "day", "floor": "dry"})["a"]
    night = learning.believe("go", ["a"], {"time": "night", "floor": "wet"})["a"]
    mixed = learning.believe("go", ["a"], {"time": "day", "floor": "wet"})["a"]
    assert day.mean > 0.9 > mixed.mean > 0.1 > night.mean
    assert mixed.seen < day.seen


def test_objectives_are_learnt_apart():
    learning = Learning()
    learning.learn("go", "a", {}, "failure", -1.0)
    assert learning.believe("stay", ["a"], {})["a"].seen == 0.0


def test_a_world_that_changes_is_followed():
    learning = Learning()
    for reward, outcome in ((1.0, "success"), (-1.0, "failure")):
        for _ in range(200):
            learning.learn("go", "a", {}, outcome, reward)
    assert learning.believe("go", ["a"], {})["a"].mean < 0.2


def test_contexts_held_are_bounded_and_the_newest_stay():
    learning = Learning()
    for step in range(3 * MOST_CONTEXTS):
        learning.learn("go", "a", {"step": f"s{step}"}, "success", 1.0)
    last = {"step": f"s{3 * MOST_CONTEXTS - 1}"}
    assert learning.believe("go", ["a"], last)["a"].seen == 1.0
    assert learning.believe("go", ["a"], {"step": "s0"})["a"].seen == 0.0


def test_drawing_finds_the_option_that_pays():
    random, learning = Random(1), Learning()
    pays = {"a": 0.3, "b": 0.7, "c": 0.5}
    taken = []
    for _ in range(400):
        beliefs = learning.believe("go", list(pays), {})
        best = max(pays, key=lambda name: beliefs[name].sample(random))
        won = random.random() < pays[best]
        learning.learn("go", best, {}, "success" if won else "failure", 1.0 if won else -1.0)
        taken.append(best)
    assert taken[200:].count("b") > 140
    assert set(taken[:50]) == set(pays)


@pytest.mark.parametrize("world", [(1.0, 1.0), (9.0, 1.0), (2.0, 6.0)])
def test_confidence_is_calibrated(world):
    """Over many objectives, of the options taken at confidence c a share of about c succeeds."""
    random, learning = Random(7), Learning()
    bins: dict[int, list[tuple[float, float]]] = {}
    for place in range(250):
        objective = f"objective {place}"
        rates = {name: random.betavariate(*world) for name in "abc"}
        for _ in range(40):
            beliefs = learning.believe(objective, list(rates), {})
            best = max(rates, key=lambda name: beliefs[name].sample(random))
            won = random.random() < rates[best]
            confidence = beliefs[best].confidence
            bins.setdefault(int(confidence * 10), []).append((confidence, float(won)))
            learning.learn(
                objective, best, {}, "success" if won else "failure", 1.0 if won else -1.0
            )
    count = sum(map(len, bins.values()))
    error = sum(abs(sum(c - won for c, won in members)) for members in bins.values()) / count
    assert error < 0.03


@pytest.mark.parametrize("many", ["objectives", "options"])
def test_only_what_was_learnt_last_is_kept_however_many_names_callers_have(monkeypatch, many):
    monkeypatch.setattr(learning_module, "MOST_CELLS", 10)
    learning = Learning()
    for step in range(40):
        learning.learn("go", "a", {}, "success", 1.0)
        name = str(step)
        learning.learn(*((name, "a") if many == "objectives" else ("go", name)), {}, "failure", -1)
    assert len(learning._cells) == 10
    assert sum(len(each.cells) for each in learning._objectives.values()) == 10
    assert learning.believe("go", ["a"], {})["a"].seen > 10.0
    last, old = ("39", "a"), ("29", "a")
    if many == "options":
        last, old = ("go", "39"), ("go", "29")
    assert learning.believe(last[0], [last[1]], {})[last[1]].seen == pytest.approx(1.0)
    assert learning.believe(old[0], [old[1]], {})[old[1]].seen == 0.0
