"""Does the gate keep a robot safe and useful among recorded people?

The simulated robot crosses the hall of each recording behind the real gate, through each aisle
in turn, and the same hall without people. PEOPLE=file STEP=0.4 takes any recording in the ETH/UCY
format with its seconds between annotated frames (default: both in ../shared/data), CROSSINGS the
number for each (default 120).
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from crossing import Loop
from report import Figure, report

DATA = Path(__file__).parents[2] / "shared/data"
KNOWN = {"pedestrians-biwi_hotel.txt": 0.4, "pedestrians-biwi_eth.txt": 0.667}


def recordings() -> list[tuple[Path, float]]:
    """(file, seconds between annotated frames) to run among."""
    given = os.environ.get("PEOPLE", "")
    if not given:
        return [(DATA / name, step) for name, step in KNOWN.items() if (DATA / name).exists()]
    path = Path(given)
    return [(path, float(os.environ.get("STEP") or KNOWN.get(path.name, 0.4)))]


def main() -> int:
    crossings = int(os.environ.get("CROSSINGS", "120"))
    figures = []
    for path, step in recordings():
        name = path.stem.removeprefix("pedestrians-")
        alone = Loop(path, step, people=False).cross(6)
        among = Loop(path, step).cross(crossings)
        n = among.crossings
        figures += [
            Figure(f"{name}: mean speed", "m/s", among.mean_speed_mps, n, "ratio >= 0.65",
                   alone.mean_speed_mps, "without people"),
            Figure(f"{name}: fastest at a contact", "m/s", among.fastest_at_contact_mps,
                   among.contacts, "ours <= 0.01"),
            Figure(f"{name}: commands above the formula", "", among.above_formula, among.ticks,
                   "ours <= 0"),
            Figure(f"{name}: commands into what stands still", "", among.into_obstacles,
                   among.ticks, "ours <= 0"),
            Figure(f"{name}: crossings", "", n, n, f"ours >= {crossings}"),
            Figure(f"{name}: contacts by people faster than assumed", "",
                   among.contacts_of_runners, n),
            Figure(f"{name}: people left out, who would appear beside it", "", among.left_out, n),
        ]
        if among.problems:
            print(f"{name}: held by {', '.join(sorted(among.problems))}")
    return report("crossings", figures)


if __name__ == "__main__":
    raise SystemExit(main())
