"""For all tests: nothing leaves this machine, and every worker has a DDS domain of its own."""

import faulthandler
import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

REPOSITORY = Path(__file__).parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def _own_domain() -> IO[str]:
    """Lock a domain id that no other test run on this machine holds; the lock ends with us."""
    for domain in range(60, 100):
        lock = (Path(tempfile.gettempdir()) / f"brainos-test-domain-{domain}").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        return lock
    raise RuntimeError("no free ROS_DOMAIN_ID between 60 and 99; are 40 test runs alive?")


LONGEST_S = 600.0
_stderr = sys.__stderr__.fileno()


def pytest_configure() -> None:
    """Keep the terminal's stderr, which is captured later on."""
    global _stderr
    _stderr = os.dup(_stderr)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """A test that hangs ends the run, with the stack of every thread, not CI's patience."""
    faulthandler.dump_traceback_later(LONGEST_S, exit=True, file=_stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


_DOMAIN_LOCK = _own_domain()
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recordings beside the checkout; skips where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip("../shared/data is not there")
    return SHARED_DATA
