"""The genome over real DDS: evolution beside a node that keeps answering, history, fleet."""

import os
import threading
from pathlib import Path

import pytest
from brainos_msgs import msg, srv
from lifecycle_msgs.msg import Transition
from waiting import wait_for

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.genome_sync.node import UPDATED, GenomeSyncNode
from brainos_ros.ledger import Stream
from brainos_ros.ledger.backup import back_up
from brainos_ros.ledger.housekeeping import prune
from brainos_ros.ros import qos

FITNESS = """
import pathlib, time

def hill(parameters, seed, seconds):
    return -abs(parameters["cruise_speed_mps"] - 1.0) - abs(parameters["lookahead_m"] - 1.2)

def flat(parameters, seed, seconds):
    return 1.0

def broken(parameters, seed, seconds):
    raise RuntimeError("no simulator here")

def hang(parameters, seed, seconds):
    time.sleep(3600)
"""
KEY = "k" * 32


@pytest.fixture(autouse=True)
def fitness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "node_fitness.py").write_text(FITNESS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.delenv("BRAINOS_SERIALIZATION_KEY", raising=False)


def start(graph, name: str = "hill", **more):
    return graph.start(GenomeSyncNode, fitness=f"node_fitness:{name}", **more)


def evolve(graph, **fields):
    return graph.call(srv.Evolve, "genome_sync/evolve", srv.Evolve.Request(**fields), 30.0)


def status(graph):
    return graph.call(srv.GetGenomeStatus, "genome_sync/get_status")


def history(graph):
    return graph.call(srv.ListHistory, "genome_sync/list_history").generations


def rollback(graph, genome_hash: str = "", release: bool = False):
    request = srv.Rollback.Request(genome_hash=genome_hash, reason="a test", release=release)
    return graph.call(srv.Rollback, "genome_sync/rollback", request)


def test_it_begins_with_what_the_robot_uses(graph) -> None:
    start(graph)
    reply = status(graph)
    names = {attribute.key for attribute in reply.parameters}
    assert names == {"cruise_speed_mps", "lookahead_m", "turn_in_place_rad"}
    assert (reply.genes, reply.active.origin, reply.evolving) == (3, "default", False)


def test_a_generation_improves_and_survives_a_restart(graph) -> None:
    node = start(graph)
    first = status(graph).active.genome_hash
    reply = evolve(graph, seed=5, candidates=16)
    assert reply.success, reply.message
    assert (reply.improved, reply.seed_used, reply.evaluated) == (True, 5, 16)
    assert reply.fitness_after > reply.fitness_before
    assert (reply.generation.generation, reply.generation.origin) == (1, "evolve")
    graph.stop(node)
    start(graph)
    assert status(graph).active == reply.generation
    assert [entry.genome_hash for entry in history(graph)] == [reply.generation.genome_hash, first]


def prune_all(graph) -> None:
    with Stream.open(graph.home / "ledger", "genome_sync", segment_bytes=2048) as stream:
        for n in range(60):
            stream.event("note", {"n": n})
        stream.checkpoint()
        back_up(stream.path, graph.home / "copy")
        assert prune(stream, -1.0, graph.home / "copy")


def test_pruning_does_not_change_the_genome_in_use(graph) -> None:
    node = start(graph)
    graph.stop(node)
    prune_all(graph)
    node = start(graph)
    assert evolve(graph, seed=5, candidates=16).improved
    assert rollback(graph).success
    assert evolve(graph, seed=6, candidates=16).improved
    before = history(graph)
    graph.stop(node)
    prune_all(graph)
    start(graph)
    assert status(graph).active == before[0]
    assert history(graph) == before


def test_a_pruned_stream_without_a_summary_is_refused_with_the_remedy(graph) -> None:
    prune_all(graph)
    node = start(graph, state="inactive")
    assert not graph.change_state(node.get_name(), Transition.TRANSITION_ACTIVATE)
    assert "brainos ledger backup genome_sync DIRECTORY --restore" in node.last_failure


def test_what_is_not_better_is_not_used(graph) -> None:
    start(graph, "flat")
    before = status(graph).active.genome_hash
    reply = evolve(graph)
    assert (reply.success, reply.improved) == (True, False)
    assert reply.seed_used > 0
    assert status(graph).active.genome_hash == before


def test_rollback_bars_until_released(graph) -> None:
    start(graph)
    first = status(graph).active.genome_hash
    bad = evolve(graph, seed=5, candidates=16).generation.genome_hash
    assert rollback(graph).generation.genome_hash == first
    assert [entry.barred for entry in history(graph)] == [False, True, False]
    assert rollback(graph, bad).error_code == ErrorCode.GENOME_REJECTED
    assert rollback(graph, bad, release=True).success
    assert rollback(graph, bad).generation.genome_hash == bad


def test_the_node_answers_while_it_evolves_and_refuses_a_second(graph) -> None:
    node = start(graph, "hang")
    replies = []
    caller = threading.Thread(target=lambda: replies.append(evolve(graph)))
    caller.start()
    wait_for(lambda: status(graph).evolving)
    assert evolve(graph).error_code == ErrorCode.GENOME_BUSY
    assert history(graph)
    assert graph.change_state(node.get_name(), Transition.TRANSITION_DEACTIVATE)
    caller.join()
    assert replies[0].message
    assert replies[0].error_code == ErrorCode.CANCELLED
    assert graph.change_state(node.get_name(), Transition.TRANSITION_ACTIVATE)
    assert not status(graph).evolving


@pytest.mark.parametrize(
    ("name", "more", "code"),
    [
        ("hang", {"evolve_timeout_s": 0.5}, ErrorCode.TIMEOUT),
        ("broken", {}, ErrorCode.UNAVAILABLE),
        ("missing", {}, ErrorCode.UNAVAILABLE),
    ],
)
def test_an_evolution_that_fails_changes_nothing(graph, name: str, more, code) -> None:
    start(graph, name, **more)
    before = status(graph).active
    reply = evolve(graph)
    assert (reply.success, reply.error_code) == (False, code)
    assert reply.message
    assert status(graph).active == before


def test_malformed_requests_are_refused(graph) -> None:
    start(graph)
    assert evolve(graph, candidates=65).error_code == ErrorCode.INVALID_ARGUMENT
    assert rollback(graph).error_code == ErrorCode.NOT_FOUND
    assert rollback(graph, "f" * 64).error_code == ErrorCode.NOT_FOUND
    sync = graph.call(srv.SyncGenome, "genome_sync/sync")
    assert (sync.success, sync.error_code) == (False, ErrorCode.UNAVAILABLE)
    assert "fleet" in sync.message


def test_two_robots_hear_each_other_and_nobody_else(graph, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("BRAINOS_SERIALIZATION_KEY", KEY)
    homes = {name: tmp_path / name for name in ("r1", "r2")}
    first = start(graph, robot="r1", home=str(homes["r1"]))
    members = tmp_path / "members.yaml"
    identity = first._register.fleet.public_key
    members.write_text(f"r1: {identity.hex()}\n")
    graph.stop(first)
    start(graph, robot="r1", home=str(homes["r1"]))
    packets = graph.listen(msg.GenomePacket, UPDATED, qos.fleet_state(8))
    assert evolve(graph, seed=5, candidates=16).improved
    packet = packets.wait_for(lambda m: m.sender_node_id == "r1")
    assert packet.counter == 1

    node = graph.start(GenomeSyncNode, namespace="r2", robot="r2", home=str(homes["r2"]),
                       fleet_members_file=str(members))  # fmt: skip
    second = node._register
    wait_for(lambda: "r1" in second.peers)
    forged = msg.GenomePacket(sender_node_id="r1", packet_id="x", payload=packet.payload)
    graph.publisher(msg.GenomePacket, UPDATED, qos.STATE).publish(forged)
    wait_for(lambda: second.rejected == 1)
    assert second.peers["r1"].packet_id == packet.packet_id


def test_a_change_that_the_fleet_is_not_told_of_is_a_change(graph, monkeypatch) -> None:
    monkeypatch.setenv("BRAINOS_SERIALIZATION_KEY", KEY)
    node = start(graph)
    first = status(graph).active.genome_hash

    def refuse(kind: str, body) -> int:
        raise BrainError("no space", ErrorCode.LEDGER_REFUSED)

    monkeypatch.setattr(node, "record", refuse)
    evolved = evolve(graph, seed=5, candidates=16)
    assert (evolved.success, evolved.improved, evolved.seed_used) == (True, True, 5)
    returned = rollback(graph)
    assert (returned.success, returned.generation.genome_hash) == (True, first)
    for reply in (evolved, returned):
        assert reply.message == "done, but the fleet was not told: no space"
    assert len(history(graph)) == 3
