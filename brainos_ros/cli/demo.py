"""`brainos demo`: the simulated robot carries goods among people; half-way a node is killed."""

import argparse
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import rclpy
from rclpy.signals import SignalHandlerOptions
from rich.console import Console
from rich.live import Live
from rich.table import Table

from brainos_ros import quoted_yaml
from brainos_ros.cli import demo_live, up
from brainos_ros.cli.demo_work import KEPT, PROBES, Facts, Work
from brainos_ros.conscience.credentials import provision
from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.memory.audit import not_on_record, verify_streams
from brainos_ros.robots.picture import check_ending, render_top_view
from brainos_ros.robots.simulation import build
from brainos_ros.ros import discovery
from brainos_ros.ros.tables import table
from brainos_ros.watchdog.processes import PidFile, end_with_parent

START_S = 60.0
STOP_S = up.STOP_S + 10.0  # it ends the driver as well


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `brainos demo`."""
    parser.add_argument("--duration", type=float, default=120.0, help="seconds to work (120)")
    parser.add_argument(
        "--people", type=Path, help="recorded people (`frame id x y`) to work among"
    )
    parser.add_argument(
        "--people-time-step", type=float, default=0.4, help="seconds between its frames (0.4)"
    )
    parser.add_argument("--kill", choices=sorted(PROBES), default="conscience",
                        help="the node to kill half-way (conscience)")  # fmt: skip
    parser.add_argument("--report", type=Path, help="write the report as JSON")
    parser.add_argument("--picture", type=Path, help="write a picture of the hall and the track")
    parser.add_argument("--home", type=Path, help="state directory, new or empty (a fresh one)")
    parser.add_argument("--composed", action="store_true", help="the five nodes in one process")


def run(args: argparse.Namespace) -> int:
    """Run it; 0 if there is nothing to say against it (`_problems`)."""
    _check(args)
    up.refuse_another("/")
    people = str(args.people.resolve()) if args.people else ""
    layout = build(people_file=people, people_time_step_s=args.people_time_step).layout
    console = Console()
    with contextlib.ExitStack() as unless_awake:
        home = args.home or Path(tempfile.mkdtemp(prefix="brainos-demo-"))
        keys = home.parent / f"{home.name}-keys"
        if not args.home:
            for folder in (home, keys):
                unless_awake.callback(shutil.rmtree, folder, ignore_errors=True)
        provision(home, "demo", keys)
        discovery.prepare()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        began = time.monotonic()
        with _brain(home, people, args) as brain:
            work = Work(layout)
            try:
                with console.status("waking the brain…"):
                    _wait_until_ready(work, brain, home)
                unless_awake.pop_all()
                console.print(f"awake after {time.monotonic() - began:.1f} s; state in {home}")
                work.begin()
                _watch(console, work, brain, home, args)
                work.end()
            finally:
                work.close()
    rclpy.try_shutdown()
    report = _report(work.facts, home)
    console.print(_table(report))
    if args.report:
        args.report.write_text(json.dumps(report, indent=2) + "\n")
    if args.picture:
        notes = (
            f"{report['deliveries']} deliveries",
            f"closest to a person {report['min_separation_m']} m",
            f"contacts while moving: {report['contacts_while_moving']}",
        )
        title = f"{args.duration:.0f} s among {args.people.name if args.people else 'a crowd'}"
        render_top_view(args.picture, work.scene, title, notes)
    problems = _problems(report)
    for problem in problems:
        print(f"brainos demo: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _check(args: argparse.Namespace) -> None:
    """Raise BrainError or OSError for what cannot be right; nothing has begun yet."""
    if not 5.0 <= args.duration <= 86400.0:
        raise BrainError(f"--duration is {args.duration:g}; it must be 5 to 86400 seconds")
    simulator = table("brainos_ros", "sim_robot")
    assert simulator, "it is one of ours"
    if problem := simulator["people_time_step_s"].problem(args.people_time_step):
        raise BrainError(f"--people-time-step: {problem}")
    if args.home and args.home.exists() and any(args.home.iterdir()):
        raise BrainError(f"--home {args.home} is not empty; the demo makes a robot of its own with "
                         "an operator of its own, so give a new folder", ErrorCode.ALREADY_EXISTS)
    if args.picture:
        check_ending(args.picture)
    for path in filter(None, (args.report, args.picture)):
        _check_writable(path)


def _check_writable(path: Path) -> None:
    """Raise OSError if `path` cannot be written; what is there, or is not, stays as it is."""
    is_new = not path.exists()
    path.open("ab").close()
    if is_new:
        path.resolve().unlink()


@contextlib.contextmanager
def _brain(home: Path, people: str, args: argparse.Namespace) -> Iterator[subprocess.Popen[bytes]]:
    """`brainos up sim` in a session of its own, which ends with this process."""
    command = [sys.executable, "-m", "brainos_ros.cli.main", "up", "sim", "--home", str(home)]
    if people:
        command += ["--driver-parameter", f"people_file:={quoted_yaml.dump(people)}"]
        command += ["--driver-parameter", f"people_time_step_s:={args.people_time_step}"]
    command += ["--composed"] if args.composed else []
    with (home / "brain.log").open("wb") as log:
        brain = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=lambda: end_with_parent(signal.SIGTERM),
        )
    pidfd = os.pidfd_open(brain.pid)

    def leave(number: int, _: FrameType | None) -> NoReturn:
        _end(brain.pid, pidfd)
        if sys.stdout.isatty():
            sys.stdout.write("\x1b[?1049l\x1b[?25h")  # leave the live view, show the cursor
        sys.stdout.flush()
        os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup(1) sets it
            signal.signal(number, leave)
    try:
        yield brain
    finally:
        _end(brain.pid, pidfd)
        brain.wait()


def _end(pid: int, pidfd: int) -> None:
    """SIGTERM, at last SIGKILL; by the pidfd, as `Popen` must not be called in a signal handler."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except ProcessLookupError:
        return
    if not select.select([pidfd], [], [], STOP_S)[0]:
        os.killpg(pid, signal.SIGKILL)


