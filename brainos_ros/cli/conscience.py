"""`brainos conscience`: provision operators, make tokens, check rules, replay verdicts."""

import argparse
import dataclasses
import json
from pathlib import Path

from brainos_ros.cli.home import add_arguments as home_arguments
from brainos_ros.cli.home import home_of
from brainos_ros.conscience import adopted, credentials, stream, table
from brainos_ros.conscience.replay import replay
from brainos_ros.conscience.rules_file import load
from brainos_ros.errors import BrainError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-verbs."""
    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    init = verbs.add_parser("init", help="register an operator; arms a robot that never had one")
    person_arguments(init)
    init.add_argument("--role", action="append", choices=sorted(credentials.ROLES),
                      help="operator (reset, approve) or engineer (rules); default both")
    token = verbs.add_parser("token", help="print a token: an operator's signature")
    kinds = token.add_subparsers(dest="kind", metavar="KIND", required=True)
    person_arguments(kinds.add_parser("reset", help="for the halt there is now"))
    for kind in ("approve", "deny"):
        sub = kinds.add_parser(kind, help=f"to {kind} a pending action")
        person_arguments(sub)
        sub.add_argument("--challenge", required=True, help="as `brainos approvals list` shows it")
    rules = kinds.add_parser("rules", help="for a changed rules file; two engineers are needed")
    person_arguments(rules)
    rules.add_argument("file", type=Path)
    check = verbs.add_parser("check", help="load a rules file and print it as a table")
    check.add_argument("file", type=Path, nargs="?", help="default: the shipped rules")
    again = verbs.add_parser("replay", help="judge the recorded verdicts again")
    home_arguments(again)
    again.add_argument("--rules", type=Path, help="what would these rules have decided?")
    again.add_argument("--json", action="store_true")


def person_arguments(parser: argparse.ArgumentParser) -> None:
    home_arguments(parser)
    parser.add_argument("--operator", required=True, help="name of the person")
    parser.add_argument("--keys", type=Path, help="folder of private keys; default "
                        "~/.config/brainos/keys")


def run(args: argparse.Namespace) -> int:
    """Does one of the sub-verbs; returns the exit code."""
    return {"init": _init, "token": _token, "check": _check, "replay": _replay}[args.what](args)


def _init(args: argparse.Namespace) -> int:
    roles = args.role or list(credentials.ROLES)
    key = credentials.provision(home_of(args), args.operator, args.keys, roles)
    print(f"{args.operator} is registered in {credentials.operators_file(home_of(args))}; "
          f"the private key is {key}, keep it away from the robot")
    return 0


def _token(args: argparse.Namespace) -> int:
    home = home_of(args)
    if args.kind == "reset":
        print(credentials.reset_token(home, args.operator, args.keys))
        return 0
    key = credentials.load_key(args.operator, args.keys)
    fields = {"challenge": getattr(args, "challenge", "")}
    if args.kind == "rules":
        fields = {"rules_version": load(args.file).version,
                  "replaces": load(home / "conscience" / "rules.yaml").version,
                  **credentials.challenge(home)}
    print(credentials.sign(key, args.kind, credentials.load_operators(home).robot, fields))
    return 0


def _check(args: argparse.Namespace) -> int:
    rules = load(args.file or adopted.rules_file(""))
    print(table.markdown(rules))
    print(f"{len(rules.rules)} rules, version {rules.version}")
    return 0


def _replay(args: argparse.Namespace) -> int:
    report = replay(stream.events(home_of(args)), load(args.rules) if args.rules else None)
    if args.json:
        print(json.dumps(dataclasses.asdict(report), indent=1))
    else:
        print(f"{report.verdicts} verdicts judged again, {len(report.differences)} differ; "
              f"{report.unknown} under rules that are not in the stream, "
              f"{report.coalesced} refusals were only counted")
        for each in report.differences:
            print(f"  #{each.sequence} {each.action}: {each.recorded} then, {each.replayed} now"
                  f"\n      then: {each.recorded_reason}\n      now:  {each.replayed_reason}")
    if report.unknown and not args.rules:
        raise BrainError(f"{report.unknown} verdicts cannot be judged again")
    return 1 if report.differences else 0
