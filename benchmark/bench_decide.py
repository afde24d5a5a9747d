"""How long does a decision take, its conscience call included, beside a bare echo service?

The real `pfc` and `conscience` and an echo server are processes of their own on the same
executors, called by one client in alternating rounds. The decision: three options, three facts of
context, a hard and a soft constraint, 60 outcomes remembered; verdict and decision in their
ledgers before the answer. The echo answers at once, with messages of the same type and content
(an attribute or a contribution costs Python some 10 µs to read), and with the smallest there are
(std_srvs/SetBool).
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from report import Figure, percentile, report

ROUNDS, CALLS, LEARNT = 20, 100, 60
NODES = ("conscience", "pfc")
ECHO = """
import threading
import rclpy
from brainos_msgs.msg import Alternative, Contribution
from brainos_msgs.srv import Decide
from rclpy.node import Node
from std_srvs.srv import SetBool
from brainos_ros.ros import qos
from brainos_ros.ros.executor import make_executor, spin
parts = [Contribution(source="memory", value=0.5, text="a reason in several words")] * 4
others = [Alternative(action="path", reason="scores less", contributions=parts)] * 2
def same(request, response):
    response.success = True
    decision = response.decision
    decision.decision_id = decision.evaluation_id = "1" * 36
    decision.objective, decision.context = request.objective, request.context
    decision.recommended_action, decision.reasoning = "path_a", "because " * 30
    decision.contributions, decision.alternatives = parts, others
    return response
def smallest(request, response):
    response.success = request.data
    return response
rclpy.init()
node = Node("echo")
node.create_service(Decide, "echo_same", same, qos_profile=qos.SERVICE)
node.create_service(SetBool, "echo_smallest", smallest, qos_profile=qos.SERVICE)
spin(node, make_executor(node), threading.Event())
"""


class Caller:
    """A node that calls services one after the other on its own executor."""

    def __init__(self) -> None:
        from rclpy.node import Node

        from brainos_ros.ros.executor import make_executor

        self.node = Node("bench_decide")
        self._executor = make_executor(self.node)

    def client(self, srv_type: Any, name: str) -> Any:
        from brainos_ros.ros import qos

        client = self.node.create_client(srv_type, name, qos_profile=qos.SERVICE)
        assert client.wait_for_service(20.0), f"{name} did not come up"
        return client

    def call(self, client: Any, request: Any) -> tuple[Any, float]:
        """The reply and how long it took [ms]."""
        started = time.perf_counter()
        future = client.call_async(request)
        while not future.done():
            self._executor.spin_once(timeout_sec=5.0)
        return future.result(), (time.perf_counter() - started) * 1e3

    def bring_up(self, name: str) -> None:
        from lifecycle_msgs.srv import ChangeState

        client = self.client(ChangeState, f"{name}/change_state")
        for transition in (1, 3):
            request = ChangeState.Request()
            request.transition.id = transition
            assert self.call(client, request)[0].success, f"{name} does not come up"


def make_request() -> Any:
    from brainos_msgs.msg import Option
    from brainos_msgs.srv import Decide

    from brainos_ros.ros.conversions import dict_to_attributes

    return Decide.Request(
        objective="navigate_to_goal",
        options=[Option(name=name) for name in ("path_a", "path_b", "path_c")],
        context=dict_to_attributes(
            {"scene": "outdoor", "weather": "clear", "time_of_day": "morning"}
        ),
        constraints=["avoid_stairs", "energy_efficient"],
    )


def teach(caller: Caller, decide: Any, request: Any) -> None:
    """Let the PFC learn LEARNT outcomes, as from somebody who acted on its decisions."""
    from brainos_msgs.msg import Episode

    from brainos_ros.ros import qos

    episodes = caller.node.create_publisher(Episode, "episodes", qos.EVENT)
    while not episodes.get_subscription_count():
        time.sleep(0.01)
    for place in range(LEARNT):
        decision = caller.call(decide, request)[0].decision
        assert decision.recommended_action, decision.reasoning
        won = place % 3 > 0
        episodes.publish(
            Episode(
                episode_id=f"episode {place}",
                objective=request.objective,
                context=request.context,
                action=decision.recommended_action,
                outcome="success" if won else "failure",
                reward=1.0 if won else -1.0,
                decision_id=decision.decision_id,
            )
        )


def main() -> int:
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    home = Path(tempfile.mkdtemp(prefix="brainos-bench-"))
    os.environ["BRAINOS_HOME"] = str(home)
    from brainos_ros.conscience.credentials import provision

    provision(home, "benchmark", home / "keys")
    entries = [f"from brainos_ros.{role}.node import main; main()" for role in NODES]
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        for code in (*entries, ECHO)
    ]
    try:
        return measure()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def measure() -> int:
    import rclpy
    from brainos_msgs.srv import Decide
    from std_srvs.srv import SetBool

    rclpy.init()
    caller = Caller()
    for name in NODES:
        caller.bring_up(name)
    decide, request = caller.client(Decide, "pfc/decide"), make_request()
    requests = {
        "decide": (decide, request),
        "same": (caller.client(Decide, "echo_same"), request),
        "smallest": (caller.client(SetBool, "echo_smallest"), SetBool.Request(data=True)),
    }
    teach(caller, decide, request)
    taken: dict[str, list[float]] = {kind: [] for kind in requests}
    for number in range(ROUNDS + 1):
        for kind in requests if number % 2 else reversed(requests):
            for _ in range(CALLS):
                reply, ms = caller.call(*requests[kind])
                assert reply.success, reply.message
                if number:
                    taken[kind].append(ms)
    rclpy.shutdown()
    figures = []
    for share in (50, 95, 99):
        ours, same, smallest = (percentile(taken[kind], share / 100) for kind in requests)
        goal = "ours <= 1 and ratio <= 5" if share == 50 else ""
        n, name = ROUNDS * CALLS, f"decide p{share}"
        figures.append(Figure(name, "ms", ours, n, goal, same, "echo of the same messages"))
        figures.append(Figure(name, "ms", ours, n, "", smallest, "smallest echo"))
    return report("decide", figures)


if __name__ == "__main__":
    raise SystemExit(main())
