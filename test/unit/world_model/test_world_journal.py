"""A world that is killed comes back from its records."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.world_model import senses
from brainos_ros.world_model.entities import Entity, Observation, Pose, Relation
from brainos_ros.world_model.journal import Journal

S = 1_000_000_000


class Stream:
    """The ledger as the journal sees it: bodies as JSON, in order."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.full = False
        self.too_large = ""

    def record(self, kind: str, body) -> int:
        if self.full:
            raise BrainError("no space", ErrorCode.LEDGER_REFUSED)
        line = json.dumps(body)
        if self.too_large and self.too_large in line:
            raise BrainError("larger than a record may be")
        self.lines.append((kind, line))
        return len(self.lines) - 1

    def read(self, first: int):
        for i, (kind, body) in list(enumerate(self.lines))[first:]:
            yield i, kind, json.loads(body)


def start(folder, stream: Stream, now: int = 0) -> Journal:
    journal = Journal(folder, stream.record)
    journal.restore(stream.read, len(stream.lines) - 1, now)
    return journal


def seen(target: str, now: int, **more) -> Observation:
    return Observation.checked("seen", target, now, target_entity_type="object", **more)


def content(journal: Journal):
    return journal.world.to_json()


def fill(journal: Journal) -> None:
    world = journal.world
    journal.commit(world.plan_create(Entity.new("station", 0, "dock")), 0)
    journal.observe(seen("cube", S, data={"colour": "red"}), S)
    journal.commit(world.plan_relate(Relation("cube", "located_in", "dock")), S)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_restart_brings_everything_back(tmp_path, checkpoint: bool) -> None:
    stream = Stream()
    first = start(tmp_path, stream)
    fill(first)
    if checkpoint:
        first.checkpoint()
    first.observe(seen("cube", 2 * S, data={"size": 1}), 2 * S)
    again = start(tmp_path, stream, 3 * S)
    assert content(again) == content(first)
    assert again.world.impact("dock") == [("cube", 1)]


def test_versions_never_come_twice(tmp_path) -> None:
    stream = Stream()
    first = start(tmp_path, stream)
    fill(first)
    for i in range(50):
        first.live(Entity.new("person", i, "p1", ttl=2 * S))
    again = start(tmp_path, stream)
    assert again.world.version > first.world.version
    with pytest.raises(BrainError, match="since_version"):
        again.world.snapshot(since=first.world.version)


def test_what_the_ledger_refuses_is_not_done(tmp_path) -> None:
    stream = Stream()
    journal = start(tmp_path, stream)
    fill(journal)
    before = content(journal)
    stream.full = True
    with pytest.raises(BrainError) as refused:
        journal.observe(seen("cube", 2 * S, data={"colour": "blue"}), 2 * S)
    assert refused.value.code is ErrorCode.LEDGER_REFUSED
    assert content(journal) == before


