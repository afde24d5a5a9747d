"""The whole scene: the base, the people, and what really happened between them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from brainos_ros.robots.crowd import Crowd
from brainos_ros.robots.layout import Layout, warehouse
from brainos_ros.robots.people import PERSON_RADIUS_M, Floats, People
from brainos_ros.robots.physics import TIMESTEP_S, Base, Body, Lidar
from brainos_ros.robots.recorded import RecordedPeople

MOVING_MPS = 0.01


class Truth:
    """Keeps separation and contacts between the footprint and people, both discs.

    A contact lasts from the first overlap to the end of it; it counts as one while moving if
    the base was faster than 0.01 m/s at any moment of it.
    """

    def __init__(self, footprint_radius_m: float) -> None:
        self._reach = footprint_radius_m + PERSON_RADIUS_M
        self.separation_m = math.inf
        self.min_separation_m = math.inf
        self.speed_at_min_separation_mps = 0.0
        self.contacts = 0
        self.contacts_while_moving = 0
        self._touching: dict[int, bool] = {}

    def observe(self, robot: Floats, people: People) -> None:
        """Take in one physics step; `robot` is (x, y, vx, vy)."""
        if not len(people.positions):
            self.separation_m = math.inf
            self._touching.clear()
            return
        dx, dy = (people.positions - robot[:2]).T
        gaps = np.sqrt(dx * dx + dy * dy) - self._reach
        self.separation_m = max(0.0, float(gaps.min()))
        speed = math.hypot(robot[2], robot[3])
        if (self.separation_m, -speed) < (self.min_separation_m, -self.speed_at_min_separation_mps):
            self.min_separation_m = self.separation_m
            self.speed_at_min_separation_mps = speed
        if self.separation_m > 0.0 and not self._touching:
            return
        now: dict[int, bool] = {}
        for identity in people.ids[gaps <= 0.0].tolist():
            before = self._touching.get(identity)
            moved = bool(before) or speed > MOVING_MPS
            self.contacts += before is None
            self.contacts_while_moving += moved and not before
            now[identity] = moved
        self._touching = now


class Simulation:
    """A hall with a robot and people in it. Time goes on only by `step` and `advance`."""

    def __init__(
        self,
        layout: Layout,
        people: People,
        base: Base | None = None,
        lidar: Lidar | None = None,
        seed: int = 0,
    ) -> None:
        """Raises BrainError: UNAVAILABLE if MuJoCo is not installed."""
        self.layout = layout
        self.people = people
        self.base = base or Base()
        self.body = Body(layout, self.base, lidar or Lidar(), people.capacity, seed)
        self.truth = Truth(self.base.footprint_radius_m)
        self.shelf_contacts = 0
        self._at_shelf = False
        self._robot = np.zeros(4)

    @property
    def time_s(self) -> float:
        """Simulated time [s]."""
        return self.body.time_s

    def command(self, linear: float, angular: float) -> None:
        """Give the base a velocity command [m/s, rad/s]; it holds for the command time-out."""
        self.body.motors.command(self.time_s, linear, angular)

    def step(self) -> None:
        """One physics step of 5 ms for everybody, and a look at the truth."""
        self.people.advance(TIMESTEP_S, self._robot)
        self.body.step()
        x, y, _ = self.body.pose
        vx, vy, _ = self.body.velocity
        self._robot[:] = (x, y, vx, vy)
        self.truth.observe(self._robot, self.people)
        at_shelf = self.body.touches_shelf()
        self.shelf_contacts += at_shelf and not self._at_shelf
        self._at_shelf = at_shelf

    def advance(self, seconds: float) -> None:
        """As many steps as fit into `seconds`."""
        for _ in range(round(seconds / TIMESTEP_S)):
            self.step()

    def scan(self) -> Floats:
        """Ranges of the lidar now, people included; see `Body.scan`."""
        self.body.place_people(self.people.positions)
        return self.body.scan()


def build(
    people: int = 6,
    people_file: str = "",
    people_time_step_s: float = 0.4,
    seed: int = 0,
    base: Base | None = None,
) -> Simulation:
    """The scene the parameters ask for.

    Without `people_file`: the warehouse with a crowd of `people`. With it: a hall made for the
    recording, its people `people_time_step_s` between annotated frames.

    Raises:
        BrainError: a parameter or the file is wrong, or MuJoCo is not installed.
    """
    if people_file:
        recorded = RecordedPeople(Path(people_file).expanduser(), people_time_step_s)
        return Simulation(recorded.layout, recorded, base, seed=seed)
    layout = warehouse()
    return Simulation(layout, Crowd(layout, people, seed), base, seed=seed)
