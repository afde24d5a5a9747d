import json
import sqlite3
from contextlib import closing

import pytest

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.pfc import store as store_module
from brainos_ros.pfc.constraints import ConstraintSet
from brainos_ros.pfc.engine import Engine, Option, Permission
from brainos_ros.pfc.learning import Learning
from brainos_ros.pfc.store import Outcome, Store


def decide():
    return Engine(ConstraintSet(), Learning()).decide(
        "go", [Option("a"), Option("b")], {"x": 1}, [], lambda *_: Permission(True, "ok", "e")
    )


def outcome(episode="e1", decision="d1", result="success", reward=1.0, **more):
    fields = {"objective": "go", "action": "a", "context": {"x": 1}, **more}
    return Outcome(episode, decision, outcome=result, reward=reward, **fields)


def packed(body):
    return json.dumps(body.to_dict()).encode()


def add(store, decision):
    store.add_decision(store.end(), decision.decision_id, packed(decision))


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "pfc" / "pfc.db")
    yield store
    store.close()


def test_explain_gives_back_what_was_decided_also_after_a_restart(store, tmp_path):
    first, last = decide(), decide()
    add(store, first)
    add(store, last)
    store.add_outcome(
        store.end(), outcome(decision=first.decision_id, result="partial", reward=0.25)
    )
    store.close()
    again = Store(tmp_path / "pfc" / "pfc.db")
    assert again.explain(first.decision_id) == (first, "partial", 0.25)
    assert again.explain() == (last, "", 0.0)
    again.close()


@pytest.mark.parametrize("decision_id", ["", "nonsense"])
def test_explain_of_the_unknown(store, decision_id):
    with pytest.raises(BrainError) as caught:
        store.explain(decision_id)
    assert caught.value.code is ErrorCode.NOT_FOUND


def test_learning_comes_back(store, tmp_path):
    learning = Learning()
    for step in range(30):
        each = outcome(f"e{step}", reward=step / 30, context={"x": step % 3})
        store.add_outcome(store.end(), each)
        learning.learn(each.objective, each.action, each.context, each.outcome, each.reward)
    store.flush()
    again = Store(tmp_path / "pfc" / "pfc.db")
    believed = again.learning().believe("go", ["a"], {"x": 1})
    assert believed == learning.believe("go", ["a"], {"x": 1})
    again.close()


def test_it_knows_its_decisions(store):
    decision = decide()
    assert store.action_of(decision.decision_id) is None
    add(store, decision)
    assert store.action_of(decision.decision_id) == decision.recommended_action


def test_an_outcome_counts_once(store):
    store.add_outcome(store.end(), outcome())
    store.add_outcome(store.end(), outcome(result="failure", reward=-1.0))
    assert store.knows_episode("e1")
    assert not store.knows_episode("e2")
    assert store.learning().believe("go", ["a"], {"x": 1})["a"].seen == 1.0


@pytest.mark.parametrize(
    "wrong", [{"result": "won"}, {"reward": 1.5}, {"reward": float("nan")}, {"action": " "}]
)
def test_a_wrong_outcome_is_refused(wrong):
    with pytest.raises(BrainError):
        outcome(**wrong)


def test_an_action_under_way_at_a_crash_is_reported_until_it_ends(store, tmp_path):
    decision = decide()
    add(store, decision)
    store.begin_action(decision.decision_id)
    again = Store(tmp_path / "pfc" / "pfc.db")
    assert again.interrupted() == again.interrupted() == [decision.decision_id]
    again.end_action(decision.decision_id)
    assert again.interrupted() == []
    again.close()


def test_an_action_that_ended_is_not_reported(store):
    decision = decide()
    add(store, decision)
    store.begin_action(decision.decision_id)
    store.end_action(decision.decision_id)
    assert store.interrupted() == []


def test_an_action_under_way_is_reported_also_after_the_store_was_built_anew(store):
    decision = decide()
    store.add_decision(4, decision.decision_id, packed(decision))
    store.begin_action(decision.decision_id)
    store.clear("stream")
    assert store.end() == 0
    assert store.interrupted() == [decision.decision_id]
    store.replay([(2, "decision", packed(decision))])
    assert store.interrupted() == [decision.decision_id]
    store.end_action(decision.decision_id)
    assert store.interrupted() == []


def test_replay_rebuilds_and_repeats_without_harm(store):
    decision = decide()
    came = outcome(decision=decision.decision_id)
    events = [(4, "decision", packed(decision)), (5, "note", b""), (7, "outcome", packed(came))]
    assert store.end() == 0
    store.replay(events)
    assert store.end() == 8
    store.replay(events)
    assert store.explain() == (decision, "success", 1.0)
    store.clear("stream")
    assert store.end() == 0
    store.replay(events)
    assert store.explain() == (decision, "success", 1.0)


def test_what_is_older_than_the_last_kept_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "KEPT", 10)
    monkeypatch.setattr(store_module, "_BATCH", 5)
    with closing(Store(tmp_path / "pfc.db")) as store:
        for place in range(40):
            body = b'{"recommended_action": "a"}'
            store.add_decision(place, f"decision {place}", body)
            store.flush()
            if not place:
                store.begin_action("decision 0")
        assert store.action_of("decision 20") is None
        assert all(store.action_of(f"decision {place}") == "a" for place in range(30, 40))
        assert store.end() == 40
        assert store.interrupted() == ["decision 0"], "the robot may still be acting on it"


def test_what_is_owed_and_not_learnt(store):
    store.owe("e1", b"first")
    store.owe("e2", b"second")
    assert store.unlearnt() == [b"first", b"second"]
    store.add_outcome(1, outcome("e1"))
    assert store.unlearnt() == [b"second"]
    store.settle("e2")
    assert store.unlearnt() == []


def test_what_a_full_disk_refused_is_written_later_and_nothing_after_it_before(store, tmp_path):
    store._db.execute("PRAGMA query_only=ON")
    store.add_decision(3, "d1", b'{"recommended_action": ""}')
    store.add_outcome(4, outcome())
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError):
            store.flush()
    with pytest.raises(sqlite3.OperationalError):
        store.owe("e1", b"an episode")
    store._db.execute("PRAGMA query_only=OFF")
    store.add_decision(5, "d2", b'{"recommended_action": ""}')
    assert store.end() == 6
    assert store.owed() == ("e1", b"an episode")
    with closing(Store(tmp_path / "pfc" / "pfc.db")) as again:
        assert again.action_of("d1") == ""
        assert again.knows_episode("e1")
        assert again.action_of("d2") == ""


def test_what_is_under_way_is_what_the_ledger_has_no_end_of(store):
    phases = [("a", "began"), ("a", "ended"), ("b", "began"), ("c", "began"),
              ("c", "cancelled; left behind"), ("d", "began"), ("d", "x; left behind"),
              ("d", "interrupted")]  # fmt: skip
    bodies = [json.dumps({"decision_id": who, "phase": phase}).encode() for who, phase in phases]
    store.replay((place, "pursuit", body) for place, body in enumerate(bodies))
    assert store.interrupted() == ["b", "c"]


def test_it_is_of_the_first_stream_it_was_told_of_until_it_is_cleared(store):
    assert store.is_of("one")
    assert not store.is_of("two")
    store.clear("two")
    assert store.is_of("two")
