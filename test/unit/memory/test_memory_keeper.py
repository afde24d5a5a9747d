import json
import math
import sqlite3
import threading
import uuid
from contextlib import suppress
from functools import partial
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import Stream, verify
from brainos_ros.ledger.backup import back_up
from brainos_ros.ledger.housekeeping import prune
from brainos_ros.memory import recall as recall_module
from brainos_ros.memory.episodes import Episode
from brainos_ros.memory.keeper import Keeper
from brainos_ros.memory.recall import Question, Recall
from brainos_ros.memory.store import Store

NOW = 1_700_000_000 * 10**9
HOUR = 3_600 * 10**9
SMALL = {"segment_bytes": 2048}
LIMITS = {"working": 1 << 20, "episodic": 1 << 20, "skill": 1 << 20}


class Brain:
    """A keeper and its ledger stream in a directory, with a clock of its own."""

    def __init__(self, home, limits=None, ttl=None):
        self.home, self.limits, self.ttl, self.now = home, limits or LIMITS, ttl or {}, NOW
        self.stepped = 0
        self.open()

    def open(self):
        self.ledger = Stream.open(self.home / "ledger", "memory")
        path = self.home / "memory" / "memory.db"
        self.keeper = Keeper(
            path, self.limits, self.ttl, lambda: self.now + self.stepped, lambda: self.now)
        self.looked_at = self.keeper.catch_up(self.ledger)

    def close(self):
        self.keeper.close()
        self.ledger.close()

    def restart(self, without_projection=False):
        self.close()
        if without_projection:
            for file in (self.home / "memory").iterdir():
                file.unlink()
        self.open()

    def write(self, *episodes):
        return self.keeper.write(episodes, self.ledger)

    def forget(self, episode_id, purge=False, reason=""):
        self.keeper.forget(episode_id, purge, reason, self.ledger)

    def recall(self, query="", **more):
        return [hit.episode for hit in self.keeper.retrieve(Question(query, **more))]


@pytest.fixture
def brain(tmp_path):
    made = Brain(tmp_path)
    yield made
    made.close()


def episode(action="pick_object", **fields):
    given = {
        "episode_id": "",
        "stamp_ns": 0,
        "objective": "tidy",
        "context": {"location": "lab"},
        "action": action,
        "outcome": "success",
        "reward": 1.0,
        "metadata": {"object_type": "cube"},
        **fields,
    }
    return Episode(**given)


def test_what_is_written_is_recalled_also_after_a_restart(brain):
    (kept,) = brain.write(episode())
    assert uuid.UUID(kept.episode_id).version == 4
    assert (kept.stamp_ns, kept.kind, kept.tier) == (NOW, "episodic", "episodic")
    brain.restart()
    assert brain.recall("pick_object at lab") == [kept]


def test_relevance_says_why(brain):
    brain.write(episode(), episode("place_object", context={"location": "hall"}))
    best, second = brain.keeper.retrieve(Question("pick_object at lab"))
    assert best.episode.action == "pick_object"
    assert best.score == pytest.approx(1.0)
    assert "has 3 of 3 words (pick, object, lab), 0 s old, reward +1.00" in best.why
    assert "has 1 of 3 words (object)" in second.why
    assert best.score > second.score > 0.0
    assert best.heat == "hot"


def test_newer_and_better_come_first(brain):
    old = episode(stamp_ns=NOW - 100 * 24 * HOUR)
    bad = episode(reward=-1.0, outcome="failure")
    good = episode()
    brain.write(old, bad, good)
    for query in ("", "lab"):
        assert brain.recall(query) == [good, bad, old]


