"""A wall clock that can be stepped, for the processes that are given it alone."""

import mmap
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

Step = Callable[[int], None]


@contextmanager
def stepped_clock(place: Path) -> Iterator[tuple[dict[str, str], Step]]:
    """(environment of such processes, what puts their clock ahead by so many nanoseconds).

    Skips where there is no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("c++")
    if not compiler:
        pytest.skip("no C compiler")
    library, ahead = place / "stepped_clock.so", place / "ahead"
    subprocess.run([compiler, "-x", "c", "-O1", "-shared", "-fPIC", "-o", library,
                    Path(__file__).with_suffix(".c")], check=True)
    ahead.write_bytes(bytes(8))
    with ahead.open("r+b") as file, mmap.mmap(file.fileno(), 8) as page:

        def step(nanoseconds: int) -> None:
            page[:] = nanoseconds.to_bytes(8, "little", signed=True)

        yield {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(ahead)}, step
