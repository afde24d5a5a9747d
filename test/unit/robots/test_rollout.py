"""Roll-outs: fitness from the simulator, the same for the same seed, in any process."""

import math
import multiprocessing
import subprocess
import sys

import pytest

from brainos_ros.errors import BrainError
from brainos_ros.robots.physics import Base
from brainos_ros.robots.rollout import careful, driving_of, evaluate

pytest.importorskip("mujoco", reason="MuJoCo is not installed")


def test_driving_faster_carries_more():
    assert evaluate({"cruise_speed_mps": 1.0}, 1, 20.0) > evaluate({"cruise_speed_mps": 0.3}, 1, 20)


def test_the_same_seed_gives_the_same_fitness_in_a_fresh_process():
    here = evaluate({"lookahead_m": 0.8}, 2, 5.0)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(evaluate, ({"lookahead_m": 0.8}, 2, 5.0))
    assert there == here > 0


def test_no_ros_is_needed():
    check = "import brainos_ros.robots.rollout, sys; sys.exit('rclpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


def test_a_robot_that_may_not_move_carries_nothing():
    assert evaluate({}, 1, 5.0, limit=lambda separation_m: 0.0) == pytest.approx(0.0, abs=1e-3)


def test_speed_falls_to_zero_with_the_separation():
    limit = careful(Base())
    assert limit(math.inf) == 1.0
    assert limit(0.0) == limit(1.0) == 0.0
    assert 0.0 < limit(1.5) < limit(3.0)


def test_other_genes_are_left_alone_and_wrong_ones_refused():
    assert driving_of({"beak_length": 3.0, "lookahead_m": 1.5}).lookahead_m == 1.5
    with pytest.raises(BrainError, match="lookahead_m is nan"):
        evaluate({"lookahead_m": math.nan}, 1, 1.0)
    with pytest.raises(BrainError, match="seconds is 0"):
        evaluate({}, 1, 0.0)