def test_the_best_is_first_however_many_fit(brain):
    """By words the one with few others beside them; without, the one that is older and better."""
    day = 24 * HOUR
    brain.write(*(episode(reward=-1.0, stamp_ns=NOW - HOUR + i) for i in range(250)))
    long_ago = [episode("go there", reward=-1.0, stamp_ns=NOW - 80 * day + i) for i in range(250)]
    (better,) = brain.write(episode("put", reward=1.0, stamp_ns=NOW - day))
    (wordy,) = brain.write(
        *long_ago[:-1], episode("go there", objective="o " * 50, stamp_ns=NOW - 2 * day))[-1:]
    assert brain.recall(limit=1) == [better]
    assert brain.recall("go there", limit=1) == [wordy]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2000), st.sampled_from([-1.0, -0.3, 0.9, 1.0]), st.sampled_from("abc")),
        min_size=1, max_size=40),
    st.sampled_from(["", "a", "a b", "tidy a"]),
    st.sampled_from([{}, {"end_ns": NOW - 900 * HOUR}, {"min_reward": 0.0},
                     {"filters": {"action": "a"}}, {"filters": {"object_type": "cube"}}]),
)  # fmt: skip
def test_few_are_the_first_of_many(tmp_path_factory, lived, query, asked):
    brain = Brain(tmp_path_factory.mktemp("brain"))
    brain.write(*(episode(a, reward=r, stamp_ns=NOW - h * HOUR) for h, r, a in lived))
    with patch.object(recall_module, "NEWEST", 3):
        every = [hit.score for hit in brain.keeper.retrieve(Question(query, 1000, **asked))]
        few = [hit.score for hit in brain.keeper.retrieve(Question(query, 2, **asked))]
    assert every == sorted(every, reverse=True)
    assert few == pytest.approx(every[:2])
    brain.close()


def test_words_are_found_without_case_or_accent(brain):
    (kept,) = brain.write(episode(context={"place": "Café Zürich"}))
    assert brain.recall("cafe ZURICH") == [kept]
    assert brain.recall("PICK") == [kept]
    assert brain.recall("nowhere") == []


@pytest.mark.parametrize(
    ("query", "found"),
    [('"', True), ("lab AND NOT", True), ("l* OR (b", False), ("-lab:", True), ("NEAR(lab)", True),
     ("';--", True)],
)  # fmt: skip
def test_a_query_is_words_never_syntax(brain, query, found):
    """One that holds no words finds all, as an empty one does."""
    kept = brain.write(episode())
    assert brain.recall(query) == (list(kept) if found else [])


def test_filters_time_and_reward(brain):
    cube = episode(metadata={"n": 1, "fragile": True}, stamp_ns=NOW - 2 * HOUR)
    ball = episode(metadata={"n": 2.5, "tags": ["a", "b"]}, reward=-0.5, outcome="partial")
    brain.write(cube, ball)
    assert brain.recall(filters={"n": 1.0}) == [cube]
    assert brain.recall(filters={"fragile": True}) == [cube]
    assert brain.recall(filters={"fragile": 1}) == []
    assert brain.recall(filters={"tags": ["a", "b"]}) == [ball]
    assert brain.recall(filters={"location": "lab", "outcome": "partial"}) == [ball]
    assert brain.recall("object", filters={"action": "pick_object"}, min_reward=0.0) == [cube]
    assert brain.recall(end_ns=NOW - HOUR) == [cube]
    assert brain.recall(start_ns=NOW - HOUR) == [ball]
    assert brain.recall(limit=1) == [cube]


@pytest.mark.parametrize("key", ["kind", "decision_id", "place"])
def test_a_context_may_have_the_name_of_a_field(brain, key):
    (box, _) = brain.write(episode(context={key: "box"}), episode())
    assert brain.recall(filters={key: "box"}) == [box]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"limit": 1001}, "limit"),
        ({"start_ns": 2, "end_ns": 1}, "start"),
        ({"min_reward": math.nan}, "min_reward"),
        ({"filters": {"n": b"x"}}, "filters: `n` is bytes"),
        ({"filters": {"n": math.inf}}, "filters: `n` is inf"),
        ({"filters": {"action": b"x"}}, "filters: `action` is bytes"),
        ({"filters": {"action": ["a"]}}, "filters: `action` is .'a'., must be text"),
    ],
)
def test_a_wrong_question_is_named(brain, asked, said):
    with pytest.raises(BrainError, match=said):
        brain.recall(**asked)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"action": " "}, "action"),
        ({"outcome": "won"}, "outcome"),
        ({"reward": 1.01}, "reward"),
        ({"reward": float("nan")}, "reward"),
        ({"kind": "dream"}, "kind"),
        ({"episode_id": "7"}, "episode_id"),
        ({"stamp_ns": -1}, "stamp"),
        ({"context": {"x": float("inf")}}, "`x` is inf"),
        ({"metadata": {"x": b"\0"}}, "`x` is bytes"),
    ],
)
def test_a_malformed_episode_changes_nothing(brain, wrong, said):
    size = brain.ledger.size
    with pytest.raises(BrainError, match=rf"episodes\[1\]\.{said}" if said[0] != "`" else said):
        brain.write(episode(), episode(**wrong))
    assert (brain.recall(), brain.ledger.size) == ([], size)


