"""How fast does the brain notice a failure and answer again, and what of all that could go wrong
then does? Parts, all of them unless some are named on the command line:

cold     SIGKILL of each node; stopped, dead-locked and spinning processes; two nodes at once, a
         node during another's recovery, a node while it configures itself. Beside it what users
         have today (recovery_peer.py), same roles, same faults, same run.
warm     SIGKILL with a stand-by; an output that freezes or turns NaN; the watchdog killed and
         stopped; the watchdog's load over eight processes.
crashes  a process that ends each time it is started.
clock    the wall clock of all processes stepped by an hour, either way (test/stepped_clock.py).
disk     no byte left on the disk under the robot's home (test/small_disk.py; needs root).
beats    heartbeats, as the load of eight nodes at rest that beat every 100 ms above that of eight
         that beat every 10 s, in the same seconds.

`TRIALS` (30) per fault; a third where one takes several seconds, a sixth for the peer's hung nodes,
which take 16 s each. Over all trials a checker (acting.py) looks for a successor that acted before
its predecessor had ended.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "test"))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent / "faults"), os.environ.get("PYTHONPATH", "")])
import acting
import recovery_trials as trials
from brain import ROOT, Brain, cpu_percent, cpu_s
from recovery_disk import Disk
from report import Figure, percentile, report
from small_disk import small_disk
from stepped_clock import stepped_clock

TRIALS = int(os.environ.get("TRIALS", "30"))
FEWER, FEW = max(2, TRIALS // 3), max(2, TRIALS // 6)
PEER = "as Nav2 ships it"
ROLES = ("conscience", "memory", "world_model", "genome_sync", "pfc")
NEEDED = ("conscience", "memory", "world_model")  # by pfc, as config/robots/sim.yaml has it
STANDBYS = ("pfc", "conscience")
BETWEEN_S = 0.5  # one failure at a time, not a storm of them
RESTART = {"max_restarts": 1000, "window_s": 1.0, "stable_s": 0.0}
CRASHES = {"max_restarts": 3, "window_s": 30.0, "backoff_s": 0.05}
NOBODY = ("--driver-parameter", "crowd_size:=0")
HOUR_NS = 3600 * 10**9
HUNG = {"SIGSTOP of memory": ("memory", trials.STOP),
        "dead-lock in world_model": ("world_model", trials.DEADLOCK),
        "busy loop in pfc": ("pfc", trials.SPIN)}


def robot(folder: Path, standbys: Collection[str] = (), restart: dict[str, float] = RESTART,
          essential: Collection[str] = ("conscience",)) -> tuple[str, set[str]]:
    """A robot file that allows so many failures, and the names of its processes."""
    body = yaml.safe_load((ROOT / "config/robots/sim.yaml").read_text())
    body["name"] = "bench"
    for role, spec in body["nodes"].items():
        spec.update(restart=restart, standby=role in standbys, essential=role in essential)
        if role == "conscience":
            spec["outputs"] = [
                {"topic": "cmd_vel", "type": "geometry_msgs/msg/Twist", "period_s": 0.1}]
    path = folder / f"bench_{len(list(folder.iterdir()))}.yaml"
    path.write_text(yaml.safe_dump(body))
    return str(path), set(ROLES) | {f"{role}_standby" for role in standbys}


@dataclass
class Subject:
    """A brain with what the watchdog tells of it, and the names of its processes."""

    brain: Brain
    told: trials.Told
    names: set[str]


class Bench:
    """Collects figures, and who acted when."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.figures, self.count = folder, [], 0
        self.observer = trials.Observer(folder)

    def row(self, name: str, ours: Sequence[float], goal: str = "", at: float = 0.95,
            peer: Sequence[float] = ()) -> None:
        for label, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0)):
            self.figures.append(Figure(
                f"{name}, {label}", "ms", round(percentile(ours, share), 1), len(ours),
                goal if share == at else "",
                round(percentile(peer, share), 1) if peer else None,
                f"{PEER}, n {len(peer)}" if peer else ""))

    def none(self, name: str, found: int, count: int) -> None:
        self.figures.append(Figure(name, "times", found, count, "ours <= 0"))

    @contextmanager
    def brain(self, *options: str, home: Path | None = None,
              standbys: Collection[str] = (), restart: dict[str, float] = RESTART,
              essential: Collection[str] = ("conscience",), **variables: str) -> Iterator[Subject]:
        from brainos_ros.conscience.credentials import provision

        path, names = robot(self.folder, standbys, restart, essential)
        home = home or self.folder / f"home-{len(list(self.folder.iterdir()))}"
        provision(home, "bench", self.folder / "keys")
        brain = Brain(path, home, *options, **variables)
        try:
            brain.wait_for("service level ONLINE")
            yield Subject(brain, trials.Told(home), names)
        except RuntimeError:
            print(brain.log.read_text(errors="replace")[-4000:], file=sys.stderr)
            raise
        finally:
            brain.stop()

    def settle(self, subject: Subject) -> None:
        trials.wait_until(
            lambda: trials.settled(self.observer, subject.brain, subject.names), 60.0)
        time.sleep(BETWEEN_S)

    def rounds(self, subject: Subject, name: str, count: int) -> Iterator[int]:
        """Numbers of the trials; each begins when all is well, and has one role change hands."""
        for number in range(count):
            self.settle(subject)
            yield number
            self.count += 1
        print(f"{name}: {count} trials", file=sys.stderr, flush=True)

    def fail(self, subject: Subject, role: str, fault: int) -> list[trials.Trial]:
        return [trials.fail(self.observer, subject.brain, subject.told, role, fault)
                for _ in self.rounds(subject, f"{role}, signal {int(fault)}", TRIALS)]

    # ---------------------------------------------------------------- parts

    def cold(self) -> None:
        with self.brain("--no-driver") as subject:
            killed = {role: self.fail(subject, role, trials.KILL) for role in ROLES}
            hung = {name: self.fail(subject, *fault) for name, fault in HUNG.items()}
            self.several(subject)
        peer = self.peer({"SIGKILL of memory": ("memory", trials.KILL), **HUNG})
        for role, found in killed.items():
            theirs = peer.get(f"SIGKILL of {role}", [])
            self.row(f"SIGKILL of {role}: detected", [t.detected for t in found], "ours <= 20",
                     peer=[seen for seen, _ in theirs])
            self.row(f"SIGKILL of {role}: answering, cold", [t.answering for t in found],
                     "ours <= 2000", peer=[answer for _, answer in theirs if answer])
        for name, found in hung.items():
            theirs = peer[name]
            self.row(f"{name}: detected", [t.detected for t in found], "ours <= 400", at=1.0,
                     peer=[seen for seen, _ in theirs])
            back = [answer for _, answer in theirs if answer]
            self.row(f"{name}: answering, cold", [t.answering for t in found], "ours <= 2000",
                     peer=back)
            self.figures.append(Figure(
                f"{name}: came back by itself", "% of trials", 100, len(found), "",
                100 * len(back) / len(theirs), f"{PEER}, n {len(theirs)}"))

    def several(self, subject: Subject) -> None:
        """Two at once, one during another's recovery, one while it configures itself."""
        at = (self.observer, subject.brain, subject.told)
        for name, latest_s in (("two nodes at once", 0.0),
                               ("a node during another's recovery", 1.0)):
            found = [
                trials.fail_both(*at, (NEEDED[i % 3], "pfc"), latest_s * (i + 1) / FEWER)
                for i in self.rounds(subject, name, FEWER)]
            self.row(f"{name}: both answering", [took for took, _ in found])
            self.none(f"{name}: pfc worked before what it needs",
                      sum(not right for _, right in found), len(found))
        name = "killed while configuring"
        took = [trials.fail_configuring(*at, NEEDED[i % 3])
                for i in self.rounds(subject, name, FEWER)]
        self.row(f"{name}: answering", took)

    def peer(self, faults: dict[str, tuple[str, int]]
             ) -> dict[str, list[tuple[float, float | None]]]:
        from recovery_peer import Peer

        home = self.folder / "peer"
        home.mkdir()
        peer = Peer(robot(self.folder)[0], home, self.observer)
        found: dict[str, list[tuple[float, float | None]]] = {name: [] for name in faults}
        try:
            for name, (role, fault) in faults.items():
                for _ in range(FEWER if fault == trials.KILL else FEW):
                    trials.wait_until(peer.ready, 60.0)
                    time.sleep(BETWEEN_S)
                    found[name].append(peer.fail(role, fault))
                print(f"peer, {name}: {len(found[name])} trials", file=sys.stderr, flush=True)
        finally:
            peer.close()
        return found

    def warm(self) -> None:
        with self.brain(standbys=(*STANDBYS, "memory")) as subject:
            self.settle(subject)
            time.sleep(5.0)  # what is new announces itself for 3 s
            load = cpu_percent([subject.brain.watchdog()], 10.0)
            self.figures.append(Figure(
                f"watchdog's load, {len(subject.names)} processes at 100 ms", "% of a core",
                round(load, 2), 1, "ours <= 3"))
            for role in STANDBYS:
                found = self.fail(subject, role, trials.KILL)
                self.row(f"SIGKILL of {role}: answering, warm", [t.answering for t in found],
                         "ours <= 300")
            for name, fault in (("frozen", trials.FREEZE), ("NaN", trials.NAN)):
                found = self.fail(subject, "conscience", fault)
                self.row(f"output of conscience {name}: detected", [t.detected for t in found],
                         "ours <= 200", at=1.0)
            for name, fault in (("killed", trials.KILL), ("stopped", trials.STOP)):
                self.watchdog(subject, f"watchdog {name}", fault)

    def watchdog(self, subject: Subject, name: str, fault: int) -> None:
        found = [trials.fail_watchdog(self.observer, subject.brain, fault)
                 for _ in self.rounds(subject, name, TRIALS)]
        zeros, backs, restarted = zip(*found, strict=True)
        self.row(f"{name}: command zero", zeros, "ours <= 300", at=1.0)
        self.row(f"{name}: back", backs, "ours <= 3000", at=1.0)
        self.figures.append(Figure(f"{name}: healthy nodes restarted", "nodes",
                                   sum(restarted), len(found), "ours <= 0"))

    def crashes(self) -> None:
        """In turn a role without which the robot must not act, and one that it can do without."""
        from brainos_msgs.msg import ServiceLevel

        levels = {"memory": ServiceLevel.EMERGENCY, "world_model": ServiceLevel.DEGRADED_ONLINE}
        with self.brain("--no-driver", restart=CRASHES, essential=("memory",)) as subject:
            found = {}
            for number in self.rounds(subject, "crash loop", FEWER):
                role = list(levels)[number % 2]
                found[number, role] = trials.crash_loop(
                    self.observer, subject.brain, subject.told, role)
        self.row("crash loop: given up", [each.given_up_ms for each in found.values()],
                 f"ours <= {CRASHES['window_s'] * 1000:g}", at=1.0)
        self.figures.append(Figure(
            "crash loop: restarts until then, at most", "starts",
            max(each.starts for each in found.values()), len(found),
            f"ours <= {CRASHES['max_restarts']}"))
        self.none("crash loop: started again after that",
                  sum(each.starts_later for each in found.values()), len(found))
        self.none("crash loop: another level or role than is right",
                  sum((each.level, each.failed) != (levels[role], [role])
                      for (_, role), each in found.items()), len(found))

    def clock(self) -> None:
        with ExitStack() as stack:
            variables, step = stack.enter_context(stepped_clock(self.folder))
            subject = stack.enter_context(self.brain(*NOBODY, **variables))
            stack.enter_context(self.observer.asking())
            trials.wait_until(lambda: self.observer.moves(0.0))
            self.settle(subject)
            before, began, stops = subject.brain.pids(), time.monotonic(), 0
            for number in range(TRIALS):
                step((HOUR_NS, -HOUR_NS, 0)[number % 3])
                stepped = time.monotonic()
                time.sleep(1.0)  # whoever takes it for silence says so by then
                heard = [size for at, size in list(self.observer.commands) if at > stepped]
                stops += not heard or 0.0 in heard
            failed = [body for kind, body in subject.told.since(began)
                      if kind in ("detected", "failed", "given_up")]
            held = [state for at, state in self.observer.states if at > began and state.causes]
            self.none("clock stepped by an hour: nodes taken for failed or restarted",
                      len(failed) + (subject.brain.pids() != before), TRIALS)
            self.none("clock stepped by an hour: stops of the robot", stops + len(held), TRIALS)

    def disk(self) -> None:
        # six streams, each with a segment of 8 MiB, and a new one in each trial
        with small_disk(self.folder / "disk", f"{64 + 10 * FEWER}m") as place:
            home = place / "home"
            with self.brain(*NOBODY, home=home) as subject:
                disk = Disk(self.observer, place, home, self.folder / "keys")
                found = []
                for _ in range(FEWER):
                    self.settle(subject)
                    found.append(disk.fill_and_free())
                failed = [body for kind, body in subject.told.since(0.0) if kind == "failed"]
            lost = disk.lost()
        for body in failed:
            print(f"disk: {body['process']} failed: {body['evidence']}", file=sys.stderr)
        self.row("disk full: from the first refused record to command zero",
                 [each.denied_ms for each in found])
        self.row("disk full: halt answered", [each.halted_ms for each in found])
        self.row("disk full: space back to allowed again", [each.allowed_ms for each in found])
        self.none("disk full: nodes failed of it", len(failed), len(found))
        self.none(f"disk full: records lost of {disk.accepted} answered", lost, len(found))

    def beats(self) -> None:
        from brainos_ros import robot_file
        from brainos_ros.ros.pulse import Pulses

        heard, stop = Pulses(self.folder), threading.Event()

        def hear() -> None:
            while not stop.wait(0.065):
                for _ in heard.take():
                    pass
            heard.close()

        threading.Thread(target=hear, daemon=True).start()
        eight = (*ROLES, *ROLES[:3])
        groups: dict[float, list[subprocess.Popen[bytes]]] = {0.1: [], 10.0: []}
        try:
            for period, processes in groups.items():
                for number, role in enumerate(eight):
                    command = robot_file.executable("brainos_ros", role)
                    assert command, "it is installed"
                    processes.append(subprocess.Popen([
                        *command, "--ros-args", "-r", f"__node:=rest_{number}_{int(period)}",
                        "-p", f"home:={self.folder}", "-p", f"heartbeat_period_s:={period}",
                        "--log-level", "error"], env=os.environ | {acting.VARIABLE: ""}))
            pids = {period: [each.pid for each in group] for period, group in groups.items()}
            everybody = {pid for group in pids.values() for pid in group}
            trials.wait_until(
                lambda: everybody <= {pid for _, pid in list(self.observer.beats)}, 60.0)
            with self.observer.deaf():
                time.sleep(5.0)
                before = {period: sum(map(cpu_s, group)) for period, group in pids.items()}
                began = time.monotonic()
                time.sleep(20.0)
                took = time.monotonic() - began
                loads = {period: (sum(map(cpu_s, group)) - before[period]) / took * 100
                         for period, group in pids.items()}
        finally:
            stop.set()
            for group in groups.values():
                for each in group:
                    each.kill()
                    each.wait()
        self.figures.append(Figure(f"heartbeats of {len(eight)} nodes at 100 ms together",
                                   "% of a core", round(loads[0.1] - loads[10.0], 2), 1,
                                   "ours <= 1"))

    def check(self) -> None:
        """Whether in any trial a successor acted before its predecessor had ended."""
        acts, ends = self.observer.acts(), self.observer.ends.at
        early, changes = acting.overlaps(acts, ends), acting.successions(acts)
        for was, new in early:
            print(f"{new} before the end of {was.pid} at {ends.get(was.pid)}", file=sys.stderr)
        self.none("two acting in one role at once", len(early), self.count)
        self.figures.append(Figure("changes of hands that this was looked for in", "times",
                                   len(changes), self.count, f"ours >= {self.count}"))
        if after := [new.at - ends[was.pid] for was, new in changes if was.pid in ends]:
            self.figures.append(Figure("soonest act of a successor after its predecessor's end",
                                       "ms", round(min(after) * 1e3, 1), len(after)))


PARTS = {part.__name__: part for part in (
    Bench.cold, Bench.warm, Bench.crashes, Bench.clock, Bench.disk, Bench.beats)}


def main(names: list[str]) -> int:
    unknown = set(names) - set(PARTS)
    if unknown:
        print(f"no part {', '.join(unknown)}; there are: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            for name in names or PARTS:
                try:
                    PARTS[name](bench)
                except pytest.skip.Exception as reason:
                    print(f"{name} is left out: {reason}", file=sys.stderr)
            bench.check()
        finally:
            bench.observer.close()
        return report("recovery", bench.figures)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
