"""How much an episode is worth keeping, how well it fits a question, and why."""

import math
from collections.abc import Sequence

DAY_NS = 86_400 * 10**9
FADE_NS = 7.0 * DAY_NS
WORDS, RECENCY, REWARD = 0.7, 0.2, 0.1
HOT, WARM = 0.4, 0.2
_EVER_NS = 2**62


def recency(age_ns: int) -> float:
    """1 now, 1/e after a week."""
    return math.exp(-max(age_ns, 0) / FADE_NS)


def worth(age_ns: int, hits: int, protected: bool) -> float:
    """0.4·recency + 0.4·frequency + 0.2·type, 0 to 1; `age_ns` since it was last used.

    Frequency is log10(hits + 1), at most 1; the type counts 1 where protected, else 0.1.
    """
    frequency = min(math.log10(hits + 1), 1.0)
    return 0.4 * recency(age_ns) + 0.4 * frequency + 0.2 * (1.0 if protected else 0.1)


def heat(value: float) -> str:
    """hot, warm or cold by worth."""
    return "hot" if value >= HOT else "warm" if value >= WARM else "cold"


def relevance(
    asked: Sequence[str], found: Sequence[str], age_ns: int, reward: float
) -> tuple[float, str]:
    """How well an episode fits, 0 to 1, and the sentence that says why.

    0.7·share of the words asked for that it has, 0.2·recency, 0.1·reward (mapped to 0..1);
    without words recency and reward alone, in the same proportion.
    """
    rest = RECENCY * recency(age_ns) + REWARD * (reward + 1.0) / 2.0
    told = f"{_age(age_ns)} old, reward {reward:+.2f}"
    if not asked:
        return rest / (RECENCY + REWARD), told
    share = len(found) / len(asked)
    words = f"has {len(found)} of {len(asked)} words ({', '.join(found)})"
    return WORDS * share + rest, f"{words}, {told}"


def oldest_ns(rest: float) -> int:
    """How old an episode can be that scores `rest` or more without words [ns]."""
    least = (rest - REWARD) / RECENCY
    return math.ceil(-math.log(least) * FADE_NS) if least > 0.0 else _EVER_NS


def _age(age_ns: int) -> str:
    seconds = max(age_ns, 0) / 1e9
    for unit, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
