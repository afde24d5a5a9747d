"""Write docs/parameters.md and config/parameters.json from the descriptions in the nodes."""

import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

ROLES = ("pfc", "conscience", "memory", "world_model", "genome_sync", "watchdog")
ROOT = Path(__file__).parent.parent


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


def described() -> dict[str, tuple]:
    """The parameters of each executable, as its node declares them; those of all under ""."""
    from brainos_ros.robots import log_player_node, sim_parameters
    from brainos_ros.ros.lifecycle import COMMON

    found = {"": COMMON}
    for role in ROLES:
        module = import_module(f"brainos_ros.{role}.node")
        found[role] = next(
            each.parameters
            for name, each in vars(module).items()
            if name.endswith("Node") and getattr(each, "role", "") == role
        )
    found["sim_robot"] = sim_parameters.PARAMETERS
    found["log_player"] = log_player_node.PARAMETERS
    return found


def page() -> str:
    """docs/parameters.md."""
    lines = [
        "# Parameters",
        "",
        "Made from the descriptions in the nodes by `python scripts/parameters.py`. A value out of",
        "range is refused with the reason, never clamped. The watchdog refuses a robot file with",
        "such a value, or with a name that is not here, before it starts a node.",
    ]
    for name, parameters in described().items():
        lines += ["", f"## {name or 'Every node'}", "", *table(parameters)]
    return "\n".join(lines) + "\n"


def data() -> str:
    """config/parameters.json: what a robot file may say, by executable."""
    from brainos_ros.ros.parameters import Parameter

    found = described()
    everybody = found.pop("")
    clock = Parameter("use_sim_time", False, "take the time from /clock")
    tables = {
        name: [
            asdict(each)
            for each in (clock, *(everybody if name in ROLES else ()), *parameters)
        ]
        for name, parameters in found.items()
    }
    return json.dumps(tables, indent=1) + "\n"


WRITTEN = {ROOT / "docs" / "parameters.md": page, ROOT / "config" / "parameters.json": data}

if __name__ == "__main__":
    for path, content in WRITTEN.items():
        path.write_text(content())