def test_a_stream_of_poses_is_recorded_once_per_flush(tmp_path) -> None:
    stream = Stream()
    journal = start(tmp_path, stream)
    before = len(stream.lines)
    for i in range(100):
        journal.stream(seen("pallet", i * S // 100, data={"n": i}), S)
        journal.stream(seen("fly", i * S // 100, ttl=5 * S), S)
    journal.flush(S)
    assert len(stream.lines) == before + 1
    again = start(tmp_path, stream, S)
    assert again.world.get("pallet").attributes == {"n": 99}
    assert "fly" not in again.world.entities


def test_an_entity_that_no_record_can_hold_keeps_no_other_from_being_recorded(tmp_path) -> None:
    stream = Stream()
    journal = start(tmp_path, stream)
    for name in ("aaa", "box1", "box2"):
        journal.stream(seen(name, S, data={"n": 1}), S)
    stream.too_large = '"aaa"'
    with pytest.raises(BrainError, match="'aaa'") as refused:
        journal.flush(S)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
    journal.flush(S)
    assert sorted(start(tmp_path, stream, S).world.entities) == ["box1", "box2"]


def test_a_full_disk_is_tried_again(tmp_path) -> None:
    stream = Stream()
    journal = start(tmp_path, stream)
    for name in ("box1", "box2"):
        journal.stream(seen(name, S, data={"n": 1}), S)
    stream.full = True
    with pytest.raises(BrainError, match="no space"):
        journal.flush(S)
    stream.full = False
    journal.flush(S)
    assert sorted(start(tmp_path, stream, S).world.entities) == ["box1", "box2"]


def test_live_entities_are_never_written(tmp_path) -> None:
    stream = Stream()
    journal = start(tmp_path, stream)
    before = len(stream.lines)
    journal.live(Entity.new("person", 0, "p1", ttl=S))
    journal.flush(0)
    journal.checkpoint()
    assert len(stream.lines) == before
    assert "p1" not in start(tmp_path, stream).world.entities


def test_what_was_observed_of_a_live_person_does_not_outlive_them(tmp_path) -> None:
    stream = Stream()
    journal = start(tmp_path, stream)
    journal.live(Entity.new("person", S, "tracked/3", ttl=2 * S))
    journal.observe(Observation.checked("attribute", "tracked/3", S, data={"name": "Eve"}), S)
    again = start(tmp_path, stream, 2 * S).world.get("tracked/3")
    assert (again.entity_type, again.ttl) == ("person", 2 * S)
    assert again.attributes == {"name": "Eve"}
    assert "tracked/3" not in start(tmp_path, stream, 4 * S).world.entities


def test_no_tracker_replaces_what_a_person_made(tmp_path) -> None:
    journal = start(tmp_path, Stream())
    world, where = journal.world, Pose("odom", (1.0, 2.0, 0.0))
    for entity_id in ("person_3", "dock"):
        journal.commit(world.plan_create(Entity.new("person", 0, entity_id)), 0)
    journal.commit(world.plan_relate(Relation("person_3", "located_in", "dock")), 0)
    for person in senses.people([(3, where, 1.0, 0.3)], world.entities, S):
        journal.live(person)
    assert len(world.entities) == 3
    world.expire(10 * S)
    assert world.get("person_3").ttl == 0
    assert world.impact("dock") == [("person_3", 1)]


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 1}', '{"format": 1, "sequence": 99}'])
def test_a_bad_checkpoint_costs_nothing_but_time(tmp_path, damage: str) -> None:
    stream = Stream()
    first = start(tmp_path, stream)
    fill(first)
    (tmp_path / "world.json").write_text(damage)
    assert content(start(tmp_path, stream, S)) == content(first)


def test_what_ran_out_while_away_is_gone(tmp_path) -> None:
    stream = Stream()
    journal = start(tmp_path, stream)
    journal.observe(seen("cube", S, ttl=60 * S), S)
    assert "cube" in start(tmp_path, stream, 60 * S).world.entities
    assert "cube" not in start(tmp_path, stream, 61 * S).world.entities


steps = st.lists(
    st.tuples(
        st.sampled_from(["see", "delete", "relate", "unrelate", "checkpoint"]),
        st.sampled_from("abc"),
        st.sampled_from("abc"),
        st.integers(0, 4),
    ),
    max_size=30,
)


@given(steps)
def test_replay_equals_what_was_lived(tmp_path_factory, done) -> None:
    folder = tmp_path_factory.mktemp("world")
    stream = Stream()
    journal = start(folder, stream)
    world = journal.world
    now = 0
    for now, (kind, one, two, ttl) in enumerate(done):
        now *= S
        world.expire(now)
        try:
            if kind == "see":
                journal.observe(seen(one, now, ttl=ttl * S, data={two: now}), now)
            elif kind == "delete":
                journal.commit(world.plan_delete(one), now)
            elif kind == "relate":
                journal.commit(world.plan_relate(Relation(one, "on", two)), now)
            elif kind == "unrelate":
                journal.commit(world.plan_unrelate(Relation(one, "on", two)), now)
            else:
                journal.checkpoint()
        except BrainError:
            pass
    again = start(folder, stream, now)
    (folder / "world.json").unlink(missing_ok=True)
    full = start(folder, stream, now)
    for copy in (again, full):
        assert sorted(copy.world.entities) == sorted(world.entities)
        for entity_id, entity in world.entities.items():
            assert copy.world.entities[entity_id].to_json() == entity.to_json()
        assert copy.world.snapshot().relations == world.snapshot().relations


def test_a_checkpoint_of_another_stream_is_passed_over(tmp_path) -> None:
    journal = Journal(tmp_path, Stream().record)
    journal.restore(Stream().read, -1, 0, "brainos/world_model/one")
    fill(journal)
    journal.checkpoint()
    other = Stream()
    for _ in range(100):
        other.record("note", {})
    again = Journal(tmp_path, other.record)
    assert again.restore(other.read, 99, 0, "brainos/world_model/two") == 100
    assert again.world.entities == {}
