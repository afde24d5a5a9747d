"""What the outcomes so far say of an option, in a situation like this one.

Outcomes of one objective and option are pooled into a Beta posterior, each counted by how similar
its context is to the present one: continuous correlated beta processes (Goetschalckx, Poupart and
Hoey, IJCAI 2011). Similarity is Gower's (Biometrics 27, 1971), sharpened. Old outcomes fade, so a
world that changes is followed: discounted Thompson sampling (Raj and Kalyani, 2017).

Two things are learnt apart: the *payoff* (reward mapped from [-1, 1] to [0, 1]), by which options
are ranked, and the *success* (success 1, partial 0.5, failure 0), which is the confidence. The
confidence is calibrated as it goes: each outcome is first predicted, and what predictions of that
height missed is added to the next ones (histogram binning, Zadrozny and Elkan, ICML 2001, drawn to
no correction while a bin has few outcomes; prequential, Dawid 1984).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

DISCOUNT = 0.99
SHARPNESS = 4
MOST_CONTEXTS = 64
MOST_CELLS = 2_000
BINS = 10
CAUTION = 20.0
SUCCESS = {"success": 1.0, "partial": 0.5, "failure": 0.0}


@dataclass(frozen=True, slots=True)
class Belief:
    """What is believed of one option: Beta(alpha, beta) of its payoff, and its `confidence`.

    `confidence` is the calibrated probability that it succeeds. `seen` outcomes are behind it, of
    which `succeeded` were successes, both weighted by similarity and age.
    """

    alpha: float
    beta: float
    confidence: float
    succeeded: float
    seen: float

    @property
    def mean(self) -> float:
        return self.alpha / (self.alpha + self.beta)

    def sample(self, random: Random) -> float:
        """Draw a payoff in [0, 1] (Thompson sampling)."""
        return random.betavariate(self.alpha, self.beta)


@dataclass(slots=True)
class _Cell:
    """Outcomes of one option in one context, faded to step `at`."""

    context: Mapping[str, Any]
    seen: float = 0.0
    payoff: float = 0.0
    success: float = 0.0
    at: int = 0

    def fade(self, step: int) -> float:
        return float(DISCOUNT ** (step - self.at))


class _Calibration:
    """What predictions of each height missed so far, over all objectives."""

    def __init__(self) -> None:
        self._missed = [0.0] * (BINS + 1)
        self._seen = [0.0] * (BINS + 1)

    def correct(self, predicted: float) -> float:
        place = int(predicted * BINS)
        correction = self._missed[place] / (CAUTION + self._seen[place])
        return min(max(predicted + correction, 0.0), 1.0)

    def learn(self, predicted: float, success: float) -> None:
        place = int(predicted * BINS)
        self._missed[place] += success - predicted
        self._seen[place] += 1.0


@dataclass(slots=True)
class _Objective:
    step: int = 0
    cells: dict[str, dict[str, _Cell]] = field(default_factory=dict)


class Learning:
    """Outcomes remembered per objective and option. A function of the outcomes, in their order.

    Callers name objectives and options, so of all cells only the MOST_CELLS learnt last are kept.
    """

    def __init__(self) -> None:
        self._objectives: dict[str, _Objective] = {}
        self._cells: dict[tuple[str, str, str], None] = {}  # in the order they were learnt
        self._calibration = _Calibration()

    def learn(
        self, objective: str, option: str, context: Mapping[str, Any], outcome: str, reward: float
    ) -> None:
        """Count one outcome: `outcome` a key of SUCCESS, `reward` in [-1, 1]."""
        known = self._objectives.setdefault(objective, _Objective())
        seen, _, succeeded = _pool(known, option, context)
        self._calibration.learn(_predict(seen, succeeded), SUCCESS[outcome])
        known.step += 1
        cells = known.cells.setdefault(option, {})
        key = json.dumps(context, sort_keys=True)
        cell = cells.pop(key, None) or _Cell(dict(context))
        fade = cell.fade(known.step)
        cell.seen = cell.seen * fade + 1.0
        cell.payoff = cell.payoff * fade + (reward + 1.0) / 2.0
        cell.success = cell.success * fade + SUCCESS[outcome]
        cell.at = known.step
        cells[key] = cell
        self._cells.pop((objective, option, key), None)
        self._cells[objective, option, key] = None
        if len(cells) > MOST_CONTEXTS:
            self._forget(objective, option, next(iter(cells)))
        elif len(self._cells) > MOST_CELLS:
            self._forget(*next(iter(self._cells)))

    def _forget(self, objective: str, option: str, key: str) -> None:
        del self._cells[objective, option, key]
        known = self._objectives[objective]
        del known.cells[option][key]
        if not known.cells[option]:
            del known.cells[option]
        if not known.cells:
            del self._objectives[objective]

    def believe(
        self, objective: str, options: list[str], context: Mapping[str, Any]
    ) -> dict[str, Belief]:
        """Return the belief of each option for this objective in this context."""
        known = self._objectives.get(objective) or _Objective()
        beliefs = {}
        for option in options:
            seen, payoff, succeeded = _pool(known, option, context)
            beliefs[option] = Belief(
                alpha=1.0 + payoff,
                beta=1.0 + seen - payoff,
                confidence=self._calibration.correct(_predict(seen, succeeded)),
                succeeded=succeeded,
                seen=seen,
            )
        return beliefs


def _predict(seen: float, succeeded: float) -> float:
    """The rule of succession: the mean of Beta(1 + successes, 1 + failures)."""
    return (1.0 + succeeded) / (2.0 + seen)


def similarity(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """Return how alike two contexts are, 0 to 1: the mean over the keys of either.

    Equal values count 1, numbers 1 − |x−y| / (|x|+|y|), everything else, a missing key and numbers
    of which no double holds that sum 0.
    """
    if a == b:
        return 1.0
    total = sum(_alike(value, b[key]) for key, value in a.items() if key in b)
    return total / len(a.keys() | b.keys())


def _alike(a: Any, b: Any) -> float:
    if a == b:
        return 1.0
    if (
        isinstance(a, int | float)
        and isinstance(b, int | float)
        and not (isinstance(a, bool) or isinstance(b, bool))
    ):
        size = abs(a) + abs(b)
        return 1.0 - abs(a - b) / size if math.isfinite(size) else 0.0
    return 0.0


def _pool(known: _Objective, option: str, context: Mapping[str, Any]) -> tuple[float, float, float]:
    seen = payoff = success = 0.0
    for cell in known.cells.get(option, {}).values():
        weight = similarity(context, cell.context) ** SHARPNESS * cell.fade(known.step)
        seen += weight * cell.seen
        payoff += weight * cell.payoff
        success += weight * cell.success
    return seen, payoff, success
