"""`brainos failover`: let a warm stand-by take a role over."""

import argparse

from brainos_msgs.srv import Failover

from brainos_ros.cli.client import brain
from brainos_ros.cli.restart import add_arguments

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> int:
    with brain(args) as caller:
        request = Failover.Request(role=args.role, reason=args.reason)
        reply = caller.call(Failover, "watchdog/failover", request, args.timeout + 30)
    print(f"{reply.node} has the role {args.role} and answers after {reply.duration_ms:.0f} ms")
    return 0