def _wait_until_ready(work: Work, brain: subprocess.Popen[bytes], home: Path) -> None:
    until = time.monotonic() + START_S
    while brain.poll() is None and time.monotonic() < until:
        if work.ready():
            return
        work.wait(lambda: False, 0.05)
    raise _failed("the brain did not wake", home)


def _failed(what: str, home: Path) -> BrainError:
    """With what the log has to say about it: errors first, then its last lines."""
    log = (home / "brain.log").read_text(errors="replace").splitlines()
    errors = [line for line in log if "error" in line.lower()]
    lines = dict.fromkeys([*errors[:5], *log[-10:]])
    return BrainError("\n".join([f"{what}:", *lines]), ErrorCode.UNAVAILABLE)


def _watch(console: Console, work: Work, brain: subprocess.Popen[bytes], home: Path,
           args: argparse.Namespace) -> None:
    """Show how it goes until the time is over, and kill a node half-way."""
    began = time.monotonic()
    killed: threading.Thread | None = None
    last_line = -5.0
    with contextlib.ExitStack() as stack:
        live = (
            stack.enter_context(Live(console=console, screen=True, auto_refresh=False))
            if console.is_terminal
            else None
        )
        while (elapsed := time.monotonic() - began) < args.duration:
            if brain.poll() is not None:
                raise _failed("the brain ended before its work was done", home)
            if killed is None and elapsed >= args.duration / 2:
                killed = threading.Thread(target=_kill, args=(work, args.kill, home), daemon=True)
                killed.start()
            if live is not None:
                view = demo_live.screen(work.scene, work.facts, elapsed, args.duration)
                live.update(view, refresh=True)
            elif elapsed - last_line >= 5.0:
                last_line = elapsed
                print(demo_live.line(work.facts, elapsed), flush=True)
            time.sleep(0.25)
    if killed is not None:
        killed.join()


def _kill(work: Work, role: str, home: Path) -> None:
    """Kill the process of a role of the brain in `home`, and no other."""
    running = PidFile(home / "watchdog" / "processes.json").read().living
    victim = running.get(role) or running.get("composed")
    if victim is None:
        work.say(f"{role} does not run; nothing to kill")
    else:
        work.say(f"{role} (pid {victim.pid}) is killed")
        began = time.monotonic()
        victim.signal(signal.SIGKILL)
        work.watch_recovery(role, "SIGKILL", victim.pid, began)
    for process in running.values():
        os.close(process.pidfd)


