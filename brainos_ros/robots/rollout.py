"""Roll-outs: how well a way of driving works, tried in the simulator, faster than real time.

No ROS in here and nothing global, so that `evaluate` runs in any worker process:
`genome_sync` calls it as `brainos_ros.robots.rollout:evaluate`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import fields

from brainos_ros.errors import BrainError
from brainos_ros.robots.navigator import Driving, Navigator
from brainos_ros.robots.physics import Base
from brainos_ros.robots.simulation import Simulation, build

CONTROL_S = 0.05
REACTION_S = 0.37  # One scan, one tick of the gate, and the time-out of the base.
PERSON_SPEED_MPS = 2.5
MARGIN_M = 0.2
CONTACT_COSTS_MPS = 1.0

SpeedLimit = Callable[[float], float]


def careful(base: Base) -> SpeedLimit:
    """Highest speed [m/s] at a separation [m] from people, by ISO/TS 15066, 5.5.4.

    The same physics as the robot's guard: a person walks up at 2.5 m/s while the base reacts
    and brakes.
    """
    a = base.deceleration_mps2
    k = REACTION_S + PERSON_SPEED_MPS / a
    taken = PERSON_SPEED_MPS * REACTION_S + MARGIN_M

    def limit(separation_m: float) -> float:
        if separation_m <= taken:
            return 0.0
        if math.isinf(separation_m):
            return base.max_speed_mps
        return a * (math.sqrt(k * k + 2.0 * (separation_m - taken) / a) - k)

    return limit


def driving_of(genome_parameters: Mapping[str, float]) -> Driving:
    """The navigator's settings among `genome_parameters`; other genes are left alone.

    Raises:
        BrainError: a setting that is not a finite number above 0.
    """
    known = {field.name for field in fields(Driving)}
    chosen = {name: float(value) for name, value in genome_parameters.items() if name in known}
    for name, value in chosen.items():
        if not (math.isfinite(value) and value > 0):
            raise BrainError(f"{name} is {value}; it must be a finite number above 0")
    return Driving(**chosen)


def evaluate(
    genome_parameters: Mapping[str, float],
    seed: int,
    seconds: float,
    limit: SpeedLimit | None = None,
) -> float:
    """Fitness of a way of driving: shortest way carried per second [m/s], higher is better.

    The robot carries goods between the first two stations of the warehouse for `seconds` of
    simulated time, through aisles drawn by `seed`, among a crowd drawn by `seed`. Every contact
    while moving costs 1 m/s, and so does driving into a shelf. `limit` gives the speed allowed
    at a separation from people; without one `careful` is used.

    Raises:
        BrainError: a parameter out of range, or MuJoCo is missing.
    """
    driving = driving_of(genome_parameters)
    if not (math.isfinite(seconds) and seconds > 0):
        raise BrainError(f"seconds is {seconds}; a roll-out needs more than 0")
    simulation = build(seed=seed)
    navigator = Navigator(simulation.layout, simulation.base, driving)
    limit = limit or careful(simulation.base)
    draw = random.Random(seed)
    stations = list(simulation.layout.stations)[:2]
    carried_m, goal = 0.0, 1
    while simulation.time_s < seconds:
        errand = navigator.begin(
            draw.choice(list(simulation.layout.aisles)),
            {"to": stations[goal]},
            simulation.body.pose,
        )
        while errand.outcome is None and simulation.time_s < seconds:
            _advance(simulation, errand.step(simulation.body.pose, CONTROL_S), limit)
        carried_m += errand.progress * errand.shortest_m
        if errand.outcome is not None and errand.outcome.outcome == "success":
            goal = 1 - goal
    bumps = simulation.truth.contacts_while_moving + simulation.shelf_contacts
    return carried_m / simulation.time_s - CONTACT_COSTS_MPS * bumps


def _advance(simulation: Simulation, wanted: tuple[float, float], limit: SpeedLimit) -> None:
    """One control period; the command is scaled down to what the limit allows."""
    allowed = limit(simulation.truth.separation_m)
    asked = abs(wanted[0]) + abs(wanted[1]) * simulation.base.footprint_radius_m
    scale = min(1.0, allowed / asked) if asked > 0 else 0.0
    simulation.command(wanted[0] * scale, wanted[1] * scale)
    simulation.advance(CONTROL_S)
