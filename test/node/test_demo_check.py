"""What a demo's exit code stands for."""

from pathlib import Path
from typing import Any

import pytest
from brainos_msgs.msg import Decision, SafetyEvaluation, SimTruth

from brainos_ros.cli import demo
from brainos_ros.cli.demo_work import Facts, Work
from brainos_ros.ledger import Stream

RIGHT: dict[str, Any] = {
    "answered": {"decisions": 2}, "not_on_record": {"decisions": []}, "deliveries": 1,
    "contacts_while_moving": 0, "streams": {"pfc": {"verified": True}},
    "recoveries": [{"node": "pfc", "fault": "SIGKILL", "answering_ms": 900.0}],
}


@pytest.mark.parametrize(("changed", "said"), [
    ({}, []),
    ({"not_on_record": {"decisions": ["a"]}},
     ["decisions: of 2 that were answered 1 are not on record: a"]),
    ({"streams": {"pfc": {"verified": False}}}, ["stream pfc does not verify"]),
    ({"answered": {"decisions": 0}}, ["nothing was decided"]),
    ({"contacts_while_moving": 2}, ["2 contacts while the robot moved"]),
    ({"deliveries": 0}, []),
    ({"recoveries": []}, ["no node was killed"]),
    ({"recoveries": [{"node": "pfc", "fault": "SIGKILL", "answering_ms": None}]},
     ["pfc did not answer again after SIGKILL"]),
])
def test_what_speaks_against_a_run_is_said(changed: dict[str, Any], said: list[str]) -> None:
    assert demo._problems({**RIGHT, **changed}) == said


def test_what_was_heard_is_looked_up_in_the_ledgers(tmp_path: Path) -> None:
    for name, kind, body in (("pfc", "decision", {"decision_id": "kept"}),
                             ("conscience", "evaluation", {"evaluation_id": "passed"})):
        with Stream.open(tmp_path / "ledger", name) as stream:
            stream.event(kind, body)
    work = Work.__new__(Work)
    work.facts = facts = Facts(truth=SimTruth())
    work._decided(Decision(decision_id="kept", evaluation_id="passed"))
    work._decided(Decision(decision_id="lost"))
    work._evaluated(SafetyEvaluation(evaluation_id="refused"))
    work._evaluated(SafetyEvaluation(evaluation_id="gone", approved=True))
    report = demo._report(facts, tmp_path)
    assert report["answered"] == {"decisions": 2, "outcomes": 0, "evaluations": 2}
    assert report["not_on_record"] == {
        "decisions": ["lost"], "outcomes": [], "evaluations": ["gone"]}