def test_writing_again_changes_nothing_and_other_content_is_refused(brain):
    (kept,) = brain.write(episode(episode_id=str(uuid.uuid4())))
    size = brain.ledger.size
    brain.now += HOUR
    assert brain.write(episode(episode_id=kept.episode_id)) == [kept]
    assert brain.write(kept, kept) == [kept, kept]
    assert brain.ledger.size == size
    with pytest.raises(BrainError, match="another reward") as caught:
        brain.write(episode(), episode(episode_id=kept.episode_id, reward=0.5))
    assert caught.value.code is ErrorCode.ALREADY_EXISTS
    assert brain.recall() == [kept]


def test_the_projection_is_rebuilt_from_the_ledger(brain):
    kept = brain.write(*(episode(metadata={"n": n}) for n in range(5)))
    brain.forget(kept[2].episode_id)
    before = brain.recall(limit=10)
    brain.restart(without_projection=True)
    assert brain.recall(limit=10) == before
    assert len(before) == 4


@pytest.mark.parametrize("first_page", [0, 2])
def test_a_damaged_projection_is_kept_aside_and_rebuilt(brain, first_page):
    kept = sorted(each.episode_id for each in brain.write(*(episode() for _ in range(200))))
    brain.close()
    path = brain.home / "memory" / "memory.db"
    content = path.read_bytes()
    broken = content[: first_page * 4096] + b"\xff" * (len(content) - first_page * 4096)
    path.write_bytes(broken)
    brain.open()
    (aside,) = brain.keeper.damaged
    assert aside.parent == path.parent
    assert aside.read_bytes() == broken
    assert sorted(each.episode_id for each in brain.recall(limit=1000)) == kept
    brain.restart()
    assert (brain.keeper.damaged, brain.looked_at) == ([], 0)


def test_damage_that_is_found_while_catching_up_is_no_other(brain, monkeypatch):
    kept = brain.write(episode())
    brain.close()
    errors = [sqlite3.DatabaseError("malformed"), sqlite3.OperationalError("disk I/O error")]
    replay = Keeper._replay

    def fail_once(*given):
        if errors:
            raise errors.pop()
        return replay(*given)

    monkeypatch.setattr(Keeper, "_replay", fail_once)
    with pytest.raises(sqlite3.OperationalError):
        brain.open()
    assert brain.keeper.damaged == []
    brain.close()
    brain.open()
    assert len(brain.keeper.damaged) == 1
    assert brain.recall() == list(kept)


def test_a_projection_of_another_stream_is_rebuilt(brain):
    brain.write(episode("old_life"))
    brain.close()
    (brain.home / "ledger").rename(brain.home / "before")
    with Stream.open(brain.home / "ledger", "memory") as other:
        for n in range(5):
            other.event("heads", {"heads": {str(n): ""}})
        lived = episode("new_life", episode_id=str(uuid.uuid4()), stamp_ns=NOW)
        other.event("episode", lived.to_dict())
    brain.open()
    assert brain.recall() == [lived]


def test_what_the_ledger_has_and_the_projection_lacks_is_caught_up(brain):
    (first,) = brain.write(episode())
    late = episode("late", episode_id=str(uuid.uuid4()), stamp_ns=NOW)
    brain.ledger.event("episode", json.dumps(late.to_dict()).encode())
    brain.restart()
    assert set(map(str, brain.recall())) == {str(first), str(late)}


@pytest.mark.parametrize("kept", ["the next write", "a restart"])
@pytest.mark.parametrize(
    ("full", "room"),
    [("query_only=ON", "query_only=OFF"), ("max_page_count=1", "max_page_count=100000")],
)
def test_what_the_ledger_took_is_kept_though_sqlite_is_full(brain, full, room, kept):
    large = {"text": "x" * 100_000}
    brain.keeper._store._db.execute(f"PRAGMA {full}")
    (first,) = brain.write(episode("first", metadata=large))
    size = brain.ledger.size
    for refused in (
        lambda: brain.write(episode("second", metadata=large)),
        lambda: brain.keeper.expire(brain.ledger),
        lambda: brain.forget(first.episode_id),
    ):
        with pytest.raises(BrainError, match="does not take what the ledger has") as caught:
            refused()
        assert caught.value.code is ErrorCode.UNAVAILABLE
    assert brain.ledger.size == size, "what is refused is not in the ledger"
    brain.keeper._store._db.execute(f"PRAGMA {room}")
    if kept == "a restart":
        brain.restart()
    assert brain.write(first) == [first], "to write it again is to find it there"
    (second,) = brain.write(episode("second", metadata=large))
    assert brain.ledger.size == size + 1
    assert brain.recall("first") == [first]
    brain.restart()
    assert brain.looked_at == 0
    assert brain.recall("second") == [second]


