"""Replay: the recorded verdicts again, under the recorded rules or under others."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from brainos_ros.conscience.circuit import judge
from brainos_ros.conscience.rules import Level, RuleSet
from brainos_ros.conscience.rules_file import parse

NO_RULE = ("Not evaluated:", "The inputs take", "The rules took too long")


@dataclass(frozen=True, slots=True)
class Difference:
    """A verdict that comes out otherwise than recorded."""

    sequence: int
    evaluation_id: str
    action: str
    recorded: str
    replayed: str
    recorded_reason: str
    replayed_reason: str


@dataclass(slots=True)
class Report:
    """What a replay found; `unknown` are verdicts whose rules are not in the stream."""

    verdicts: int = 0
    coalesced: int = 0
    unknown: int = 0
    differences: tuple[Difference, ...] = ()


def replay(events: Iterable[tuple[int, str, Mapping[str, Any]]],
           shadow: RuleSet | None = None) -> Report:
    """Judges each recorded evaluation again; `events` are (sequence, kind, body) of the stream.

    With `shadow` the question is what those rules would have decided. What no rule decided (a
    name that is none, inputs too long, a time-out) is counted and left as it was.
    """
    report = Report()
    report.differences = tuple(_differences(events, shadow, report))
    return report


def _differences(events: Iterable[tuple[int, str, Mapping[str, Any]]], shadow: RuleSet | None,
                 report: Report) -> Iterator[Difference]:
    known: dict[str, RuleSet] = {}
    for sequence, kind, body in events:
        if kind == "rules.loaded":
            known[body["rules_version"]] = parse(body["source"].encode())
        elif kind == "refusals":
            report.coalesced += sum(body["counts"].values())
        if kind != "evaluation":
            continue
        rules = shadow or known.get(body["rules_version"])
        if rules is None:
            report.unknown += 1
            continue
        report.verdicts += 1
        if body["reason"].startswith(NO_RULE):
            continue
        verdict = judge(rules, body["action"], json.loads(body["inputs"]), body["hold"])
        recorded = Level[body["level"]]
        unanswerable = recorded is Level.CRITICAL and verdict.level is Level.HIGH and (
            "No approval can be asked for" in body["reason"])
        if verdict.level is recorded or unanswerable:
            continue
        yield Difference(sequence, body["evaluation_id"], body["action"], recorded.name,
                         verdict.level.name, body["reason"], verdict.reason)
