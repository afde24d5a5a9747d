"""Decisions and what came of them as messages."""

import time
from typing import Any

from brainos_msgs.action import Execute
from brainos_msgs.msg import Alternative, Contribution, Decision, Episode

from brainos_ros.ros.conversions import dict_to_attributes, ns_to_time


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


def outcome_to_episode(outcome: Any, done: Execute.Result) -> Episode:
    """A `brainos_ros.pfc.store.Outcome`, with what the robot measured, as an episode."""
    facts = {each.key: each for each in done.facts}
    duration = dict_to_attributes({"duration_s": done.duration_s})
    return Episode(
        episode_id=outcome.episode_id,
        stamp=ns_to_time(time.time_ns()),
        objective=outcome.objective,
        context=dict_to_attributes(outcome.context),
        action=outcome.action,
        outcome=outcome.outcome,
        reward=outcome.reward,
        metadata=[*duration, *(fact for key, fact in facts.items() if key != "duration_s")],
        kind="episodic",
        decision_id=outcome.decision_id,
    )
