"""A starved machine: every processor kept busy twice over while a brain with stand-bys runs.

`make soak MINUTES=10`. Nothing is broken, so each failure the watchdog sees is a false one: at most
one, and none that stops the robot without saying why.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import recovery_trials as trials
from bench_recovery import robot
from brain import Brain, cpu_percent
from report import Figure, report


def burn() -> None:
    while True:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    args = parser.parse_args()
    busy = 2 * (os.cpu_count() or 1)
    load = [multiprocessing.Process(target=burn, daemon=True) for _ in range(busy)]
    with tempfile.TemporaryDirectory() as folder:
        path, _ = robot(Path(folder), standby=True)
        brain = Brain(path, Path(folder) / "home", "--no-driver")
        try:
            brain.wait_for("service level ONLINE")
            for process in load:
                process.start()
            began = time.monotonic()
            time.sleep(max(args.minutes * 60 - 5.0, 0.0))
            cost = cpu_percent([brain.watchdog()], 5.0)
            false = [body for kind, body in trials.events(brain.home)
                     if kind == "failed" and body["at_s"] > began]
        finally:
            for process in load:
                process.kill()
            brain.stop()
        restarted = brain.log.read_text(errors="replace").count("starting it again")
    for body in false:
        print(f"{body['process']}: {body['evidence']}")
    return report("soak", [
        Figure(f"false failures in {args.minutes:g} min", "times", len(false), 1, "ours <= 1"),
        Figure("watchdogs restarted", "times", restarted, 1, "ours <= 0"),
        Figure("failures without evidence", "times",
               sum(not body["evidence"] for body in false), 1, "ours <= 0"),
        Figure("watchdog's load", "% of a core", round(cost, 1), 1),
    ], {"busy processes": busy})


if __name__ == "__main__":
    raise SystemExit(main())
