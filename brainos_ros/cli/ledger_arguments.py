"""What `brainos ledger` is asked: its sub-verbs and their options."""

import argparse
import re
from pathlib import Path

from brainos_ros.cli.home import add_arguments as home_arguments


def count(text: str) -> int:
    """How many, or which record."""
    if not re.fullmatch("[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no count; give a whole number from 0 on")
    return int(text)


def text(value: str) -> str:
    """What a record can hold: a shell may give bytes that are no UTF-8."""
    if any("\ud800" <= each <= "\udfff" for each in value):
        raise argparse.ArgumentTypeError(f"{value!r} is no UTF-8; give Unicode text")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-verbs."""
    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    def verb(name: str, summary: str, stream: str = "one") -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=summary, description=summary)
        if stream != "none":
            nargs = "?" if stream == "any" else None
            sub.add_argument("stream", nargs=nargs, help="name: the role that writes it")
            home_arguments(sub)
        sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    put = verb("put", "put a file's content at a path")
    put.add_argument("path", type=text)
    put.add_argument("file", help="the file, or - for standard input")
    verb("view", "print what is live at a path").add_argument("path", type=text)
    move = verb("move", "move what is live at a path")
    move.add_argument("path", type=text)
    move.add_argument("target", type=text)
    delete = verb("delete", "delete a path: a tombstone, or with --purge erased for good")
    delete.add_argument("path", type=text, nargs="?")
    delete.add_argument(
        "--event",
        type=count,
        action="append",
        metavar="SEQUENCE",
        help="purge this event instead of a path",
    )
    delete.add_argument("--purge", action="store_true", help="erase payload, name and salt")
    delete.add_argument(
        "--reason", type=text, default="", help="why, and by whose order (with --purge)"
    )
    verb("state", "READY or frozen, size and head, of one stream or all", "any")
    doctor = verb("doctor", "check the fifteen invariants of one stream or all", "any")
    doctor.add_argument("--repair", action="store_true", help="rebuild what is derived")
    doctor.add_argument("--head", type=Path, help="a head kept elsewhere to hold against it")
    verb("consolidate", "verify, compress sealed segments, sign, publish the manifest")
    prune = verb("prune", "remove old segments that are safe in a backup")
    prune.add_argument("--older-than", required=True, metavar="AGE", help="such as 90d or 12h")
    prune.add_argument("--backup", type=Path, required=True, help="the stream's backup")
    prove = verb("prove", "make a bundle that proves a record to anybody")
    prove.add_argument("sequence", type=count, nargs="?")
    prove.add_argument(
        "--since",
        type=Path,
        metavar="HEAD",
        help="prove instead that the newest head extends this older one",
    )
    check = verb("verify-proof", "check a bundle with nothing but a public key", "none")
    check.add_argument("bundle", help="the bundle's file, or - for standard input")
    check.add_argument("--key", required=True, help="the verifier key trusted, or a file with it")
    export = verb("export", "write a stream as one file, the same on every machine")
    export.add_argument("file", type=Path)
    export.add_argument("--csv", action="store_true", help="as CSV, for auditors")
    bring = verb("import", "put the live paths of an exported stream, with their proof")
    bring.add_argument("file", type=Path)
    bring.add_argument("--key", required=True, help="the verifier key trusted, or a file with it")
    bring.add_argument("--prefix", type=text, default="", help="only paths that begin with this")
    save = verb("backup", "bring a backup up to date, verified by restoring it")
    save.add_argument("directory", type=Path)
    save.add_argument("--with-key", action="store_true", help="the private key too")
    save.add_argument("--restore", action="store_true", help="from the backup instead")
    walk = verb("walk", "print records in order")
    walk.add_argument("--from", dest="start", type=count, default=0, metavar="SEQUENCE")
    walk.add_argument("--limit", type=count, default=None)
    tail = verb("tail", "print the newest records")
    tail.add_argument("-n", type=count, default=10, help="how many (default 10)")
    tail.add_argument("-f", "--follow", action="store_true", help="and those to come")
    verb("stats", "records by kind, of one stream or all", "any")
    verb("checkpoints", "the signed heads that are kept")
    verb("rotate-key", "sign with a new key from now on")
