"""The verbs that ask a running brain, as a person types them."""

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from brainos_msgs import msg, srv
from conscience_world import FAST_BASE, World, provisioned

from brainos_ros.cli import halt
from brainos_ros.cli.main import main
from brainos_ros.conscience.node import ConscienceNode
from brainos_ros.ros import qos
from brainos_ros.ros.conversions import dict_to_attributes
from brainos_ros.ros.pulse import claim_brain

BRAINOS = (sys.executable, "-m", "brainos_ros.cli.main")


def brainos(*words: object) -> subprocess.CompletedProcess[str]:
    command = [*BRAINOS, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def ask(graph: Any, battery: float) -> str:
    """The approval id of an action that waits for a person."""
    context = {"zone": "public", "battery_percent": battery, "charging": False}
    return str(graph.call(srv.Evaluate, "conscience/evaluate", srv.Evaluate.Request(
        action="go_to", context=dict_to_attributes(context))).evaluation.approval_id)


def test_a_person_lists_approves_and_denies(graph: Any) -> None:
    who = ("--home", graph.home, "--operator", "anna", "--keys", provisioned(graph.home))
    graph.start(ConscienceNode, **FAST_BASE)
    wanted, unwanted = ask(graph, 50.0), ask(graph, 60.0)
    listed = json.loads(brainos("approvals", "list", "--json").stdout)
    assert {each["approval_id"] for each in listed} == {wanted, unwanted}
    assert brainos("approvals", "approve", wanted, *who).stdout == "approved\n"
    assert brainos("approvals", "deny", unwanted, *who, "--reason", "not now").stdout == "denied\n"
    assert "0 waiting" in brainos("approvals", "list").stdout
    again = brainos("approvals", "approve", wanted, *who)
    assert (again.returncode, again.stderr) == (2, f"brainos approvals: {wanted} is not pending\n")


def test_a_person_halts_and_resets(graph: Any) -> None:
    keys, world = provisioned(graph.home), World(graph)
    try:
        states = graph.listen(msg.SafetyState, "conscience/safety_state", qos.STATE)
        graph.start(ConscienceNode, **FAST_BASE)
        states.wait_for(lambda state: state.state == msg.SafetyState.RUNNING)
        done = brainos("halt", "--reason", "a test")
        assert done.returncode == 0, done.stderr
        assert not (graph.home / "conscience" / "armed").exists()
        token = brainos("conscience", "token", "reset", "--home", graph.home,
                        "--operator", "anna", "--keys", keys).stdout.strip()
        world.request = (0.0, 0.0)
        world.commands.messages.clear()
        world.commands.wait_for()
        reset = graph.call(srv.Reset, "conscience/reset", srv.Reset.Request(
            operator_name="anna", token=token))
        assert reset.success, reset.message
        assert (graph.home / "conscience" / "armed").exists()
    finally:
        world.close()


@pytest.mark.parametrize(("where", "why"), [
    (("--report", "missing/r.json"), "missing/r.json: No such file or directory"),
    (("--report", "r.json", "--picture", "missing/p.png"),
     "missing/p.png: No such file or directory"),
    (("--report", "r.json", "--people", "missing.txt"),
     "people_file {here}/missing.txt: No such file or directory"),
    (("--picture", "p.txt"), "p.txt: end it with .png or .jpg, so that it is known what to write"),
    (("--people-time-step", "nan"),
     "--people-time-step: parameter people_time_step_s is nan; it must be finite"),
    (("--people-time-step", "100"),
     "--people-time-step: parameter people_time_step_s is 100.0; it must be at most 60 s"),
    (("--people-time-step", "0.0005"),
     "--people-time-step: parameter people_time_step_s is 0.0005; it must be at least 0.001 s"),
])
def test_a_demo_that_is_refused_leaves_nothing_behind(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[str, ...], why: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = brainos("demo", "--duration", 5, "--home", tmp_path / "home", *where)
    assert (done.returncode, done.stderr) == (
        2, f"brainos demo: {why.format(here=tmp_path)}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_demo_does_not_take_a_robot_over(tmp_path: Path) -> None:
    keys = provisioned(tmp_path / "home")
    there = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = brainos("demo", "--home", tmp_path / "home")
    assert done.returncode == 2
    assert done.stderr.startswith(f"brainos demo: --home {tmp_path}/home is not empty; ")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == there
    assert keys.exists()


def test_a_demo_beside_another_brain_is_refused(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with claim_brain(os.environ["ROS_DOMAIN_ID"], "/"):
        done = brainos("demo")
    assert done.returncode == 2
    assert done.stderr.startswith("brainos demo: another brain runs in ROS domain ")
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = brainos("up", "sim", "--home", tmp_path / "file")
    path = tmp_path / "file" / "watchdog"
    assert (done.returncode, done.stderr) == (2, f"brainos up: {path}: Not a directory\n")


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    path = tmp_path / "watchdog" / "driver.yaml"
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    done = brainos("up", "sim", "--home", tmp_path)
    assert (done.returncode, done.stderr) == (2, f"brainos up: {path}: No space left on device\n")


def test_a_user_without_a_name_may_halt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    assert halt._user() == str(os.getuid())


def test_without_a_brain_every_verb_says_so() -> None:
    verbs = ("halt", "status", "approvals list", "restart pfc", "failover pfc")
    asked = {verb: subprocess.Popen(
        [*BRAINOS, *verb.split(), "--namespace", "nobody", "--timeout", "0.2"],
        stderr=subprocess.PIPE, text=True) for verb in verbs}
    for verb, process in asked.items():
        said = process.communicate()[1]
        assert (process.returncode, "nobody offers /nobody/" in said) == (2, True), (verb, said)


@pytest.mark.parametrize("verb", [
    ("halt",), ("status",), ("approvals", "list"), ("restart", "pfc"), ("failover", "pfc")])
@pytest.mark.parametrize(("option", "value"), [
    ("--timeout", "-1"), ("--timeout", "nan"), ("--timeout", "inf"), ("--namespace", "a b")])
def test_an_option_that_cannot_be_right_is_refused(
        verb: tuple[str, ...], option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main([*verb, option, value])
    assert refused.value.code == 2
    assert f"argument {option}: {value!r} is no " in capsys.readouterr().err
