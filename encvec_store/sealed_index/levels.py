"""Says what a builder does next where codes lie in the store: which parts to merge. Only counts decide.

New rows enter a young graph in memory. When that has outgrown its share, it is merged into lists: into the smaller of
two parts, which is merged into the larger one when it has a quarter of its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..data.arrays import Rows
from .growth import YOUNG, Pieces, Reader, from_records, from_tail, some
from .index import Opener, SealedIndex
from .kinds import memory_of, points_within
from .ondemand import fetches, is_moved, lists_of
from .state import Indexed, Snapshot
from .steps import absorb

__all__ = ["Work", "done", "loaded", "work_of"]

_YOUNG = 4
"""The part of the memory that young graphs may take."""


@dataclass(frozen=True)
class Work:
    """One step."""

    kind: str
    """Of the part that is made: `lists`, or a young graph in memory."""
    base: Indexed | None = None
    """Lists that are copied and extended."""
    again: tuple[Indexed, ...] = ()
    """Parts whose rows are read again."""
    tail: bool = False
    """True if the tail goes there too."""


def _home(lists: list[Indexed], count: int, memory: int) -> tuple[Indexed | None, tuple[Indexed, ...]]:
    """Say where so many more rows go: (lists that are extended, parts whose rows are read again with them)."""
    main, smaller = lists[:1], lists[1:]
    base: Indexed | None = None
    again: tuple[Indexed, ...] = ()
    if main and count + sum(part.living for part in smaller) > YOUNG * len(main[0].rows):
        base, again = main[0], tuple(smaller)
    elif smaller:
        base, again = smaller[0], tuple(smaller[1:])
    if base is not None:
        total = base.living + count + sum(part.living for part in again)
        layout = lists_of(base).layout
        if not layout.suits(total, points_within(memory, layout.dim)):
            return None, (base, *again)
    return base, again


def work_of(state: Snapshot, version: int, waiting: int, first: int, worn: list[Indexed], memory: int) -> Work | None:
    """Return the next step for the rows of one key version; None if there is nothing to do.

    Args:
        state: of the index.
        version: the key version.
        waiting: rows in the tail and in coarse graphs.
        first: more rows than these are put into a graph.
        worn: parts with too many dead rows.
        memory: bytes that the index may take.
    """
    parts = [part for part in state.parts if part.version == version]
    lists = [part for part in parts if fetches(part)]
    coarse = tuple(part for part in parts if not part.kept)
    young = tuple(part for part in parts if part.kept and not fetches(part))
    for part in lists:
        if is_moved(part):
            return Work("lists", part)
    held = sum(part.living for part in young)
    fresh = held + waiting
    main = len(lists[0].rows) if lists else 0
    if waiting > first:
        if fresh <= YOUNG * main and memory_of("ivf", fresh, _dim(state)) <= memory // _YOUNG:
            return Work("ivf", None, coarse, tail=True)
        base, again = _home(lists, fresh, memory)
        return Work("lists", base, (*again, *coarse, *young), tail=True)
    if young and (held > YOUNG * main or sum(part.graph.bytes for part in young) > memory // _YOUNG):
        base, again = _home(lists, held, memory)
        return Work("lists", base, (*again, *young))
    for part in lists:
        if part in worn:
            return Work("lists", part)
    if len(lists) > 1 and (len(lists) > 2 or len(lists[1].rows) > YOUNG * main):
        base, again = _home(lists[:1], sum(part.living for part in lists[1:]), memory)
        return Work("lists", base, (*again, *lists[1:]))
    return None


def _dim(state: Snapshot) -> int:
    return int(state.tail.buffer.vectors.shape[1])


def done(
    opener: Opener,
    index: SealedIndex,
    state: Snapshot,
    version: int,
    work: Work,
    tail: Rows,
    pieces: Pieces,
    memory: int,
) -> None:
    """Do one step, and publish the result."""
    if work.kind != "lists":
        young = [part for part in state.parts if part.version == version and part.kept and not fetches(part)]
        absorb(opener, index, state, version, young, list(work.again), tail, work.kind, pieces)
        return
    from .listing import listed  # it loads FAISS

    living = [part.living_rows for part in work.again]
    rows = np.sort(np.concatenate([state.tail.rows[tail if work.tail else []], *living]))
    read = from_records(opener) if work.again else from_tail(state.tail)
    made = listed(opener, index.metric, work.base, version, rows, read, pieces(len(rows)), memory)
    index.publish((*some(work.base), *work.again), some(made))


def loaded(
    opener: Opener,
    index: SealedIndex,
    state: Snapshot,
    version: int,
    rows: Rows,
    every: Rows,
    read: Reader,
    after: Callable[[int], None],
    memory: int,
) -> None:
    """Put new rows into lists, and those of lists that are merged with them.

    Args:
        opener: the open collection.
        index: its index.
        state: of the index.
        version: the key version of the rows.
        rows: the new rows, ascending.
        every: with those that come after them.
        read: gives their vectors.
        after: called after each piece, with its number of rows.
        memory: bytes that the work may take.
    """
    from .listing import listed  # it loads FAISS

    lists = [part for part in state.parts if part.version == version and fetches(part)]
    base, again = _home(lists, len(rows), memory)
    added, like = (np.sort(np.concatenate([new, *(part.living_rows for part in again)])) for new in (rows, every))
    made = listed(opener, index.metric, base, version, added, read, after, memory, like)
    if made is not None:
        index.adopt((*some(base), *again), made)
