"""How fast does the brain notice a failure and answer again? SIGKILL of each node, cold and with a
warm stand-by; a stopped, dead-locked and spinning process; an output that freezes or turns NaN;
the watchdog killed and stopped. Beside it what users have today (recovery_peer.py), same nodes,
same run. `TRIALS` (30) per fault; the peer, which takes seconds, a fifth of that. Every trial also
checks that no successor acted before its predecessor had ended.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent / "faults"), os.environ.get("PYTHONPATH", "")])
import recovery_trials as trials
from brain import ROOT, Brain, cpu_percent
from report import Figure, percentile, report

TRIALS = int(os.environ.get("TRIALS", "30"))
PEER_TRIALS = max(2, TRIALS // 5)
PEER = "respawn and bond as in Nav2"
ROLES = ("conscience", "memory", "world_model", "genome_sync", "pfc")
BETWEEN_S = 1.0  # one failure at a time, not a storm of them
RESTART = {"max_restarts": 1000, "window_s": 1.0, "stable_s": 0.0}


def robot(folder: Path, standby: bool) -> tuple[str, set[str]]:
    """A robot file that allows so many failures, and the names of its processes."""
    body = yaml.safe_load((ROOT / "config/robots/sim.yaml").read_text())
    body["name"] = "bench"
    for role, spec in body["nodes"].items():
        spec["restart"] = RESTART
        spec["standby"] = standby and role in ("pfc", "conscience")
        if role == "conscience":
            spec["outputs"] = [
                {"topic": "cmd_vel", "type": "geometry_msgs/msg/Twist", "period_s": 0.1}]
    path = folder / f"bench_{standby}.yaml"
    path.write_text(yaml.safe_dump(body))
    extra = {"pfc_standby", "conscience_standby"} if standby else set()
    return str(path), set(ROLES) | extra


class Bench:
    """Collects figures; keeps count of successors that came too early."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.figures, self.two_active = folder, [], 0
        self.observer = trials.Observer()

    def row(self, name: str, ours: list[float], goal: str = "", at: float = 0.95,
            peer: list[float] | None = None) -> None:
        for label, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0)):
            self.figures.append(Figure(
                f"{name}, {label}", "ms", round(percentile(ours, share), 1), len(ours),
                goal if share == at else "",
                round(percentile(peer, share), 1) if peer else None, PEER if peer else ""))

    def brain(self, standby: bool, *options: str) -> tuple[Brain, set[str]]:
        from brainos_ros.conscience.credentials import provision

        path, names = robot(self.folder, standby)
        home = self.folder / f"home-{len(list(self.folder.iterdir()))}"
        provision(home, "bench", self.folder / "keys")
        brain = Brain(path, home, *options)
        brain.wait_for("service level ONLINE")
        return brain, names

    def trials(self, brain: Brain, names: set[str], role: str, fault: int, count: int
               ) -> list[trials.Trial]:
        done = []
        for _ in range(count):
            trials.wait_until(lambda: trials.settled(self.observer, brain, names), 60.0)
            time.sleep(BETWEEN_S)
            done.append(trials.fail(self.observer, brain, role, fault))
        self.two_active += sum(trial.two_active for trial in done)
        print(f"{role}, signal {int(fault)}: {count} trials", file=sys.stderr, flush=True)
        return done

    def cold(self) -> None:
        brain, names = self.brain(False, "--no-driver")
        try:
            killed = {role: self.trials(brain, names, role, trials.KILL, TRIALS) for role in ROLES}
            hung = {
                "SIGSTOP of memory": self.trials(brain, names, "memory", trials.STOP, TRIALS),
                "dead-lock in world_model":
                    self.trials(brain, names, "world_model", trials.DEADLOCK, TRIALS),
                "busy loop in pfc": self.trials(brain, names, "pfc", trials.SPIN, TRIALS),
            }
            trials.wait_until(lambda: trials.settled(self.observer, brain, names))
            time.sleep(5.0)  # what is new announces itself for 3 s
            load = cpu_percent([brain.watchdog()], 10.0)
        finally:
            brain.stop()
        peer = self.peer()
        for role, found in killed.items():
            self.row(f"SIGKILL of {role}: detected", [t.detected for t in found], "ours <= 20",
                     peer=[p[0] for p in peer.get(role, [])])
            self.row(f"SIGKILL of {role}: answering, cold", [t.answering for t in found],
                     "ours <= 2000", peer=[p[1] for p in peer.get(role, [])])
        for name, found in hung.items():
            self.row(f"{name}: detected", [t.detected for t in found], "ours <= 400", at=1.0)
            self.row(f"{name}: answering, cold", [t.answering for t in found], "ours <= 2000")
        self.figures.append(Figure("watchdog's load, 5 nodes at 100 ms", "% of a core",
                                   round(load, 2), 1, "ours <= 3"))

    def peer(self) -> dict[str, list[tuple[float, float]]]:
        from recovery_peer import Peer

        home = self.folder / "peer"
        home.mkdir()
        peer = Peer(robot(self.folder, False)[0], home, self.observer)
        try:
            found: dict[str, list[tuple[float, float]]] = {"memory": []}
            for _ in range(PEER_TRIALS):
                trials.wait_until(peer.ready, 60.0)
                time.sleep(1.0)
                took = peer.fail("memory", trials.KILL, 30.0)
                if took:
                    found["memory"].append(took)
            return found
        finally:
            peer.close()

    def warm(self) -> None:
        brain, names = self.brain(True)
        try:
            for role in ("pfc", "conscience"):
                found = self.trials(brain, names, role, trials.KILL, TRIALS)
                self.row(f"SIGKILL of {role}: answering, warm", [t.answering for t in found],
                         "ours <= 300")
            for name, fault in (("frozen", trials.FREEZE), ("NaN", trials.NAN)):
                found = self.trials(brain, names, "conscience", fault, TRIALS)
                self.row(f"output of conscience {name}: detected", [t.detected for t in found],
                         "ours <= 200", at=1.0)
            for name, fault in (("killed", trials.KILL), ("stopped", trials.STOP)):
                self.watchdog(brain, names, name, fault)
        finally:
            brain.stop()

    def watchdog(self, brain: Brain, names: set[str], name: str, fault: int) -> None:
        zeros, backs, restarted = [], [], 0
        for _ in range(TRIALS):
            trials.wait_until(lambda: trials.settled(self.observer, brain, names))
            zero, back, others = trials.fail_watchdog(self.observer, brain, fault)
            zeros.append(zero)
            backs.append(back)
            restarted += others
        self.row(f"watchdog {name}: command zero", zeros, "ours <= 300", at=1.0)
        self.row(f"watchdog {name}: back", backs, "ours <= 3000", at=1.0)
        self.figures.append(Figure(f"watchdog {name}: healthy nodes restarted", "nodes",
                                   restarted, TRIALS, "ours <= 0"))


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            bench.cold()
            bench.warm()
        finally:
            bench.observer.close()
        bench.figures.append(Figure("two acting in one role at once", "times", bench.two_active,
                                    sum(f.n for f in bench.figures), "ours <= 0"))
        return report("recovery", bench.figures)


if __name__ == "__main__":
    raise SystemExit(main())
