"""The decision: rank the options, ask the conscience about the best, take the first it lets pass.

The score of an option is a payoff drawn from what is believed of it (Thompson sampling; Thompson,
Biometrika 25, 1933), so that an option is tried as often as it may still be the best, less what
the soft constraints cost. The draw is seeded with the decision id: the same beliefs and the same
id give the same ranking again. The confidence is no draw: it is the probability of success,
calibrated against the outcomes.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from random import Random
from typing import Any, NamedTuple

from brainos_ros.errors import BrainError
from brainos_ros.pfc.constraints import Constraint, ConstraintSet
from brainos_ros.pfc.learning import Belief, Learning
from brainos_ros.values import check_values

INDIFFERENT = 0.5
MOST_OPTIONS = 1000


@dataclass(frozen=True, slots=True)
class Option:
    """Something the robot could do, and what is known of it."""

    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Permission:
    """What the conscience said; `reason` a sentence."""

    approved: bool
    reason: str
    evaluation_id: str


class Contribution(NamedTuple):
    """What `source` added to a score (dimensionless; payoffs are 0 to 1), and in words."""

    source: str
    value: float
    text: str


@dataclass(slots=True)
class Candidate:
    """An option with what the decision made of it; `reason` says why it was not taken."""

    action: str
    confidence: float
    score: float
    contributions: list[Contribution]
    excluded: bool = False
    reason: str = ""


@dataclass(slots=True)
class Decision:
    """A decision as it is answered, kept and explained. `stamp_ns` counts from the Unix epoch."""

    decision_id: str
    stamp_ns: int
    objective: str
    context: dict[str, Any]
    recommended_action: str
    confidence: float
    reasoning: str
    contributions: list[Contribution]
    alternatives: list[Candidate]
    evaluation_id: str
    latency_ms: float

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold; contributions as [source, value, text]."""
        body = {name: getattr(self, name) for name in _DECISION}
        body["alternatives"] = [
            {name: getattr(each, name) for name in _CANDIDATE} for each in self.alternatives
        ]
        return body

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> "Decision":
        """The inverse of to_dict."""
        decision = cls(**body)
        decision.contributions = [Contribution(*part) for part in body["contributions"]]
        decision.alternatives = [Candidate(**each) for each in body["alternatives"]]
        for each in decision.alternatives:
            each.contributions = [Contribution(*part) for part in each.contributions]
        return decision


_DECISION = tuple(each.name for each in fields(Decision))
_CANDIDATE = tuple(each.name for each in fields(Candidate))

Ask = Callable[[str, Mapping[str, Any]], Permission]


class Engine:
    """Decides by the constraints of a file and by what was learnt."""

    def __init__(self, constraints: ConstraintSet, learning: Learning) -> None:
        self.constraints = constraints
        self.learning = learning

    def decide(
        self,
        objective: str,
        options: Sequence[Option],
        context: Mapping[str, Any],
        constraint_ids: Sequence[str],
        ask: Ask,
        observed: Mapping[str, Any] | None = None,
        decision_id: str = "",
    ) -> Decision:
        """Return the decision; its `recommended_action` is empty if no option was left.

        `context` is what outcomes are compared by; `observed` (what the brain sees by itself) is
        read by the constraints only. `ask(action, inputs)` is the conscience; a BrainError from
        it refuses this option and all that would have come after it. Raises BrainError, nothing
        changed, on a malformed request.
        """
        started = time.perf_counter()
        check_request(objective, options, context)
        constraints = self.constraints.select(constraint_ids)
        decision_id = decision_id or str(uuid.uuid4())
        random = Random(decision_id)
        situation = {**(observed or {}), **context}
        beliefs = self.learning.believe(objective, [option.name for option in options], context)
        ranked = sorted(
            (
                _weigh(option, beliefs[option.name], constraints, situation, random)
                for option in options
            ),
            key=lambda candidate: (candidate.excluded, -candidate.score),
        )
        attributes = {option.name: option.attributes for option in options}
        winner, evaluation_id = _first_allowed(ranked, attributes, context, ask)
        others = [candidate for candidate in ranked if candidate is not winner]
        for other in others:
            if winner and not other.excluded:
                other.reason = f"scores {other.score:.2f}, less than {winner.action}"
        return Decision(
            decision_id=decision_id,
            stamp_ns=time.time_ns(),
            objective=objective,
            context=situation,
            recommended_action=winner.action if winner else "",
            confidence=winner.confidence if winner else 0.0,
            reasoning=_reasoning(winner, others),
            contributions=winner.contributions if winner else [],
            alternatives=others,
            evaluation_id=evaluation_id,
            latency_ms=(time.perf_counter() - started) * 1e3,
        )


