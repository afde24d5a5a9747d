"""Where the robot works: walls, shelves, stations and the aisles between them.

Every layout has the same plan: two open sides, west-like (side 0) and east-like (side 1),
joined by aisles that are straight and parallel. So a route is found by geometry alone.
Frame: `odom`, metres, x and y as the layout says.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

from brainos_ros.errors import BrainError, ErrorCode

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """An upright obstacle: footprint corners [m] and height [m]."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    height: float


@dataclass(frozen=True)
class Aisle:
    """A straight lane between its two ends, side 0 first, `width` metres wide."""

    ends: tuple[Point, Point]
    width: float

    def offset(self, point: Point) -> float:
        """Distance of `point` from the lane's middle line (taken as endless) [m]."""
        (ax, ay), (bx, by) = self.ends
        length = math.hypot(bx - ax, by - ay)
        return abs((bx - ax) * (point[1] - ay) - (by - ay) * (point[0] - ax)) / length

    def fraction(self, point: Point) -> float:
        """Where `point` lies along the lane: 0 at its first end, 1 at the other."""
        (ax, ay), (bx, by) = self.ends
        dx, dy = bx - ax, by - ay
        return ((point[0] - ax) * dx + (point[1] - ay) * dy) / (dx * dx + dy * dy)


@dataclass(frozen=True)
class Layout:
    """A hall. `extent` is (x_min, y_min, x_max, y_max) of the floor inside the walls [m]."""

    name: str
    extent: tuple[float, float, float, float]
    shelves: tuple[Box, ...]
    stations: dict[str, Point]
    aisles: dict[str, Aisle]
    start_yaw: float = 0.0
    walls: tuple[Box, ...] = field(init=False)

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.extent
        t, h = 0.2, 2.5
        object.__setattr__(
            self,
            "walls",
            (
                Box(x0 - t, y0 - t, x1 + t, y0, h),
                Box(x0 - t, y1, x1 + t, y1 + t, h),
                Box(x0 - t, y0, x0, y1, h),
                Box(x1, y0, x1 + t, y1, h),
            ),
        )

    @property
    def start(self) -> Point:
        """Where the robot stands at first: the first station."""
        return next(iter(self.stations.values()))

    def station(self, name: str) -> Point:
        """Place of the station called `name`.

        Raises:
            BrainError: NOT_FOUND, with the names there are.
        """
        try:
            return self.stations[name]
        except KeyError:
            raise BrainError(
                f"station '{name}' is not in the {self.name}; it has {', '.join(self.stations)}",
                ErrorCode.NOT_FOUND,
            ) from None

    def side(self, point: Point) -> int | None:
        """0 or 1 for a point on an open side, None between the ends of the aisles."""
        fraction = next(iter(self.aisles.values())).fraction(point)
        return 0 if fraction <= 0.02 else 1 if fraction >= 0.98 else None

    def route(self, start: Point, goal: Point, aisle: str | None = None) -> list[Point]:
        """Waypoints from `start` (left out) to `goal`, through `aisle` where one is named.

        Without a name the shortest way is taken. A robot that stands in another aisle than
        the one named first leaves it on the side away from the goal, so that what is
        remembered of an aisle is about that aisle.

        Raises:
            BrainError: NOT_FOUND for an unknown aisle, with the names there are.
        """
        if aisle is None:
            ways = [self._through(name, start, goal) for name in self.aisles]
            if self.side(start) is not None and self.side(start) == self.side(goal):
                ways = [[goal]]
            return min(ways, key=lambda way: path_length([start, *way]))
        if aisle not in self.aisles:
            raise BrainError(
                f"aisle '{aisle}' is not in the {self.name}; it has {', '.join(self.aisles)}",
                ErrorCode.NOT_FOUND,
            )
        return self._through(aisle, start, goal)

    def _through(self, name: str, start: Point, goal: Point) -> list[Point]:
        ends = self.aisles[name].ends
        goal_side = self.side(goal) or 0
        side = self.side(start)
        if side is None:
            inside = min(self.aisles, key=lambda a: self.aisles[a].offset(start))
            if inside == name:
                return [ends[goal_side], goal]
            return [
                self.aisles[inside].ends[1 - goal_side],
                ends[1 - goal_side],
                ends[goal_side],
                goal,
            ]
        if side == goal_side:
            return [ends[side], ends[1 - side], ends[side], goal]
        return [ends[side], ends[1 - side], goal]


def path_length(points: list[Point]) -> float:
    """Length of the line through `points` [m]."""
    return sum(math.dist(a, b) for a, b in itertools.pairwise(points))


def warehouse() -> Layout:
    """A hall of 18 × 13.4 m: three aisles 3 m wide and 8 m long, and four stations.

    `aisle_2`, the one in the middle, is the shortest way between `station_a` and `station_b`.
    """
    shelves = tuple(Box(-4.0, y - 0.5, 4.0, y + 0.5, 2.0) for y in (-6.0, -2.0, 2.0, 6.0))
    aisles = {
        f"aisle_{number}": Aisle(((-5.2, y), (5.2, y)), 3.0)
        for number, y in enumerate((4.0, 0.0, -4.0), start=1)
    }
    stations = {
        "station_a": (-7.4, 0.0),
        "station_b": (7.4, 0.0),
        "station_c": (-7.4, 4.5),
        "station_d": (7.4, -4.5),
    }
    return Layout("warehouse", (-9.0, -6.7, 9.0, 6.7), shelves, stations, aisles)


def hall(x_min: float, y_min: float, x_max: float, y_max: float, flow_along_x: bool) -> Layout:
    """An open hall around a recorded crowd whose positions fill the given rectangle [m].

    The lanes cross the flow of the people; stations lie at the lanes' ends, beyond where
    anybody was recorded. The frame of the recording is kept.
    """
    margin_cross, margin_flow = 3.5, 1.0
    if flow_along_x:
        flow, cross = (x_min, x_max), (y_min, y_max)
    else:
        flow, cross = (y_min, y_max), (x_min, x_max)
    middle, spacing = (flow[0] + flow[1]) / 2, max(3.0, (flow[1] - flow[0]) * 0.3)
    half = max((flow[1] - flow[0]) / 2 + margin_flow, spacing + 1.5)

    def place(along_flow: float, across: float) -> Point:
        x, y = (along_flow, across) if flow_along_x else (across, along_flow)
        return round(x, 3), round(y, 3)

    low, high = cross[0] - 1.0, cross[1] + 1.0
    aisles = {
        f"aisle_{number}": Aisle((place(at, low), place(at, high)), 3.0)
        for number, at in enumerate((middle - spacing, middle, middle + spacing), start=1)
    }
    west, east = cross[0] - margin_cross + 1.2, cross[1] + margin_cross - 1.2
    stations = {
        "station_a": place(middle, west),
        "station_b": place(middle, east),
        "station_c": place(middle - spacing, west),
        "station_d": place(middle + spacing, east),
    }
    low_corner = place(middle - half, cross[0] - margin_cross)
    high_corner = place(middle + half, cross[1] + margin_cross)
    return Layout(
        "hall",
        (*low_corner, *high_corner),
        (),
        stations,
        aisles,
        start_yaw=math.pi / 2 if flow_along_x else 0.0,
    )
