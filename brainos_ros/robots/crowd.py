"""A crowd of pickers who walk by social forces (Helbing and Molnár, Phys. Rev. E 51, 1995)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brainos_ros.errors import BrainError
from brainos_ros.robots.layout import Layout, path_length
from brainos_ros.robots.people import PERSON_RADIUS_M, Floats

RELAXATION_S = 0.5  # Time in which a walker takes up the speed it wants.
PUSH_MPS2, REACH_M = 4.0, 0.35  # From other walkers and the robot.
WALL_PUSH_MPS2, WALL_REACH_M = 6.0, 0.15
MAX_SPEED_MPS = 1.8
KEEP_RIGHT = np.array([[0.94, 0.34], [-0.34, 0.94]])  # Forces turned by 20°: no head-on stand-off.
DECIDE_S = 0.05  # Forces are weighed this often; between, people walk straight on.
NEAR_ROBOT_M = 3.0
STUCK_S = 4.0  # Without getting nearer for this long, a walker takes up something else.


class Crowd:
    """`size` people with errands in the aisles; the shortest aisle is the busiest.

    The share of errands is 0.6 for the busiest aisle, 0.3 for a second and the rest for the
    others; `seed` decides which those are and everything else. Whoever meets the robot gives
    way with probability `politeness`: ends a pause and leaves, steps aside. The others hold on
    to what they do, but do not walk through it.
    """

    def __init__(
        self, layout: Layout, size: int = 6, seed: int = 0, politeness: float = 0.8
    ) -> None:
        if size < 0 or size > 200:
            raise BrainError(f"people is {size}; the crowd can be 0 to 200")
        self._layout = layout
        self._random = np.random.default_rng(seed)
        self._politeness = politeness
        self.capacity = size
        self.ids: NDArray[np.int64] = np.arange(1, size + 1, dtype=np.int64)
        self.velocities: Floats = np.zeros((size, 2))
        self._shares = self._share_out()
        self._boxes = np.array(
            [(b.x_min, b.y_min, b.x_max, b.y_max) for b in (*layout.shelves, *layout.walls)]
        )
        self._wanted = np.clip(self._random.normal(1.25, 0.2, size), 0.8, 1.6)
        self._ways: list[list[Floats]] = [[] for _ in range(size)]
        self._rest_s = np.zeros(size)
        self._stuck_s = np.zeros(size)
        self._nearest_m = np.full(size, np.inf)
        self._meets = np.zeros(size, dtype=bool)
        self._polite = np.zeros(size, dtype=bool)
        self.positions: Floats = np.array(
            [self._place_in(self._draw_aisle()) for _ in range(size)]
        ).reshape(-1, 2)
        self._until_decision_s = 0.0

    def advance(self, dt: float, robot: Floats) -> None:
        """Walk on by `dt` seconds; `robot` is (x, y, vx, vy)."""
        if not self.capacity:
            return
        self._until_decision_s -= dt
        if self._until_decision_s <= 0:
            self._until_decision_s += DECIDE_S
            self._choose_errands(robot)
            self._weigh_forces(robot)
        self.positions = self.positions + self.velocities * dt

    def _share_out(self) -> dict[str, float]:
        first, second = list(self._layout.stations.values())[:2]
        names = list(self._layout.aisles)

        def detour(name: str) -> float:
            return path_length([first, *self._layout.route(first, second, name)])

        busiest = min(names, key=detour)
        others = [name for name in names if name != busiest]
        second_busy = others[int(self._random.integers(len(others)))] if others else busiest
        rest = 0.1 / max(1, len(others) - 1)
        shares = dict.fromkeys(names, rest) | {second_busy: 0.3, busiest: 0.6}
        total = sum(shares.values())
        return {name: share / total for name, share in shares.items()}

    def _draw_aisle(self) -> str:
        names = list(self._shares)
        return names[int(self._random.choice(len(names), p=list(self._shares.values())))]

    def _place_in(self, name: str) -> Floats:
        """A place to pick from: somewhere along an aisle, close to one of its shelves."""
        aisle = self._layout.aisles[name]
        first, second = np.array(aisle.ends[0]), np.array(aisle.ends[1])
        along = (second - first) / np.linalg.norm(second - first)
        across = np.array([-along[1], along[0]])
        at = first + (second - first) * self._random.uniform(0.15, 0.85)
        sideways = self._random.choice([-1, 1]) * (aisle.width / 2 - PERSON_RADIUS_M - 0.2)
        place: Floats = at + across * sideways
        return place

    def _way_to(self, position: Floats, name: str, place: Floats) -> list[Floats]:
        """Waypoints to `place` in the aisle `name`, in and out by the nearer ends."""
        point = self._point(position)
        aisles = self._layout.aisles
        way: list[tuple[float, float]] = []
        if self._layout.side(point) is None:
            inside = min(aisles, key=lambda a: aisles[a].offset(point))
            if inside == name:
                return [place]
            way.append(aisles[inside].ends[int(self._random.integers(2))])
            point = way[-1]
        way.append(
            min(
                aisles[name].ends,
                key=lambda end: (end[0] - point[0]) ** 2 + (end[1] - point[1]) ** 2,
            )
        )
        return [np.array(stop) + self._random.uniform(-0.7, 0.7, 2) for stop in way] + [place]

    def _choose_errands(self, robot: Floats) -> None:
        meets = np.hypot(*(self.positions - robot[:2]).T) < NEAR_ROBOT_M
        for i in np.flatnonzero(meets & ~self._meets).tolist():
            self._polite[i] = self._random.random() < self._politeness
            if self._polite[i]:
                self._make_room(i, robot)
        self._meets = meets
        self._rest_s = np.maximum(0.0, self._rest_s - DECIDE_S)
        for i in range(self.capacity):
            self._follow_way(i)

    def _make_room(self, i: int, robot: Floats) -> None:
        """Who shares an aisle with the robot leaves it on the side away from the robot."""
        here, there = self._point(self.positions[i]), self._point(robot)
        aisle = min(self._layout.aisles.values(), key=lambda a: a.offset(here))
        if self._layout.side(here) is None and aisle.offset(there) < aisle.width / 2:
            end = aisle.ends[int(aisle.fraction(here) > aisle.fraction(there))]
            name = self._draw_aisle()
            self._rest_s[i] = 0.0
            self._take(i, [np.array(end), *self._way_to(np.array(end), name, self._place_in(name))])

    def _follow_way(self, i: int) -> None:
        way = self._ways[i]
        if way:
            distance = float(np.hypot(*(way[0] - self.positions[i])))
            if distance < (1.0 if len(way) > 1 else 0.4):
                way.pop(0)
                self._nearest_m[i], self._stuck_s[i] = np.inf, 0.0
                self._rest_s[i] = 0.0 if way else self._random.uniform(1.0, 5.0)
            elif distance < self._nearest_m[i] - 0.3:
                self._nearest_m[i], self._stuck_s[i] = distance, 0.0
            else:
                self._stuck_s[i] += DECIDE_S
        if self._rest_s[i] <= 0 and (not way or self._stuck_s[i] > STUCK_S):
            name = self._draw_aisle()
            self._take(i, self._way_to(self.positions[i], name, self._place_in(name)))

    def _take(self, i: int, way: list[Floats]) -> None:
        self._ways[i] = way
        self._nearest_m[i], self._stuck_s[i] = np.inf, 0.0

    @staticmethod
    def _point(position: Floats) -> tuple[float, float]:
        return float(position[0]), float(position[1])

    def _weigh_forces(self, robot: Floats) -> None:
        position, velocity = self.positions, self.velocities
        goal = np.array(
            [way[0] if way else place for way, place in zip(self._ways, position, strict=True)]
        )
        ahead = goal - position
        distance = np.maximum(1e-6, np.hypot(*ahead.T))[:, None]
        wanted = ahead / distance * np.where(self._rest_s > 0, 0.0, self._wanted)[:, None]
        force = (wanted - velocity) / RELAXATION_S

        apart = position[:, None, :] - position[None, :, :]
        gap = np.hypot(apart[..., 0], apart[..., 1]) + np.eye(self.capacity) * 1e3
        strength = PUSH_MPS2 * np.exp((2 * PERSON_RADIUS_M - gap) / REACH_M) / gap
        force += (apart @ KEEP_RIGHT * strength[..., None]).sum(axis=1)

        nearest = np.clip(position[:, None, :], self._boxes[:, :2], self._boxes[:, 2:])
        away = position[:, None, :] - nearest
        clear = np.maximum(1e-3, np.hypot(away[..., 0], away[..., 1]))
        strength = WALL_PUSH_MPS2 * np.exp((PERSON_RADIUS_M - clear) / WALL_REACH_M) / clear
        force += (away * strength[..., None]).sum(axis=1)

        from_robot = position - robot[:2]
        gap_robot = np.maximum(1e-3, np.hypot(*from_robot.T))
        reach = np.where(self._polite, 2 * REACH_M, REACH_M)
        strength = PUSH_MPS2 * np.exp((PERSON_RADIUS_M + 0.4 - gap_robot) / reach) / gap_robot
        side = np.sign(ahead[:, 0] * from_robot[:, 1] - ahead[:, 1] * from_robot[:, 0] + 1e-9)
        around = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1) / distance * side[:, None]
        facing = (from_robot * ahead).sum(axis=1) < 0
        around *= np.where(facing, gap_robot * strength, 0.0)[:, None]
        force += from_robot * strength[:, None] + 1.5 * around

        size = np.maximum(1e-9, np.hypot(*force.T))[:, None]
        velocity = velocity + force / size * np.minimum(size, 4.0) * DECIDE_S
        speed = np.maximum(1e-9, np.hypot(*velocity.T))[:, None]
        velocity = velocity / speed * np.minimum(speed, MAX_SPEED_MPS)
        normal = from_robot / gap_robot[:, None]
        inwards = np.minimum(0.0, (velocity * normal).sum(axis=1))
        touching = gap_robot < PERSON_RADIUS_M + 0.4
        self.velocities = velocity - np.where(touching, inwards, 0.0)[:, None] * normal
