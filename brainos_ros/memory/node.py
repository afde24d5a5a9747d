"""The memory's door to ROS: episodes in and out, and questions to the ledger of the whole brain.

The questions to the ledger walk through all of it, and a purge through the index of all words, so
they are answered on a thread of their own; recalling, which may meet a word that all episodes
have, on another.
"""

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from brainos_msgs.msg import (
    Attribute,
    Pattern,
    ScoredEpisode,
    StreamReport,
    TierStats,
    TypeCount,
)
from brainos_msgs.msg import Episode as EpisodeMsg
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
from rcl_interfaces.msg import ParameterType

from brainos_ros.errors import BrainError
from brainos_ros.ledger import heads, prove
from brainos_ros.memory.audit import find_stream, statistics, verify_streams
from brainos_ros.memory.episodes import EPISODIC, SKILL, WORKING, Episode
from brainos_ros.memory.keeper import Keeper
from brainos_ros.memory.recall import FIELDS, Hit, Question
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import (
    attributes_to_dict,
    dict_to_attributes,
    ns_to_time,
    time_to_ns,
)
from brainos_ros.ros.executor import Outgoing
from brainos_ros.ros.lifecycle import BrainNode
from brainos_ros.ros.main import run
from brainos_ros.ros.parameters import Parameter

EXPIRE_S = 5.0
HEADS_S = 30.0
_MIB = 1 << 20


def _limit(name: str, mebibytes: int) -> Parameter:
    return Parameter(
        f"{name}_max_bytes",
        mebibytes * _MIB,
        f"what {name.replace('_', ' ')} memory may take; then the least worth is let go",
        unit="bytes",
        minimum=1024,
        maximum=2**53,
    )


def _ttl(name: str, seconds: float) -> Parameter:
    return Parameter(
        f"{name}_ttl_s",
        seconds,
        f"how long {name.replace('_', ' ')} memory is kept; 0 is for ever",
        unit="s",
        minimum=0.0,
        maximum=1e10,
    )


