"""What the demo shows while it runs: the hall from above, and what the brain does in it."""

import math
import time
from typing import Any

from rich.console import Group, RenderableType
from rich.layout import Layout as Screen
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from brainos_ros.cli.demo_work import FREE, SLOWED, STOPPED, Facts
from brainos_ros.robots.picture import Scene

LEVELS = {
    0: ("ONLINE", "green"),
    1: ("DEGRADED", "yellow"),
    2: ("OFFLINE", "cyan"),
    3: ("EMERGENCY", "red"),
}
GATE = {
    FREE: ("green", "free"),
    SLOWED: ("yellow", "slowed by the conscience"),
    STOPPED: ("red", "stopped by the conscience"),
}
COLUMNS = 62
CELL_ASPECT = 2.0  # a character is twice as high as wide


def picture(scene: Scene) -> Text:
    """The hall from above in characters: shelves, stations, people, the robot and its way."""
    layout = scene.layout
    x0, y0, x1, y1 = layout.extent
    rows = max(round(COLUMNS * (y1 - y0) / (x1 - x0) / CELL_ASPECT), 8)
    cells: list[list[tuple[str, str]]] = [[(" ", "")] * COLUMNS for _ in range(rows)]

    def put(place: tuple[float, float], mark: str, style: str) -> None:
        column = int((place[0] - x0) / (x1 - x0) * COLUMNS)
        row = int((y1 - place[1]) / (y1 - y0) * rows)
        if 0 <= column < COLUMNS and 0 <= row < rows:
            cells[row][column] = (mark, style)

    for row in range(rows):
        for column in range(COLUMNS):
            x = x0 + (column + 0.5) / COLUMNS * (x1 - x0)
            y = y1 - (row + 0.5) / rows * (y1 - y0)
            if any(b.x_min <= x <= b.x_max and b.y_min <= y <= b.y_max for b in layout.shelves):
                cells[row][column] = ("█", "bright_black")
    for place in scene.track[-400:]:
        put(place, "·", "blue")
    for name, place in layout.stations.items():
        put(place, name.rpartition("_")[2][:1].upper(), "bold magenta")
    for place in scene.people.values():
        put(place, "●", "yellow")
    if scene.pose is not None:
        x, y, yaw = scene.pose
        put((x, y), "→↗↑↖←↙↓↘"[round(yaw / (math.pi / 4)) % 8], "bold white on blue")
    text = Text(no_wrap=True)
    for line in cells:
        for mark, style in line:
            text.append(mark, style or None)
        text.append("\n")
    return text


def job(facts: Facts) -> RenderableType:
    """What it does and how it goes."""
    table = Table.grid(padding=(0, 1))
    colour, word = GATE[facts.gate]
    truth = facts.truth
    table.add_row("deliveries", f"[bold]{facts.deliveries}[/]   now {facts.here} → {facts.there}")
    table.add_row(
        "speed",
        f"{facts.allowed_mps:4.2f} m/s of {facts.requested_mps:4.2f} asked  [{colour}]{word}[/]",
    )
    if truth is not None:
        table.add_row(
            "nearest person",
            f"{truth.separation_m:.2f} m   closest so far {truth.min_separation_m:.2f} m",
        )
        table.add_row(
            "contacts", f"{truth.contacts}, of them moving: {truth.contacts_while_moving}"
        )
    table.add_row(
        "conscience", f"{facts.slow_downs} slow-downs, {facts.stops} stops, {facts.vetoes} vetoes"
    )
    table.add_row("why", facts.last_decision)
    if facts.last_veto:
        table.add_row("last veto", f"[red]{facts.last_veto}[/]")
    return table


def learnt(facts: Facts) -> RenderableType:
    """Which aisle pays, as it was lived."""
    table = Table.grid(padding=(0, 1))
    for name, aisle in facts.aisles.items():
        bar = "━" * round(20 * max(aisle.mean_reward, 0.0))
        table.add_row(
            name, f"[green]{bar:<20}[/]", f"{aisle.mean_reward:.2f}", f"{aisle.tried} times"
        )
    return table


def brain(facts: Facts) -> RenderableType:
    """The nodes and how fresh their heartbeats are."""
    now = time.monotonic()
    table = Table.grid(padding=(0, 1))
    for role in sorted(facts.pids):
        age = now - facts.beat_at[role]
        alive = age < 0.35
        mark = "[green]●[/]" if alive else "[red]✗[/]"
        table.add_row(mark, role, "" if alive else f"[red]silent for {age:.1f} s[/]")
    level = facts.level
    word, colour = LEVELS[level.level] if level is not None else ("starting", "white")
    return Group(Text(word, style=f"bold {colour}"), table)


def screen(scene: Scene, facts: Facts, elapsed_s: float, duration_s: float) -> Any:
    """The whole view."""
    whole = Screen()
    whole.split_column(Screen(name="top", size=3), Screen(name="rest"))
    whole["rest"].split_row(Screen(name="left", size=COLUMNS + 4), Screen(name="right"))
    whole["right"].split_column(
        Screen(name="job", size=13),
        Screen(name="learnt", size=5),
        Screen(name="brain", size=10),
        Screen(name="said"),
    )
    progress = Table.grid(padding=(0, 1))
    progress.add_row(
        f"BrainOS carries goods: {min(elapsed_s, duration_s):.0f} of {duration_s:.0f} s",
        ProgressBar(total=duration_s, completed=min(elapsed_s, duration_s), width=40),
    )
    whole["top"].update(Panel(progress))
    whole["left"].update(Panel(picture(scene), title="the hall, from above"))
    whole["job"].update(Panel(job(facts), title="what it does"))
    whole["learnt"].update(Panel(learnt(facts), title="which aisle pays"))
    whole["brain"].update(Panel(brain(facts), title="the brain"))
    whole["said"].update(Panel("\n".join(facts.said), title="what happened"))
    return whole


def line(facts: Facts, elapsed_s: float) -> str:
    """One line for where there is no terminal."""
    near = facts.truth.separation_m if facts.truth is not None else float("nan")
    return (
        f"{elapsed_s:5.0f} s  {facts.deliveries} deliveries  {facts.allowed_mps:.2f} m/s"
        f" {facts.gate:<8}"
        f" nearest person {near:.1f} m  {facts.slow_downs} slow-downs {facts.stops} stops"
        f" {facts.vetoes} vetoes"
    )
