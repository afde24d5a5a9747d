"""Walking the segments of a log in processes of their own, so that it takes all CPUs.

A worker begins where the stored nodes say that its segment begins. They are derived, so what it
finds counts only once the walk over all records before has arrived at that very place. A script
that wants workers begins under `if __name__ == "__main__":`, as multiprocessing asks.
"""

import os
import signal
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from itertools import repeat
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import NamedTuple

from brainos_ros.ledger.frames import Segment
from brainos_ros.ledger.layout import PRUNED, Layout, SegmentFile
from brainos_ros.ledger.log import read_header
from brainos_ros.ledger.recovery import walk_segment
from brainos_ros.ledger.tiles import Tiles
from brainos_ros.ledger.walk import Walk

#: Starting the processes takes as long as walking some four segments of 8 MiB.
FEWEST = 8


class Ahead(NamedTuple):
    """A segment that a worker walked, and nothing is wrong with it.

    Attributes:
        header: where the segment, and the walk, begins.
        walk: the walk over it, at its end.
        stale: what is stored of it and differs from what it says.
    """

    header: Segment
    walk: Walk
    stale: list[str]


Found = Generator[Ahead | None, None, None]


def walk_ahead(layout: Layout, segments: list[SegmentFile], derived: bool, workers: int) -> Found:
    """What the workers find, segment by segment; None for each that the caller must walk.

    That is a pruned segment, and from the first on where anything is wrong, be it with the
    segment, with the nodes before it or with its worker. It never ends: close it. With `derived`
    the stored nodes and offsets are compared.
    """
    if workers > 1 and len(segments) >= FEWEST:
        with suppress(Exception):
            yield from _walk_ahead(layout, segments, derived, workers)
    yield from repeat(None)


def _walk_ahead(layout: Layout, segments: list[SegmentFile], derived: bool, workers: int) -> Found:
    stream_id = read_header(segments[0]).stream_id
    # Not "fork": the progress on a terminal and an open stream are threads, which hold locks.
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(workers, context, _begin)
    jobs: deque[Future[Ahead | None]] = deque()
    try:
        for segment in segments:
            jobs.append(pool.submit(_walk_alone, layout, segment, stream_id, derived))
            if len(jobs) > 2 * workers:
                yield jobs.popleft().result()
        while jobs:
            yield jobs.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """In a worker: a robot at work goes first, an interrupt is the parent's, whose end is ours."""
    os.nice(10)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _walk_alone(
    layout: Layout, segment: SegmentFile, stream_id: bytes, derived: bool
) -> Ahead | None:
    """Walk a segment as if all before it were sound. Raises Damage, OSError."""
    if segment.suffix == PRUNED:
        return None
    tiles = Tiles(layout)
    try:
        walk = Walk(tiles.mountain(segment.first))
        walk_segment(segment, walk, stream_id, tiles)
        made = walk.take_derived()
        stale = tiles.differing(*made) if derived else []
    finally:
        tiles.close()
    return Ahead(Segment(stream_id, *walk.seals[0]), walk, stale)
