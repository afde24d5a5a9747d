"""Decisions and what came of them as messages."""

import json
import time
from collections.abc import Iterable
from typing import Any

from brainos_msgs.action import Execute
from brainos_msgs.msg import Alternative, Attribute, Contribution, Decision, Episode

from brainos_ros.errors import BrainError
from brainos_ros.ledger.frames import MAX_PAYLOAD
from brainos_ros.ros.conversions import attributes_to_dict, dict_to_attributes, ns_to_time
from brainos_ros.values import check_values

_REST = 1024
"""What an episode has more than its outcome and the facts, at most [bytes]."""


def _contributions(parts: list[Any]) -> list[Contribution]:
    return [Contribution(source=part[0], value=part[1], text=part[2]) for part in parts]


def decision_to_msg(decision: Any) -> Decision:
    """A `brainos_ros.pfc.engine.Decision` as a message."""
    return Decision(
        decision_id=decision.decision_id,
        stamp=ns_to_time(decision.stamp_ns),
        objective=decision.objective,
        context=dict_to_attributes(decision.context),
        recommended_action=decision.recommended_action,
        confidence=decision.confidence,
        reasoning=decision.reasoning,
        contributions=_contributions(decision.contributions),
        alternatives=[
            Alternative(
                action=each.action,
                confidence=each.confidence,
                score=each.score,
                excluded=each.excluded,
                reason=each.reason,
                contributions=_contributions(each.contributions),
            )
            for each in decision.alternatives
        ],
        evaluation_id=decision.evaluation_id,
        latency_ms=decision.latency_ms,
    )


def outcome_to_episode(outcome: Any, done: Execute.Result) -> tuple[Episode, list[str]]:
    """A `brainos_ros.pfc.store.Outcome`, with what the robot measured, as an episode.

    Facts that the memory would refuse are left out; the list says which and why.
    """
    metadata, refused = _acceptable(
        [*dict_to_attributes({"duration_s": done.duration_s}), *done.facts],
        MAX_PAYLOAD - len(json.dumps(outcome.to_dict())) - _REST,
    )
    episode = Episode(
        episode_id=outcome.episode_id,
        stamp=ns_to_time(time.time_ns()),
        objective=outcome.objective,
        context=dict_to_attributes(outcome.context),
        action=outcome.action,
        outcome=outcome.outcome,
        reward=outcome.reward,
        metadata=dict_to_attributes(metadata),
        kind="episodic",
        decision_id=outcome.decision_id,
    )
    return episode, refused


def _acceptable(facts: Iterable[Attribute], room: int) -> tuple[dict[str, Any], list[str]]:
    """Those of the facts that a record has room for [bytes], and why each other is refused."""
    kept: dict[str, Any] = {}
    refused = []
    for fact in facts:
        try:
            value = attributes_to_dict([fact], "fact")
            check_values("fact", value)
            if fact.key in kept:
                raise BrainError(f"fact: `{fact.key}` is repeated; give each key once")
            size = len(json.dumps(value))
            if size > room:
                raise BrainError(f"fact: `{fact.key}` takes {size} bytes, {room} are left")
        except BrainError as error:
            refused.append(str(error))
        else:
            kept |= value
            room -= size
    return kept, refused
