"""Write docs/parameters.md from the typed descriptions in the nodes."""

from importlib import import_module
from pathlib import Path

ROLES = ("pfc", "conscience", "memory", "world_model", "genome_sync", "watchdog")
TARGET = Path(__file__).parent.parent / "docs" / "parameters.md"


def table(parameters: tuple) -> list[str]:
    """A Markdown table of parameter descriptions."""
    lines = ["| parameter | default | allowed | what it is |", "| --- | --- | --- | --- |"]
    for each in parameters:
        ends = [
            f"{sign} {end:g}"
            for sign, end in (("≥", each.minimum), ("≤", each.maximum))
            if end is not None
        ]
        allowed = ", ".join(each.choices) or ", ".join(ends)
        unit = f" [{each.unit}]" if each.unit else ""
        default = each.default if each.default != "" else "(empty)"
        text = each.description.replace("|", "\\|")
        when = " Can be changed while the node is configured." if each.dynamic else ""
        lines.append(f"| `{each.name}` | {default} | {allowed} | {text}{unit}.{when} |")
    return lines


def content() -> str:
    """The whole document."""
    from brainos_ros.robots import log_player_node, sim_parameters
    from brainos_ros.ros.lifecycle import COMMON

    lines = [
        "# Parameters",
        "",
        "Made from the descriptions in the nodes by `python scripts/parameters.py`. A value out of",
        "range is refused with the reason, never clamped. The watchdog refuses a robot file with",
        "such a value, or with a name that is not here, before it starts a node.",
        "",
        "## Every node",
        "",
        *table(COMMON),
    ]
    for role in ROLES:
        module = import_module(f"brainos_ros.{role}.node")
        kind = next(
            each
            for name, each in vars(module).items()
            if name.endswith("Node") and getattr(each, "role", "") == role
        )
        lines += ["", f"## {role}", "", *table(kind.parameters)]
    for name, module in (("sim_robot", sim_parameters), ("log_player", log_player_node)):
        lines += ["", f"## {name}", "", *table(module.PARAMETERS)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(content())