@pytest.mark.parametrize("kept", ["the next try", "a restart"])
@pytest.mark.parametrize("why", ["outlived", "evicted"])
def test_what_the_ledger_let_go_of_goes_though_sqlite_is_full(tmp_path, why, kept):
    if why == "outlived":
        brain = Brain(tmp_path, ttl={"working": 3600.0})
    else:
        brain = Brain(tmp_path, limits={**LIMITS, "working": 300})
    brain.write(episode("old", kind="working"))
    brain.now += HOUR + 1
    size = brain.ledger.size
    brain.keeper._store._db.execute("PRAGMA query_only=ON")

    def expire():
        brain.keeper.expire(brain.ledger)

    def write():
        brain.write(episode("new", kind="working"))

    for refused in (expire, expire, write) if why == "outlived" else (write, write, expire):
        with pytest.raises(BrainError, match="does not take what the ledger has") as caught:
            refused()
        assert caught.value.code is ErrorCode.UNAVAILABLE
    assert brain.ledger.size == size + 1, "it was let go of once"
    record = brain.ledger.read(size)
    assert (record.kind, json.loads(record.body)["why"]) == ("retention", why)
    brain.keeper._store._db.execute("PRAGMA query_only=OFF")
    if kept == "a restart":
        brain.restart()
    write()
    expire()
    assert [each.action for each in brain.recall()] == ["new"]
    assert brain.keeper._store.end == brain.ledger.size == size + 2
    brain.close()


def test_what_is_found_is_told_though_it_cannot_be_counted_as_used(brain):
    kept = brain.write(episode())
    brain.keeper._store._db.execute("PRAGMA query_only=ON")
    assert brain.recall("pick_object") == kept


def test_half_a_batch_is_none(brain):
    half = {**episode(episode_id=str(uuid.uuid4()), stamp_ns=NOW).to_dict(), "batch": ["b", 0, 2]}
    brain.ledger.event("episode", half)
    brain.ledger.event("note", {})
    brain.restart()
    assert brain.recall() == []


def test_a_batch_that_is_refused_for_its_size_never_comes_back(tmp_path):
    brain = Brain(tmp_path, {**LIMITS, "episodic": 1 << 30})
    size = brain.ledger.size
    with pytest.raises(BrainError, match=r"episodes\[1\]: takes .* memory at most 4194304"):
        brain.write(episode("ghost"), episode("x" * 5_000_000))
    assert brain.ledger.size == size
    (kept,) = brain.write(episode())
    brain.forget(kept.episode_id, purge=True, reason="asked for")
    brain.restart(without_projection=True)
    assert brain.recall() == []
    brain.close()


def test_an_episode_larger_than_its_memory_is_told_so(brain):
    with pytest.raises(BrainError, match=r"^episode: takes .* in episodic memory at most") as told:
        brain.write(episode("x" * (1 << 20)))
    assert told.value.code is ErrorCode.INVALID_ARGUMENT


def test_an_id_is_the_same_in_capitals(brain):
    (kept,) = brain.write(episode(episode_id=str(uuid.uuid4()).upper()))
    assert brain.write(episode(episode_id=kept.episode_id.lower(), stamp_ns=NOW)) == [kept]
    with pytest.raises(BrainError, match="with another action"):
        brain.write(episode("drop", episode_id=kept.episode_id.upper()))
    assert brain.recall() == [kept]
    brain.forget(kept.episode_id.upper())
    assert brain.recall() == []


def test_a_ledger_that_does_not_accept_leaves_nothing(brain):
    brain.ledger.close()
    with pytest.raises(BrainError) as caught:
        brain.write(episode())
    assert caught.value.code is ErrorCode.LEDGER_REFUSED
    assert brain.recall() == []
    brain.keeper.close()
    brain.open()


