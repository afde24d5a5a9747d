"""The soak finds a stop that nobody explained."""

import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmark"
TIMEOUT_S = 0.3


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARK))
    import stops

    yield stops
    sys.modules.pop("stops", None)


def test_a_robot_that_moves_all_the_time_never_stopped(stops: Any) -> None:
    assert stops.stops([(0.02 * n, 0.5) for n in range(100)], TIMEOUT_S) == []


def test_zeros_in_a_row_are_one_stop(stops: Any) -> None:
    commands = [(0.0, 0.5), (0.1, 0.0), (0.2, 0.0), (0.3, 0.5), (0.4, 0.0), (0.5, 0.5)]
    assert stops.stops(commands, TIMEOUT_S) == [
        stops.Stop(0.1, 0.3, False), stops.Stop(0.4, 0.5, False)]


def test_the_base_stops_by_itself_where_no_command_comes(stops: Any) -> None:
    commands = [(0.0, 0.5), (0.25, 0.5), (1.25, 0.5)]
    assert stops.stops(commands, TIMEOUT_S) == [stops.Stop(0.55, 1.25, True)]


def test_a_robot_that_nobody_asked_to_move_is_no_stop(stops: Any) -> None:
    asked, unasked = stops.Stop(1.2, 1.5, False), stops.Stop(2.5, 3.0, False)
    assert stops.unasked([asked, unasked], [1.0, 2.0, 3.0], 0.3) == [unasked]


def test_a_stop_without_a_reason_is_found(stops: Any) -> None:
    told, later, silent = (stops.Stop(10.0, 11.0, False), stops.Stop(20.0, 21.0, False),
                           stops.Stop(30.0, 30.5, True))
    assert stops.untold([told, later, silent], [(10.1, 10.9)]) == [later, silent]
    assert stops.untold([told, later, silent], [(9.5, 30.0)]) == []
