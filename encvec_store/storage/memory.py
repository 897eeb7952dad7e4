"""`memory:` store: dictionaries and exact search, the oracle of the other backends; imports backends.base, filters."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.fields import Term
from ..data.filters import AllOf, AnyOf, Match, Predicate, Present
from ..errors import StaleConfigError, StoreClosedError, UriError
from .protocol import (
    BackendCollection,
    Bytes,
    CacheAuthenticator,
    CollectionSpec,
    EncryptedBatch,
    Kept,
    Matrix,
    Nearest,
    Probes,
    Rows,
    first,
    union,
)

__all__ = ["MemoryBackend"]


@dataclass(slots=True)
class _Row:
    space: int
    token: bytes
    index_vector: Kept
    vector: Bytes
    payload: bytes
    terms: dict[str, set[Term]]


class MemoryBackend:
    """Collections that live as long as this object."""

    def __init__(self, url: str) -> None:
        if url not in ("memory:", "memory://"):
            raise UriError(f"the memory store takes no path or options: use 'memory:', not {url!r}")
        self.url = "memory:"
        self.device = "cpu"
        self._collections: dict[tuple[str, str], _MemoryCollection] = {}
        self._closed = False

    def collections(self, tenant: str | None = None) -> list[tuple[str, str]]:
        """List (tenant, name), sorted."""
        return sorted(place for place in self._open_collections() if tenant in (None, place[0]))

    def open(self, tenant: str, name: str) -> BackendCollection | None:
        """Return the collection, or None."""
        return self._open_collections().get((tenant, name))

    def create(self, spec: CollectionSpec, config: bytes) -> BackendCollection:
        """Create a collection, or return the one there is."""
        return self._open_collections().setdefault((spec.tenant, spec.name), _MemoryCollection(spec, config))

    def drop(self, tenant: str, name: str) -> bool:
        """Forget a collection."""
        return self._open_collections().pop((tenant, name), None) is not None

    def close(self) -> None:
        """Forget everything."""
        self._closed = True
        for collection in self._collections.values():
            collection.closed = True
        self._collections.clear()

    def _open_collections(self) -> dict[tuple[str, str], _MemoryCollection]:
        if self._closed:
            raise StoreClosedError("the store is closed")
        return self._collections


class _MemoryCollection:
    def __init__(self, spec: CollectionSpec, config: bytes) -> None:
        self.spec = spec
        self._config = config
        self._artefacts: dict[str, bytes] = {}
        self._rows: dict[int, _Row] = {}
        self._tokens: dict[bytes, int] = {}
        self._next = 1
        self._generation = 0
        self._lock = threading.RLock()
        self.closed = False

    def config(self) -> bytes:
        return self._config

    def artefact(self, name: str) -> bytes | None:
        return self._artefacts.get(name)

    def put(
        self,
        batch: EncryptedBatch,
        *,
        under: bytes,
        config: bytes | None = None,
        artefacts: Mapping[str, bytes] | None = None,
        more: Iterable[EncryptedBatch] = (),
    ) -> None:
        parts = [batch, *more]
        with self._lock:
            self._require(under)
            for part in parts:
                self._insert(part)
            self._config = config or self._config
            self._artefacts = self._artefacts if artefacts is None else dict(artefacts)
            self._generation += 1

    def _require(self, config: bytes) -> None:
        if config != self._config:
            raise StaleConfigError("the collection's settings were changed meanwhile")

    def _insert(self, batch: EncryptedBatch) -> None:
        terms: list[dict[str, set[Term]]] = [{} for _ in batch.payloads]
        for position, name, term in batch.terms:
            terms[position].setdefault(name, set()).add(term)
        for token in batch.retired:
            self._rows.pop(self._tokens.pop(token, 0), None)
        for i, payload in enumerate(batch.payloads):
            token, space = batch.tokens[i].tobytes(), int(batch.spaces[i])
            self._rows.pop(self._tokens.get(token, 0), None)
            index_vector, vector = batch.index_vectors[i].copy(), batch.vectors[i].copy()
            self._rows[self._next] = _Row(space, token, index_vector, vector, payload, terms[i])
            self._tokens[token] = self._next
            self._next += 1

    def remove(self, rows: Rows) -> int:
        with self._lock:
            gone = {row for row in map(int, rows) if row in self._rows}
            for row in gone:
                del self._tokens[self._rows.pop(row).token]
            self._generation += bool(gone)
            return len(gone)

    def replace(
        self,
        batches: Iterable[EncryptedBatch],
        config: bytes,
        *,
        under: bytes,
        index_dim: int | None = None,
        artefacts: Mapping[str, bytes] | None = None,
    ) -> None:
        with self._lock:
            self._require(under)
            fresh = _MemoryCollection(self.spec, config)
            fresh._next = self._next
            for batch in batches:
                fresh._insert(batch)
            if index_dim is not None:
                self.spec = replace(self.spec, index_dim=index_dim)
            self._artefacts = self._artefacts if artefacts is None else dict(artefacts)
            self._rows, self._tokens, self._next = fresh._rows, fresh._tokens, fresh._next
            self._config = config
            self._generation += 1

    def find(self, tokens: Bytes) -> Rows:
        return np.fromiter((self._tokens.get(token.tobytes(), 0) for token in tokens), np.int64, len(tokens))

    def rows(self, predicate: Predicate | None = None, *, after: int = 0, limit: int | None = None) -> Rows:
        with self._lock:
            found = [n for n, row in self._rows.items() if n > after and _holds(predicate, row.terms)]
        return np.array(sorted(found)[:limit], np.int64)

    def count(self) -> int:
        return len(self._rows)

    def spaces(self) -> dict[int, int]:
        with self._lock:
            spaces, counts = np.unique([row.space for row in self._rows.values()], return_counts=True)
        return {int(space): int(n) for space, n in zip(spaces, counts, strict=True)}

    def candidates(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> list[Rows]:
        chosen: dict[int, list[tuple[int, Kept]]] = {space: [] for space in probes}
        with self._lock:
            if any(queries.shape[1] != self.spec.index_dim for queries in probes.values()):
                raise StaleConfigError("the collection's settings were changed meanwhile")
            for n, row in self._rows.items():
                if row.space in chosen and _holds(predicate, row.terms):
                    chosen[row.space].append((n, row.index_vector))
        asked = len(next(iter(probes.values())))
        nothing = np.empty(0, np.int64), np.empty(0, np.float32)
        parts: list[list[tuple[Rows, Matrix]]] = [[nothing, nothing] for _ in range(asked)]
        for space, held in chosen.items():
            if not held:
                continue
            numbers = np.array([n for n, _ in held], np.int64)
            similar = probes[space] @ np.stack([vector.astype(np.float32) for _, vector in held]).T
            for part, line in zip(parts, similar, strict=True):
                part.append((numbers, line))
        return [first(limit, part) for part in parts]

    def nearest(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> Nearest:
        self.generation()  # complains where the store is closed
        lists = self.candidates(probes, limit, predicate)
        return Nearest(lists, *self.vectors(union(lists)))

    def vectors(self, rows: Rows, *, source: bool = False) -> tuple[Rows, Bytes]:
        found, chosen = self._chosen(rows)
        return found, np.array([row.vector for row in chosen], np.uint8).reshape(-1, self.spec.envelope_size)

    def payloads(self, rows: Rows) -> tuple[Rows, list[bytes]]:
        found, chosen = self._chosen(rows)
        return found, [row.payload for row in chosen]

    def index_vectors(self, rows: Rows) -> tuple[Rows, Matrix]:
        found, chosen = self._chosen(rows)
        stacked = np.array([row.index_vector for row in chosen], np.float32)
        return found, stacked.reshape(len(chosen), self.spec.index_dim)

    def _chosen(self, rows: Rows) -> tuple[Rows, list[_Row]]:
        with self._lock:
            found = [row for row in map(int, rows) if row in self._rows]
            return np.array(found, np.int64), [self._rows[row] for row in found]

    def audit(self, rows: Rows) -> list[tuple[int, int, bytes, set[tuple[str, Term]]]]:
        found, chosen = self._chosen(rows)
        return [
            (int(n), row.space, row.token, {(name, term) for name, terms in row.terms.items() for term in terms})
            for n, row in zip(found, chosen, strict=True)
        ]

    def generation(self) -> int:
        if self.closed:
            raise StoreClosedError("the store is closed")
        return self._generation

    def authenticate_cache(self, authenticator: CacheAuthenticator) -> None:
        pass  # there are no files

    def drop_cache(self) -> None:
        pass  # there is no second copy

    def check(self) -> list[str]:
        return []

    def explain(self, space: int, query: Matrix, limit: int, predicate: Predicate | None = None) -> str:
        with self._lock:
            there = [row for row in self._rows.values() if row.space == space]
        matching = sum(_holds(predicate, row.terms) for row in there)
        return f"scan, {matching:,} of {len(there):,} records to choose from"

    def stats(self) -> dict[str, Any]:
        with self._lock:
            sizes = [(row.index_vector.nbytes, row.vector.nbytes, len(row.payload)) for row in self._rows.values()]
        index, vectors, payloads = (sum(part) for part in zip(*sizes, strict=True)) if sizes else (0, 0, 0)
        return {"index": "exact", "bytes": {"index": index, "vectors": vectors, "payloads": payloads}}

    def flush(self) -> None:
        pass


def _holds(predicate: Predicate | None, terms: dict[str, set[Term]]) -> bool:
    match predicate:
        case None:
            return True
        case Match(field, wanted):
            return not terms.get(field, set()).isdisjoint(wanted)
        case Present(field):
            return bool(terms.get(field))
        case AllOf(parts):
            return all(_holds(part, terms) for part in parts)
        case AnyOf(parts):
            return any(_holds(part, terms) for part in parts)
    return any(
        term.kind == predicate.kind
        and (predicate.low is None or term.value >= predicate.low)  # type: ignore[operator]
        and (predicate.high is None or term.value <= predicate.high)  # type: ignore[operator]
        for term in terms.get(predicate.field, set())
    )
