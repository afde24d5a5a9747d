"""`brainos restart`: stop a node and bring it back."""

import argparse

from brainos_msgs.srv import RestartNode

from brainos_ros.cli.client import add_arguments as add_common
from brainos_ros.cli.client import brain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("role", help="role from the robot file, e.g. pfc")
    parser.add_argument("--reason", default="asked for on the command line")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    with brain(args) as caller:
        request = RestartNode.Request(role=args.role, reason=args.reason)
        reply = caller.call(RestartNode, "watchdog/restart", request, args.timeout + 30)
    print(f"{args.role} works again after {reply.duration_ms:.0f} ms")
    return 0
