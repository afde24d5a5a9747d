"""A starved machine: every processor kept busy twice over while a brain with stand-bys turns the
simulated robot on the spot, nobody near it.

`make soak MINUTES=10`. Nothing is broken, so each failure the watchdog sees is a false one: at most
one. And each time the robot stands, because it was told zero or told nothing for longer than its
command time-out, the safety state or the watchdog's ledger must say why within a second; a stop
while this process was too starved to ask for motion does not count.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import recovery_trials as trials
from bench_recovery import STANDBYS, robot
from brain import Brain, cpu_percent
from report import Figure, report
from stops import stops, unasked, untold

COMMAND_TIMEOUT_S = 0.3  # as config/robots/sim.yaml has it
REQUEST_S = 0.3  # the gate takes a request for so long
QUEUE = 1000  # commands that may wait for this process


def burn() -> None:
    while True:
        pass


class Record:
    """Commands and safety states by the clock of who sent them: this process is starved too.

    On rclpy's own executor, because the events executor hands no callback a message's time.
    """

    def __init__(self, observer: trials.Observer) -> None:
        from brainos_msgs.msg import SafetyState
        from geometry_msgs.msg import Twist
        from rclpy.executors import SingleThreadedExecutor

        from brainos_ros.ros import qos
        from brainos_ros.ros.executor import second_node

        self.commands: list[tuple[float, float]] = []
        self.requests: list[float] = []
        self.states: list[tuple[float, list[str]]] = []
        node, self._executor = second_node(observer.node, "record"), SingleThreadedExecutor()
        node.create_subscription(Twist, "cmd_vel", self._command, QUEUE)
        node.create_subscription(Twist, "cmd_vel_raw", self._request, QUEUE)
        node.create_subscription(SafetyState, "conscience/safety_state", self._state, qos.STATE)
        self._executor.add_node(node)
        threading.Thread(target=self._executor.spin, name="record", daemon=True).start()

    def _command(self, twist: Any, info: dict[str, int]) -> None:
        self.commands.append((info["source_timestamp"] / 1e9, abs(twist.angular.z)))

    def _request(self, _: Any, info: dict[str, int]) -> None:
        self.requests.append(info["source_timestamp"] / 1e9)

    def _state(self, state: Any) -> None:
        from brainos_ros.ros.conversions import time_to_s

        self.states.append((time_to_s(state.stamp), list(state.causes)))

    def close(self) -> None:
        self._executor.shutdown()

    def causes(self, until: float) -> list[tuple[float, float, str]]:
        """(from, to, why) of all that held the robot."""
        return [(at, then, "; ".join(causes))
                for (at, causes), (then, _) in pairwise([*self.states, (until, [])]) if causes]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    args = parser.parse_args()
    busy = 2 * (os.cpu_count() or 1)
    load = [multiprocessing.Process(target=burn, daemon=True) for _ in range(busy)]
    with tempfile.TemporaryDirectory() as name:
        from brainos_ros.conscience.credentials import provision

        folder = Path(name)
        observer = trials.Observer(folder)
        record = Record(observer)
        path, _ = robot(folder, STANDBYS)
        provision(folder / "home", "soak", folder / "keys")
        brain = Brain(path, folder / "home", "--driver-parameter", "crowd_size:=0")
        try:
            brain.wait_for("service level ONLINE")
            with observer.asking():
                trials.wait_until(lambda: observer.moves(0.0))
                for process in load:
                    process.start()
                began, began_wall = time.monotonic(), time.time()
                time.sleep(max(args.minutes * 60 - 5.0, 0.0))
                cost = cpu_percent([brain.watchdog()], 5.0)
                told = trials.Told(brain.home).since(began)
                ended = time.time()
        finally:
            for process in load:
                if process.ident:
                    process.kill()
            brain.stop()
            record.close()
            observer.close()
        restarted = brain.log.read_text(errors="replace").count("starting it again")
    false = [body for kind, body in told if kind == "failed"]
    causes = record.causes(ended)
    causes += [(at, at, f"{kind}: {body['evidence']}") for kind, body in told
               if body.get("evidence") for at in (body["at_s"] - began + began_wall,)]
    stood = stops([each for each in record.commands if began_wall < each[0] < ended],
                  COMMAND_TIMEOUT_S)
    meant = unasked(stood, record.requests, REQUEST_S)
    stood = [stop for stop in stood if stop not in meant]
    silent = untold(stood, [(begin, end) for begin, end, _ in causes])
    for begin, end, why in causes:
        if end > began_wall and begin < ended:
            print(f"{begin - began_wall:.2f} s to {end - began_wall:.2f} s: {why}")
    for stop in silent:
        print(f"{stop.begin - began_wall:.2f} s to {stop.end - began_wall:.2f} s: nobody said why "
              f"it {'was told nothing' if stop.silent else 'was told zero'}")
    return report("soak", [
        Figure(f"false failures in {args.minutes:g} min", "times", len(false), 1, "ours <= 1"),
        Figure("watchdogs restarted", "times", restarted, 1, "ours <= 0"),
        Figure("failures without evidence", "times",
               sum(not body["evidence"] for body in false), 1, "ours <= 0"),
        Figure(f"stops without a reason told, of {len(stood)}", "times", len(silent), 1,
               "ours <= 0"),
        Figure("commands heard", "commands", len(record.commands), 1,
               f"ours >= {args.minutes * 60 / COMMAND_TIMEOUT_S:g}"),
        Figure("watchdog's load", "% of a core", round(cost, 1), 1),
    ], {"busy processes": busy})


if __name__ == "__main__":
    raise SystemExit(main())
