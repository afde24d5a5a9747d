"""`brainos`: the command line. One verb per module, imported only when it is called."""

import argparse
import io
import os
import sys
from importlib import import_module

from brainos_ros.cli.out import put_out
from brainos_ros.errors import BrainError

VERBS = {
    "up": "bring a robot's brain up and keep it up",
    "demo": "the simulated robot at work, with a live view and a report",
    "status": "what works now, node by node",
    "halt": "stop the robot and keep it stopped",
    "restart": "stop a node and bring it back",
    "failover": "let a warm stand-by take a role over",
    "approvals": "list, approve or deny what waits for a person",
    "conscience": "provision operators, make tokens, check rules, replay verdicts",
    "ledger": "look at, verify and look after the record of what the robot did",
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns its exit code: 0 done, 1 it found something wrong, 2 refused."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal's encoding lacks is escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if argv is None else argv
    name = " ".join(["brainos", *arguments[:1]])
    try:
        try:
            return _run(arguments)
        finally:
            put_out()
    except BrainError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{name}: {where}{error.strerror or error}", file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="brainos", description="A brain for robots.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, summary in VERBS.items():
        sub = verbs.add_parser(verb, help=summary, description=summary)
        if arguments[:1] == [verb]:
            module = import_module(f"brainos_ros.cli.{verb}")
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    return int(args.run(args))


if __name__ == "__main__":
    raise SystemExit(main())
