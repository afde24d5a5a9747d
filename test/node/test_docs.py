"""What is written about the parameters is what the nodes declare."""

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "parameters.py"


def test_the_parameter_reference_is_up_to_date() -> None:
    made = runpy.run_path(str(SCRIPT))
    assert made["TARGET"].read_text() == made["content"](), "run `python scripts/parameters.py`"
