"""A server that watches searches, in rows: what it learns of one's own records under the default and when hidden from.

    rows = watched_rows(vectors, queries, name="docs")

The searches are real ones of a `sealed` store. The attacks on their log are those of `watching` and `graphs`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ... import low_level
from ...data import Matrix
from ...keys import Keyset
from ...sealing import DEFAULT_SCHEME
from ...store import connect
from .experiment import Row
from .findings import taken
from .graphs import matched
from .watching import ReadLog, neighbour_log, neighbour_pairs, neighbours, watched

__all__ = ["Watched", "watched_rows", "watchers"]

_NAME = "records"
_K = 10
_SEARCHES = 1_000


@dataclass(frozen=True)
class Watched:
    """What a server learns from the rows that searches of one collection read, having the very same data."""

    watched: str
    """Name of the data that were stored."""
    hidden: bool
    """True under `threat="watching-server"`, False under the default."""
    records: int
    searches: int
    rows_read: float
    """Rows that a search read on average."""
    neighbours: float
    """Share of the pairs of near records that it finds."""
    neighbours_luck: float
    named: float
    """Share of records that it names."""

    @classmethod
    def of(cls, row: Any) -> Watched:
        """Read a row's JSON. Raises KeyError, TypeError or ValueError."""
        shares = [float(row[name]) for name in ("neighbours", "neighbours_luck", "named")]
        counts = int(row["records"]), int(row["searches"]), float(row["rows_read"])
        if not (all(0 <= share <= 1 for share in shares) and min(counts[:2]) > 0 and 0 <= counts[2] <= counts[0]):
            raise ValueError("out of range")
        return cls(str(row["watched"]), bool(row["hidden"]), *counts, *shares)

    def row(self) -> Row:
        """Return it as JSON values."""
        return asdict(self)


def watchers(rows: Iterable[Any]) -> tuple[list[Watched], list[Any]]:
    """Take what is said of servers that watch out of rows or JSON lines; what else there is comes back."""
    return taken(rows, "watched", Watched.of)


def watched_rows(vectors: Matrix, queries: Matrix, *, name: str, searches: int = _SEARCHES) -> list[Row]:
    """Store (n, d) unit vectors sealed, search for (q, d) others, and attack the log of what the searches read.

    Returns a row for the default, and one for `threat="watching-server"`. There are as many searches as queries, at
    most `searches`; the server has the very same vectors, and knows of no record which one it is.
    """
    ids = [str(place) for place in range(len(vectors))]
    found = []
    with tempfile.TemporaryDirectory(prefix="encvec-lab-") as folder:
        url, keyset = f"faiss:{folder}/store", Keyset.create("memory:")
        with connect(url, keyset=keyset, maintenance="manual") as store:
            things = store.collection(_NAME, vectors.shape[1], "cosine", DEFAULT_SCHEME)
            things.upsert(ids, vectors)
            places = {int(row): place for place, row in enumerate(low_level.places(things, ids))}
        for threat in (None, "watching-server"):
            with connect(url, keyset=keyset, maintenance="manual", threat=threat) as store:
                things = store.collection(_NAME)
                things.search(queries[0], _K)
                with watched(things) as seen:
                    for query in queries[:searches]:
                        things.search(query, _K)
                        seen.next()
            found.append(_learned(name, threat is not None, vectors, seen.rows(places)).row())
    return found


def _learned(name: str, hidden: bool, vectors: Matrix, log: ReadLog) -> Watched:
    near, rng = neighbours(vectors, _K), np.random.default_rng(0)
    pairs, luck = (neighbour_pairs(one, near)["recall"] for one in (log, log.shuffled(rng)))
    named = 0.0
    if log.graph.nnz:
        order = rng.permutation(len(vectors))  # text i of the server's is record order[i]
        own = neighbour_log(vectors, _K).graph[order][:, order]
        named = float((order[matched(log.graph, own, rng)] == np.arange(len(vectors))).mean())
    return Watched(name, hidden, len(vectors), len(log.reads), log.each, pairs, luck, named)
