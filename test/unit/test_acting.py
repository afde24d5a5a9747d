"""The checker of the recovery benchmark finds a successor that acts too early."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmark"


@pytest.fixture
def acting(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARK))
    import acting

    yield acting
    sys.modules.pop("acting", None)


def trace(acting: Any, *acts: tuple[float, str, int, str]) -> list[Any]:
    return [acting.Act(*act) for act in acts]


def test_successors_that_wait_for_the_end_pass(acting: Any) -> None:
    acts = trace(acting, (1.0, "pfc", 10, "answer"), (1.1, "pfc", 10, "beat"),
                 (5.2, "pfc", 11, "beat"), (5.3, "pfc", 11, "answer"), (9.1, "pfc", 12, "beat"),
                 (1.0, "memory", 20, "beat"))
    assert [(was.pid, new.pid) for was, new in acting.successions(acts)] == [(10, 11), (11, 12)]
    assert acting.overlaps(acts, {10: 5.0, 11: 9.0}) == []


@pytest.mark.parametrize("what", ["beat", "answer", "command"])
def test_a_successor_whose_first_act_comes_before_the_end_is_found(acting: Any, what: str) -> None:
    acts = trace(acting, (1.0, "conscience", 10, "beat"), (4.9, "conscience", 11, what),
                 *((5.1, "conscience", 11, other) for other in ("beat", "answer", "command")))
    ((was, new),) = acting.overlaps(acts, {10: 5.0})
    assert (was.pid, new.at, new.what) == (10, 4.9, what)


def test_a_predecessor_that_never_ended_is_found(acting: Any) -> None:
    acts = trace(acting, (1.0, "pfc", 10, "beat"), (100.0, "pfc", 11, "beat"))
    assert len(acting.overlaps(acts, {})) == 1


def test_the_end_of_a_process_is_noted_when_it_happens(acting: Any) -> None:
    ends = acting.Ends()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ends.watch(process.pid)
    before = time.monotonic()
    process.send_signal(signal.SIGKILL)
    assert ends.wait(process.pid, 10.0)
    assert before <= ends.at[process.pid] <= time.monotonic()


def test_what_processes_wrote_down_is_read(acting: Any, tmp_path: Path) -> None:
    assert acting.read(tmp_path / "acts") == []
    (tmp_path / "acts").write_text("12.5 pfc 10 beat\n13.25 pfc 10 answer\n")
    assert acting.read(tmp_path / "acts") == trace(
        acting, (12.5, "pfc", 10, "beat"), (13.25, "pfc", 10, "answer"))
