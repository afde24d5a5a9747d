"""`brainos status`: what works now, node by node; live on a terminal."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from brainos_msgs.srv import GetSystemStatus
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from brainos_ros.cli.client import Caller, brain
from brainos_ros.cli.client import add_arguments as add_common
from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.watchdog.level import Level
from brainos_ros.watchdog.report import FAILED, STANDBY, WORDS, WORKING

REFRESH_S = 0.5
SILENT_S = 1.0
SILENT = (ErrorCode.TIMEOUT, ErrorCode.UNAVAILABLE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="print once, also on a terminal")
    parser.add_argument("--json", action="store_true", help="print once, as JSON")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """0 if all roles work, 1 if not; on a terminal it goes on until it is interrupted."""
    with brain(args) as caller:
        if sys.stdout.isatty() and not args.once and not args.json:
            with Live(refresh_per_second=4) as live:
                for picture in pictures(caller):
                    live.update(picture)
                    time.sleep(REFRESH_S)
        reply = _ask(caller)
        if args.json:
            print(json.dumps(as_dict(reply), indent=2))
        else:
            Console().print(_picture(reply))
    return 0 if reply.service_level.level in (Level.ONLINE, Level.OFFLINE) else 1


def pictures(caller: Caller) -> Iterator[Group]:
    """The table again and again; where the watchdog falls silent, the last one and since when.

    Raises `BrainError` if it does not answer at first.
    """
    reply, heard = _ask(caller), time.localtime()
    yield _picture(reply)
    while True:
        try:
            reply, heard = _ask(caller, SILENT_S), time.localtime()
            yield _picture(reply)
        except BrainError as error:
            if error.code not in SILENT:
                raise
            since = time.strftime("%H:%M:%S", heard)
            yield Group(Text(f"watchdog silent since {since}", "bold red"), _picture(reply))


def _ask(caller: Caller, timeout_s: float | None = None) -> Any:
    request = GetSystemStatus.Request()
    return caller.call(GetSystemStatus, "watchdog/get_status", request, timeout_s)


def as_dict(reply: Any) -> dict[str, Any]:
    """The status for programs; times in seconds since the epoch, as in the message."""
    level = reply.service_level
    return {
        "service_level": Level(level.level).name,
        "reason": level.reason,
        "failed_components": list(level.failed_components),
        "recommended_actions": list(level.recommended_actions),
        "uptime_s": round(reply.uptime_s, 3),
        "lag_ms": round(reply.lag_ms, 3),
        "nodes": [
            {
                "role": node.role,
                "node": node.node,
                "status": WORDS.get(node.status, "unknown"),
                "pid": node.pid,
                "since_s": node.since.sec + node.since.nanosec / 1e9,
                "restarts": node.restarts,
                "heartbeat_age_ms": round(node.heartbeat_age_ms, 1),
                "cpu_percent": round(node.cpu_percent, 1),
                "memory_mb": round(node.memory_mb, 1),
                "last_failure": node.last_failure,
            }
            for node in reply.nodes
        ],
    }


def _picture(reply: Any) -> Group:
    level = reply.service_level
    colour = {Level.ONLINE: "green", Level.OFFLINE: "cyan", Level.EMERGENCY: "bold red"}
    head = Text.assemble(
        (Level(level.level).name, colour.get(Level(level.level), "yellow")), f"  {level.reason}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("node", "left"), ("state", "left"), ("since", "right"),
                          ("restarts", "right"), ("heartbeat", "right"), ("cpu", "right"),
                          ("memory", "right"), ("last failure", "left")):
        table.add_column(name, justify=justify, no_wrap=name != "last failure")  # type: ignore[arg-type]
    now = level.stamp.sec + level.stamp.nanosec / 1e9
    for node in reply.nodes:
        style = {WORKING: "green", STANDBY: "cyan", FAILED: "red"}.get(node.status, "yellow")
        table.add_row(
            node.node, Text(WORDS.get(node.status, "unknown"), style),
            _span(now - node.since.sec - node.since.nanosec / 1e9), str(node.restarts),
            _figure(node.heartbeat_age_ms, "ms"), _figure(node.cpu_percent, "%"),
            _figure(node.memory_mb, "MB"), node.last_failure)
    actions = [Text(f"→ {action}", "yellow") for action in level.recommended_actions]
    return Group(head, table, *actions)


def _figure(value: float, unit: str) -> str:
    return "–" if value < 0 else f"{value:.0f} {unit}"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
