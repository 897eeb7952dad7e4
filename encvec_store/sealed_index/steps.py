"""Single steps of a builder: put rows into a graph in memory, build it without the dead, merge two of them."""

from __future__ import annotations

import numpy as np

from ..data.arrays import Rows
from ..runtime.concurrency import offload
from .growth import Pieces, from_codes, from_records, from_tail, grown, home, some
from .index import Opener, SealedIndex
from .state import Indexed, Snapshot

__all__ = ["absorb", "merge", "rebuild"]


def absorb(
    opener: Opener,
    index: SealedIndex,
    state: Snapshot,
    version: int,
    graphs: list[Indexed],
    again: list[Indexed],
    tail: Rows,
    kind: str,
    pieces: Pieces,
) -> None:
    """Put the tail, and all rows of the parts in `again`, into a graph."""
    rows = np.sort(np.concatenate([state.tail.rows[tail], *(part.living_rows for part in again)]))
    read = from_records(opener) if again else from_tail(state.tail)
    old, into = home(graphs, rows)
    if old:
        rows = np.sort(np.concatenate([rows, *(part.living_rows for part in old)]))
        read = from_records(opener)
    part = grown(index.metric, into, kind, version, rows, read, pieces(len(rows)))
    index.publish((*again, *old, *some(into)), (part,))


def rebuild(index: SealedIndex, part: Indexed) -> None:
    """Build a graph anew without the dead rows."""
    places = np.arange(len(part.rows)) if part.alive is None else np.flatnonzero(part.alive)
    graph = offload(len(places), part.graph.kept, places)
    index.publish((part,), (Indexed(part.version, graph, part.rows[places]),))


def merge(opener: Opener, index: SealedIndex, graphs: list[Indexed], pieces: Pieces) -> None:
    """Merge the youngest graph into the one before it."""
    into, young = graphs[-2], graphs[-1]
    read, rows = from_codes(young, index.dim), young.living_rows
    target: Indexed | None = into
    if rows[0] <= into.rows[-1]:  # rows of the two overlap: build one graph of both
        target, rows = None, np.sort(np.concatenate([into.living_rows, rows]))
    if target is None or young.graph.kind == "ivf":  # whose codes are too short to build from
        read = from_records(opener)
    part = grown(index.metric, target, into.graph.kind, into.version, rows, read, pieces(len(rows)))
    index.publish((into, young), (part,))