def test_forget(brain):
    (kept,) = brain.write(episode())
    brain.forget(kept.episode_id)
    for _ in range(2):
        assert brain.recall("lab") == []
        brain.restart(without_projection=True)
    with pytest.raises(BrainError) as caught:
        brain.forget(kept.episode_id)
    assert caught.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize("forgotten_before", [False, True])
def test_purge_leaves_no_trace_and_the_ledger_still_verifies(brain, forgotten_before):
    secret, other = brain.write(episode(context={"name": "Xanthippe"}), episode("stay"))
    if forgotten_before:
        brain.forget(secret.episode_id)
    with pytest.raises(BrainError, match="reason"):
        brain.forget(secret.episode_id, purge=True)
    brain.forget(secret.episode_id, purge=True, reason="her wish")
    assert brain.recall(limit=10) == [other]
    brain.restart()
    assert brain.recall(limit=10) == [other]
    brain.restart(without_projection=True)
    assert brain.recall(limit=10) == [other]
    brain.ledger.sync()
    for file in brain.home.rglob("*"):
        assert file.is_dir() or b"anthippe" not in file.read_bytes(), file
    assert verify(brain.home / "ledger" / "memory").verified


def test_a_purge_cut_short_is_finished_at_the_next_start(brain):
    (kept,) = brain.write(episode(context={"name": "Xanthippe"}))
    body = {"episode_id": kept.episode_id, "purge": True, "reason": "her wish"}
    brain.ledger.event("forget", body, durable=True)
    brain.restart()
    assert brain.recall() == []
    assert all(
        b"anthippe" not in file.read_bytes() for file in brain.home.rglob("*") if file.is_file()
    )


def traces(brain):
    return [
        file
        for file in brain.home.rglob("*")
        if file.is_file() and b"anthippe" in file.read_bytes()
    ]


class Killed(BaseException):
    """The process ends here."""


def kill_at(monkeypatch, owner, name, after):
    whole = getattr(owner, name)

    def die(*args, **more):
        if after:
            whole(*args, **more)
        raise Killed

    monkeypatch.setattr(owner, name, die)


STEPS = [
    (Stream, "event", True),
    *((Stream, "purge_events", after) for after in (False, True)),
    *((Store, "remove", after) for after in (False, True)),
    (Store, "erase_traces", False),
    (Store, "_merge", True),
    (Store, "advance", False),
]


def name_of(step):
    return f"{'after' if step[2] else 'before'}_{step[1]}" if step else "not"


@pytest.mark.parametrize("again", [None, *STEPS[1:]], ids=name_of)
@pytest.mark.parametrize("step", STEPS, ids=name_of)
def test_a_purge_killed_anywhere_is_finished(brain, monkeypatch, step, again):
    secret, other = brain.write(episode(context={"name": "Xanthippe"}), episode("stay"))
    left_open = []
    for killed in (lambda: brain.forget(secret.episode_id, True, "her wish"), brain.open):
        if step:
            with monkeypatch.context() as patch:
                kill_at(patch, *step)
                try:
                    killed()
                except Killed:
                    left_open.append(brain.keeper)
                brain.ledger.close()
        step = again
    brain.open()
    assert traces(brain) == []
    assert brain.recall(limit=10) == [other]
    assert verify(brain.home / "ledger" / "memory").verified


def test_what_is_written_after_a_purge_that_failed_does_not_hide_it(brain, monkeypatch):
    (secret,) = brain.write(episode(context={"name": "Xanthippe"}))
    with monkeypatch.context() as patch:
        kill_at(patch, Store, "erase_traces", False)
        with pytest.raises(Killed):
            brain.forget(secret.episode_id, True, "her wish")
    kept = brain.write(episode())
    brain.restart()
    assert brain.recall() == kept
    assert traces(brain) == []


def test_others_are_let_in_while_traces_are_erased(brain, monkeypatch):
    (secret,) = brain.write(episode(context={"name": "Xanthippe"}))
    erase = Store.erase_traces
    erasing, written = threading.Event(), threading.Event()

    def slowly(self):
        yield from erase(self)
        erasing.set()
        while not written.is_set():
            yield

    monkeypatch.setattr(Store, "erase_traces", slowly)
    forgetting = threading.Thread(
        target=brain.forget, args=(secret.episode_id, True, "her wish"), daemon=True)
    forgetting.start()
    assert erasing.wait(10.0)
    kept = brain.write(episode())
    assert brain.recall() == kept
    assert brain.ledger.read(brain.keeper._store.end).kind == "forget"  # done again after a kill
    written.set()
    forgetting.join(10.0)
    assert not forgetting.is_alive()
    assert traces(brain) == []


