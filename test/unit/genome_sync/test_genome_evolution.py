"""A generation never makes things worse, and finds what is better."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.genome_sync.evolution import Strategy, evolve
from brainos_ros.genome_sync.genome import Genome, scalar

BEST = np.array([0.7, 0.2, 0.5, 0.9])


def start() -> Genome:
    return Genome({"c": tuple(scalar(f"g{i}", 0.4, 0.0, 1.0) for i in range(4))})


def hill(parameters, seed: int) -> float:
    x = np.array([parameters[f"g{i}"] for i in range(4)])
    return float(-np.sum((x - BEST) ** 2))


def noisy(parameters, seed: int) -> float:
    return hill(parameters, seed) + 0.05 * float(np.random.default_rng(seed).standard_normal())


@pytest.mark.parametrize("fitness", [hill, noisy])
def test_generations_climb(fitness) -> None:
    genome, strategy = start(), Strategy.fresh(4, 8)
    for seed in range(40):
        result = evolve(genome, strategy, 8, seed, 2, fitness)
        assert hill(result.genome.parameters, 0) >= hill(genome.parameters, 0)
        genome, strategy = result.genome, result.strategy
    assert hill(genome.parameters, 0) > -1e-3
    assert strategy.step < 0.15


def test_the_same_seed_gives_the_same_generation() -> None:
    one, two = (evolve(start(), Strategy.fresh(4, 8), 8, 7, 2, noisy) for _ in range(2))
    assert one.genome.hash == two.genome.hash
    assert one.strategy.to_json() == two.strategy.to_json()
    other = evolve(start(), Strategy.fresh(4, 8), 8, 8, 2, noisy)
    assert other.strategy.to_json() != one.strategy.to_json() or not one.improved


def test_every_genome_meets_the_same_seeds() -> None:
    met: dict[tuple, list[int]] = {}

    def spy(parameters, seed: int) -> float:
        met.setdefault(tuple(parameters.values()), []).append(seed)
        return hill(parameters, seed)

    result = evolve(start(), Strategy.fresh(4, 8), 8, 1, 3, spy)
    assert result.improved
    seeds = sorted(met.values(), key=len)
    first, full = seeds[0], seeds[-1]
    assert (len(first), len(full), len(set(full))) == (3, 6, 6)
    assert all(line in (first, full) for line in seeds)
    assert [len(line) for line in seeds].count(6) == 2


def test_luck_on_the_first_seeds_is_not_enough() -> None:
    calls = 0
    parent = start().parameters

    def lucky(parameters, seed: int) -> float:
        nonlocal calls
        calls += 1
        if parameters == parent:
            return 0.0
        return 1.0 if calls <= 9 else -1.0

    result = evolve(start(), Strategy.fresh(4, 8), 8, 1, 1, lucky)
    assert not result.improved
    assert result.genome.hash == start().hash
    assert (result.fitness_before, result.fitness_after) == (0.0, 0.0)


def test_a_candidate_that_fails_is_out_and_a_barred_one_too() -> None:
    parent = start().parameters

    def fragile(parameters, seed: int) -> float:
        return 0.0 if parameters == parent else -math.inf

    assert not evolve(start(), Strategy.fresh(4, 4), 4, 1, 1, fragile).improved
    won = evolve(start(), Strategy.fresh(4, 1), 1, 5, 1, lambda p, s: float(p != parent))
    assert won.improved
    again = evolve(
        start(), Strategy.fresh(4, 1), 1, 5, 1, lambda p, s: float(p != parent), [won.genome.hash]
    )
    assert not again.improved


def test_a_parent_without_fitness_is_an_error() -> None:
    with pytest.raises(BrainError) as refused:
        evolve(start(), Strategy.fresh(4, 4), 4, 1, 1, lambda p, s: math.nan)
    assert refused.value.code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize(
    "covariance",
    [np.diag([1.0, 1.0, 1.0, -1e-18]), np.diag([1e8, 1.0, 1.0, 1e-8]), np.full((4, 4), np.nan)],
)
def test_a_worn_out_strategy_begins_anew_where_the_genome_is(covariance) -> None:
    worn_out = replace(Strategy.fresh(4, 8), step=1e-4, covariance=covariance)
    result = evolve(start(), worn_out, 8, 7, 2, hill)
    fresh = evolve(start(), Strategy.fresh(4, 8), 8, 7, 2, hill)
    assert (result.begun_anew, fresh.begun_anew) == (True, False)
    assert result.genome.hash == fresh.genome.hash
    assert result.strategy.to_json() == fresh.strategy.to_json()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**63), st.integers(1, 64), st.integers(1, 6))
def test_the_strategy_stays_sane(seed: int, offspring: int, size: int) -> None:
    genome = Genome({"c": tuple(scalar(f"g{i}", 0.0, 0.0, 1.0) for i in range(size))})
    strategy = Strategy.fresh(size, offspring)
    for i in range(5):
        result = evolve(
            genome, strategy, offspring, seed + i, 1, lambda p, s: sum(p.values()) + s * 1e-12
        )
        genome, strategy = result.genome, result.strategy
        assert 0.0 < strategy.step <= 0.5
        assert np.all(np.linalg.eigvalsh(strategy.covariance) > 0.0)
        assert Strategy.from_json(strategy.to_json()).to_json() == strategy.to_json()
