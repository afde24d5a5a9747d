"""How `brainos ledger` shows what it found and did: sentences, tables, JSON."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from brainos_ros.cli.out import put_out
from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger.auditing import Statistics, iso_time, text_of
from brainos_ros.ledger.doctor import Diagnosis
from brainos_ros.ledger.log import Record


@contextmanager
def working(what: str) -> Iterator[Callable[[int], None]]:
    """Show on a terminal that, and how far, long work goes on."""
    with Console(stderr=True).status(what) as status:
        yield lambda records: status.update(f"{what}: {records:,} records")


def say(as_json: bool, data: dict[str, Any], sentence: str) -> int:
    """Print what was done; returns the exit code of success.

    Raises:
        BrainError: it cannot be printed; the message says what was done.
    """
    try:
        put_out((json.dumps(data) if as_json else sentence) + "\n")
    except OSError as error:
        raise BrainError(
            f"done, but standard output takes nothing ({error.strerror}): {sentence}",
            ErrorCode.UNAVAILABLE,
        ) from error
    return 0


def plain(text: str) -> str:
    """`text` on one line, with what is not printable as Python's escapes."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def print_table(columns: dict[str, str], rows: list[tuple[object, ...]]) -> None:
    """A table; `columns` has the justification by title."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in columns.items():
        table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console(soft_wrap=not sys.stdout.isatty()).print(table, markup=False, highlight=False)


def print_states(states: list[dict[str, object]]) -> None:
    """State, size and head of each stream."""
    print_table(
        {
            "stream": "left",
            "state": "left",
            "signed": "right",
            "bytes": "right",
            "root": "left",
            "reason": "left",
        },
        [
            (
                each["stream"],
                each["state"],
                each["signed_records"],
                each["bytes"],
                str(each["root"])[:16],
                each["reason"],
            )
            for each in states
        ],
    )


def print_diagnosis(name: str, diagnosis: Diagnosis) -> None:
    """What the doctor found in the stream `name`, did, and advises."""
    print(
        f"{name}: {diagnosis.state}, {diagnosis.report.verified_records} of "
        f"{diagnosis.report.records} records verified"
    )
    print_table(
        {"invariant": "left", "verdict": "left", "": "left"},
        [tuple(check) for check in diagnosis.checks],
    )
    for line in diagnosis.repaired:
        print(f"repaired: {line}")
    if diagnosis.remedy:
        print(f"what to do: {diagnosis.remedy}")


def print_statistics(all_figures: list[Statistics]) -> None:
    """Records by kind of each stream."""
    rows: list[tuple[object, ...]] = []
    for each in all_figures:
        since = iso_time(each.earliest_ns) if each.records else ""
        until = iso_time(each.latest_ns) if each.records else ""
        rows.append((each.stream, "all", each.records, f"{each.log_bytes} bytes", since, until))
        rows += [(each.stream, kind, count, "", "", "") for kind, count in each.by_kind.items()]
    print_table(
        {
            "stream": "left",
            "kind": "left",
            "records": "right",
            "log": "right",
            "first": "left",
            "last": "left",
        },
        rows,
    )


def print_record(record: Record, as_json: bool) -> None:
    """One record as a line."""
    text, when = text_of(record), iso_time(record.time_ns)
    if as_json:
        print(
            json.dumps(
                {
                    "sequence": record.sequence,
                    "time": when,
                    "kind": record.kind,
                    "erased": record.erased,
                    "content": text,
                }
            )
        )
    else:
        text = "(erased)" if record.erased else plain(text)
        print(f"{record.sequence:>9}  {when}  {record.kind:<20} {text}")
