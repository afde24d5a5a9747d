"""Chaos: random faults, from a seed, in a whole brain that drives a simulated robot among people.

`make chaos MINUTES=60 SEED=7`. The plan (what, whom, after how long) is made from the seed before
anything starts and is part of the report. Exits with 1 unless
- the robot drove, and touched nobody while it moved faster than 0.01 m/s (`sim_truth`);
- every command was zero while the watchdog was silent;
- every decision, evaluation and episode that was answered with success is on record, and every
  stream verifies whole;
- nobody acted in a role before its predecessor had ended (acting.py);
- each fault has its explanation in the watchdog's ledger.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent / "faults"), os.environ.get("PYTHONPATH", "")])
import acting
import recovery_trials as trials
from bench_recovery import ROLES, STANDBYS, robot
from brain import Brain

FAULTS = {"kill": trials.KILL, "stop": trials.STOP, "dead-lock": trials.DEADLOCK,
          "spin": trials.SPIN}
FASTEST_S, SETTLE_S = 1.0, 90.0  # until all is well again
ASK_S, ANSWER_S = 0.5, 1.0
CROWD = 16
LEAST_M = 1.0  # driven in a minute, or that nobody was touched proves nothing
KEPT = {"decision": ("pfc", "decision_id"), "evaluation": ("conscience", "evaluation_id"),
        "episode": ("memory", "episode_id")}


def plan(seed: int, seconds: float) -> list[dict[str, Any]]:
    """Faults with the pause before each [s], more than fit into the time; the same for the same
    seed and length."""
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
        total += pause + FASTEST_S
    return steps


class Answers:
    """Asks for decisions and evaluations and writes episodes all the time, and keeps the ids that
    were answered with success."""

    def __init__(self, observer: trials.Observer) -> None:
        from brainos_msgs import msg, srv

        self._observer, self._stop = observer, threading.Event()
        self.ids: dict[str, set[str]] = {kind: set() for kind in KEPT}
        episode = msg.Episode(objective="chaos", action="drive", outcome="success", reward=0.5)
        self._threads = [threading.Thread(target=self._ask, args=question, daemon=True)
                         for question in (
            (srv.Decide, "pfc/decide", srv.Decide.Request(
                objective="chaos", options=[msg.Option(name="wait"), msg.Option(name="aisle_1")])),
            (srv.Evaluate, "conscience/evaluate", srv.Evaluate.Request(action="wait")),
            (srv.WriteEpisode, "memory/write", srv.WriteEpisode.Request(episode=episode)))]
        for thread in self._threads:
            thread.start()

    def _ask(self, kind: Any, door: str, request: Any) -> None:
        from brainos_ros.errors import BrainError

        while not self._stop.wait(ASK_S):
            try:
                reply = self._observer.call(kind, door, request, ANSWER_S)
            except BrainError:
                continue  # whoever would answer is being recovered
            if reply.success:
                self._keep(reply)

    def _keep(self, reply: Any) -> None:
        if hasattr(reply, "decision"):
            self.ids["decision"].add(reply.decision.decision_id)
            self.ids["evaluation"].add(reply.decision.evaluation_id)
        elif hasattr(reply, "evaluation"):
            self.ids["evaluation"].add(reply.evaluation.evaluation_id)
        else:
            self.ids["episode"].add(reply.episode_id)

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def lost(self, home: Path) -> dict[str, list[str]]:
        """Kind -> the ids that were answered and are not on record."""
        from brainos_ros.memory.audit import not_on_record

        return {kind: not_on_record(home / "ledger", role, kind, key, self.ids[kind])
                for kind, (role, key) in KEPT.items()}


class Run:
    """One run of a plan."""

    def __init__(self, folder: Path, seed: int) -> None:
        from brainos_msgs.msg import SimTruth

        from brainos_ros.conscience.credentials import provision
        from brainos_ros.ros import qos

        path, self.names = robot(folder, STANDBYS)
        self.home = folder / "home"
        provision(self.home, "chaos", folder / "keys")
        self.observer = trials.Observer(folder)
        self.truth, self.driven_m = SimTruth(), 0.0
        self.observer.node.create_subscription(SimTruth, "sim_truth", self._see, qos.EVENT)
        self.began = time.monotonic()
        self.brain = Brain(path, self.home, "--driver-parameter", f"seed:={seed}",
                           "--driver-parameter", f"crowd_size:={CROWD}")
        self.brain.wait_for("service level ONLINE")
        self.told = trials.Told(self.home)
        self.problems: list[str] = []
        self.answers = Answers(self.observer)
        self._asking = ExitStack()
        self._asking.enter_context(self.observer.asking(linear=0.5, angular=0.3))

    def _see(self, truth: Any) -> None:
        was, now = self.truth.robot, truth.robot
        if self.truth.header.stamp.sec:
            self.driven_m += math.hypot(now.x - was.x, now.y - was.y)
        self.truth = truth

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
                       for kind, body in self.told.since(began))

        try:
            trials.wait_until(told)
        except RuntimeError:
            self.problems.append(f"the end of {name} was not explained")

    def _held_from(self, began: float) -> None:
        """Silent watchdog: from 300 ms on until it beats again the command must be zero."""
        back = min(trials.wait_until(lambda: [
            body["at_s"] for kind, body in self.told.since(began) if kind == "adopted"]))
        moved = [at for at, size in list(self.observer.commands)
                 if began + 0.3 < at < back and size != 0.0]
        if moved:
            self.problems.append(
                f"it was told to move {moved[0] - began:.2f} s after the watchdog fell silent")

    def close(self) -> dict[str, Any]:
        """End the brain, and look at all that it did and wrote."""
        from brainos_ros.ledger import verify

        self._asking.close()
        minutes = (time.monotonic() - self.began) / 60
        failures = sum(kind == "failed" for kind, _ in self.told.since(self.began))
        self.answers.close()
        self.brain.stop()
        acts, ends = self.observer.acts(), self.observer.ends.at
        self.observer.close()
        streams = {}
        for path in sorted((self.home / "ledger").iterdir()):
            found = verify(path)
            streams[path.name] = {"records": found.records, "verified": found.verified_records}
            if not found.verified:
                self.problems.append(f"stream {path.name}: {found.problem}")
        for kind, ids in self.answers.lost(self.home).items():
            if ids or not self.answers.ids[kind]:
                self.problems.append(f"{kind}: of {len(self.answers.ids[kind])} answered "
                                     f"{len(ids)} are not on record: {', '.join(ids[:5])}")
        for was, new in acting.overlaps(acts, ends):
            self.problems.append(f"two acted in one role: {was} and {new}")
        if self.driven_m < LEAST_M * minutes:
            self.problems.append(f"the robot drove only {self.driven_m:.1f} m")
        if self.truth.contacts_while_moving:
            self.problems.append(f"{self.truth.contacts_while_moving} contacts while moving")
        return {
            "streams": streams,
            "answered": {kind: len(ids) for kind, ids in self.answers.ids.items()},
            "changes_of_hands": len(acting.successions(acts)), "failures": failures,
            "driven_m": round(self.driven_m, 1), "contacts": self.truth.contacts,
            "contacts_while_moving": self.truth.contacts_while_moving,
            "min_separation_m": round(self.truth.min_separation_m, 3)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    steps, done = plan(args.seed, args.minutes * 60), []
    until = time.monotonic() + args.minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), args.seed)
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
            found = run.close()
    report = {"seed": args.seed, "minutes": args.minutes, "faults": done, **found,
              "problems": run.problems}
    if args.report:
        args.report.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "faults"}))
    print(f"{len(done)} faults, {len(run.problems)} problems")
    return 1 if run.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
