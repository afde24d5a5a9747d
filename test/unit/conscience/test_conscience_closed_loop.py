"""The gate in a closed loop with the simulator, among recorded people: a short run of
`make bench NAME=crossings`."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mujoco", reason="MuJoCo is not installed")

BENCHMARK = Path(__file__).parents[3] / "benchmark"


@pytest.fixture
def crossing(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARK))
    import crossing

    yield crossing
    sys.modules.pop("crossing", None)


def write_crowd(path: Path) -> Path:
    """Nine people who walk through a hall on straight lines, some of them abreast."""
    rows = []
    for person in range(9):
        x, speed = (person % 3) * 2.0 - 2.0, (1.0 + 0.2 * (person % 4)) * (-1) ** person
        for frame in range(24):
            y = math.copysign(-6.0, speed) + speed * frame * 0.4
            rows.append(f"{frame * 10 + person * 60}\t{person + 1}\t{x}\t{y}")
    path.write_text("\n".join(rows))
    return path


def check(result: Any, crossings: int) -> None:
    assert result.crossings == crossings
    assert result.above_formula == result.into_obstacles == 0
    assert result.fastest_at_contact_mps <= 0.01
    assert not result.problems


def test_among_made_up_people(crossing: Any, tmp_path: Path) -> None:
    people = write_crowd(tmp_path / "people.txt")
    check(crossing.Loop(people, 0.4).cross(1), 1)


@pytest.mark.parametrize(("name", "step"), [("hotel", 0.4), ("eth", 0.667)])
def test_among_recorded_people(
        crossing: Any, shared_data: Path, name: str, step: float) -> None:
    file = shared_data / f"pedestrians-biwi_{name}.txt"
    alone = crossing.Loop(file, step, people=False).cross(1)
    among = crossing.Loop(file, step, start_s=60.0).cross(1)
    check(among, 1)
    assert alone.mean_speed_mps > among.mean_speed_mps > 0.2


def test_the_independent_formula_is_the_gates(crossing: Any) -> None:
    from brainos_ros.conscience.separation import Base, People, speed_limit

    base, people = Base(0.3, 1.0, 1.5, 1.0, 2.0, 0.05, 0.3), People(2.5, 0.0, 0.1, 0.1)
    for separation in (0.0, 0.5, 1.13, 1.5, 3.0, 8.0):
        assert crossing.formula(separation, 2.5, 0.37, 2.0, 0.2) == pytest.approx(
            speed_limit(separation, 2.5, 0.37, base, people), abs=1e-9)


@pytest.mark.parametrize(("command", "meets"), [
    ((0.5, 0.0), True), ((-0.5, 0.0), False), ((0.5, 1.0), False), ((0.5, -0.1), True)])
def test_the_independent_sweep_meets_a_post_ahead(
        crossing: Any, command: tuple[float, float], meets: bool) -> None:
    ranges = [math.inf] * 360
    ranges[180] = 1.0
    assert crossing.reaches(ranges, command, 1.0, 0.3) is meets
    assert not crossing.reaches(ranges, command, 0.6, 0.3)


def test_the_independent_sweep_agrees_with_the_gate_on_random_posts(crossing: Any) -> None:
    import random

    import numpy as np

    from brainos_ros.conscience.separation import Scanner, path_separation

    draw, scanner, met = random.Random(4), Scanner(0.35), 0
    for _ in range(300):
        ranges = np.array([draw.uniform(0.36, 3.0) if draw.random() < 0.05 else math.inf
                           for _ in range(360)])
        command = draw.choice((-1, 1)) * draw.uniform(0.1, 1.0), draw.uniform(-1.5, 1.5)
        scan = scanner.points(ranges, -math.pi, math.tau / 360, 0.05, 25.0)
        way = min(path_separation(scan, *command, 0.35), 2.0)
        met += way < 2.0
        assert not crossing.reaches(ranges, command, way - 0.02, 0.35)
        assert way == 2.0 or crossing.reaches(ranges, command, way + 0.05, 0.35)
    assert met > 100
