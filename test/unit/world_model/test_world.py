"""The world as a graph: requests, ageing, snapshots, impact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.world_model.entities import Entity, Observation, Pose, Relation
from brainos_ros.world_model.world import World

S = 1_000_000_000


def add(world: World, entity_id: str, entity_type: str = "object", now: int = 0, **more) -> Entity:
    event = world.plan_create(Entity.new(entity_type, now, entity_id, **more))
    assert event is not None
    world.apply(event)
    return world.get(entity_id)


def see(world: World, target: str, now: int, **more) -> None:
    more.setdefault("event_type", "object_detected")
    more.setdefault("target_entity_type", "object")
    more.setdefault("stamp", now)
    world.expire(now)
    event = world.plan_observe(Observation.checked(target_entity_id=target, **more), now)
    if event:
        world.apply(event)


def relate(world: World, source: str, kind: str, target: str) -> None:
    event = world.plan_relate(Relation(source, kind, target))
    assert event is not None
    world.apply(event)


def test_create_get_delete() -> None:
    world = World()
    made = Entity.new("robot", 5, rank=5, attributes={"battery_percent": 85})
    world.apply(world.plan_create(made))
    held = world.get(made.entity_id)
    assert (held.entity_type, held.rank, held.attributes) == ("robot", 5, {"battery_percent": 85})
    world.apply(world.plan_delete(made.entity_id))
    with pytest.raises(BrainError) as refused:
        world.get(made.entity_id)
    assert refused.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize(
    ("held", "more", "sentence"),
    [
        ({f"k{i}": i for i in range(256)}, {"one_more": 1}, "257"),
        ({f"k{i}": "x" * 65_000 for i in range(16)}, {"more": "x" * 65_000}, "'map' would take"),
        ({}, {f"k{i}": "x" * 65_000 for i in range(17)}, "'map' would take"),
    ],
)
def test_an_entity_holds_only_so_much_however_it_came(held, more, sentence: str) -> None:
    world = World()
    add(world, "map", attributes=held)
    before = world.to_json()
    with pytest.raises(BrainError, match=sentence) as refused:
        see(world, "map", S, data=more)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
    assert world.to_json() == before
    see(world, "map", S, data={"k1": 0})
    see(world, "map", S, event_type="removed", data=more)
    assert not world.entities
    with pytest.raises(BrainError, match=sentence):
        add(world, "map", attributes=held | more)


def test_the_robot_itself_is_not_removed() -> None:
    world = World()
    add(world, "r1", "robot")
    world.robot = "r1"
    with pytest.raises(BrainError, match="entity_id is 'r1': that is the robot itself") as refused:
        world.plan_delete("r1")
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
    with pytest.raises(BrainError, match="target_entity_id is 'r1'"):
        see(world, "r1", S, event_type="removed")


def test_create_again_is_nothing_unless_it_differs() -> None:
    world = World()
    add(world, "dock", "station", rank=3)
    assert world.plan_create(Entity.new("station", 9, "dock", rank=3)) is None
    with pytest.raises(BrainError) as refused:
        world.plan_create(Entity.new("station", 9, "dock", rank=4))
    assert refused.value.code is ErrorCode.ALREADY_EXISTS


def test_true_is_not_one() -> None:
    world = World()
    add(world, "dock", attributes={"full": True, "marks": [1, 0], "load": 1})
    with pytest.raises(BrainError, match="taken"):
        add(world, "dock", attributes={"full": 1, "marks": [1, 0], "load": 1})
    with pytest.raises(BrainError, match="taken"):
        add(world, "dock", attributes={"full": True, "marks": [True, False], "load": 1})
    same = Entity.new("object", 0, "dock", attributes={"full": True, "marks": [1, 0], "load": 1.0})
    assert world.plan_create(same) is None
    assert world.select(filters={"full": 1})[1] == 0
    assert world.select(filters={"full": True, "load": 1.0, "marks": [1.0, 0]})[1] == 1


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"entity_type": ""}, "entity_type"),
        ({"rank": 11}, "rank"),
        ({"rank": -1}, "rank"),
        ({"attributes": {"x": float("nan")}}, "attributes.x"),
        ({"attributes": {"": 1}}, "attributes.key"),
        ({"attributes": {"v": [1.0, float("inf")]}}, "attributes.v"),
        ({"ttl": -1}, "ttl"),
        ({"entity_id": "a\n"}, "entity_id"),
        ({"entity_id": "x" * 256}, "entity_id"),
        ({"attributes": {str(i): i for i in range(257)}}, "257"),
    ],
)
def test_a_malformed_entity_is_refused_by_name(fields, named: str) -> None:
    with pytest.raises(BrainError, match=named) as refused:
        Entity.new(**{"entity_type": "object", "now": 0, **fields})
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "pose",
    [
        (("", (0, 0, 0), (0, 0, 0, 1), [0] * 36)),
        (("map", (0, 0), (0, 0, 0, 1), [0] * 36)),
        (("map", (0, 0, float("nan")), (0, 0, 0, 1), [0] * 36)),
        (("map", (0, 0, 0), (0, 0, 1, 1), [0] * 36)),
        (("map", (0, 0, 0), (0, 0, 0, 1), [-1.0] + [0] * 35)),
    ],
)
def test_a_malformed_pose_is_refused(pose) -> None:
    with pytest.raises(BrainError):
        Pose.checked(*pose)


def test_an_orientation_left_alone_is_no_rotation() -> None:
    assert Pose.checked("map", (1, 2, 0), (0, 0, 0, 0), [0] * 36).orientation == (0, 0, 0, 1)


def test_a_full_world_refuses_the_next() -> None:
    world = World(max_entities=1)
    add(world, "a")
    for request in (
        lambda: world.plan_create(Entity.new("object", 0, "b")),
        lambda: world.plan_observe(Observation.checked("seen", "b", 0, "", "object"), 0),
    ):
        with pytest.raises(BrainError) as refused:
            request()
        assert refused.value.code is ErrorCode.UNAVAILABLE


def test_observation_makes_and_updates_an_entity() -> None:
    world = World()
    pose = Pose("map", (1.0, 2.0, 0.0))
    see(world, "cube", 10 * S, data={"colour": "red"}, pose=pose)
    see(world, "cube", 11 * S, data={"size": 0.1})
    held = world.get("cube")
    assert held.attributes == {"colour": "red", "size": 0.1}
    assert held.where == pose
    assert (held.created_at, held.last_updated) == (10 * S, 11 * S)


def test_an_older_observation_does_not_overwrite_a_newer_one() -> None:
    world = World()
    see(world, "door", 10 * S, data={"open": True})
    see(world, "door", 11 * S, stamp=9 * S, data={"open": False, "locked": False})
    assert world.get("door").attributes == {"open": True, "locked": False}
    assert world.get("door").last_updated == 10 * S


def test_an_observation_counts_once() -> None:
    world = World()
    name = "7f6b1d6e-2d0a-4d3c-9a55-0d5f6f6f9f10"
    see(world, "cube", S, observation_id=name, data={"seen": 1})
    see(world, "cube", 2 * S, observation_id=name, data={"seen": 2})
    assert world.get("cube").attributes == {"seen": 1}


def test_facts_and_entities_run_out() -> None:
    world = World()
    add(world, "door", now=0, attributes={"material": "steel"})
    see(world, "door", S, data={"open": True}, pose=Pose("map", (0.0, 0.0, 0.0)), ttl=2 * S)
    see(world, "visitor", S, target_entity_type="person", ttl=3 * S)
    assert not world.expire(3 * S - 1)
    assert world.expire(3 * S)
    assert world.get("door").attributes == {"material": "steel"}
    assert world.get("door").where is None
    see(world, "visitor", 3 * S, ttl=3 * S)
    assert not world.expire(6 * S - 1)
    assert world.expire(6 * S)
    assert list(world.entities) == ["door"]


def test_removed_event_removes() -> None:
    world = World()
    add(world, "cube")
    see(world, "cube", S, event_type="removed")
    assert not world.entities
    with pytest.raises(BrainError) as refused:
        see(world, "cube", S, event_type="removed")
    assert refused.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"target_entity_type": ""}, "target_entity_type"),
        ({"stamp": 100 * S}, "ahead"),
        ({"stamp": S, "ttl": 2 * S}, "expired"),
        ({"target_entity_id": "known", "event_type": "pose"}, "empty"),
        ({"event_type": ""}, "event_type"),
        ({"target_entity_id": ""}, "target_entity_id"),
        ({"observation_id": "12"}, "observation_id"),
        ({"data": {"x": float("inf")}}, "data.x"),
        ({"ttl": -5}, "ttl"),
        ({"stamp": -5}, "stamp"),
    ],
)
def test_a_malformed_observation_changes_nothing(fields, named: str) -> None:
    world = World()
    add(world, "known")
    before = world.snapshot()
    asked = {
        "event_type": "seen",
        "target_entity_id": "new",
        "target_entity_type": "object",
        "stamp": 10 * S,
    }
    with pytest.raises(BrainError, match=named) as refused:
        world.plan_observe(Observation.checked(**{**asked, **fields}), 10 * S)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
    assert world.snapshot() == before


def test_relations_need_two_known_ends() -> None:
    world = World()
    add(world, "a")
    for source, target, code in (
        ("a", "b", ErrorCode.NOT_FOUND),
        ("b", "a", ErrorCode.NOT_FOUND),
        ("a", "a", ErrorCode.WORLD_MODEL_RELATION_INVALID),
    ):
        with pytest.raises(BrainError) as refused:
            world.plan_relate(Relation(source, "depends_on", target))
        assert refused.value.code is code
    with pytest.raises(BrainError):
        world.plan_unrelate(Relation("a", "depends_on", "a"))


def test_a_relation_goes_with_its_ends() -> None:
    world = World()
    for name in "ab":
        add(world, name)
    relate(world, "a", "holds", "b")
    assert world.plan_relate(Relation("a", "holds", "b")) is None
    world.apply(world.plan_delete("b"))
    assert world.relations_of("a") == []


def test_impact_walks_to_what_depends() -> None:
    world = World()
    for name in ("power", "lidar", "gate", "base", "shelf"):
        add(world, name)
    relate(world, "lidar", "depends_on", "power")
    relate(world, "gate", "depends_on", "lidar")
    relate(world, "base", "depends_on", "gate")
    relate(world, "power", "depends_on", "base")
    relate(world, "shelf", "located_in", "power")
    assert world.impact("power") == [("lidar", 1), ("shelf", 1), ("gate", 2), ("base", 3)]
    assert world.impact("power", ["depends_on"], 2) == [("lidar", 1), ("gate", 2)]
    with pytest.raises(BrainError):
        world.impact("nothing")


def test_list_filters_and_pages() -> None:
    world = World()
    for i in range(5):
        add(world, f"box{i}", "box", attributes={"full": i % 2 == 0})
    add(world, "dock", "station")
    page, total = world.select("box", {"full": True}, limit=2)
    assert ([e.entity_id for e in page], total) == (["box0", "box2"], 3)
    page, total = world.select("box", {"full": True}, limit=2, after="box2")
    assert ([e.entity_id for e in page], total) == (["box4"], 3)
    with pytest.raises(BrainError, match="limit"):
        world.select(limit=10_001)


def test_snapshot_by_type_and_count() -> None:
    world = World()
    for name, kind in (("a", "box"), ("b", "box"), ("r", "robot")):
        add(world, name, kind)
    relate(world, "r", "holds", "a")
    relate(world, "b", "on", "a")
    boxes = world.snapshot(["box"])
    assert (boxes.total_entities, boxes.entities_by_type) == (3, {"box": 2, "robot": 1})
    assert [e.entity_id for e in boxes.entities] == ["a", "b"]
    assert boxes.relations == [Relation("b", "on", "a")]


def test_a_version_the_world_cannot_answer_from_is_refused() -> None:
    world = World(version=100)
    add(world, "a")
    for since in (99, 102):
        with pytest.raises(BrainError, match="since_version"):
            world.snapshot(since=since)
    assert [e.entity_id for e in world.snapshot(since=100).entities] == ["a"]


names = st.sampled_from(["a", "b", "c", "d"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("see"), names, st.integers(0, 3)),
        st.tuples(st.just("delete"), names, st.just(0)),
        st.tuples(st.just("relate"), names, names),
        st.tuples(st.just("unrelate"), names, names),
    ),
    max_size=40,
)


def step(world: World, now: int, kind: str, first: str, second) -> None:
    try:
        if kind == "see":
            see(world, first, now, ttl=second * S, data={"n": now})
        elif kind == "delete":
            world.apply(world.plan_delete(first))
        elif kind == "relate":
            relate(world, first, "on", second)
        else:
            world.apply(world.plan_unrelate(Relation(first, "on", second)))
    except (BrainError, AssertionError):
        pass


@given(steps, st.integers(0, 40))
def test_the_changes_since_a_version_bring_an_old_copy_up_to_date(done, cut: int) -> None:
    world = World(version=1)
    copy: dict[str, Entity] = {}
    relations: set[Relation] = set()
    since = 0
    for i, (kind, first, second) in enumerate(done):
        if i in (0, cut) or i == len(done) - 1:
            changed = world.snapshot(since=since)
            copy, relations = follow(copy, relations, changed)
            since = changed.version
        step(world, (i + 1) * S, kind, first, second)
    copy, relations = follow(copy, relations, world.snapshot(since=since))
    assert copy == world.entities
    assert relations == set(world.snapshot().relations)


def follow(copy: dict, relations: set, changed) -> tuple[dict, set]:
    gone = set(changed.removed)
    touched = gone | {e.entity_id for e in changed.entities}
    copy = {k: v for k, v in copy.items() if k not in gone}
    copy |= {e.entity_id: e for e in changed.entities}
    kept = {r for r in relations if r.source_id not in touched and r.target_id not in touched}
    return copy, kept | set(changed.relations)
