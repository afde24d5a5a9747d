"""What every benchmark prints: a table, the machine, and one JSON object as the last line."""

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One figure, measured `n` times; `goal` is a check such as `ours <= 20` or `ratio >= 0.9`."""

    name: str
    unit: str
    ours: float
    n: int
    goal: str = ""
    peer: float | None = None
    peer_name: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours divided by the peer's."""
        return self.ours / self.peer if self.peer else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if not self.goal:
            return None
        names = {"ours": self.ours, "peer": self.peer, "ratio": self.ratio}
        for check in self.goal.split(" and "):
            name, relation, limit = check.split()
            value = names[name]
            if value is None:
                return False
            if not (value <= float(limit) if relation == "<=" else value >= float(limit)):
                return False
        return True


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which `share` (0-1) of `values` lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def machine() -> dict[str, str]:
    """What it ran on."""
    versions = {}
    for package in ("rclpy", "numpy", "mujoco"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "-"
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **versions,
    }


def report(bench: str, figures: list[Figure], notes: Mapping[str, object] | None = None) -> int:
    """Print it all; returns 0 (a figure that falls short is shown as short, not an error)."""
    table = Table(title=f"benchmark: {bench}")
    for column in ("figure", "n", "ours", "peer", "ratio", "goal", ""):
        table.add_column(column, justify="left" if column in ("figure", "goal", "") else "right")
    for figure in figures:
        table.add_row(
            f"{figure.name} [{figure.unit}]",
            str(figure.n),
            f"{figure.ours:,.4g}",
            f"{figure.peer:,.4g} ({figure.peer_name})" if figure.peer is not None else "",
            f"{figure.ratio:.2f}" if figure.ratio is not None else "",
            figure.goal,
            {True: "met", False: "short", None: ""}[figure.met],
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    print("; ".join(f"{key} {value}" for key, value in {**machine(), **(notes or {})}.items()))
    rows = [{**asdict(figure), "ratio": figure.ratio} for figure in figures]
    print(json.dumps({"bench": bench, "machine": machine(), "figures": rows}))
    return 0
