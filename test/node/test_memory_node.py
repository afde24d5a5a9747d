"""The memory over real DDS: written, recalled, restarted, asked about the ledger."""

import json
import shutil
import time
import uuid

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")

from brainos_msgs.msg import Attribute, Episode, ErrorCode
from brainos_msgs.srv import (
    Forget,
    GetAuditStats,
    GetMemoryStats,
    ListPatterns,
    Prove,
    Retrieve,
    VerifyAudit,
    WriteEpisode,
    WriteEpisodes,
)
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import Log
from waiting import matched, wait_for

from brainos_ros.memory.node import MemoryNode
from brainos_ros.ros.conversions import attributes_to_dict, dict_to_attributes, ns_to_time


def episode(action="pick_object", **fields):
    given = {
        "objective": "tidy",
        "context": dict_to_attributes({"location": "lab"}),
        "action": action,
        "outcome": "success",
        "reward": 1.0,
        "metadata": dict_to_attributes({"object_type": "cube", "mass_kg": 0.5}),
        **fields,
    }
    return Episode(**given)


def write(graph, **fields):
    return graph.call(WriteEpisode, "memory/write", WriteEpisode.Request(episode=episode(**fields)))


def recall(graph, query="", **fields):
    return graph.call(Retrieve, "memory/retrieve", Retrieve.Request(query=query, **fields))


def test_what_is_written_is_recalled_also_after_a_restart(graph):
    memory = graph.start(MemoryNode)
    kept = write(graph)
    assert (kept.success, kept.memory_tier) == (True, "episodic")
    assert uuid.UUID(kept.episode_id).version == 4
    assert abs(kept.stored_at.sec - time.time()) < 60
    graph.stop(memory)
    graph.start(MemoryNode)
    found = recall(graph, "pick_object at lab")
    assert found.success
    assert found.latency_ms > 0.0
    (hit,) = found.results
    assert hit.episode.episode_id == kept.episode_id
    assert attributes_to_dict(hit.episode.metadata, "metadata") == {
        "object_type": "cube",
        "mass_kg": 0.5,
    }
    assert 0.9 < hit.relevance_score <= 1.0
    assert "3 of 3 words" in hit.why
    assert hit.tier == "hot"


def test_without_the_database_the_ledger_gives_it_back(graph):
    memory = graph.start(MemoryNode)
    kept = write(graph)
    graph.stop(memory)
    shutil.rmtree(graph.home / "memory")
    graph.start(MemoryNode)
    assert [hit.episode.episode_id for hit in recall(graph).results] == [kept.episode_id]


def test_a_damaged_database_is_kept_aside_and_built_anew(graph):
    memory = graph.start(MemoryNode)
    kept = write(graph)
    graph.stop(memory)
    (graph.home / "memory" / "memory.db").write_bytes(b"garbage" * 1000)
    warned = graph.listen(Log, "/rosout")
    graph.start(MemoryNode)
    assert [hit.episode.episode_id for hit in recall(graph).results] == [kept.episode_id]
    (aside,) = graph.home.glob("memory/memory.db.damaged-*")
    assert warned.wait_for(lambda log: str(aside) in log.msg)


def test_filters_time_and_reward(graph):
    graph.start(MemoryNode)
    write(graph, reward=-0.5, outcome="failure", stamp=ns_to_time(10**18))
    good = write(graph)
    by_hand = Attribute(key="object_type")
    by_hand.value.string_value = "cube"
    assert len(recall(graph, filters=[by_hand]).results) == 2
    late = recall(graph, start=ns_to_time(10**18 + 1)).results
    happy = recall(graph, min_reward=0.0, use_min_reward=True).results
    for found in (late, happy):
        assert [each.episode.episode_id for each in found] == [good.episode_id]
    refused = recall(graph, limit=5000)
    assert (refused.success, refused.error_code) == (False, ErrorCode.INVALID_ARGUMENT)


def test_a_filter_for_a_field_is_text_by_hand_too(graph):
    graph.start(MemoryNode)
    write(graph, action="1e3")
    by_hand = Attribute(key="action")
    by_hand.value.string_value = "1e3"
    assert len(recall(graph, filters=[by_hand]).results) == 1
    for wrong in ([1, 2], b"x", 1000):
        reply = recall(graph, filters=dict_to_attributes({"action": wrong}))
        assert (reply.success, reply.error_code) == (False, ErrorCode.INVALID_ARGUMENT)
        assert "`action`" in reply.message


def test_a_batch_is_all_or_none(graph):
    graph.start(MemoryNode)
    good = WriteEpisodes.Request(episodes=[episode("a"), episode("b"), episode("c")])
    assert len(set(graph.call(WriteEpisodes, "memory/write_batch", good).episode_ids)) == 3
    bad = WriteEpisodes.Request(episodes=[episode("d"), episode("e", outcome="won")])
    reply = graph.call(WriteEpisodes, "memory/write_batch", bad)
    assert not reply.success
    assert "episodes[1].outcome" in reply.message
    assert len(recall(graph).results) == 3
    empty = graph.call(WriteEpisodes, "memory/write_batch")
    assert empty.error_code == ErrorCode.INVALID_ARGUMENT


