"""`brainos ledger`: look at, verify and look after the record of what the robot did.

Verbs that write open the stream, so they are refused while its node runs; all others work beside
it. Exit codes: 0 done; 1 something is wrong with a stream, a proof or an archive; 2 refused, or
done and not to be printed.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from brainos_ros.cli.home import home_of
from brainos_ros.cli.ledger_arguments import add_arguments
from brainos_ros.cli.ledger_output import (
    print_diagnosis,
    print_record,
    print_states,
    print_statistics,
    print_table,
    say,
    working,
)
from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import auditing, backup, exchange, housekeeping, proof, verifier
from brainos_ros.ledger.doctor import DERIVED, Doctor, state
from brainos_ros.ledger.frames import Damage
from brainos_ros.ledger.layout import find, streams
from brainos_ros.ledger.log import frames_from, to_record
from brainos_ros.ledger.notes import Checkpoint, read_checkpoints
from brainos_ros.ledger.stream import Stream

__all__ = ["add_arguments", "run"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def run(args: argparse.Namespace) -> int:
    """Does one of the sub-verbs; returns the exit code."""
    verb: Callable[[argparse.Namespace], int] = _VERBS[args.what]
    try:
        return verb(args)
    except Damage as damage:
        advice = "" if damage.check in DERIVED else "; run 'brainos ledger doctor'"
        print(f"brainos ledger: {damage}{advice}", file=sys.stderr)
        return 1


def _root(args: argparse.Namespace) -> Path:
    return home_of(args) / "ledger"


def _path(args: argparse.Namespace) -> Path:
    return find(_root(args) / args.stream).path


def _paths(args: argparse.Namespace) -> list[Path]:
    """The stream that is named, or all there are."""
    if args.stream:
        return [_path(args)]
    found = streams(_root(args))
    if not found:
        raise BrainError(f"there is no stream under '{_root(args)}'", ErrorCode.NOT_FOUND)
    return found


def _cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def _open(args: argparse.Namespace) -> Iterator[Stream]:
    _path(args)
    with Stream.open(_root(args), args.stream) as stream:
        if stream.torn:
            kept = stream.path / stream.torn.file
            print(
                f"cut a torn tail of {stream.torn.bytes} bytes off; it is kept in {kept}",
                file=sys.stderr,
            )
        yield stream


def _put(args: argparse.Namespace) -> int:
    body = sys.stdin.buffer.read() if args.file == "-" else Path(args.file).read_bytes()
    root = _root(args)
    with Stream.open(root, args.stream) as stream:
        size = stream.size
        sequence = stream.put(args.path, body, durable=True)
        new = stream.size > size
    data = {"sequence": sequence, "path": args.path, "new": new}
    return say(args.json, data, f"record {sequence}" if new else f"unchanged: record {sequence}")


def _view(args: argparse.Namespace) -> int:
    body = auditing.view(_path(args), args.path)
    if not args.json:
        sys.stdout.buffer.write(body)
        return 0
    from base64 import b64encode

    print(json.dumps({"path": args.path, "body_base64": b64encode(body).decode()}))
    return 0


def _move(args: argparse.Namespace) -> int:
    with _open(args) as stream:
        sequence = stream.move(args.path, args.target, durable=True)
    sentence = f"record {sequence}: {args.path} -> {args.target}"
    return say(args.json, {"sequence": sequence}, sentence)


def _delete(args: argparse.Namespace) -> int:
    if (args.path is None) == (args.event is None):
        raise BrainError("give a path, or events by --event, and not both")
    if args.event and not args.purge:
        raise BrainError("an event cannot be deleted, only erased; add --purge and --reason")
    with _open(args) as stream:
        if args.event:
            sequence = stream.purge_events(args.event, args.reason)
        elif args.purge:
            sequence = stream.purge(args.path, args.reason)
        else:
            sequence = stream.delete(args.path, durable=True)
    mode = "purge" if args.purge else "tombstone"
    return say(args.json, {"sequence": sequence, "mode": mode}, f"record {sequence}: {mode}")


def _state(args: argparse.Namespace) -> int:
    states = [state(path) for path in _paths(args)]
    if args.json:
        print(json.dumps(states, indent=1))
    else:
        print_states(states)
    return 0 if all(each["state"] == "READY" for each in states) else 1


def _doctor(args: argparse.Namespace) -> int:
    kept = _head(args.head) if args.head else None
    good = True
    results = []
    for path in _paths(args):
        with working(path.name) as progress:
            doctor = Doctor(path, kept, progress, _cpus())
            diagnosis = doctor.repair() if args.repair else doctor.examine()
        failed = [check for check in diagnosis.checks if check.verdict == "FAIL"]
        good = good and not failed
        results.append(
            {
                "stream": path.name,
                "state": diagnosis.state,
                "remedy": diagnosis.remedy,
                "repaired": diagnosis.repaired,
                "checks": [check._asdict() for check in diagnosis.checks],
            }
        )
        if args.json:
            continue
        print_diagnosis(path.name, diagnosis)
    if args.json:
        print(json.dumps(results, indent=1))
    return 0 if good else 1


def _consolidate(args: argparse.Namespace) -> int:
    with _open(args) as stream, working(f"consolidating {args.stream}"):
        done = housekeeping.consolidate(stream, _cpus())
    data = {
        "records": done.checkpoint.size,
        "compressed": done.compressed,
        "bytes_before": done.bytes_before,
        "bytes_after": done.bytes_after,
    }
    return say(
        args.json,
        data,
        f"{done.checkpoint.size} records verified and signed; "
        f"{done.compressed} segments compressed, {done.bytes_before} bytes are now "
        f"{done.bytes_after}",
    )


def _prune(args: argparse.Namespace) -> int:
    age = re.fullmatch("([0-9]{1,9})([smhd])", args.older_than)
    if not age:
        raise BrainError(f"--older-than '{args.older_than}' is no age; give one such as 90d or 12h")
    with _open(args) as stream, working(f"pruning {args.stream}"):
        gone = housekeeping.prune(stream, int(age[1]) * _UNITS[age[2]], args.backup)
    return say(args.json, {"pruned": gone}, f"{len(gone)} segments pruned")


def _prove(args: argparse.Namespace) -> int:
    path = _path(args)
    if (args.sequence is None) == (args.since is None):
        raise BrainError("give a sequence number, or an older head by --since, and not both")
    if args.since:
        bundle = proof.prove_growth(path, _head(args.since))
    else:
        bundle = proof.prove(path, args.sequence)
    print(json.dumps(bundle, indent=1))
    return 0


def _verify_proof(args: argparse.Namespace) -> int:
    return verifier.main([args.bundle, "--key", _key(args.key)])


def _key(text: str) -> str:
    """A verifier key given as it is, or by the file that holds it."""
    if _is_key(text):
        return text
    file = Path(text)
    if "+" not in text or file.exists():
        key = _text(file).strip()
        if _is_key(key):
            return key
    raise BrainError(f"--key '{text}' is not a verifier key (name+id+key), nor a file with one")


def _is_key(text: str) -> bool:
    try:
        verifier.parse_key(text)
    except verifier.ProofError:
        return False
    return True


def _head(path: Path) -> Checkpoint:
    """A head that was kept in a file, as `brainos ledger checkpoints --json` has it in `note`."""
    try:
        head = Checkpoint.parse(_text(path).rstrip("\n") + "\n")
        head.signatures()
        return head
    except Damage as damage:
        raise BrainError(f"{path} holds no head of a stream: {damage}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BrainError(f"{path} is not a text file") from None


def _export(args: argparse.Namespace) -> int:
    path = _path(args)
    if args.csv:
        count = exchange.export_csv(path, args.file)
        return say(args.json, {"records": count}, f"{count} records in {args.file}")
    with working(f"exporting {args.stream}"):
        head, digest = exchange.export(path, args.file)
    data = {"records": head.size, "root": head.root.hex(), "sha256": digest}
    return say(args.json, data, f"{head.size} records in {args.file}, sha256 {digest}")


def _import(args: argparse.Namespace) -> int:
    with _open(args) as stream, working(f"importing into {args.stream}"):
        done = exchange.import_archive(stream, args.file, _key(args.key), args.prefix)
    return say(
        args.json,
        done._asdict(),
        f"{done.records} records of {done.origin} verified; "
        f"{done.put} paths put, {done.unchanged} unchanged",
    )


def _backup(args: argparse.Namespace) -> int:
    if args.restore:
        with working(f"restoring {args.stream}"):
            report = backup.restore(args.directory, _root(args), args.stream)
        return say(args.json, report._asdict(), f"{report.records} records restored and verified")
    with working(f"backing up {args.stream}"):
        done = backup.back_up(_path(args), args.directory, args.with_key)
    data = {
        "copied": done.copied,
        "unchanged": done.unchanged,
        "bytes": done.bytes,
        "records": done.report.records,
        "root": done.report.root,
    }
    return say(
        args.json,
        data,
        f"{done.copied} segments copied ({done.bytes} bytes), "
        f"{done.unchanged} unchanged; restored and verified: {done.report.records} records",
    )


def _walk(args: argparse.Namespace) -> int:
    for count, frame in enumerate(frames_from(find(_path(args)), args.start)):
        if args.limit is not None and count >= args.limit:
            break
        print_record(to_record(frame), args.json)
    return 0


def _tail(args: argparse.Namespace) -> int:
    layout = find(_path(args))
    start = max(0, auditing.indexed(layout) - args.n)
    while True:
        for frame in frames_from(layout, start):
            print_record(to_record(frame), args.json)
            start = frame.sequence + 1
        if not args.follow:
            return 0
        sys.stdout.flush()
        time.sleep(0.2)


def _stats(args: argparse.Namespace) -> int:
    all_figures = [auditing.statistics(path) for path in _paths(args)]
    if args.json:
        print(json.dumps([each._asdict() for each in all_figures], indent=1))
        return 0
    print_statistics(all_figures)
    return 0


def _checkpoints(args: argparse.Namespace) -> int:
    checkpoints, _ = read_checkpoints(find(_path(args)).checkpoints.read_bytes())
    if args.json:
        print(
            json.dumps(
                [
                    {"size": each.size, "root": each.root.hex(), "note": each.note}
                    for each in checkpoints
                ],
                indent=1,
            )
        )
    else:
        print_table(
            {"records": "right", "root": "left"},
            [(each.size, each.root.hex()) for each in checkpoints],
        )
    return 0


def _rotate_key(args: argparse.Namespace) -> int:
    with _open(args) as stream:
        key = stream.rotate_key()
    return say(args.json, {"key": key}, key)


_VERBS = {
    "put": _put,
    "view": _view,
    "move": _move,
    "delete": _delete,
    "state": _state,
    "doctor": _doctor,
    "consolidate": _consolidate,
    "prune": _prune,
    "prove": _prove,
    "verify-proof": _verify_proof,
    "export": _export,
    "import": _import,
    "backup": _backup,
    "walk": _walk,
    "tail": _tail,
    "stats": _stats,
    "checkpoints": _checkpoints,
    "rotate-key": _rotate_key,
}
