"""Puts rows into graphs, piece by piece. Vectors come from the records, the tail, or the codes of another graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..data.arrays import Matrix, Rows
from ..data.metrics import Metric
from ..runtime.concurrency import offload
from .index import Opener
from .kinds import SAMPLE, begin
from .rowsets import places_of
from .state import Indexed
from .tail import Tail, is_wide

__all__ = [
    "PIECE",
    "YOUNG",
    "Pieces",
    "Reader",
    "WideError",
    "from_codes",
    "from_new_records",
    "from_records",
    "from_tail",
    "grown",
    "home",
    "sampled",
    "some",
]

YOUNG = 0.25
"""A young graph with this share of the main graph's rows is merged into it."""
PIECE = 5_000
"""Rows read and added at a time."""
Reader = Callable[[Rows], tuple[Rows, Matrix]]
"""Returns those of the rows that are still there, and their vectors."""


Pieces = Callable[[int], Callable[[int], None]]
"""Returns, for a number of rows, what is called after each piece of them, with its size."""


class WideError(ValueError):
    """Products of the vectors may leave float32's range, so they belong in no graph."""


def from_records(opener: Opener) -> Reader:
    """Open the records."""

    def read(rows: Rows) -> tuple[Rows, Matrix]:
        found, vectors, _ = opener.open_vectors(rows)
        return found, vectors

    return read


def from_new_records(opener: Opener, metric: Metric) -> Reader:
    """Open records that were in no index yet. The reader raises WideError."""
    read = from_records(opener)

    def checked(rows: Rows) -> tuple[Rows, Matrix]:
        found, vectors = read(rows)
        if is_wide(metric, vectors):
            raise WideError
        return found, vectors

    return checked


def from_tail(tail: Tail) -> Reader:
    """Take vectors of living rows of the tail: under cosine of length 1."""
    order = np.argsort(tail.rows, kind="stable")
    ascending = tail.rows[order]

    def read(rows: Rows) -> tuple[Rows, Matrix]:
        return rows, tail.vectors_of(order[places_of(ascending, rows)])

    return read


def from_codes(part: Indexed, dim: int) -> Reader:
    """Take vectors as the codes of a graph have them."""

    def read(rows: Rows) -> tuple[Rows, Matrix]:
        return rows, part.graph.decoded(places_of(part.rows, rows))[:, :dim]

    return read


def sampled(read: Reader, rows: Rows, most: int) -> Matrix:
    """Return the vectors of about `most` of the rows, evenly spread."""
    some = rows[:: -(-len(rows) // most)]
    return np.concatenate([read(some[start : start + PIECE])[1] for start in range(0, len(some), PIECE)])


def grown(
    metric: Metric,
    into: Indexed | None,
    kind: str,
    version: int,
    rows: Rows,
    read: Reader,
    after: Callable[[int], None],
    like: Rows | None = None,
) -> Indexed:
    """Return a part that holds more rows.

    Args:
        metric: the collection's.
        into: the part that is copied and extended; None to begin a new one.
        kind: of a new graph.
        version: the key version of the rows.
        rows: ascending.
        read: gives their vectors.
        after: called after each piece, with its number of rows.
        like: rows that a new graph will hold in the end, if they are more.
    """
    if into is None:
        expected = rows if like is None else like
        sample = sampled(read, expected, SAMPLE)
        if not len(sample):  # deleted a moment ago
            sample = np.zeros((1, sample.shape[1]), np.float32)
        growing = offload(len(sample), begin, kind, metric.name, sample, len(expected))
    else:
        growing = offload(into.graph.count, into.graph.growing, len(rows))
    held = [] if into is None else [into.rows]
    for start in range(0, len(rows), PIECE):
        asked = rows[start : start + PIECE]
        found, vectors = read(asked)
        if len(found):
            offload(len(found), growing.add, vectors)
            held.append(found)
        after(len(asked))
    graph = offload(len(rows), growing.finished)
    return Indexed(version, graph, np.concatenate(held), stored=None if into is None else into.stored)


def home(graphs: list[Indexed], rows: Rows) -> tuple[list[Indexed], Indexed | None]:
    """Say where rows go: (graphs whose rows are added with them, the graph that takes all; None for a new one).

    Few rows go into a young graph. Many go into the main graph, together with those of young ones.
    """
    if not graphs:
        return [], None
    main, young = graphs[0], graphs[1:]
    if len(rows) + sum(part.living for part in young) > YOUNG * len(main.rows):
        follow = min([rows[0], *(part.rows[0] for part in young)]) > main.rows[-1]
        return (young, main) if follow else ([], None)
    return [], young[-1] if young and rows[0] > young[-1].rows[-1] else None


def some(part: Indexed | None) -> tuple[Indexed, ...]:
    """Return a part as a tuple; without one, the empty tuple."""
    return () if part is None else (part,)