class MemoryNode(BrainNode):
    """Keeps what the robot lived, and answers for the ledger."""

    role = "memory"
    parameters = (
        _limit("working", 5),
        _limit("episodic", 1024),
        _limit("long_term", 10240),
        _ttl("working", 3600.0),
        _ttl("episodic", 90 * 86400.0),
        _ttl("long_term", 0.0),
    )

    def configure(self) -> None:
        names = {WORKING: "working", EPISODIC: "episodic", SKILL: "long_term"}
        keeper = Keeper(
            self.home / "memory" / "memory.db",
            {kind: self.settings[f"{name}_max_bytes"] for kind, name in names.items()},
            {kind: self.settings[f"{name}_ttl_s"] for kind, name in names.items()},
        )
        self._keeper = self._owned(keeper, Keeper.close)
        self._heads: dict[str, str] = {}

    def activate(self) -> None:
        applied = self._keeper.catch_up(self.ledger)
        while self._keeper.damaged:
            self.get_logger().warning(
                f"memory.db was damaged and is built anew from the ledger; it is kept as "
                f"{self._keeper.damaged.pop()}, which no purge reaches: delete it when you are done"
            )
        if applied > 1:
            self.get_logger().info(f"caught up with {applied} ledger records")
        self.create_subscription(EpisodeMsg, "episodes", self._live, qos.EVENT)
        self.every(EXPIRE_S, lambda: self._keeper.expire(self.ledger))
        self.every(HEADS_S, self._gather_heads)
        self.door(WriteEpisode, "memory/write", self._write)
        self.door(WriteEpisodes, "memory/write_batch", self._write_batch)
        self.door(GetMemoryStats, "memory/get_stats", self._get_stats)
        recalling = self._owned(Outgoing(self, "recalling"), Outgoing.close)
        self.slow_door(Retrieve, "memory/retrieve", self._retrieve, recalling)
        self.slow_door(ListPatterns, "memory/list_patterns", self._list_patterns, recalling)
        self.slow_door(Forget, "memory/forget", self._forget)
        self.slow_door(VerifyAudit, "memory/verify_audit", self._verify_audit)
        self.slow_door(GetAuditStats, "memory/get_audit_stats", self._get_audit_stats)
        self.slow_door(Prove, "memory/prove", self._prove)

    def deactivate(self) -> None:
        self._gather_heads()

    def diagnose(self) -> Mapping[str, object]:
        return {"ledger_streams_seen": len(getattr(self, "_heads", {}))}

    # ---------------------------------------------------------------- episodes

    def _live(self, message: EpisodeMsg) -> None:
        try:
            self._keeper.write([_from_msg(message)], self.ledger)
        except BrainError as error:
            self.get_logger().warning(f"an episode is not kept: {error}")

    def _write(self, request: Any, response: Any) -> Any:
        (kept,) = self._keeper.write([_from_msg(request.episode, "episode.")], self.ledger)
        response.episode_id = kept.episode_id
        response.stored_at = ns_to_time(time.time_ns())
        response.memory_tier = kept.tier
        return response

    def _write_batch(self, request: Any, response: Any) -> Any:
        episodes = [
            _from_msg(each, f"episodes[{place}].") for place, each in enumerate(request.episodes)
        ]
        kept = self._keeper.write(episodes, self.ledger)
        response.episode_ids = [each.episode_id for each in kept]
        return response

    def _retrieve(self, request: Any, response: Any) -> Any:
        started = time.perf_counter()
        hits = self._keeper.retrieve(
            Question(
                request.query,
                request.limit,
                time_to_ns(request.start, "start"),
                time_to_ns(request.end, "end"),
                _filters(request.filters),
                request.min_reward if request.use_min_reward else -1.0,
            )
        )
        response.results = [_hit_to_msg(hit) for hit in hits]
        response.latency_ms = (time.perf_counter() - started) * 1e3
        return response

    def _forget(self, request: Any, response: Any) -> Any:
        self._keeper.forget(request.episode_id, request.purge, request.reason, self.ledger)
        return response

    def _get_stats(self, _: Any, response: Any) -> Any:
        response.tiers = [
            TierStats(
                tier=tier.name,
                entries=tier.entries,
                size_bytes=tier.size_bytes,
                max_bytes=tier.max_bytes,
                usage_percent=100.0 * tier.size_bytes / tier.max_bytes,
                hit_rate=tier.hit_rate,
            )
            for tier in self._keeper.tiers()
        ]
        return response

    def _list_patterns(self, request: Any, response: Any) -> Any:
        response.patterns = [
            Pattern(
                pattern_id=each.pattern_id,
                actions=list(each.actions),
                occurrences=each.occurrences,
                effectiveness=each.effectiveness,
                last_seen=ns_to_time(each.last_seen_ns),
            )
            for each in self._keeper.recall.patterns(request.limit)
        ]
        return response

    # ---------------------------------------------------------------- the ledger

    def _gather_heads(self) -> None:
        """Keep the heads of all other streams in this one, so that the robot has one root head."""
        found = heads(self.home / "ledger")
        found.pop(self.role, None)
        if found != self._heads:
            self.record("heads", {"heads": found})
            self._heads = found

    def _verify_audit(self, request: Any, response: Any) -> Any:
        started = time.perf_counter()
        reports = verify_streams(self.home / "ledger", request.stream)
        response.verification_id = str(uuid.uuid4())
        response.verified = all(report.verified for report in reports)
        response.total_entries = sum(report.records for report in reports)
        response.verified_entries = sum(report.verified_records for report in reports)
        response.streams = [StreamReport(**report._asdict()) for report in reports]
        response.verification_duration_ms = (time.perf_counter() - started) * 1e3
        response.verified_at = ns_to_time(time.time_ns())
        return response

    def _get_audit_stats(self, _: Any, response: Any) -> Any:
        found = statistics(self.home / "ledger")
        response.total_entries = found.total
        response.entries_by_type = [
            TypeCount(type=kind, count=count) for kind, count in sorted(found.by_kind.items())
        ]
        response.earliest_entry = ns_to_time(found.earliest_ns)
        response.latest_entry = ns_to_time(found.latest_ns)
        response.size_bytes = found.size_bytes
        return response

    def _prove(self, request: Any, response: Any) -> Any:
        path = find_stream(self.home / "ledger", request.stream)
        response.bundle = list(json.dumps(prove(path, request.sequence)).encode())
        return response


def _filters(given: list[Attribute]) -> dict[str, Any]:
    """The filters of a request; one for an episode's own field is text, also where it says 1e3."""
    for each in given:
        if each.key in FIELDS and each.value.string_value:
            each.value.type = each.value.type or ParameterType.PARAMETER_STRING
    return attributes_to_dict(given, "filters")


def _from_msg(message: EpisodeMsg, where: str = "") -> Episode:
    return Episode(
        episode_id=message.episode_id,
        stamp_ns=time_to_ns(message.stamp, f"{where}stamp"),
        objective=message.objective,
        context=attributes_to_dict(message.context, f"{where}context"),
        action=message.action,
        outcome=message.outcome,
        reward=message.reward,
        metadata=attributes_to_dict(message.metadata, f"{where}metadata"),
        kind=message.kind,
        decision_id=message.decision_id,
    )


def _hit_to_msg(hit: Hit) -> ScoredEpisode:
    episode = hit.episode
    message = EpisodeMsg(
        episode_id=episode.episode_id,
        stamp=ns_to_time(episode.stamp_ns),
        objective=episode.objective,
        context=dict_to_attributes(episode.context),
        action=episode.action,
        outcome=episode.outcome,
        reward=episode.reward,
        metadata=dict_to_attributes(episode.metadata),
        kind=episode.kind,
        decision_id=episode.decision_id,
    )
    return ScoredEpisode(episode=message, relevance_score=hit.score, why=hit.why, tier=hit.heat)


def main() -> None:
    """Entry point of the `memory` executable."""
    run(MemoryNode)
