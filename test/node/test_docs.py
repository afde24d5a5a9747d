"""What is written about the parameters is what the nodes declare."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "parameters.py"
WRITTEN = runpy.run_path(str(SCRIPT))["WRITTEN"]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_what_is_written_of_the_parameters_is_up_to_date(path: Path) -> None:
    assert path.read_text() == WRITTEN[path](), "run `python scripts/parameters.py`"
