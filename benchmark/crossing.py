"""A robot behind the gate crosses a hall of recorded people: simulator and gate in one loop.

No ROS: the same gate, fed at the simulator's own rates (scan and people 20 Hz, odometry and gate
50 Hz), the requests from the navigator. Every command is checked against the formula, worked out
again here from that tick's raw inputs: for people from where they are, for things that stand still
by moving the footprint along the commanded curve for as long as the robot needs to stop.
"""

import math
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from brainos_ros import robot_file
from brainos_ros.conscience import adopted
from brainos_ros.conscience.gate import Gate, Periods
from brainos_ros.conscience.rules_file import load
from brainos_ros.conscience.separation import Base as GateBase
from brainos_ros.conscience.separation import People as Assumed
from brainos_ros.robots.navigator import Navigator
from brainos_ros.robots.people import PERSON_RADIUS_M
from brainos_ros.robots.physics import Base
from brainos_ros.robots.recorded import Extent, RecordedPeople, Track, lengthen
from brainos_ros.robots.simulation import Simulation

STEP_S, GATE_S, SENSOR_S = 0.005, 0.02, 0.05
PERIODS = Periods(gate=GATE_S, request=0.1, scan=SENSOR_S, odom=0.05, people=SENSOR_S)
LEAD_IN_M = 4.0
NO_AXES = (0.0, 0.0, 0.0, 0.0)


def lead_in(track: Track, extent: Extent) -> Track:
    """The track with the last 4 m before it walked straight, so that nobody appears in front of
    the robot (at 3 m it may drive at full speed); who leaves the camera's view is gone."""
    longer = lengthen(track, extent)
    start, first = longer.places[0], track.places[0]
    begins = float(longer.times[0])
    way = math.dist(start, first)
    if way > LEAD_IN_M:
        share = LEAD_IN_M / way
        start = first + (start - first) * share
        begins = track.times[0] + (begins - track.times[0]) * share
    if way < 1e-6:
        return track
    return Track(track.identity, np.concatenate([[begins], track.times]),
                 np.vstack([start, track.places]))


class Visitors:
    """Recorded people, but for those who would appear within 4 m of the robot out of nowhere:
    they are left out, and counted."""

    def __init__(self, recorded: RecordedPeople) -> None:
        self._recorded = recorded
        self.capacity = recorded.capacity
        self.left_out: set[int] = set()
        self._known: set[int] = set()
        self._keep = np.ones(len(recorded.ids), dtype=bool)

    @property
    def positions(self) -> Any:
        """Where they are, (n, 2) [m]."""
        return self._recorded.positions[self._keep]

    @property
    def velocities(self) -> Any:
        """How they walk, (n, 2) [m/s]."""
        return self._recorded.velocities[self._keep]

    @property
    def ids(self) -> Any:
        """Who they are, (n,)."""
        return self._recorded.ids[self._keep]

    def advance(self, dt: float, robot: Any) -> None:
        """Everybody walks on by `dt` seconds."""
        self._recorded.advance(dt, robot)
        ids = self._recorded.ids.tolist()
        if set(ids) != self._known or len(self._keep) != len(ids):
            for person, place in zip(ids, self._recorded.positions, strict=True):
                if person not in self._known and math.dist(place, robot[:2]) < LEAD_IN_M:
                    self.left_out.add(person)
            self._known = set(ids)
            self._keep = np.array([person not in self.left_out for person in ids], dtype=bool)


class Nobody:
    """An empty hall."""

    capacity = 1

    def __init__(self) -> None:
        self.positions = self.velocities = np.zeros((0, 2))
        self.ids = np.zeros(0, dtype=np.int64)

    def advance(self, dt: float, robot: Any) -> None:
        """Nobody walks."""


@dataclass
class Result:
    """What happened on all crossings; speeds in m/s, distances in m, times in s."""

    crossings: int = 0
    ticks: int = 0
    seconds: float = 0.0
    metres: float = 0.0
    above_formula: int = 0
    into_obstacles: int = 0
    worst_excess_mps: float = -math.inf
    contacts: int = 0
    fastest_at_contact_mps: float = 0.0
    contacts_of_runners: int = 0
    nearest_m: float = math.inf
    stops: int = 0
    left_out: int = 0
    problems: set[str] = field(default_factory=set)

    @property
    def mean_speed_mps(self) -> float:
        """Way over time, waiting included."""
        return self.metres / self.seconds if self.seconds else 0.0


def needed(v: float, person: float, reaction: float, a: float, margin: float) -> float:
    """The protective separation [m] at speed `v` [m/s] from somebody who walks at `person`."""
    return person * (reaction + v / a) + v * reaction + v * v / (2 * a) + margin


def formula(separation: float, person: float, reaction: float, a: float, margin: float) -> float:
    """The limit, solved by bisection of the protective separation rather than in closed form."""
    low, high = 0.0, 50.0
    for _ in range(60):
        v = (low + high) / 2
        enough = needed(v, person, reaction, a, margin) <= separation
        low, high = (v, high) if enough else (low, v)
    return low


def reaches(ranges: Any, command: tuple[float, float], way: float, radius: float) -> bool:
    """Whether a disc of `radius` [m] that follows `command` for `way` [m] meets a return.

    The disc is moved in steps of a centimetre. `ranges` [m] go once around from -pi; what touches
    the disc from the start counts once it comes nearer than it is.
    """
    linear, angular = command
    ranges = np.asarray(ranges)
    bearings = np.linspace(-math.pi, math.pi, len(ranges), endpoint=False)
    seen = np.isfinite(ranges)
    points = ranges[seen] * np.exp(1j * bearings[seen])
    s, turn = np.arange(0.0, way, 0.01), angular / abs(linear)
    along = s if abs(turn) < 1e-9 else (np.exp(1j * turn * s) - 1) / (1j * turn)
    centres = math.copysign(1.0, linear) * along
    free = np.minimum(np.abs(points), radius)[:, None] - 1e-6
    return bool((np.abs(points[:, None] - centres[None, :]) < free).any())


