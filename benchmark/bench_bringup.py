"""How long from `brainos up` to all nodes active, how much does the brain cost idle, and how large
is it in one process, beside a skeleton: six bare rclpy lifecycle nodes on the same executors,
started together and activated by one client. The robot is not simulated here.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))
from brain import Brain, cpu_percent, pss_mb
from report import Figure, report

ROUNDS, IDLE_S, SETTLE_S = 5, 10.0, 4.0
NAMES = ("conscience", "memory", "world_model", "genome_sync", "pfc", "watchdog")
BARE = """
import sys, threading
import rclpy
from rclpy.lifecycle import LifecycleNode
from brainos_ros.ros import discovery
from brainos_ros.ros.executor import make_executor, spin
discovery.prepare()
rclpy.init()
nodes = [LifecycleNode(f"bare_{name}") for name in sys.argv[1:]]
stop = threading.Event()
threads = [threading.Thread(target=spin, args=(n, make_executor(n), stop)) for n in nodes]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
ACTIVATE = """
import sys
import rclpy
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from brainos_ros.ros import discovery
from brainos_ros.ros.executor import make_executor
discovery.prepare()
rclpy.init()
node = Node("activator")
executor = make_executor(node)
clients = {n: node.create_client(ChangeState, f"bare_{n}/change_state") for n in sys.argv[1:]}
for transition in (1, 3):
    left = set(clients)
    asked = {}
    while left:
        for name in sorted(left):
            if name not in asked and clients[name].service_is_ready():
                request = ChangeState.Request()
                request.transition.id = transition
                asked[name] = clients[name].call_async(request)
            if name in asked and asked[name].done():
                assert asked[name].result().success
                left.remove(name)
        executor.spin_once(timeout_sec=0.005)
print("active", flush=True)
"""


def skeleton() -> tuple[float, list["subprocess.Popen[str]"]]:
    """Seconds until all are active, and the processes."""
    began = time.monotonic()
    nodes = [subprocess.Popen([sys.executable, "-c", BARE, name], text=True) for name in NAMES]
    subprocess.run([sys.executable, "-c", ACTIVATE, *NAMES], check=True, stdout=subprocess.PIPE)
    return time.monotonic() - began, nodes


def end(processes: list["subprocess.Popen[str]"]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def main() -> int:
    ours, bare, ours_idle, bare_idle = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(ROUNDS):
            brain = Brain("sim", Path(folder) / f"home{round_}", "--no-driver")
            try:
                ours.append(brain.wait_for("service level ONLINE"))
                time.sleep(SETTLE_S)
                ours_idle.append(cpu_percent(brain.all_pids(), IDLE_S / ROUNDS))
            finally:
                brain.stop()
            took, processes = skeleton()
            bare.append(took)
            time.sleep(SETTLE_S)
            bare_idle.append(cpu_percent([p.pid for p in processes], IDLE_S / ROUNDS))
            end(processes)
        composed = Brain("sim", Path(folder) / "composed", "--no-driver", "--composed")
        try:
            composed.wait_for("service level ONLINE")
            time.sleep(SETTLE_S)
            size = pss_mb(composed.all_pids())
        finally:
            composed.stop()
    one = subprocess.Popen([sys.executable, "-c", BARE, *NAMES], text=True)
    time.sleep(SETTLE_S)
    bare_size = pss_mb([one.pid])
    end([one])
    return report("bringup", [
        Figure("brainos up to all active, median", "s", median(ours), ROUNDS, "ours <= 3",
               median(bare), "six bare lifecycle nodes"),
        Figure("brainos up to all active, worst", "s", max(ours), ROUNDS, "",
               max(bare), "six bare lifecycle nodes"),
        Figure("idle, six nodes", "% of a core", median(ours_idle), ROUNDS, "ours <= 10",
               median(bare_idle), "six bare lifecycle nodes"),
        Figure("composed and watchdog, PSS", "MB", size, 1, "ours <= 170",
               bare_size, "six bare nodes in one process"),
    ])


if __name__ == "__main__":
    raise SystemExit(main())
