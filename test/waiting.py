"""Waiting for what nothing tells of."""

import threading
import time
from collections.abc import Callable
from typing import Any

DEADLINE_S = 10.0
PAUSE_S = 0.01


def wait_for(
    holds: Callable[[], Any], said: Callable[[], object] = lambda: "", timeout_s: float = DEADLINE_S
) -> Any:
    """What `holds` gives once that is true; a failure shows what `said` gives then."""
    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while not (found := holds()):
        assert time.monotonic() < deadline, f"it did not hold within {timeout_s:g} s\n{said()}"
        pause.wait(PAUSE_S)
    return found


def matched(publisher: Any) -> Any:
    """The publisher, once somebody listens to it."""
    wait_for(publisher.get_subscription_count, lambda: f"nobody listens to {publisher.topic_name}")
    return publisher
