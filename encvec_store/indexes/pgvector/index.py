"""A vector index over one collection in PostgreSQL."""

from __future__ import annotations

from typing import Any

from ...data.arrays import Matrix, Rows
from ...data.filters import Predicate
from ...storage.postgres.records import PostgresRecords
from ..protocol import Nearest, Probes
from .searching import Searcher

__all__ = ["PgvectorIndex"]


class PgvectorIndex:
    """Implements `VectorIndex` and `BringsEnvelopes` over records in PostgreSQL.

    The server keeps the index with the tables of the records: it is saved, replaced and dropped with them.
    """

    def __init__(self, records: PostgresRecords) -> None:
        self._records = records
        self._searcher = Searcher(records)
        records.on_replace = self._searcher.index_new

    def candidates(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> list[Rows]:
        return self._searcher.candidates(probes, limit, predicate)

    def nearest(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> Nearest:
        return self._searcher.nearest(probes, limit, predicate)

    def explain(self, partition: int, query: Matrix, limit: int, predicate: Predicate | None = None) -> str:
        """Return the server's plan for a search of one query."""
        return self._searcher.explain(partition, query, limit, predicate)

    def check(self) -> list[str]:
        """Return nothing: an index on the server cannot be checked from here, only built anew."""
        return []

    def stats(self) -> dict[str, Any]:
        states = self._searcher.states(fresh=True)
        kinds = {state.kind for state in states.values()} or {"none"}
        return {
            "index": "+".join(sorted("exact" if kind == "none" else kind for kind in kinds)),
            "partitions": {
                str(number): {
                    "index": state.kind,
                    "wanted": state.wanted,
                    "storage": state.storage,
                    "rows": state.records,
                    "bytes": state.bytes,
                }
                for number, state in states.items()
            },
            "searches": dict(self._searcher.ways),
            "bytes": {"index": self._searcher.size()},
        }

    def flush(self) -> None:
        self._searcher.build()

    def forget(self) -> None:
        """Look again which indexes exist. There is no cached copy of vectors to drop."""
        self._searcher.look_again()

    def close(self) -> None:
        """Let go of the records. What was built stays on the server."""
        if self._records.on_replace == self._searcher.index_new:
            self._records.on_replace = None

    def remove(self) -> None:
        """Do what `close` does: the index was dropped with the tables of the collection."""
        self.close()
