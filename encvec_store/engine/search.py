"""Search, top to bottom: query -> candidates -> open -> check the filter -> exact scores -> hits.

The order of candidates is only a hint. Scores come from opened vectors, filters are checked again on opened
metadata, and more candidates are fetched until enough of them pass. Every kind of source is used in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.arrays import Rows
from ..data.filters import Filter, parse, pushdown
from ..data.metrics import as_array, as_vectors
from ..data.records import Hit
from ..errors import AuthenticationError, StaleConfigError
from ..runtime.concurrency import offload
from ..sealing.codec import Decoded
from ..sealing.config import CollectionConfig, check_k
from ..storage.protocol import union
from . import lookup
from .candidates import Asked, Found, Sources
from .parts import Parts
from .rerank import best
from .session import Session
from .whole import require_whole

__all__ = ["ATTEMPTS", "asked", "search"]

_GROWTH = 4
ATTEMPTS, _LOOKS = 8, 32
"""How often a search starts over: because the settings changed, and for any reason."""


def search(
    session: Session,
    sources: Sources,
    queries: Any,
    k: int,
    where: Mapping[str, Any] | None,
    *,
    oversample: int | None = None,
    include_vectors: bool = False,
) -> list[Hit] | list[list[Hit]]:
    """Find the k nearest records of each query. See `Collection.search`."""
    config = session.settings()
    k = check_k(k)
    array = as_array(queries, "queries")
    single = array.ndim == 1
    matrix = as_vectors(array[None] if single else array, config.dim, name="queries")
    node = parse(where, config.policies)
    hides = sources.hides(config.index_dim)
    if hides:  # now, because below it would depend on the hits whether the store is asked
        config = session.refresh()
    stale = 0
    for _ in lookup.looks(session, _LOOKS):
        try:
            ask = asked(session, sources, config, matrix, node)
            wanted = ask.wanted(k, oversample or config.oversample) if len(matrix) else 0
            run = _Search(session, config, matrix, k, node, include_vectors)
            hits = run.hits(ask, wanted)
        except StaleConfigError:
            stale += 1
            if stale == ATTEMPTS:
                raise
            config = session.refresh(force=True)
            continue
        if hits is None:
            continue
        if not hides and any(len(found) < k for found in hits):
            # opened records prove that their settings are current, missing ones do not
            before, config = config, session.refresh()
            if config is not before:
                continue
        return hits[0] if single else hits
    raise AssertionError("unreachable")


def asked(
    session: Session, sources: Sources, config: CollectionConfig, queries: npt.NDArray[np.float32], node: Filter | None
) -> Asked:
    """Pass (q, dim) checked queries and a filter to the collection's source. `explain` does the same."""
    predicate = pushdown(node, config.policies, session.keyring.blind_terms)
    return sources.source_of(config.index_dim).ask(config, queries, node, predicate)