class Contended:
    """A lock whose first holder keeps it until another thread wants it too."""

    def __init__(self, lock):
        self._lock, self.held, self._wanted = lock, threading.Event(), threading.Event()

    def __enter__(self):
        first = not self.held.is_set()
        if not first:
            self._wanted.set()
        self._lock.acquire()
        if first:
            self.held.set()
            assert self._wanted.wait(20.0)

    def __exit__(self, *_):
        self._lock.release()


def in_time(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20.0)
    return not thread.is_alive()


@pytest.fixture
def erasing(tmp_path):
    """(brain, thread): a purge that erases traces, and goes on once another wants its lock."""
    brain = Brain(tmp_path)
    (secret,) = brain.write(episode(context={"name": "Xanthippe"}))
    lock = brain.keeper.recall.lock = Contended(brain.keeper.recall.lock)

    def forget():
        with suppress(sqlite3.ProgrammingError):  # the file was closed meanwhile
            brain.forget(secret.episode_id, True, "her wish")

    forgetting = threading.Thread(target=forget, daemon=True)
    forgetting.start()
    assert lock.held.wait(20.0)
    return brain, forgetting


def test_a_memory_is_closed_during_a_purge(erasing):
    brain, forgetting = erasing
    brain.ledger.close()
    assert in_time(brain.keeper.close)
    forgetting.join(20.0)
    assert not forgetting.is_alive()
    brain.open()
    assert traces(brain) == []
    brain.close()


def test_a_memory_is_activated_again_during_a_purge(erasing, monkeypatch):
    brain, forgetting = erasing
    brain.ledger.close()
    brain.ledger = Stream.open(brain.home / "ledger", "memory")
    assert in_time(lambda: brain.keeper.catch_up(brain.ledger))
    forgetting.join(20.0)
    assert not forgetting.is_alive()
    (other,) = brain.write(episode(context={"name": "Xanthippe"}))
    assert brain.keeper._store.end == brain.ledger.size
    with monkeypatch.context() as patch:
        kill_at(patch, Store, "erase_traces", False)
        with pytest.raises(Killed):
            brain.forget(other.episode_id, True, "her wish")
    brain.write(episode())
    assert brain.ledger.read(brain.keeper._store.end).kind == "forget", "the next start does it"
    brain.restart()
    assert traces(brain) == []
    brain.close()


def test_applying_records_again_changes_nothing(brain):
    (first,) = brain.write(episode(episode_id=str(uuid.uuid4())))
    brain.forget(first.episode_id, purge=True, reason="wrong")
    again = brain.write(episode("told anew", episode_id=first.episode_id), episode())
    brain.keeper._store.advance(0)
    brain.restart()
    assert {each.action for each in brain.recall()} == {each.action for each in again}
    assert not brain.ledger.read(3).erased


def test_catching_up_that_is_cut_short_goes_on_where_it_was(brain, monkeypatch):
    for n in range(1200):
        kept = episode(episode_id=str(uuid.uuid4()), stamp_ns=NOW, metadata={"n": n})
        brain.ledger.event("episode", kept.to_dict())
    tries, add = [], Store.add
    with monkeypatch.context() as patch:

        def limited(self, *args):
            if len(tries) == 700:
                raise Killed
            tries.append(args)
            add(self, *args)

        patch.setattr(Store, "add", limited)
        with pytest.raises(Killed):
            brain.restart(without_projection=True)
        brain.ledger.close()
    brain.open()
    assert 0 < brain.looked_at < 1000
    assert len(brain.recall(limit=1000, filters={"action": "pick_object"})) == 1000
    assert brain.keeper.tiers()[1].entries == 1200


def test_kinds_fill_their_own_tier(brain):
    brain.write(episode(), episode(kind="working"), episode(kind="skill"), episode())
    tiers = {tier.name: tier for tier in brain.keeper.tiers()}
    assert {name: tier.entries for name, tier in tiers.items()} == {
        "working": 1,
        "episodic": 2,
        "long_term": 1,
    }
    assert tiers["episodic"].size_bytes == pytest.approx(2 * tiers["working"].size_bytes, abs=20)
    assert tiers["episodic"].max_bytes == 1 << 20


