"""An episode: something the robot lived, and what makes one acceptable."""

import re
import unicodedata
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from brainos_ros.errors import BrainError
from brainos_ros.values import check_values

WORKING, EPISODIC, SKILL = "working", "episodic", "skill"
TIERS = {WORKING: "working", EPISODIC: "episodic", SKILL: "long_term"}
OUTCOMES = ("success", "failure", "partial")


@dataclass(slots=True)
class Episode:
    """`stamp_ns` is when it ended [ns since the Unix epoch], `reward` in [-1, 1].

    `context` and `metadata` map names to booleans, numbers, strings or lists of one of these.
    """

    episode_id: str
    stamp_ns: int
    objective: str
    context: Mapping[str, Any]
    action: str
    outcome: str
    reward: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    kind: str = EPISODIC
    decision_id: str = ""

    @property
    def tier(self) -> str:
        """Which kind of memory holds it: working, episodic or long_term."""
        return TIERS[self.kind]

    @property
    def protected(self) -> bool:
        """Skills, and whatever says so in its metadata, are never evicted."""
        return self.kind == SKILL or self.metadata.get("protected") is True

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS}

    def words(self) -> list[str]:
        """The words it can be found by."""
        parts = [self.objective, self.action, self.outcome]
        for values in (self.context, self.metadata):
            parts += [f"{key} {value}" for key, value in values.items()]
        return split_words(" ".join(parts))


_FIELDS = tuple(each.name for each in fields(Episode))


def complete(episode: Episode, now_ns: int) -> Episode:
    """Fill in id, time and kind where they are empty, and check the rest.

    Raises BrainError naming the field, the value and what would be right.
    """
    episode.kind = episode.kind or EPISODIC
    if episode.kind not in TIERS:
        raise BrainError(f"kind: is {episode.kind!r}, must be one of {', '.join(TIERS)}")
    if not episode.action.strip():
        raise BrainError("action: is empty; say what was done")
    if episode.outcome not in OUTCOMES:
        raise BrainError(f"outcome: is {episode.outcome!r}, must be one of {', '.join(OUTCOMES)}")
    if not -1.0 <= episode.reward <= 1.0:
        raise BrainError(f"reward: is {episode.reward}, must be in -1..1")
    if episode.stamp_ns < 0:
        raise BrainError("stamp: is before 1970")
    check_values("context", episode.context)
    check_values("metadata", episode.metadata)
    if not episode.episode_id:
        episode.episode_id = str(uuid.uuid4())
    elif not is_uuid(episode.episode_id):
        raise BrainError(f"episode_id: {episode.episode_id!r} is no UUID; leave it empty for one")
    episode.stamp_ns = episode.stamp_ns or now_ns
    return episode


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in the usual spelling."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def split_words(text: str) -> list[str]:
    """Lower-case words without accents, as SQLite's unicode61 tokenizer splits them."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(r"[^\W_]+", "".join(c for c in plain if not unicodedata.combining(c)))
