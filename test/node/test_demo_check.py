"""What a demo's exit code stands for, and what becomes of one whose brain fails."""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brainos_msgs.msg import Decision, SafetyEvaluation, SimTruth

from brainos_ros.cli import demo
from brainos_ros.cli.demo_work import Facts, Work
from brainos_ros.cli.main import main
from brainos_ros.errors import BrainError
from brainos_ros.ledger import Stream
from brainos_ros.watchdog import processes

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


class Elsewhere:
    """Stands in for the work with a brain that works; it may be another one."""

    def __init__(self, layout: object = None) -> None:
        self.facts, self.said = Facts(pids={"pfc": 1}), [""]
        self.recoveries: list[tuple[str, int]] = []

    def ready(self) -> bool:
        return True

    def say(self, text: str) -> None:
        self.said.append(text)

    def watch_recovery(self, role: str, fault: str, old: int, began: float) -> None:
        self.recoveries.append((role, old))

    def close(self) -> None:
        pass


@contextlib.contextmanager
def refused(home: Path, people: str, args: argparse.Namespace) -> Iterator[Any]:
    """A brain that says why it does not start, long before its last line."""
    lines = ["error: the cause", *(f"line {number}" for number in range(30))]
    (home / "brain.log").write_text("\n".join(lines))
    brain = subprocess.Popen([sys.executable, "-c", ""])
    brain.wait()
    yield brain


def test_a_brain_that_did_not_wake_says_why_and_leaves_nothing_behind(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo.rclpy, "init", lambda **_: None)
    monkeypatch.setattr(demo.discovery, "prepare", lambda: None)
    monkeypatch.setattr(demo, "_brain", refused)
    monkeypatch.setattr(demo, "Work", Elsewhere)
    assert main(["demo"]) == 2
    first, *lines = capsys.readouterr().err.splitlines()
    assert (first, lines[0]) == ("brainos demo: the brain did not wake:", "error: the cause")
    assert lines[-1] == "line 29"
    assert list(tmp_path.iterdir()) == []


def test_a_demo_ends_with_its_brain(tmp_path: Path) -> None:
    work: Any = Elsewhere()
    args = argparse.Namespace(duration=60.0, kill="pfc")
    began = time.monotonic()
    with refused(tmp_path, "", args) as brain, pytest.raises(BrainError, match=(
            "the brain ended before its work was done:\nerror: the cause")):
        demo._watch(demo.Console(), work, brain, tmp_path, args)
    assert time.monotonic() - began < 30.0


@pytest.mark.parametrize("name", ["pfc", "composed"])
def test_a_demo_kills_what_its_own_watchdog_started(tmp_path: Path, name: str) -> None:
    work: Any = Elsewhere()
    demo._kill(work, "pfc", tmp_path)
    assert work.said[-1] == "pfc does not run; nothing to kill"
    (tmp_path / "watchdog").mkdir()
    own, other = (subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
                  for _ in range(2))
    try:
        started = processes.adopt(own.pid)
        assert started
        processes.PidFile(tmp_path / "watchdog" / "processes.json").write(
            processes.Found({name: started}))
        work.facts.pids["pfc"] = other.pid
        demo._kill(work, "pfc", tmp_path)
        assert own.wait(10.0) == -9
        assert other.poll() is None
        assert work.recoveries == [("pfc", own.pid)]
    finally:
        for each in (own, other):
            each.kill()
            each.communicate()
