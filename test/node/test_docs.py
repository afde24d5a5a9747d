"""What is written about the parameters is what the nodes declare."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_the_parameter_reference_is_up_to_date() -> None:
    script = REPOSITORY / "scripts" / "parameters.py"
    code = subprocess.call([sys.executable, str(script), "--check"], cwd=REPOSITORY)
    assert code == 0, "run `python scripts/parameters.py`"