class Loop:
    """One robot, one hall. `people_file` empty: nobody is there."""

    def __init__(self, people_file: Path, time_step_s: float, people: bool = True,
                 start_s: float = 0.0, seed: int = 0) -> None:
        robot = robot_file.load("sim")
        numbers = dict(robot.base)
        self.base = Base(**numbers)
        recorded = RecordedPeople(people_file, time_step_s, start_s, lead_in)
        self.simulation = Simulation(
            recorded.layout, Visitors(recorded) if people else Nobody(), self.base, seed=seed)
        self.assumed = Assumed(
            robot.people["speed_mps"], robot.people["unrecognised_speed_mps"],
            robot.people["position_uncertainty_m"], robot.people["intrusion_m"])
        self.gate = Gate(GateBase(**numbers), self.assumed, PERIODS, load(adopted.rules_file("")))
        self.navigator = Navigator(recorded.layout, self.base)
        self.result = Result()
        self._touching: set[int] = set()
        self._next_scan = 0.0
        self._tracked: list[tuple[float, float, float]] = []
        self._ranges: Any = ()

    def cross(self, times: int) -> Result:
        """Drive to and fro between the first two stations, through each aisle in turn."""
        layout = self.simulation.layout
        stations, aisles = list(layout.stations)[:2], list(layout.aisles)
        for number in range(times):
            errand = self.navigator.begin(
                aisles[number % len(aisles)],
                {"to": stations[(number + 1) % 2], "timeout_s": 600.0}, self.simulation.body.pose)
            began, path = self.simulation.time_s, errand.path
            while errand.outcome is None:
                self._tick(errand)
            self.result.crossings += errand.outcome.outcome == "success"
            self.result.seconds += self.simulation.time_s - began
            self.result.metres += path.length_m if path else 0.0
        self.result.left_out = len(getattr(self.simulation.people, "left_out", ()))
        return self.result

    def _tick(self, errand: Any) -> None:
        simulation, gate, now = self.simulation, self.gate, self.simulation.time_s
        pose, (vx, vy, yaw_rate) = simulation.body.pose, simulation.body.velocity
        speed = vx * math.cos(pose[2]) + vy * math.sin(pose[2])
        stamp = round(now * 1e9) + 1
        if now >= self._next_scan - 1e-9:
            self._next_scan += SENSOR_S
            ranges = self._ranges = array("f", simulation.scan())
            gate.scan(now, stamp, ranges, -math.pi, math.tau / len(ranges), 0.05, 25.0)
            self._tracked = [(float(x), float(y), PERSON_RADIUS_M)
                             for x, y in simulation.people.positions]
            gate.people(now, stamp, "odom", self._tracked)
        gate.odometry(now, stamp, "odom", *pose, speed, yaw_rate)
        gate.watchdog(now)
        gate.request(now, *errand.step(pose, GATE_S), NO_AXES)
        tick = gate.tick(now)
        self._check(tick, pose)
        simulation.command(*tick.command)
        for _ in range(round(GATE_S / STEP_S)):
            simulation.step()
            self._look_for_contacts()

    def _check(self, tick: Any, pose: tuple[float, float, float]) -> None:
        result, radius = self.result, self.base.footprint_radius_m
        result.ticks += 1
        result.stops += tick.command == (0.0, 0.0) and tick.requested != (0.0, 0.0)
        result.problems |= set(tick.causes)
        base, people = self.base, self.assumed
        rim = abs(tick.command[0]) + radius * abs(tick.command[1])
        if rim == 0.0:
            return
        reaction = SENSOR_S + GATE_S + max(base.actuation_delay_s, base.command_timeout_s)
        stopping = (reaction, base.deceleration_mps2, people.margin_m)
        if tick.command[0]:
            way = needed(rim, 0.0, *stopping)
            result.into_obstacles += reaches(self._ranges, tick.command, way, radius)
        if self._tracked:
            nearest = min(math.dist(pose[:2], (x, y)) for x, y, _ in self._tracked)
            separation = max(0.0, nearest - PERSON_RADIUS_M - radius)
            limit = formula(separation, people.person_speed_mps, *stopping)
            result.worst_excess_mps = max(result.worst_excess_mps, rim - limit)
            result.above_formula += rim > limit + 1e-6

    def _look_for_contacts(self) -> None:
        people, body = self.simulation.people, self.simulation.body
        if not len(people.positions):
            return
        x, y, _ = body.pose
        gaps = np.hypot(*(people.positions - (x, y)).T)
        gaps -= self.base.footprint_radius_m + PERSON_RADIUS_M
        self.result.nearest_m = min(self.result.nearest_m, max(0.0, float(gaps.min())))
        touching = set()
        for index in np.flatnonzero(gaps <= 0.0):
            person = int(people.ids[index])
            touching.add(person)
            if math.hypot(*people.velocities[index]) > self.assumed.person_speed_mps:
                self.result.contacts_of_runners += person not in self._touching
                continue
            self.result.contacts += person not in self._touching
            self.result.fastest_at_contact_mps = max(
                self.result.fastest_at_contact_mps, math.hypot(*body.velocity[:2]))
        self._touching = touching