class _Search:
    """One attempt of a search, under one state of the settings."""

    def __init__(
        self,
        session: Session,
        config: CollectionConfig,
        matrix: npt.NDArray[np.float32],
        k: int,
        node: Filter | None,
        include_vectors: bool,
    ) -> None:
        self.session, self.config, self.matrix = session, config, matrix
        self.k, self.node, self.include_vectors = k, node, include_vectors
        self.decoded: dict[int, tuple[Decoded, bytes]] = {}  # row -> payload, its token and header
        self.sealed: dict[int, bytes] = {}  # row -> sealed payload that came with a candidate
        self.parts: Parts | None = None  # where sealed parts are read, if not in the store
        self.lost = False  # True if a row vanished during the search, because another writer replaced its record

    def hits(self, ask: Asked, wanted: int) -> list[list[Hit]] | None:
        """Return the hits; None if rows vanished meanwhile and the search should be tried again."""
        if not len(self.matrix):
            return []
        hits = None
        if ask.covers:
            hits = self._ranked(self._fetched(ask, wanted))
        if hits is None:  # some candidates fail the filter, so each of them is checked
            self.parts = ask.parts
            hits = self._ranked(self._opened(self._passing(ask, wanted))) or []
        if self.lost and self.session.refresh().rewritten != self.config.rewritten:
            raise StaleConfigError("the collection was rewritten under other settings during the search")
        return None if self.lost else hits

    def _fetched(self, ask: Asked, wanted: int) -> Found:
        """Return opened candidates. The source has applied the filter."""
        found = ask.opened(wanted)
        self.parts = ask.parts
        if found is None:
            return self._opened(ask.candidates(wanted))
        self.sealed.update(found.payloads)
        self.lost |= len(found.rows) < len(union(found.lists))
        return found

    def _opened(self, lists: list[Rows]) -> Found:
        """Open the vectors of candidates."""
        wanted = union(lists)
        rows, vectors, heads = self.session.open_vectors(wanted, self.config, parts=self.parts)
        self.lost |= len(rows) < len(wanted)
        return Found(lists, rows, vectors, heads)

    def _passing(self, ask: Asked, wanted: int) -> list[Rows]:
        """Collect rows that pass the filter: for each query at least `wanted`, if there are so many."""
        positions, limit = list(range(len(self.matrix))), wanted
        chosen: list[Rows] = [np.empty(0, np.int64) for _ in positions]
        while positions:
            lists = ask.candidates(limit, positions)
            self._decode(union(lists))
            short = []
            for position, rows in zip(positions, lists, strict=True):
                chosen[position] = offload(len(rows), self._filtered, rows)
                if len(chosen[position]) < wanted and len(rows) >= limit:  # otherwise the source has no more rows
                    short.append(position)
            positions, limit = short, limit * _GROWTH
        return chosen

    def _filtered(self, rows: Rows) -> Rows:
        return rows[[self._passes(int(row)) for row in rows]] if len(rows) else rows

    def _passes(self, row: int) -> bool:
        held = self.decoded.get(row)
        return held is not None and (self.node is None or self.node(held[0][1]))

    def _decode(self, rows: Rows) -> None:
        """Open the payloads of those rows that are not open yet."""
        missing = np.array([row for row in rows.tolist() if row not in self.decoded], np.int64)
        if not len(missing):
            return
        found, payloads, prefixes = self.session.open_payloads(missing, self.sealed, self.parts)
        self.lost |= len(found) < len(missing)
        self.decoded.update(zip(found.tolist(), zip(payloads, prefixes, strict=True), strict=True))

    def _ranked(self, found: Found) -> list[list[Hit]] | None:
        """Score opened candidates exactly and return the best k as hits; None if one of them fails the filter."""
        picks: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]] = []
        places = offload(len(found.rows), _places, found.rows, found.lists)
        for query, at in zip(self.matrix, places, strict=True):
            size = len(found.rows) if at is None else len(at)
            picks.append(offload(size, best, self.config.metric, query, found.vectors, at, self.k))
        chosen = union([found.rows[at] for at, _ in picks])
        self._decode(chosen)
        if self.node is not None and not all(map(self._passes, chosen.tolist())):
            return None
        return [self._hits(found, at, scores) for at, scores in picks]

    def _hits(self, found: Found, places: npt.NDArray[np.intp], scores: npt.NDArray[np.float64]) -> list[Hit]:
        known = [  # rows that vanished between the two reads have no payload
            (place, score, held)
            for place, score in zip(places.tolist(), scores.tolist(), strict=True)
            if (held := self.decoded.get(int(found.rows[place]))) is not None
        ]
        heads = found.heads[[place for place, _, _ in known]]
        rows, prefixes = found.rows[[place for place, _, _ in known]], [prefix for _, _, (_, prefix) in known]
        require_whole(self.session, rows, heads, prefixes, self.config, self.parts)
        hits = []
        for place, score, ((id, metadata, document), _) in known:
            vector = found.vectors[place].copy() if self.include_vectors else None
            hits.append(Hit(id, score, dict(metadata), document, vector))
        if len({hit.id for hit in hits}) < len(hits):
            if len(self.session.records.vectors(rows)[0]) == len(rows):  # someone copied one record over another
                raise AuthenticationError("a record could not be authenticated")
            self.lost = True  # found before and after it was updated
        return hits


def _places(rows: Rows, lists: list[Rows]) -> list[npt.NDArray[np.intp] | None]:
    """Return for each list the places of its rows in `rows`, without those that are missing; None for all places."""
    if len(lists) == 1:
        return [None]
    if not len(rows):
        return [np.empty(0, np.intp) for _ in lists]
    order, wanted = np.argsort(rows), np.concatenate(lists)
    found = order.take(np.searchsorted(rows, wanted, sorter=order), mode="clip")
    present, ends = rows[found] == wanted, np.cumsum([len(some) for some in lists])[:-1]
    return [at[there] for at, there in zip(np.split(found, ends), np.split(present, ends), strict=True)]
