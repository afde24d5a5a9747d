"""For auditors: how many records of which kind, and the records as CSV."""

import csv
import tempfile
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from brainos_ros.errors import BrainError, ErrorCode
from brainos_ros.ledger import frames
from brainos_ros.ledger.kinds import NAMES
from brainos_ros.ledger.layout import Layout, find
from brainos_ros.ledger.log import LogReader, Record, content, frames_from, to_record
from brainos_ros.ledger.merkle import leaf_hash

if TYPE_CHECKING:
    from brainos_ros.ledger.paths import Live

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
COLUMNS = ("sequence", "time", "kind", "erased", "leaf_hash", "payload")


class Statistics(NamedTuple):
    """Figures of one stream.

    Attributes:
        stream: its name.
        records: number of records that are there; `erased` of them by a purge.
        by_kind: records of each kind, the most frequent first.
        earliest_ns, latest_ns: time of the first and last record [ns since the epoch]; 0 if none.
        body_bytes: payloads [bytes].
        log_bytes: the log on the disk [bytes]; `derived_bytes` what is derived from it.
    """

    stream: str
    records: int
    erased: int
    by_kind: dict[str, int]
    earliest_ns: int
    latest_ns: int
    body_bytes: int
    log_bytes: int
    derived_bytes: int


def statistics(path: Path) -> Statistics:
    """Count the records of the stream in `path`, headers only; verifies nothing.

    Raises BrainError (NOT_FOUND), OSError.
    """
    layout = find(Path(path))
    counts: Counter[int] = Counter()
    erased = body = first_ns = last_ns = 0
    for kind, length, form, time_ns in _headers(layout.path):
        counts[kind] += 1
        erased += form == frames.ERASED
        body += length
        first_ns = first_ns or time_ns
        last_ns = time_ns
    derived = [layout.offsets, layout.keys, layout.manifest, layout.paths]
    derived += list(layout.tiles.glob("*"))
    return Statistics(
        layout.path.name,
        sum(counts.values()),
        erased,
        {NAMES.get(kind, str(kind)): count for kind, count in counts.most_common()},
        first_ns,
        last_ns,
        body,
        layout.log_bytes(),
        sum(file.stat().st_size for file in derived if file.exists()),
    )


def _headers(path: Path) -> Iterator[tuple[int, int, int, int]]:
    unpack, size = frames.FRAME.unpack_from, frames.FRAME.size
    layout = find(path)
    for segment in layout.segments():
        data = content(layout, segment)
        offset, end = frames.SEGMENT_HEADER_SIZE, len(data) - size
        while offset <= end:
            _, form, kind, length, _, time_ns = unpack(data, offset)
            if form == frames.END:
                break
            if form != frames.SEAL:
                yield kind, length, form, time_ns
            offset += size + frames.region_size(length)


def write_csv(path: Path, file: IO[str]) -> int:
    """Write every record as a line of CSV (RFC 4180, UTF-8, first line the names of the columns).

    Bytes that are no text stand as `base64:…`; a text that a spreadsheet would take for a
    formula is preceded by an apostrophe. Returns the number of records.
    """
    layout = find(Path(path))
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    count = 0
    for frame in frames_from(layout, 0):
        record, leaf = to_record(frame), leaf_hash(frame.entry).hex()
        time, text = iso_time(record.time_ns), text_of(record)
        text = f"'{text}" if text.startswith(_FORMULA) else text
        writer.writerow((record.sequence, time, record.kind, int(record.erased), leaf, text))
        count += 1
    return count


def text_of(record: Record) -> str:
    """A record's content as text for people; bytes that are no text as `base64:…`."""
    if record.erased:
        return ""
    operation = record.operation if record.kind in ("put", "import", "move", "delete") else None
    try:
        body = record.body.decode()
    except UnicodeDecodeError:
        body = f"base64:{b64encode(record.body).decode()}"
    if operation is None:
        return body
    if operation.target:
        return f"{operation.path} -> {operation.target}"
    return operation.path if record.kind == "delete" else f"{operation.path}: {body}"


def indexed(layout: Layout) -> int:
    """About how many records there are, from the offsets that are stored."""
    return layout.offsets.stat().st_size // 4 if layout.offsets.exists() else 0


def view(path: Path, name: str) -> bytes:
    """The body that is live at the path `name`, also beside a writer; changes nothing.

    Raises BrainError (INVALID_ARGUMENT, NOT_FOUND), Damage.
    """
    layout = find(Path(path))
    live = _live(layout, frames.check_path(name))
    with closing(LogReader(layout)) as reader:
        record = reader.record(live.sequence) if live else None
    if record is None or record.erased:
        raise BrainError(f"nothing is live at path '{name}'", ErrorCode.NOT_FOUND)
    return record.body


def _live(layout: Layout, name: str) -> "Live | None":
    """What is live at the path `name`: by the stored index where that is level with the log, or
    by one that is read from the log for this question and dropped again.
    """
    import sqlite3

    from brainos_ros.ledger.paths import APPLIED, Paths

    with suppress(sqlite3.Error), closing(Paths(layout.paths, writable=False)) as stored:
        applied, level = stored.applied, False
        for frame in frames_from(layout, applied - 1):
            level = frame.sequence < applied or frame.kind not in APPLIED
            if not level:
                break
        if level:
            return stored.get(name)
    with (
        tempfile.TemporaryDirectory(prefix="brainos-index-") as directory,
        closing(Paths(Path(directory) / "paths.sqlite")) as built,
    ):
        for frame in frames_from(layout, 0):
            built.apply(frame)
        return built.get(name)


def iso_time(time_ns: int) -> str:
    """Nanoseconds since the epoch as ISO 8601 in UTC, to the microsecond."""
    moment = datetime.fromtimestamp(time_ns // 10**9, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns % 10**9 // 1000:06d}Z"
