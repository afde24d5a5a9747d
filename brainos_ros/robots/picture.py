"""The scene from above as a picture: where the robot drove and where people walked."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.robots.layout import Layout, Point, path_length

FLOOR, WALL, SHELF, SHELF_EDGE = "#f4f1ea", "#5b6470", "#c9b79c", "#a08c6c"
LANE, LANE_EDGE, INK, FAINT = "#e9ecf5", "#c3cbe0", "#2b2f36", "#8a919c"
TRACK_BEGIN, TRACK_END, ROBOT = (138, 180, 248), (16, 72, 168), "#0b3d91"
PERSON, TRAIL, STATION = "#e8710a", (232, 113, 10, 70), "#188038"
OVERSAMPLING = 2
STEP_M, GAP_M = 0.05, 1.5


@dataclass
class Scene:
    """What a picture shows; fill it with `see` while the robot drives."""

    layout: Layout
    footprint_radius_m: float = 0.35
    person_radius_m: float = 0.3
    track: list[Point] = field(default_factory=list)
    pose: tuple[float, float, float] | None = None
    trails: dict[int, list[list[Point]]] = field(default_factory=dict)
    people: dict[int, Point] = field(default_factory=dict)

    def see(self, pose: tuple[float, float, float], people: Mapping[int, Point]) -> None:
        """Add a moment: the robot's pose (x, y, yaw) and where each person (by id) is [m]."""
        self.pose = pose
        self.people = dict(people)
        _extend(self.track, pose[:2])
        for identity, place in people.items():
            pieces = self.trails.setdefault(identity, [[]])
            if pieces[-1] and math.dist(pieces[-1][-1], place) > GAP_M:
                pieces.append([])
            _extend(pieces[-1], place)


def _extend(line: list[Point], point: Point) -> None:
    if not line or math.dist(line[-1], point) >= STEP_M:
        line.append(point)


