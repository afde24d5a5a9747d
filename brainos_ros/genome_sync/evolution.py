"""One generation of an elitist evolution strategy: the (1+λ)-CMA-ES.

Source: C. Igel, N. Hansen, S. Roth, "Covariance Matrix Adaptation for Multi-objective
Optimization", Evolutionary Computation 15(1), 2007, section 2 (success-rule step size, rank-one
covariance; its constants are used unchanged). The search runs in the unit box of the scalar genes;
a step that leaves the box is reflected at its wall. A covariance that noise has worn out (it has no
root, or a condition above 1e14, the bound of Hansen's own implementations) is begun anew.

All genomes of a generation are rolled out with the same evaluation seeds (common random numbers).
The best of several noisy figures flatters itself, so it is then compared with its parent on fresh
seeds, again common to both; it must be better both times.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.genome_sync.genome import Genome

Vector = NDArray[np.float64]
Fitness = Callable[[Mapping[str, float], int], float]

FIRST_STEP = 0.15
SUCCESS_THRESHOLD = 0.44
STEP_RANGE = (1e-4, 0.5)
MOST_CONDITION = 1e14


@dataclass(frozen=True, eq=False)
class Strategy:
    """What the strategy has learned: step size (fraction of the box), success rate, path, shape.

    `path` has shape (n,) and `covariance` (n, n), n being the number of scalar genes.
    """

    step: float
    success: float
    path: Vector
    covariance: Vector

    @classmethod
    def fresh(cls, size: int, offspring: int) -> "Strategy":
        """The strategy before the first generation."""
        return cls(FIRST_STEP, _target(offspring), np.zeros(size), np.eye(size))

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {
            "step": self.step,
            "success": self.success,
            "path": self.path.tolist(),
            "covariance": self.covariance.tolist(),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Strategy":
        """Read back what `to_json` wrote."""
        return cls(
            body["step"], body["success"], np.array(body["path"]), np.array(body["covariance"])
        )


@dataclass(frozen=True, eq=False)
class Generation:
    """The outcome of one generation: the genome to use (the parent's, unless `improved`).

    `begun_anew` tells that the strategy was worn out and a fresh one was used from the parent on.
    """

    genome: Genome
    strategy: Strategy
    improved: bool
    fitness_before: float
    fitness_after: float
    evaluated: int
    begun_anew: bool = False


def evolve(
    parent: Genome,
    strategy: Strategy,
    offspring: int,
    seed: int,
    rollouts: int,
    fitness: Fitness,
    barred: Iterable[str] = (),
) -> Generation:
    """Breed `offspring` genomes from `parent` and return the better of the best and the parent.

    `fitness(parameters, seed)` is higher for better and is called `rollouts` times per genome; a
    figure that is not finite rules a genome out. The same arguments give the same result. Raises
    UNAVAILABLE if the parent itself cannot be evaluated.
    """
    random = np.random.default_rng(seed)
    seeds = [int(value) for value in random.integers(1, 2**31, size=2 * rollouts)]
    first, fresh = seeds[:rollouts], seeds[rollouts:]
    origin = parent.vector()
    barred = set(barred)
    worn_out = _worn_out(strategy.covariance)
    if worn_out:
        strategy = Strategy.fresh(origin.size, offspring)

    before = _mean(fitness, parent, first)
    if not math.isfinite(before):
        raise BrainError("the genome in use has no finite fitness", ErrorCode.UNAVAILABLE)
    children = [parent.with_vector(point) for point in _sample(origin, strategy, offspring, random)]
    figures = [
        -math.inf if child.hash in barred else _mean(fitness, child, first) for child in children
    ]
    best = max(range(offspring), key=figures.__getitem__)
    wins = sum(figure > before for figure in figures)
    after = before
    improved = figures[best] > before
    if improved:
        before, after = _mean(fitness, parent, fresh), _mean(fitness, children[best], fresh)
        improved = math.isfinite(before) and after > before
    move = (children[best].vector() - origin) / strategy.step if improved else None
    return Generation(
        children[best] if improved else parent,
        _adapt(strategy, wins / offspring, offspring, move),
        improved,
        before,
        after if improved else before,
        offspring,
        worn_out,
    )


def _mean(fitness: Fitness, genome: Genome, seeds: list[int]) -> float:
    total = sum(fitness(genome.parameters, seed) for seed in seeds)
    return total / len(seeds) if math.isfinite(total) else -math.inf


def _target(offspring: int) -> float:
    return 1.0 / (5.0 + math.sqrt(offspring) / 2.0)


def _worn_out(covariance: Vector) -> bool:
    try:
        np.linalg.cholesky(covariance)
        return not np.linalg.cond(covariance) <= MOST_CONDITION
    except np.linalg.LinAlgError:
        return True


def _sample(
    origin: Vector, strategy: Strategy, count: int, random: np.random.Generator
) -> list[Vector]:
    root = np.linalg.cholesky(strategy.covariance)
    steps = random.standard_normal((count, origin.size)) @ root.T
    points = origin + strategy.step * steps
    folded = np.abs(np.mod(points + 1.0, 2.0) - 1.0)
    return list(folded)


def _adapt(strategy: Strategy, rate: float, offspring: int, move: Vector | None) -> Strategy:
    size = strategy.path.size
    target = _target(offspring)
    learn = target * offspring / (2.0 + target * offspring)
    damping = 1.0 + size / (2.0 * offspring)
    success = (1.0 - learn) * strategy.success + learn * rate
    step = strategy.step * math.exp((success - target) / ((1.0 - target) * damping))
    path, covariance = strategy.path, strategy.covariance
    if move is not None:
        keep, turn = 2.0 / (size + 2.0), 2.0 / (size * size + 6.0)
        path = (1.0 - keep) * path
        lost = keep * (2.0 - keep)
        if success < SUCCESS_THRESHOLD:
            path = path + math.sqrt(lost) * move
            lost = 0.0
        rank_one = np.outer(path, path) + lost * covariance
        covariance = (1.0 - turn) * covariance + turn * rank_one
    return Strategy(min(max(step, STEP_RANGE[0]), STEP_RANGE[1]), success, path, covariance)
