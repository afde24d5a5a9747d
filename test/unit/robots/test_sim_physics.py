"""The body obeys its data sheet: speeds, braking, time-out, what the lidar sees."""

import math

import numpy as np
import pytest

from brainos_ros.errors import BrainError
from brainos_ros.robots.crowd import Crowd
from brainos_ros.robots.layout import Layout, hall, warehouse
from brainos_ros.robots.physics import Base, Body, Lidar
from brainos_ros.robots.simulation import Simulation, Truth

pytest.importorskip("mujoco", reason="MuJoCo is not installed")

OPEN: Layout = hall(-20.0, -20.0, 20.0, 20.0, True)
BASE = Base()


@pytest.fixture
def sim():
    return Simulation(OPEN, Crowd(OPEN, 0), BASE)


def drive(sim, linear, angular, seconds):
    for _ in range(round(seconds / 0.05)):
        sim.command(linear, angular)
        sim.advance(0.05)


def speed(sim):
    return math.hypot(*sim.body.velocity[:2])


def test_it_stands_still_when_nobody_commands(sim):
    start = sim.body.pose
    sim.advance(3.0)
    assert sim.body.pose == pytest.approx(start, abs=1e-4)
    assert speed(sim) < 1e-4


@pytest.mark.parametrize("linear", [1.0, 0.4, -0.4])
def test_it_reaches_the_commanded_speed_no_faster_than_it_accelerates(sim, linear):
    drive(sim, linear, 0.0, 0.5)
    assert speed(sim) <= BASE.acceleration_mps2 * 0.5 + 0.02
    drive(sim, linear, 0.0, 1.2)
    assert speed(sim) == pytest.approx(abs(linear), abs=0.02)


def test_it_turns_on_the_spot_and_stays_there(sim):
    x, y, yaw = sim.body.pose
    drive(sim, 0.0, 1.0, 2.0)
    assert sim.body.velocity[2] == pytest.approx(1.0, abs=0.03)
    assert math.dist(sim.body.pose[:2], (x, y)) < 0.03
    assert math.remainder(sim.body.pose[2] - yaw, math.tau) == pytest.approx(1.75, abs=0.25)


def test_a_command_beyond_the_limits_is_held_to_them(sim):
    drive(sim, 9.0, 0.0, 3.0)
    assert speed(sim) <= BASE.max_speed_mps + 0.02


@pytest.mark.parametrize("command", [(math.nan, 0.0), (1.0, math.inf), (-math.inf, 0.0)])
def test_a_command_that_is_not_finite_stops_it(sim, command):
    drive(sim, 0.5, 0.0, 1.0)
    drive(sim, *command, 1.0)
    assert speed(sim) < 0.01


def test_it_brakes_at_least_as_hard_as_promised(sim):
    drive(sim, 1.0, 0.0, 2.0)
    begin, fast = sim.body.pose, speed(sim)
    drive(sim, 0.0, 0.0, 2.0)
    promised = fast**2 / (2 * BASE.deceleration_mps2) + fast * BASE.actuation_delay_s
    assert math.dist(sim.body.pose[:2], begin[:2]) <= promised + 0.01
    assert speed(sim) < 0.001


def test_it_stops_by_itself_when_commands_stop(sim):
    drive(sim, 1.0, 0.0, 2.0)
    sim.advance(BASE.command_timeout_s - 0.06)
    assert speed(sim) > 0.9
    sim.advance(0.06 + 1.0 / BASE.deceleration_mps2 + 0.05)
    assert speed(sim) < 0.01


def test_the_lidar_measures_the_hall_and_people_in_it():
    body = Body(warehouse(), BASE, Lidar(noise_m=0.0), capacity=2)
    empty = body.scan()
    assert empty.shape == (360,)
    assert empty[0] == pytest.approx(9.0 - 7.4, abs=1e-6)
    assert empty[270] == pytest.approx(6.7, abs=1e-6)
    body.place_people(np.array([[-5.4, 0.0]]))
    with_person = body.scan()
    assert with_person[180] == pytest.approx(2.0 - 0.3, abs=1e-6)
    assert with_person[0] == empty[0]
    body.place_people(np.empty((0, 2)))
    assert np.array_equal(body.scan(), empty)


def test_nothing_in_reach_is_infinitely_far():
    body = Body(OPEN, BASE, Lidar(range_max_m=1.0), capacity=0)
    assert np.isposinf(body.scan()[180])


def test_driving_into_a_shelf_is_counted_once_and_does_not_go_through():
    layout = warehouse()
    sim = Simulation(layout, Crowd(layout, 0), BASE)
    drive(sim, -0.5, 0.0, 5.0)
    assert sim.shelf_contacts == 1
    assert sim.body.pose[0] > -9.0 + 0.9 * BASE.footprint_radius_m


class Standing:
    """One person at a place of our choice."""

    def __init__(self, x):
        self.capacity = 1
        self.ids = np.array([1])
        self.positions = np.array([[x, 0.0]])
        self.velocities = np.zeros((1, 2))


def observe(truth, x, robot_speed=0.0):
    truth.observe(np.array([0.0, 0.0, robot_speed, 0.0]), Standing(x))


def test_truth_keeps_the_smallest_separation_and_the_speed_then():
    truth = Truth(0.35)
    for x, robot_speed in ((2.0, 1.0), (1.0, 0.3), (1.5, 0.8)):
        observe(truth, x, robot_speed)
    assert truth.min_separation_m == pytest.approx(0.35)
    assert truth.speed_at_min_separation_mps == 0.3
    assert truth.separation_m == pytest.approx(0.85)


def test_a_contact_is_one_however_long_and_moving_if_it_ever_moved():
    truth = Truth(0.35)
    for x in (1.0, 0.6, 0.5, 0.6):
        observe(truth, x)
    assert (truth.contacts, truth.contacts_while_moving) == (1, 0)
    observe(truth, 0.6, 0.02)
    observe(truth, 0.6, 0.5)
    assert (truth.contacts, truth.contacts_while_moving) == (1, 1)
    observe(truth, 2.0)
    observe(truth, 0.6)
    assert (truth.contacts, truth.contacts_while_moving) == (2, 1)
    assert (truth.min_separation_m, truth.speed_at_min_separation_mps) == (0.0, 0.5)


def test_recorded_people_walk_through_a_standing_robot_without_pushing_it():
    sim = Simulation(OPEN, Standing(0.0), BASE)  # type: ignore[arg-type]
    sim.people.positions = np.array([[*sim.body.pose[:2]]])
    sim.people.advance = lambda dt, robot: None
    place = sim.body.pose
    sim.scan()
    sim.advance(1.0)
    assert sim.truth.contacts == 1 and sim.truth.contacts_while_moving == 0
    assert sim.body.pose == pytest.approx(place, abs=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"max_speed_mps": 0.0}, {"deceleration_mps2": math.nan}, {"footprint_radius_m": 3.0}]
)
def test_a_base_that_cannot_be_is_refused(wrong):
    with pytest.raises(BrainError, match=next(iter(wrong))):
        Base(**wrong)