def test_an_id_is_written_once(graph):
    graph.start(MemoryNode)
    name = str(uuid.uuid4())
    assert write(graph, episode_id=name).success
    assert write(graph, episode_id=name).success
    other = write(graph, episode_id=name, reward=0.0)
    assert other.error_code == ErrorCode.ALREADY_EXISTS
    assert len(recall(graph).results) == 1


def test_what_the_robot_lives_is_kept_once(graph):
    graph.start(MemoryNode)
    episodes = matched(graph.publisher(Episode, "episodes"))
    lived = episode(episode_id=str(uuid.uuid4()))
    episodes.publish(episode(outcome="nonsense"))
    episodes.publish(lived)
    episodes.publish(lived)
    episodes.publish(episode("last"))
    found = wait_for(lambda: recall(graph, "last").results)
    assert len(recall(graph).results) == 2
    assert found[0].episode.action == "last"


def test_stats_name_three_tiers(graph):
    graph.start(MemoryNode, working_max_bytes=4096)
    for kind in ("working", "episodic", "skill"):
        assert write(graph, kind=kind).success
    recall(graph, "lab")
    tiers = {each.tier: each for each in graph.call(GetMemoryStats, "memory/get_stats").tiers}
    assert list(tiers) == ["working", "episodic", "long_term"]
    working = tiers["working"]
    assert (working.entries, working.max_bytes, working.hit_rate) == (1, 4096, 1.0)
    assert working.usage_percent == pytest.approx(100 * working.size_bytes / 4096)


def test_forget_and_purge(graph):
    graph.start(MemoryNode)
    kept = write(graph, context=dict_to_attributes({"name": "Xanthippe"}))
    asked = Forget.Request(episode_id=kept.episode_id, purge=True)
    assert "reason" in graph.call(Forget, "memory/forget", asked).message
    asked.reason = "her wish"
    assert graph.call(Forget, "memory/forget", asked).success
    assert recall(graph).results == []
    unknown = graph.call(Forget, "memory/forget", Forget.Request(episode_id="x"))
    assert unknown.error_code == ErrorCode.NOT_FOUND
    assert graph.call(VerifyAudit, "memory/verify_audit").verified


def test_patterns(graph):
    graph.start(MemoryNode)
    for place, action in enumerate("ababab"):
        write(graph, action=action, stamp=ns_to_time((place + 1) * 10**9))
    (best, *_) = graph.call(ListPatterns, "memory/list_patterns").patterns
    assert (best.occurrences, best.effectiveness) == (3, 1.0)
    assert list(best.actions) in (["a", "b"], ["b", "a"])


def test_the_ledger_answers(graph):
    graph.start(MemoryNode)
    for action in "abc":
        write(graph, action=action)
    found = graph.call(VerifyAudit, "memory/verify_audit")
    assert (found.success, found.verified) == (True, True)
    assert found.total_entries == found.verified_entries >= 3
    assert [each.stream for each in found.streams] == ["memory"]
    unknown = graph.call(VerifyAudit, "memory/verify_audit", VerifyAudit.Request(stream="x"))
    assert unknown.error_code == ErrorCode.NOT_FOUND
    stats = graph.call(GetAuditStats, "memory/get_audit_stats")
    counts = {each.type: each.count for each in stats.entries_by_type}
    assert counts["episode"] == 3
    assert sum(counts.values()) == stats.total_entries
    assert stats.size_bytes > 0
    assert stats.earliest_entry.sec <= stats.latest_entry.sec


def test_a_record_is_proved(graph):
    memory = graph.start(MemoryNode)
    write(graph)
    memory.ledger.checkpoint()
    asked = Prove.Request(stream="memory", sequence=0)
    reply = graph.call(Prove, "memory/prove", asked)
    assert reply.success, reply.message
    assert json.loads(bytes(reply.bundle))["sequence"] == 0
    asked.sequence = 10**6
    assert not graph.call(Prove, "memory/prove", asked).success


def test_a_changed_byte_is_found(graph):
    memory = graph.start(MemoryNode)
    write(graph)
    memory.ledger.checkpoint()
    (log,) = (graph.home / "ledger" / "memory" / "log").iterdir()
    content = log.read_bytes()
    place = content.index(b"pick_object")
    with log.open("r+b") as file:
        file.seek(place)
        file.write(b"drop")
    found = graph.call(VerifyAudit, "memory/verify_audit")
    assert (found.success, found.verified) == (True, False)
    assert found.streams[0].problem


def test_doors_close_and_open_again(graph):
    graph.start(MemoryNode)
    kept = write(graph)
    assert graph.change_state("memory", Transition.TRANSITION_DEACTIVATE)
    assert graph.change_state("memory", Transition.TRANSITION_CLEANUP)
    assert graph.change_state("memory", Transition.TRANSITION_CONFIGURE)
    assert graph.change_state("memory", Transition.TRANSITION_ACTIVATE)
    assert [each.episode.episode_id for each in recall(graph).results] == [kept.episode_id]
    assert graph.call(VerifyAudit, "memory/verify_audit").verified
