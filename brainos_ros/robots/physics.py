"""The body: a differential base with driven wheels and a 360° lidar, in MuJoCo.

Wheels roll on the floor by friction, each driven by a velocity servo with limited torque; a
motor controller in front of them ramps the commanded speed. Nothing is moved by hand.
"""

from __future__ import annotations

import importlib
import math
from collections import deque
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robots.layout import Box, Layout
from brainos_ros.robots.people import PERSON_RADIUS_M, Floats

TIMESTEP_S = 0.005
LIDAR_HEIGHT_M = 0.36
WHEEL_RADIUS_M = 0.08
BRAKE_RESERVE = 1.15  # The base brakes this much harder than its data sheet promises.


@dataclass(frozen=True)
class Base:
    """What the base can do, as in the robot file."""

    footprint_radius_m: float = 0.35
    max_speed_mps: float = 1.0
    max_yaw_rate_radps: float = 1.5
    acceleration_mps2: float = 1.0
    deceleration_mps2: float = 2.0
    actuation_delay_s: float = 0.05
    command_timeout_s: float = 0.3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not math.isfinite(value) or value < 0 or (value == 0 and "delay" not in name):
                raise BrainError(f"{name} is {value}; it must be a finite number above 0")
        if not 0.15 <= self.footprint_radius_m <= 1.0:
            raise BrainError(
                f"footprint_radius_m is {self.footprint_radius_m}; the simulated base can be"
                " built from 0.15 to 1.0 m"
            )

    @property
    def track_m(self) -> float:
        """Distance between the wheels [m]."""
        return 1.4 * self.footprint_radius_m


@dataclass(frozen=True)
class Lidar:
    """A full turn of `rays` beams from −π on, anticlockwise; ranges in metres."""

    rays: int = 360
    range_min_m: float = 0.05
    range_max_m: float = 25.0
    noise_m: float = 0.01


class MotorController:
    """Turns velocity commands into wheel speeds within the limits of the base.

    A command acts after `actuation_delay_s`. When none came for `command_timeout_s` the base
    brakes to a stand by itself.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._waiting: deque[tuple[float, float, float]] = deque()
        self._target = (0.0, 0.0)
        self._last_command = -math.inf
        self.linear = 0.0
        self.angular = 0.0

    def command(self, now: float, linear: float, angular: float) -> None:
        """Take a command [m/s, rad/s] at time `now`; what is not finite counts as zero."""
        if not (math.isfinite(linear) and math.isfinite(angular)):
            linear = angular = 0.0
        base = self._base
        linear = min(max(linear, -base.max_speed_mps), base.max_speed_mps)
        angular = min(max(angular, -base.max_yaw_rate_radps), base.max_yaw_rate_radps)
        self._waiting.append((now + base.actuation_delay_s, linear, angular))
        self._last_command = now

    def step(self, now: float, dt: float) -> tuple[float, float]:
        """Set-point (linear, angular) for this physics step."""
        while self._waiting and self._waiting[0][0] <= now:
            _, *target = self._waiting.popleft()
            self._target = (target[0], target[1])
        if now - self._last_command > self._base.command_timeout_s:
            self._waiting.clear()
            self._target = (0.0, 0.0)
        per_radius = 1.0 / self._base.footprint_radius_m
        up, down = self._base.acceleration_mps2, BRAKE_RESERVE * self._base.deceleration_mps2
        self.linear = _ramp(self.linear, self._target[0], up * dt, down * dt)
        self.angular = _ramp(
            self.angular, self._target[1], up * per_radius * dt, down * per_radius * dt
        )
        return self.linear, self.angular


def _ramp(now: float, target: float, up: float, down: float) -> float:
    """`now` moved towards `target`, by at most `up` away from zero and `down` towards it."""
    if now * target < 0:
        target = 0.0
    step = up if abs(target) > abs(now) else down
    return min(max(target, now - step), now + step)


class Body:
    """The base in its hall; time goes on by `step`, 5 ms at once."""

    def __init__(
        self, layout: Layout, base: Base, lidar: Lidar, capacity: int, seed: int = 0
    ) -> None:
        """Put the base at the layout's start, with room for `capacity` people.

        Raises:
            BrainError: UNAVAILABLE if MuJoCo is not installed.
        """
        self._mj = load_mujoco()
        self.base = base
        self.lidar = lidar
        self.motors = MotorController(base)
        self._model = self._mj.MjModel.from_xml_string(_world(layout, base, capacity))
        self._data = self._mj.MjData(self._model)
        self._noise = np.random.default_rng(seed)
        self._base_id = self._model.body("base").id
        angles = -math.pi + np.arange(lidar.rays) * (2 * math.pi / lidar.rays)
        self._angles = angles
        self._vectors = np.zeros((lidar.rays, 3))
        self._hit = np.zeros((lidar.rays, 1), dtype=np.int32)
        self._distance = np.zeros((lidar.rays, 1))
        self._groups = np.array([[0], [1], [1], [0], [0], [0]], dtype=np.uint8)
        self._fixed = {
            self._model.geom(i).id
            for i in range(self._model.ngeom)
            if self._model.geom_group[i] == 1
        }
        self._hull = self._model.geom("hull").id
        self._hidden = np.array(self._data.mocap_pos)
        self._mj.mj_forward(self._model, self._data)
        for _ in range(40):  # Let the wheels take the weight.
            self._mj.mj_step(self._model, self._data)
        self._data.time = 0.0

    @property
    def time_s(self) -> float:
        """Simulated time [s]."""
        return float(self._data.time)

    @property
    def pose(self) -> tuple[float, float, float]:
        """x [m], y [m], yaw [rad] of the base."""
        x, y, _, w, qx, qy, qz = self._data.qpos[:7].tolist()
        return x, y, math.atan2(2 * (w * qz + qx * qy), 1 - 2 * (qy * qy + qz * qz))

    @property
    def velocity(self) -> tuple[float, float, float]:
        """vx, vy [m/s] in the frame of the layout, and the yaw rate [rad/s]."""
        vx, vy, _, _, _, yaw_rate = self._data.qvel[:6].tolist()
        return vx, vy, yaw_rate

    def step(self) -> None:
        """One physics step of 5 ms."""
        linear, angular = self.motors.step(self.time_s, TIMESTEP_S)
        half = angular * self.base.track_m / 2
        self._data.ctrl[0] = (linear - half) / WHEEL_RADIUS_M
        self._data.ctrl[1] = (linear + half) / WHEEL_RADIUS_M
        self._mj.mj_step(self._model, self._data)

    def place_people(self, positions: Floats) -> None:
        """Stand the lidar's targets where people are; positions (n, 2) [m]."""
        places = self._hidden.copy()
        places[: len(positions), :2] = positions
        places[: len(positions), 2] = 0.85
        self._data.mocap_pos[:] = places

    def touches_shelf(self) -> bool:
        """Whether the hull touches a shelf or a wall now."""
        contact = self._data.contact
        return any(
            (a == self._hull and b in self._fixed) or (b == self._hull and a in self._fixed)
            for a, b in contact.geom[: self._data.ncon].tolist()
        )

    def scan(self) -> Floats:
        """Ranges (rays,) [m] as the lidar measures them now; +Inf where nothing is in reach.

        Beam i points at −π + i·2π/rays from the front of the base, anticlockwise.
        """
        self._mj.mj_kinematics(self._model, self._data)
        x, y, yaw = self.pose
        np.cos(self._angles + yaw, out=self._vectors[:, 0])
        np.sin(self._angles + yaw, out=self._vectors[:, 1])
        self._mj.mj_multiRay(
            self._model,
            self._data,
            np.array([[x], [y], [LIDAR_HEIGHT_M]]),
            self._vectors.reshape(-1, 1),
            self._groups,
            True,
            self._base_id,
            self._hit,
            self._distance,
            None,
            self.lidar.rays,
            self.lidar.range_max_m,
        )
        ranges = self._distance[:, 0].copy()
        missed = self._hit[:, 0] < 0
        ranges += self._noise.normal(0.0, self.lidar.noise_m, self.lidar.rays)
        np.clip(ranges, self.lidar.range_min_m, self.lidar.range_max_m, out=ranges)
        ranges[missed] = math.inf
        return ranges


