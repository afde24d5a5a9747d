"""Chaos: random faults, from a seed, in a whole brain that holds a simulated robot.

`make chaos MINUTES=60 SEED=7`. The plan (what, whom, after how long) is made from the seed before
anything starts and is part of the report. Exits with 1 unless every stream verifies whole, every
command that must be zero was, nobody acted beside another in a role, and each fault has its
explanation in the watchdog's ledger or on the console.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent / "faults"), os.environ.get("PYTHONPATH", "")])
import recovery_trials as trials
from bench_recovery import ROLES, robot
from brain import Brain

FAULTS = {"kill": trials.KILL, "stop": trials.STOP, "dead-lock": trials.DEADLOCK,
          "spin": trials.SPIN}
SETTLE_S = 90.0


def plan(seed: int, seconds: float) -> list[dict[str, Any]]:
    """Faults with the pause before each [s]; the same for the same seed and length."""
    random, steps, total = Random(seed), [], 0.0
    while total < seconds:
        pause = round(random.uniform(0.0, 6.0), 2)
        kind = random.choice([*FAULTS, "kill", "two at once", "again while recovering", "watchdog"])
        step: dict[str, Any] = {"pause_s": pause, "fault": kind, "role": random.choice(ROLES)}
        if kind in ("two at once", "again while recovering"):
            step["other"] = random.choice([role for role in ROLES if role != step["role"]])
            step["after_s"] = 0.0 if kind == "two at once" else round(random.uniform(0.0, 1.5), 2)
        if kind == "watchdog":
            step["signal"] = random.choice(["kill", "stop"])
        steps.append(step)
        total += pause + 5.0
    return steps


class Run:
    """One run of a plan."""

    def __init__(self, folder: Path) -> None:
        from brainos_ros.conscience.credentials import provision

        path, self.names = robot(folder, standby=True)
        self.home = folder / "home"
        provision(self.home, "chaos", folder / "keys")
        self.brain = Brain(path, self.home)
        self.brain.wait_for("service level ONLINE")
        self.observer = trials.Observer()
        self.problems: list[str] = []
        self._stop = threading.Event()
        self._turning = threading.Thread(target=self._turn, daemon=True)
        self._turning.start()

    def _turn(self) -> None:
        while not self._stop.wait(0.05):
            self.observer.ask_to_turn()

    def settle(self) -> None:
        trials.wait_until(
            lambda: trials.settled(self.observer, self.brain, self.names), SETTLE_S)

    def step(self, step: dict[str, Any]) -> dict[str, Any]:
        """Wait, inject, wait until all is well again."""
        self.settle()
        time.sleep(step["pause_s"])
        began = time.monotonic()
        if step["fault"] == "watchdog":
            pid = self.brain.watchdog()
            os.kill(pid, FAULTS[step["signal"]])
            trials.wait_until(lambda: any(
                role == "watchdog" and p != pid and at > began
                for (role, p), at in list(self.observer.acting_since.items())))
            self._held_from(began)
        else:
            victims = [self._hit(step["role"], FAULTS.get(step["fault"], trials.KILL))]
            if "other" in step:
                time.sleep(step["after_s"])
                victims.append(self._hit(step["other"], trials.KILL))
            for name in victims:
                self._explained(name, began)
        self.settle()
        return {**step, "well_again_ms": round((time.monotonic() - began) * 1e3)}

    def _hit(self, role: str, fault: int) -> str:
        name, pid = trials.holder(self.observer, self.brain, role)
        os.kill(pid, fault)
        return name

    def _explained(self, name: str, began: float) -> None:
        def told() -> bool:
            return any(kind == "failed" and body["process"] == name and body["evidence"]
                       and body["at_s"] >= began for kind, body in trials.events(self.home))

        try:
            trials.wait_until(told)
        except RuntimeError:
            self.problems.append(f"the end of {name} was not explained")

    def _held_from(self, began: float) -> None:
        """Silent watchdog: from 300 ms on until it beats again the command must be zero."""
        back = min(trials.wait_until(lambda: [
            body["at_s"] for kind, body in trials.events(self.home)
            if kind == "adopted" and body["at_s"] > began]))
        moved = [at for at, size in list(self.observer.commands)
                 if began + 0.3 < at < back and size != 0.0]
        if moved:
            self.problems.append(
                f"it was told to move {moved[0] - began:.2f} s after the watchdog fell silent")

    def close(self) -> dict[str, Any]:
        """End the brain and verify what it wrote."""
        from brainos_ros.ledger import verify

        self._stop.set()
        self._turning.join()
        self.brain.stop()
        self.observer.close()
        streams = {}
        for path in sorted((self.home / "ledger").iterdir()):
            found = verify(path)
            streams[path.name] = {"records": found.records, "verified": found.verified_records}
            if not found.verified:
                self.problems.append(f"stream {path.name}: {found.problem}")
        text = self.brain.log.read_text(errors="replace")
        if "became active while" in text:
            self.problems.append("two acted in one role")
        return streams


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    steps, done = plan(args.seed, args.minutes * 60), []
    until = time.monotonic() + args.minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        try:
            for step in steps:
                if time.monotonic() > until:
                    break
                done.append(run.step(step))
                print(json.dumps(done[-1]), flush=True)
        except RuntimeError as error:
            run.problems.append(f"after {len(done)} faults: {error}")
            print(run.brain.log.read_text(errors="replace")[-4000:], file=sys.stderr)
        finally:
            streams = run.close()
    report = {"seed": args.seed, "minutes": args.minutes, "faults": done, "streams": streams,
              "problems": run.problems}
    if args.report:
        args.report.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "faults"}))
    print(f"{len(done)} faults, {len(run.problems)} problems")
    return 1 if run.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
