"""`brainos halt`: stop the robot and keep it stopped."""

import argparse
import getpass
import os
import sys

from brainos_msgs.srv import Halt

from brainos_ros.cli.client import add_arguments as add_common
from brainos_ros.cli.client import brain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", default="asked for on the command line")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    with brain(args) as caller:
        request = Halt.Request(reason=args.reason, requester=_user())
        reply = caller.call(Halt, "conscience/halt", request)
    if reply.message:
        print(f"brainos halt: {reply.message}", file=sys.stderr)
        return 1
    print(f"halted after {reply.latency_ms:.1f} ms; only a reset by an operator ends it")
    return 0


def _user() -> str:
    """The user's name, or the number where it has none: that is no reason not to halt."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