def test_hit_rate_counts_recalls_that_found_something(brain):
    brain.write(episode())
    brain.recall("lab")
    brain.recall("nowhere")
    tiers = {tier.name: tier for tier in brain.keeper.tiers()}
    assert (tiers["episodic"].hit_rate, tiers["working"].hit_rate) == (0.5, 0.0)


def test_a_full_tier_lets_go_of_what_is_worth_least(tmp_path):
    brain = Brain(tmp_path, {**LIMITS, "episodic": 4000})
    protected = episode("keep", metadata={"protected": True}, stamp_ns=NOW - 900 * HOUR)
    used = episode("used", stamp_ns=NOW - 800 * HOUR)
    brain.write(protected, used)
    brain.recall("used")
    for step in range(30):
        brain.write(episode(f"step{step}", stamp_ns=NOW - (200 - step) * HOUR))
    (tier,) = [tier for tier in brain.keeper.tiers() if tier.name == "episodic"]
    assert tier.size_bytes <= 4000
    left = {each.action for each in brain.recall(limit=100)}
    assert {"keep", "used", "step29"} <= left
    assert "step0" not in left
    brain.restart(without_projection=True)
    assert {each.action for each in brain.recall(limit=100)} == left
    brain.close()


def test_a_limit_that_was_lowered_is_reached_a_little_with_every_write(tmp_path):
    brain = Brain(tmp_path)
    brain.write(*(episode(metadata={"text": "x" * 1000}) for _ in range(300)))
    brain.keeper.close()
    brain.ledger.close()
    brain.limits = {**LIMITS, "episodic": 100_000}
    brain.open()
    sizes = []
    while not sizes or sizes[-1] > 100_000:
        brain.write(episode())
        sizes.append(brain.keeper.tiers()[1].size_bytes)
    assert len(sizes) > 1
    assert sizes[0] > 100_000
    brain.close()


def test_a_write_looks_at_few_episodes_however_many_there_are(tmp_path, monkeypatch):
    brain = Brain(tmp_path, {**LIMITS, "episodic": 1_000_000})
    brain.write(*(episode(stamp_ns=NOW - n * HOUR) for n in range(3000)))
    looked = []
    one_by_one = Store.evictable
    monkeypatch.setattr(
        Store, "evictable", lambda *args: (looked.append(row) or row for row in one_by_one(*args))
    )
    size = brain.ledger.size
    while not looked:
        brain.write(episode("new"))
    assert 0 < len(looked) < 1300
    gone = json.loads(brain.ledger.read(brain.ledger.size - 2).body)["episodes"]
    assert 0 < len(gone) < 300
    assert brain.ledger.size > size
    brain.close()


def test_usage_is_counted_and_is_taken_over_from_a_file_without_it(brain):
    kept = brain.write(*(episode(metadata={"n": n}) for n in range(20)))
    for each in kept[:5]:
        brain.forget(each.episode_id)
    before = brain.keeper.tiers()
    assert before[1].entries == 15
    for statement in ("DROP TRIGGER came", "DROP TRIGGER went", "DROP TABLE usage"):
        brain.keeper._store._db.execute(statement)
    brain.restart()
    assert brain.keeper.tiers() == before
    brain.forget(kept[5].episode_id)
    assert brain.keeper.tiers()[1].entries == 14


def test_a_tier_full_of_protected_refuses(tmp_path):
    brain = Brain(tmp_path, {**LIMITS, "skill": 1000})
    skills = [episode(kind="skill") for _ in range(10)]
    with pytest.raises(BrainError, match="full of protected") as caught:
        brain.write(*skills)
    assert caught.value.code is ErrorCode.MEMORY_FULL
    brain.write(episode())
    brain.close()


def test_kinds_outlive_their_time(tmp_path):
    brain = Brain(tmp_path, ttl={"working": 3600.0, "skill": 0.0})
    brain.write(episode("w", kind="working"), episode("e"), episode("s", kind="skill"))
    brain.now += HOUR + 1
    assert brain.keeper.expire(brain.ledger) == 1
    assert {each.action for each in brain.recall()} == {"e", "s"}
    brain.restart(without_projection=True)
    assert {each.action for each in brain.recall()} == {"e", "s"}
    brain.close()


