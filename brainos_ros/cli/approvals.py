"""`brainos approvals`: list, approve or deny what waits for a person."""

import argparse
import json
import time
from typing import Any

from brainos_msgs.srv import Approve, Deny, ListPending

from brainos_ros.cli.client import add_arguments as add_common
from brainos_ros.cli.client import brain
from brainos_ros.cli.conscience import person_arguments
from brainos_ros.cli.home import add_arguments as home_arguments
from brainos_ros.cli.home import home_of
from brainos_ros.conscience import credentials
from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ros.conversions import attributes_to_dict, time_to_s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-verbs."""
    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    listing = verbs.add_parser("list", help="what waits, oldest first")
    listing.add_argument("--json", action="store_true")
    home_arguments(listing)
    for kind in ("approve", "deny"):
        sub = verbs.add_parser(kind, help=f"{kind} one, signed with your key")
        sub.add_argument("approval_id")
        person_arguments(sub)
    sub.add_argument("--reason", default="", help="recorded")
    for sub in verbs.choices.values():
        add_common(sub)


def run(args: argparse.Namespace) -> int:
    """Talks to the conscience; returns the exit code."""
    with brain(args) as caller:
        pending = caller.call(
            ListPending, "conscience/list_pending", ListPending.Request()).pending
        if args.what == "list":
            return _list(pending, args.json)
        found = [each for each in pending if each.approval_id == args.approval_id]
        if not found:
            raise BrainError(f"{args.approval_id} is not pending", ErrorCode.NOT_FOUND)
        token = credentials.sign(
            credentials.load_key(args.operator, args.keys), args.what,
            credentials.load_operators(home_of(args)).robot, {"challenge": found[0].challenge})
        kind = Approve if args.what == "approve" else Deny
        request = kind.Request(
            approval_id=args.approval_id, operator_name=args.operator, token=token)
        if args.what == "deny":
            request.reason = args.reason
        print(caller.call(kind, f"conscience/{args.what}", request).status)
    return 0


def _list(pending: Any, as_json: bool) -> int:
    rows = [{
        "approval_id": each.approval_id, "action": each.action, "requester": each.requester,
        "context": attributes_to_dict(each.context, "context"), "reason": each.reason,
        "challenge": each.challenge, "expires_in_s": round(each.expires_in_s, 1),
        "created_at": time.strftime("%H:%M:%S", time.localtime(time_to_s(each.created_at))),
    } for each in pending]
    if as_json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        print(f"{row['approval_id']}  {row['action']}  asked by {row['requester']} at "
              f"{row['created_at']}, {row['expires_in_s']:.0f} s left\n    {row['reason']}\n"
              f"    {json.dumps(row['context'])}")
    print(f"{len(rows)} waiting")
    return 0