def check_request(objective: str, options: Sequence[Option], context: Mapping[str, Any]) -> None:
    """Raise BrainError naming what is wrong with a request."""
    if not objective.strip():
        raise BrainError("objective: is empty; say what is to be achieved")
    if not options:
        raise BrainError("options: is empty; at least one is needed")
    if len(options) > MOST_OPTIONS:
        raise BrainError(f"options: {len(options)} given, at most {MOST_OPTIONS}")
    check_values("context", context)
    seen: set[str] = set()
    for place, option in enumerate(options):
        if not option.name.strip():
            raise BrainError(f"options[{place}].name: is empty")
        if option.name in seen:
            raise BrainError(f"options[{place}].name: `{option.name}` is there twice")
        seen.add(option.name)
        check_values(f"options[{place}].attributes", option.attributes)


def _weigh(
    option: Option,
    belief: Belief,
    constraints: Sequence[Constraint],
    situation: Mapping[str, Any],
    random: Random,
) -> Candidate:
    mean, draw = belief.mean, belief.sample(random)
    contributions = [Contribution("prior", INDIFFERENT, "an option nothing is known of")]
    if belief.seen > 0.0:
        text = f"{belief.succeeded:.1f} of {belief.seen:.1f} similar outcomes were successes"
        contributions.append(Contribution("memory", mean - INDIFFERENT, text))
    text = "it may be better than known" if draw > mean else "it may be worse than known"
    contributions.append(Contribution("exploration", draw - mean, text))
    score, reason = draw, ""
    for constraint in constraints:
        verdict = constraint.judge(option.attributes, situation)
        if verdict is None:
            continue
        contributions.append(
            Contribution(f"constraint:{constraint.id}", -verdict.cost, verdict.text)
        )
        score -= verdict.cost
        if verdict.excluded and not reason:
            reason = f"{constraint.id} excludes it: {verdict.text}"
    return Candidate(option.name, belief.confidence, score, contributions, bool(reason), reason)


def _first_allowed(
    ranked: Sequence[Candidate],
    attributes: Mapping[str, Mapping[str, Any]],
    context: Mapping[str, Any],
    ask: Ask,
) -> tuple[Candidate | None, str]:
    silence = ""
    for candidate in ranked:
        if candidate.excluded:
            continue
        if not silence:
            try:
                said = ask(candidate.action, {**context, **attributes[candidate.action]})
            except BrainError as error:
                silence = f"the conscience cannot be asked: {error}"
            else:
                if said.approved:
                    candidate.contributions.append(
                        Contribution("conscience", 0.0, said.reason or "allowed")
                    )
                    return candidate, said.evaluation_id
        candidate.excluded = True
        candidate.reason = silence or f"the conscience refuses it: {said.reason}"
        candidate.contributions.append(Contribution("conscience", 0.0, candidate.reason))
    return None, ""


def _reasoning(winner: Candidate | None, others: Sequence[Candidate]) -> str:
    refused = [f"{other.action} ({other.reason})" for other in others if other.excluded]
    if winner is None:
        return "No option is left: " + "; ".join(refused) + "."
    weights = [each for each in winner.contributions if each.source not in ("prior", "conscience")]
    weights.sort(key=lambda each: -abs(each.value))
    reasons = [f"{each.source} {each.value:+.2f}: {each.text}" for each in weights]
    sentence = f"{winner.action} scores {winner.score:.2f} ({'; '.join(reasons)})"
    behind = [other for other in others if not other.excluded]
    if behind:
        sentence += f", ahead of {behind[0].action} with {behind[0].score:.2f}"
    if refused:
        sentence += f"; left out: {'; '.join(refused)}"
    return sentence + "."
