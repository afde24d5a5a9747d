"""Roll-outs run in a process that can be bounded, killed and lost without harm."""

import contextlib
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from waiting import wait_for

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.genome_sync.worker import Worker

FITNESS = """
import os, pathlib, subprocess, sys, time

def add(parameters, seed, seconds):
    print("a line that is no figure")
    return sum(parameters.values()) + seed + seconds

def fail(parameters, seed, seconds):
    raise ValueError(f"seed {seed} is cursed")

def nothing(parameters, seed, seconds):
    return float("nan")

def hang(parameters, seed, seconds):
    time.sleep(3600)

def die(parameters, seed, seconds):
    os._exit(7)

def leave(parameters, seed, seconds):
    raise SystemExit(3)

def simulate(parameters, seed, seconds):
    simulator = subprocess.Popen(["sleep", "3600"])
    pathlib.Path(__file__).with_name("pid").write_text(str(simulator.pid))
    return {1: simulator.wait, 2: lambda: os._exit(7), 3: float}[seed]()
"""


@pytest.fixture(autouse=True)
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "example_fitness.py").write_text(FITNESS)
    old = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{old}:{Path(__file__).parents[3]}")


@pytest.fixture
def worker(request: pytest.FixtureRequest):
    made = Worker(f"example_fitness:{request.param[0]}", 0.5, request.param[1])
    yield made
    made.close()


@pytest.mark.parametrize("worker", [("add", 30.0)], indirect=True)
def test_figures_come_back_and_prints_do_not_disturb(worker: Worker) -> None:
    assert worker.evaluate({"a": 1.0, "b": 2.0}, 3) == 6.5
    assert worker.evaluate({"a": 1.0}, 1) == 2.5


@pytest.mark.parametrize(
    "worker", [("fail", 30.0), ("nothing", 30.0), ("leave", 30.0)], indirect=True
)
def test_a_failing_roll_out_counts_as_worst(worker: Worker) -> None:
    assert worker.evaluate({}, 13) == -math.inf
    assert worker.last_error


@pytest.mark.parametrize("worker", [("hang", 0.5)], indirect=True)
def test_time_is_bounded_and_the_process_ends(worker: Worker) -> None:
    with pytest.raises(BrainError) as refused:
        worker.evaluate({}, 1)
    assert refused.value.code is ErrorCode.TIMEOUT
    worker.close()
    assert not Path(f"/proc/{worker.pid}").exists()


@pytest.mark.parametrize("worker", [("hang", 30.0)], indirect=True)
def test_it_can_be_killed_from_another_thread(worker: Worker) -> None:
    threading.Timer(0.1, worker.kill).start()
    with pytest.raises(BrainError) as refused:
        worker.evaluate({}, 1)
    assert refused.value.code is ErrorCode.CANCELLED


@pytest.mark.parametrize("worker", [("die", 30.0), ("missing", 30.0)], indirect=True)
def test_a_lost_or_unusable_function_is_said(worker: Worker) -> None:
    with pytest.raises(BrainError) as refused:
        worker.evaluate({}, 1)
    assert refused.value.code is ErrorCode.UNAVAILABLE


@pytest.mark.parametrize("worker", [("die", 30.0)], indirect=True)
def test_how_the_process_ended_is_said(worker: Worker) -> None:
    with pytest.raises(BrainError, match="ended with code 7"):
        worker.evaluate({}, 1)


@pytest.mark.parametrize(
    ("worker", "seed"),
    [(("simulate", 1.0), 1), (("simulate", 30.0), 2), (("simulate", 30.0), 3)],
    indirect=["worker"],
)
def test_what_a_roll_out_started_ends_with_it(worker: Worker, seed: int, tmp_path: Path) -> None:
    with contextlib.suppress(BrainError):
        worker.evaluate({}, seed)
    worker.close()
    simulator = int((tmp_path / "pid").read_text())
    wait_for(lambda: not running(simulator))


def test_what_a_roll_out_started_ends_with_the_node(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    script = (
        "from brainos_ros.genome_sync.worker import Worker;"
        "Worker('example_fitness:simulate', 1.0, 60.0).evaluate({}, 1)"
    )
    node = subprocess.Popen([sys.executable, "-c", script])
    simulator = int(wait_for(lambda: started.exists() and started.read_text()))
    node.kill()
    node.wait()
    wait_for(lambda: not running(simulator))


@pytest.mark.parametrize("given", ["", "module", "a:b:c", "os; import sys:x", "a-b:c"])
def test_a_malformed_function_starts_nothing(given: str) -> None:
    with pytest.raises(BrainError, match="module:function"):
        Worker(given, 1.0, 1.0)


def test_it_ends_with_its_parent() -> None:
    script = (
        "import os, signal; from brainos_ros.genome_sync.worker import Worker;"
        "made = Worker('example_fitness:hang', 1.0, 60.0); print(made.pid, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    parent = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False)
    child = int(parent.stdout)
    deadline = time.monotonic() + 20.0
    while running(child):
        assert time.monotonic() < deadline, "the worker outlived its parent"
        os.sched_yield()


def running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