def test_a_stepped_clock_ages_nothing_until_the_next_start(tmp_path):
    brain = Brain(tmp_path, ttl={"working": 3600.0})
    for hours in (0, 1, -1, 0):
        brain.stepped = hours * HOUR
        brain.write(episode("w", kind="working", stamp_ns=brain.now + brain.stepped))
        brain.now += HOUR // 4
        assert brain.keeper.expire(brain.ledger) == 0
    for _ in range(4):
        brain.now += 1
        assert brain.keeper.expire(brain.ledger) == 1
        brain.now += HOUR // 4
    brain.close()


def test_a_full_memory_lets_the_oldest_go_also_after_a_step_back(tmp_path):
    brain = Brain(tmp_path, limits=LIMITS | {"working": 1500})
    brain.write(episode("first", kind="working"))
    brain.stepped = -HOUR
    for _ in range(20):
        brain.now += 1
        (last,) = brain.write(episode("later", kind="working"))
    assert last.stamp_ns == brain.now - HOUR
    assert {each.action for each in brain.recall()} == {"later"}
    brain.close()


def test_a_file_without_the_keepers_times_is_taken_over(tmp_path):
    brain = Brain(tmp_path, ttl={"working": 3600.0})
    brain.write(episode("w", kind="working"))
    for statement in ("DROP INDEX by_end", "ALTER TABLE episodes DROP COLUMN ended"):
        brain.keeper._store._db.execute(statement)
    brain.restart()
    brain.now += HOUR + 1
    assert brain.keeper.expire(brain.ledger) == 1
    brain.close()


def test_much_that_outlived_its_time_goes_bit_by_bit(tmp_path):
    brain = Brain(tmp_path, ttl={"working": 3600.0})
    brain.write(*(episode(kind="working", stamp_ns=NOW - n) for n in range(150)))
    brain.now += HOUR + 1
    assert [brain.keeper.expire(brain.ledger) for _ in range(3)] == [100, 50, 0]
    brain.close()


def test_what_was_pruned_stops_neither_catching_up_nor_a_purge(tmp_path, monkeypatch):
    monkeypatch.setattr("brainos_ros.ledger.stream.Stream.open", partial(Stream.open, **SMALL))
    brain = Brain(tmp_path)
    kept = brain.write(*(episode(metadata={"n": n}) for n in range(40)))
    brain.ledger.checkpoint()
    back_up(brain.ledger.path, tmp_path / "copy")
    assert prune(brain.ledger, -1.0, tmp_path / "copy")
    brain.forget(kept[5].episode_id, purge=True, reason="her wish")
    assert len(brain.recall(limit=100)) == 39
    brain.restart()
    assert len(brain.recall(limit=100)) == 39
    body = {"episode_id": kept[6].episode_id, "purge": True, "reason": "her wish"}
    brain.ledger.event("forget", body, durable=True)
    brain.restart()
    assert len(brain.recall(limit=100)) == 38
    brain.restart(without_projection=True)
    assert 0 < len(brain.recall(limit=100)) < 38
    brain.close()


VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.lists(st.text(max_size=5), max_size=3),
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.text(min_size=1, max_size=8), VALUES, max_size=4),
    st.text(min_size=1, max_size=10).filter(str.strip),
    st.floats(-1.0, 1.0),
)
def test_any_episode_comes_back_as_it_was(brain, values, action, reward):
    (kept,) = brain.write(episode(action, context=values, metadata=values, reward=reward))
    assert (kept.action, kept.context, kept.metadata, kept.reward) == (
        action, values, values, reward)
    first = dict(list(values.items())[:1])
    assert kept in brain.recall(filters={**first, "action": action}, limit=1000)
    brain.recall(action)


def test_a_long_search_holds_up_no_writer(brain, monkeypatch):
    searching, go_on, search = threading.Event(), threading.Event(), Recall._search

    def long_search(*given):
        searching.set()
        assert go_on.wait(20.0)
        return search(*given)

    monkeypatch.setattr(Recall, "_search", long_search)
    found = []
    asking = threading.Thread(target=lambda: found.extend(brain.recall()))
    asking.start()
    assert searching.wait(20.0)
    kept = brain.write(episode())
    go_on.set()
    asking.join()
    assert [each.episode_id for each in found] == [each.episode_id for each in kept]
