"""What `brainos status` shows, also while the watchdog is silent."""

import io
from itertools import islice
from typing import Any

import pytest
from brainos_msgs.msg import NodeStatus, ServiceLevel
from brainos_msgs.srv import GetSystemStatus
from builtin_interfaces.msg import Time
from rich.console import Console, Group

from brainos_ros.cli.status import pictures
from brainos_ros.errors import BrainError, ErrorCode

ANSWER = GetSystemStatus.Response(
    service_level=ServiceLevel(stamp=Time(sec=90), reason="everything works"),
    nodes=[NodeStatus(node="/pfc", status=NodeStatus.ACTIVE, since=Time(sec=50))])


class Watchdog:
    """Answers, or fails, as it is told, once for each."""

    def __init__(self, *answers: GetSystemStatus.Response | BrainError) -> None:
        self._answers = iter(answers)

    def call(self, *_: Any) -> GetSystemStatus.Response:
        answer = next(self._answers)
        if isinstance(answer, BrainError):
            raise answer
        return answer


def text(picture: Group) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(picture)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_watchdog_that_falls_silent_does_not_end_the_view() -> None:
    silence = [BrainError("no answer", code) for code in (ErrorCode.TIMEOUT, ErrorCode.UNAVAILABLE)]
    shown = list(map(text, islice(pictures(Watchdog(ANSWER, *silence, ANSWER)), 4)))
    assert ["watchdog silent since" in each for each in shown] == [False, True, True, False]
    assert all("/pfc" in each for each in shown)


def test_what_is_no_silence_ends_it() -> None:
    with pytest.raises(BrainError, match="refused"):
        list(pictures(Watchdog(ANSWER, BrainError("refused", ErrorCode.INTERNAL))))
    with pytest.raises(BrainError, match="nobody"):
        next(pictures(Watchdog(BrainError("nobody", ErrorCode.UNAVAILABLE))))


def test_since_is_counted_on_the_watchdogs_clock() -> None:
    assert " 40 s " in text(next(pictures(Watchdog(ANSWER))))