class _Canvas:
    """Drawing in metres; the picture is made larger and shrunk, for smooth edges."""

    def __init__(
        self, extent: tuple[float, float, float, float], width: int, header: int, footer: int
    ) -> None:
        self._image_module = _pillow("Image")
        margin = 0.6
        x_min, y_min, x_max, y_max = extent
        self._left, self._top = x_min - margin, y_max + margin
        self.scale = width * OVERSAMPLING / (x_max - x_min + 2 * margin)
        self.header, self.footer = header * OVERSAMPLING, footer * OVERSAMPLING
        hall = round((y_max - y_min + 2 * margin) * self.scale)
        size = (width * OVERSAMPLING, hall + self.header + self.footer)
        self.image = self._image_module.new("RGBA", size, "white")
        self.draw = _pillow("ImageDraw").Draw(self.image)

    def at(self, point: Point) -> Point:
        return (
            (point[0] - self._left) * self.scale,
            (self._top - point[1]) * self.scale + self.header,
        )

    def box(self, low: Point, high: Point, **style: Any) -> None:
        (x0, y1), (x1, y0) = self.at(low), self.at(high)
        self.draw.rectangle((x0, y0, x1, y1), **style)

    def disc(self, middle: Point, radius_m: float, **style: Any) -> None:
        x, y = self.at(middle)
        r = radius_m * self.scale
        self.draw.ellipse((x - r, y - r, x + r, y + r), **style)

    def line(self, points: Sequence[Point], fill: Any, width_m: float) -> None:
        if len(points) > 1:
            self.draw.line(
                [self.at(point) for point in points],
                fill=fill,
                width=max(1, round(width_m * self.scale)),
                joint="curve",
            )

    def text(
        self,
        at: Point,
        text: str,
        size: int,
        fill: str = INK,
        anchor: str = "mm",
        halo: str = "white",
    ) -> None:
        """Text at a pixel position of the enlarged picture."""
        font = _pillow("ImageFont").load_default(size * OVERSAMPLING)
        self.draw.text(
            at,
            text,
            fill=fill,
            font=font,
            anchor=anchor,
            stroke_width=2 * OVERSAMPLING,
            stroke_fill=halo,
        )

    def save(self, path: Path) -> None:
        size = (self.image.width // OVERSAMPLING, self.image.height // OVERSAMPLING)
        small = self.image.resize(size, self._image_module.Resampling.LANCZOS).convert("RGB")
        try:
            small.save(path)
        except (OSError, ValueError) as error:
            raise BrainError(f"picture {path}: {error}") from None


def check_ending(path: Path) -> None:
    """Raise BrainError if no picture can be written under such a name."""
    known = _pillow("Image").registered_extensions()
    if path.suffix.lower() not in known:
        raise BrainError(f"{path}: end it with .png or .jpg, so that it is known what to write")


def render_top_view(
    path: Path | str, scene: Scene, title: str = "", notes: Sequence[str] = (), width: int = 1200
) -> None:
    """Write `scene` from above to `path` (png, jpg, … by its ending), `width` pixels wide.

    `title` and `notes` (short facts, drawn in one line below it) head the picture. Needs no
    display.

    Raises:
        BrainError: UNAVAILABLE without Pillow; a path that cannot be written.
    """
    canvas = _Canvas(scene.layout.extent, width, header=84 if title or notes else 12, footer=56)
    _draw_hall(canvas, scene.layout)
    _draw_trails(canvas, scene)
    _draw_track(canvas, scene)
    _draw_stations(canvas, scene.layout)
    _draw_bodies(canvas, scene)
    s = OVERSAMPLING
    canvas.text((24 * s, 32 * s), title, 24, anchor="lm")
    canvas.text((24 * s, 64 * s), "   ·   ".join(notes), 15, fill=FAINT, anchor="lm")
    _draw_legend(canvas, scene)
    canvas.save(Path(path))


def _draw_hall(canvas: _Canvas, layout: Layout) -> None:
    x0, y0, x1, y1 = layout.extent
    canvas.box((x0, y0), (x1, y1), fill=FLOOR)
    for name, aisle in layout.aisles.items():
        (ax, ay), (bx, by) = aisle.ends
        half = aisle.width / 2
        dx, dy = (0.0, half) if abs(bx - ax) > abs(by - ay) else (half, 0.0)
        canvas.box(
            (min(ax, bx) - dx, min(ay, by) - dy),
            (max(ax, bx) + dx, max(ay, by) + dy),
            fill=LANE,
            outline=LANE_EDGE,
            width=OVERSAMPLING,
        )
        at = canvas.at(((ax + bx) / 2 + 0.75 * dx, (ay + by) / 2 + 0.75 * dy))
        canvas.text(at, name.replace("_", " "), 16, fill=FAINT, halo=LANE)
    for shelf in layout.shelves:
        canvas.box(
            (shelf.x_min, shelf.y_min),
            (shelf.x_max, shelf.y_max),
            fill=SHELF,
            outline=SHELF_EDGE,
            width=2 * OVERSAMPLING,
        )
        for i in range(1, round(shelf.x_max - shelf.x_min)):
            canvas.line(
                [(shelf.x_min + i, shelf.y_min), (shelf.x_min + i, shelf.y_max)], SHELF_EDGE, 0.02
            )
    for wall in layout.walls:
        canvas.box((wall.x_min, wall.y_min), (wall.x_max, wall.y_max), fill=WALL)


def _draw_trails(canvas: _Canvas, scene: Scene) -> None:
    veil = _pillow("Image").new("RGBA", canvas.image.size, (0, 0, 0, 0))
    draw = _pillow("ImageDraw").Draw(veil)
    for pieces in scene.trails.values():
        for piece in pieces:
            if len(piece) > 1:
                draw.line(
                    [canvas.at(point) for point in piece],
                    fill=TRAIL,
                    width=max(1, round(0.045 * canvas.scale)),
                    joint="curve",
                )
    canvas.image.alpha_composite(veil)


def _draw_track(canvas: _Canvas, scene: Scene) -> None:
    pieces = max(1, len(scene.track) - 1)
    canvas.line(scene.track, "white", 0.2)
    for i, (a, b) in enumerate(itertools.pairwise(scene.track)):
        shade = tuple(
            round(c + (d - c) * i / pieces) for c, d in zip(TRACK_BEGIN, TRACK_END, strict=True)
        )
        canvas.line([a, b], shade, 0.11)
        canvas.disc(b, 0.055, fill=shade)


def _draw_stations(canvas: _Canvas, layout: Layout) -> None:
    for name, (x, y) in layout.stations.items():
        canvas.box(
            (x - 0.42, y - 0.42), (x + 0.42, y + 0.42), outline=STATION, width=3 * OVERSAMPLING
        )
        canvas.text(canvas.at((x, y - 0.75)), name.replace("_", " "), 15, fill=STATION, halo=FLOOR)


def _draw_bodies(canvas: _Canvas, scene: Scene) -> None:
    edge: dict[str, Any] = {"outline": "white", "width": OVERSAMPLING}
    for place in scene.people.values():
        canvas.disc(place, scene.person_radius_m, fill=PERSON, **edge)
    if scene.pose is not None:
        x, y, yaw = scene.pose
        r = scene.footprint_radius_m
        canvas.disc((x, y), r, fill=ROBOT, **edge)
        corners = [
            (x + 0.8 * r * math.cos(yaw + turn), y + 0.8 * r * math.sin(yaw + turn))
            for turn in (0.0, 2.5, -2.5)
        ]
        canvas.draw.polygon([canvas.at(corner) for corner in corners], fill="white")


def _draw_legend(canvas: _Canvas, scene: Scene) -> None:
    s, y = OVERSAMPLING, canvas.image.height - canvas.footer / 2
    x = 24.0 * s
    driven = path_length(scene.track)
    entries = [
        ("dot", ROBOT, "robot"),
        ("line", TRACK_END, f"its track ({driven:.0f} m), lighter: earlier"),
        ("dot", PERSON, "people"),
        ("line", TRAIL[:3], "where they walked"),
        ("box", STATION, "station"),
    ]
    for shape, colour, text in entries:
        box = (x, y - 8 * s, x + 16 * s, y + 8 * s)
        if shape == "dot":
            canvas.draw.ellipse(box, fill=colour)
        elif shape == "box":
            canvas.draw.rectangle(box, outline=colour, width=3 * s)
        else:
            canvas.draw.line((x - 4 * s, y, x + 20 * s, y), fill=colour, width=4 * s)
        canvas.text((x + 28 * s, y), text, 15, anchor="lm")
        font = _pillow("ImageFont").load_default(15 * s)
        x += 28 * s + canvas.draw.textlength(text, font=font) + 32 * s
    metre = canvas.scale
    right = canvas.image.width - 24 * s
    canvas.draw.line((right - 2 * metre, y + 6 * s, right, y + 6 * s), fill=INK, width=2 * s)
    canvas.text((right - metre, y - 8 * s), "2 m", 14)


def _pillow(module: str) -> Any:
    try:
        return importlib.import_module(f"PIL.{module}")
    except ImportError:
        raise BrainError(
            "a picture needs Pillow: pip install pillow", ErrorCode.UNAVAILABLE
        ) from None
