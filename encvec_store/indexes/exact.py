"""An index that compares all vectors, and the `memory:` store, which uses it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data.arrays import Matrix, Rows
from ..data.filters import Predicate
from ..errors import StaleConfigError, UriError
from ..runtime.forks import Mutex
from ..storage.memory import MemoryStore
from ..storage.protocol import Changes, Records
from .protocol import Connection, Probes, first

__all__ = ["ExactIndex", "connect"]


def connect(url: str, **options: Any) -> Connection:
    """Make an empty store that exists as long as the connection. Raises UriError if a path or options were given."""
    if url not in ("memory:", "memory://") or options:
        raise UriError(f"the memory store takes no path or options: write 'memory:', got {url!r}")
    return Connection(MemoryStore(), ExactIndex, lasting=False, shared=False)


class ExactIndex:
    """Implements `VectorIndex` over any records. Tests compare the other indexes with this one."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._lock = Mutex()
        self._reset()

    def _reset(self) -> None:
        self._generation, self._content, self._dim = -1, 0, 0
        self._partitions: dict[int, tuple[Rows, Matrix]] = {}
        """Rows, ascending, and their index vectors."""

    def candidates(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> list[Rows]:
        """Return the `limit` nearest rows for each query, nearest first."""
        asked, dim = next(iter(probes.values())).shape
        nothing = np.empty(0, np.int64), np.empty(0, np.float32)
        parts: list[list[tuple[Rows, Matrix]]] = [[nothing, nothing] for _ in range(asked)]
        with self._lock:
            allowed = self._follow(predicate)
            if dim != self._dim:
                raise StaleConfigError("the collection's settings were changed meanwhile")
            for partition, queries in probes.items():
                rows, vectors = self._chosen(partition, allowed)
                for part, products in zip(parts, queries @ vectors.T, strict=True):
                    part.append((rows, products))
        return [first(max(0, limit), part) for part in parts]

    def explain(self, partition: int, query: Matrix, limit: int, predicate: Predicate | None = None) -> str:
        """Say how many records `candidates` would compare."""
        with self._lock:
            allowed = self._follow(predicate)
            there, matching = (len(self._chosen(partition, rows)[0]) for rows in (None, allowed))
        return f"scan, {matching:,} of {there:,} records to choose from"

    def check(self) -> list[str]:
        """Return an empty list: there are no files."""
        return []

    def stats(self) -> dict[str, Any]:
        """Describe the index."""
        with self._lock:
            sizes = [rows.nbytes + vectors.nbytes for rows, vectors in self._partitions.values()]
        return {"index": "exact", "bytes": {"index": sum(sizes)}}

    def flush(self) -> None:
        """Do nothing: there is nothing to build."""

    def forget(self) -> None:
        """Drop everything. It is read again the next time."""
        with self._lock:
            self._reset()

    close = forget
    remove = forget

    def _chosen(self, partition: int, allowed: Rows | None) -> tuple[Rows, Matrix]:
        rows, vectors = self._partitions.get(partition, (np.empty(0, np.int64), np.empty((0, self._dim), np.float32)))
        if allowed is None:
            return rows, vectors
        chosen = np.isin(rows, allowed, assume_unique=True)
        return rows[chosen], vectors[chosen]

    def _follow(self, predicate: Predicate | None) -> Rows | None:
        """Follow every write that was committed before this call.

        Returns the rows that satisfy the predicate, as of the same moment; None means all rows.
        """
        if predicate is None and self._records.generation() == self._generation:
            return None
        allowed, done = None, False
        try:
            while not done:
                since = self._generation, self._content
                if predicate is None:
                    changes = self._records.changes(*since)
                else:
                    changes, allowed = self._records.following(*since, predicate)
                done = changes is None or self._apply(changes)
        except BaseException:
            self._reset()
            raise
        return allowed

    def _apply(self, changes: Changes) -> bool:
        """Apply changes. Returns False if rows or content were replaced while index vectors were read."""
        if changes.whole:
            self._partitions = {}
        for partition, (rows, vectors) in self._partitions.items():
            stay = ~np.isin(rows, changes.removed, assume_unique=True)
            self._partitions[partition] = rows[stay], vectors[stay]
        self._generation, self._content, self._dim = changes.generation, changes.content, changes.index_dim or 0
        whole = True
        for partition, added in changes.added.items():
            found, read = self._records.index_vectors(added)
            if read.shape[1] != self._dim:
                self._reset()
                return False
            held = self._chosen(partition, None)
            rows, vectors = np.concatenate([held[0], found]), np.concatenate([held[1], read])
            order = np.argsort(rows, kind="stable")
            self._partitions[partition] = rows[order], vectors[order]
            whole &= len(found) == len(added)
        # rows keep their numbers when all content is replaced, so we may have read a mixture
        later = self._records.changes(self._generation, self._content)
        return whole and (later is None or later.content == self._content)