def load_mujoco() -> Any:
    """The mujoco module.

    Raises:
        BrainError: UNAVAILABLE, saying what to install.
    """
    try:
        return importlib.import_module("mujoco")
    except ImportError:
        raise BrainError(
            "the simulated robot needs MuJoCo: pip install mujoco",
            ErrorCode.UNAVAILABLE,
        ) from None


def _world(layout: Layout, base: Base, capacity: int) -> str:
    """The MJCF model. Geom groups: 0 floor, 1 shelves and walls, 2 people, 3 the robot."""
    fixed = "\n".join(_box(box) for box in (*layout.shelves, *layout.walls))
    people = "\n".join(
        f'<body mocap="true" pos="{i} 0 -9"><geom type="cylinder" size="{PERSON_RADIUS_M} 0.85"'
        ' contype="0" conaffinity="0" group="2"/></body>'
        for i in range(capacity)
    )
    r, w = base.footprint_radius_m, WHEEL_RADIUS_M
    x, y = layout.start
    half_yaw = layout.start_yaw / 2
    wheel = (
        f'<geom type="ellipsoid" size="{w} 0.02 {w}" mass="1.5" group="3"'
        ' friction="1.2 0.005 0.0001"/>'
    )
    caster = (
        '<geom type="sphere" size="0.03" pos="{} 0 -0.0495" mass="0.3" group="3"'
        ' priority="1" condim="1"/>'
    )
    half_track = base.track_m / 2
    return f"""
<mujoco model={quoteattr(layout.name)}>
  <option timestep="{TIMESTEP_S}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <worldbody>
    <geom name="floor" type="plane" size="200 200 1" group="0"/>
    {fixed}
    {people}
    <body name="base" pos="{x} {y} {w}" quat="{math.cos(half_yaw)} 0 0 {math.sin(half_yaw)}">
      <freejoint/>
      <geom name="hull" type="cylinder" size="{r} 0.1" pos="0 0 0.1" mass="2" group="3"/>
      <geom name="battery" type="box" size="0.1 0.1 0.02" mass="28" group="3"/>
      {caster.format(0.8 * r)}
      {caster.format(-0.8 * r)}
      <body pos="0 {half_track} 0"><joint name="left" axis="0 1 0" armature="0.05"/>{wheel}</body>
      <body pos="0 {-half_track} 0"><joint name="right" axis="0 1 0" armature="0.05"/>{wheel}</body>
    </body>
  </worldbody>
  <actuator>
    <velocity joint="left" kv="20" forcerange="-12 12"/>
    <velocity joint="right" kv="20" forcerange="-12 12"/>
  </actuator>
</mujoco>"""


def _box(box: Box) -> str:
    half = ((box.x_max - box.x_min) / 2, (box.y_max - box.y_min) / 2, box.height / 2)
    middle = (box.x_min + half[0], box.y_min + half[1], half[2])
    return (
        f'<geom type="box" size="{half[0]} {half[1]} {half[2]}"'
        f' pos="{middle[0]} {middle[1]} {middle[2]}" group="1"/>'
    )
