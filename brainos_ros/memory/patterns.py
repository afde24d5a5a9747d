"""Sequences of actions that keep coming back, and whether they do any good."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass

WINDOWS = range(2, 6)
LEAST_OCCURRENCES = 3
RATE = 0.1
FAILING = -0.3
GAP_NS = 600 * 10**9
_NAMESPACE = uuid.UUID("6f0a9f2e-8f0e-4d57-9a4b-5d3f0c1b7e21")


@dataclass(slots=True)
class Pattern:
    """A sequence; `effectiveness` is the exponential average of its mean reward, -1 to 1.

    `pattern_id` is a UUID made from the actions, so that the same sequence keeps its id.
    """

    pattern_id: str
    actions: tuple[str, ...]
    occurrences: int
    effectiveness: float
    last_seen_ns: int


def mine(steps: Iterable[tuple[int, str, float]]) -> list[Pattern]:
    """Find patterns in (time [ns], action, reward) steps in order, most effective first.

    Windows of 2 to 5 actions, seen at least 3 times; a pause of ten minutes ends a sequence.
    What keeps failing (an effectiveness under -0.3) is left out.
    """
    found: dict[tuple[str, ...], Pattern] = {}
    run: list[tuple[int, str, float]] = []
    for step in steps:
        if run and step[0] - run[-1][0] > GAP_NS:
            run.clear()
        run.append(step)
        del run[: -max(WINDOWS)]
        for size in WINDOWS:
            if size > len(run):
                break
            _reinforce(found, run[-size:])
    kept = [
        each
        for each in found.values()
        if each.occurrences >= LEAST_OCCURRENCES and each.effectiveness >= FAILING
    ]
    return sorted(kept, key=lambda each: (-each.effectiveness, -each.occurrences, each.actions))


def _reinforce(found: dict[tuple[str, ...], Pattern], window: list[tuple[int, str, float]]) -> None:
    actions = tuple(action for _, action, _ in window)
    reward = sum(reward for _, _, reward in window) / len(window)
    pattern = found.get(actions)
    if pattern is None:
        name = str(uuid.uuid5(_NAMESPACE, "\0".join(actions)))
        pattern = found[actions] = Pattern(name, actions, 0, reward, 0)
    pattern.occurrences += 1
    pattern.effectiveness += RATE * (reward - pattern.effectiveness)
    pattern.last_seen_ns = window[-1][0]
