"""`brainos failover`: let a warm stand-by take a role over."""

import argparse

from brainos_msgs.srv import Failover

from brainos_ros.cli.client import add_arguments as add_common
from brainos_ros.cli.client import brain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("role", help="role from the robot file, e.g. pfc")
    parser.add_argument("--reason", default="asked for on the command line")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    with brain(args) as caller:
        request = Failover.Request(role=args.role, reason=args.reason)
        reply = caller.call(Failover, "watchdog/failover", request, args.timeout + 30)
    print(f"{reply.node} has the role {args.role} and answers after {reply.duration_ms:.0f} ms")
    return 0
