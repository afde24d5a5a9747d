"""A directory in memory for tests that call fsync thousands of times."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def memory_root() -> Iterator[Path]:
    """One directory in memory where there is such a file system, on the disk where not."""
    path = Path(tempfile.mkdtemp(prefix="ledger-", dir=MEMORY if MEMORY.is_dir() else None))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def memory_path(memory_root: Path) -> Path:
    """As `tmp_path`, in memory."""
    return Path(tempfile.mkdtemp(dir=memory_root))