def _report(facts: Facts, home: Path) -> dict[str, Any]:
    streams = {report.stream: report for report in verify_streams(home / "ledger")}
    latencies = sorted(facts.decide_ms)
    truth = facts.truth
    if truth is None:
        raise BrainError("the simulator never said what happened", ErrorCode.UNAVAILABLE)
    return {
        "deliveries": facts.deliveries,
        "interrupted": facts.interrupted,
        "decisions": facts.decisions,
        "vetoes": facts.vetoes,
        "slow_downs": facts.slow_downs,
        "stops": facts.stops,
        "min_separation_m": _finite(truth.min_separation_m),
        "speed_at_min_separation_mps": _finite(truth.speed_at_min_separation_mps),
        "contacts": truth.contacts,
        "contacts_while_moving": truth.contacts_while_moving,
        "recoveries": facts.recoveries,
        "decide_ms": {
            name: round(latencies[min(int(share * len(latencies)), len(latencies) - 1)], 3)
            if latencies
            else None
            for name, share in (("p50", 0.5), ("p95", 0.95))
        },
        "aisles": {
            name: {"tried": aisle.tried, "mean_reward": round(aisle.mean_reward, 3)}
            for name, aisle in facts.aisles.items()
        },
        "records_written": sum(report.records for report in streams.values()),
        "records_verified": sum(report.verified_records for report in streams.values()),
        "answered": {what: len(ids) for what, ids in facts.answered.items()},
        "not_on_record": {
            what: not_on_record(home / "ledger", *KEPT[what], ids)
            for what, ids in facts.answered.items()
        },
        "streams": {
            name: {"records": report.records, "verified": report.verified, "root": report.root}
            for name, report in streams.items()
        },
        "home": str(home),
    }


def _problems(report: dict[str, Any]) -> list[str]:
    """What speaks against the brain, a sentence each; how much it delivers is up to the crowd."""
    problems = [f"{name}: of {report['answered'][name]} that were answered {len(ids)} are not on "
                f"record: {', '.join(ids[:5])}"
                for name, ids in report["not_on_record"].items() if ids]
    problems += [f"stream {name} does not verify"
                 for name, stream in report["streams"].items() if not stream["verified"]]
    if not report["answered"]["decisions"]:
        problems.append("nothing was decided")
    if report["contacts_while_moving"]:
        problems.append(f"{report['contacts_while_moving']} contacts while the robot moved")
    if not report["recoveries"]:
        problems.append("no node was killed")
    return problems + [f"{each['node']} did not answer again after {each['fault']}"
                       for each in report["recoveries"] if each["answering_ms"] is None]


def _finite(value: float) -> float | None:
    """JSON has no infinity: None where nobody came near."""
    return round(value, 3) if abs(value) < 1e6 else None


def _table(report: dict[str, Any]) -> Table:
    table = Table(title="what the robot did", show_header=False)
    decide = report["decide_ms"]
    rows = {
        "deliveries": f"{report['deliveries']}",
        "decisions": f"{report['decisions']}, p50 {decide['p50']} ms, p95 {decide['p95']} ms",
        "conscience": f"{report['vetoes']} vetoes, {report['slow_downs']} slow-downs, "
        f"{report['stops']} stops",
        "closest to a person": f"{report['min_separation_m']} m, "
        f"at {report['speed_at_min_separation_mps']} m/s",
        "contacts": f"{report['contacts']}, while moving: {report['contacts_while_moving']}",
        "aisles": ", ".join(
            f"{name} {aisle['tried']}× (reward {aisle['mean_reward']})"
            for name, aisle in report["aisles"].items()
        ),
        "recoveries": "; ".join(
            f"{r['node']} after {r['fault']}: seen in {r['detected_ms']} ms, "
            f"answers in {r['answering_ms']} ms"
            for r in report["recoveries"]
        ),
        "ledger": f"{report['records_verified']} of {report['records_written']} records verified",
        "kept in": report["home"],
    }
    for name, text in rows.items():
        table.add_row(name, text)
    return table
