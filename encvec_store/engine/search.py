"""The query walk, top to bottom: query -> encrypt -> backend -> open -> residual filter -> re-rank -> hits.

Imports handle, rerank, filters, records, metrics. A backend's order is a hint, never an answer: scores come
from opened vectors, filters are checked again on opened metadata, and the fetch grows until enough is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.filters import Filter, Predicate, is_covered, parse, pushdown
from ..data.metrics import as_array, as_vectors
from ..data.records import Hit, decode_payload
from ..data.spaces import by_version
from ..errors import AuthenticationError, StaleConfigError
from ..sealing.config import CollectionConfig, check_k
from ..storage import Probes, Rows, union
from ..waits import offload
from .rerank import OpenedVectors, best
from .session import Handle

__all__ = ["search"]

_GROWTH = 4
_ATTEMPTS = 8

Decoded = tuple[str, dict[str, Any], str | None]
Found = tuple[list[Rows], Rows, npt.NDArray[np.float32], npt.NDArray[np.uint8]]
"""Rows of each query; rows that were opened, their vectors, and their tokens and headers."""
Candidates = Callable[[list[int], int], list[Rows]]
"""(positions of queries, limit) -> rows for each of them, nearest first."""


def search(
    handle: Handle,
    opened: OpenedVectors,
    queries: Any,
    k: int,
    where: Mapping[str, Any] | None,
    include_vectors: bool,
) -> list[Hit] | list[list[Hit]]:
    """Find the k nearest records of each query. See `Collection.search`."""
    config = handle.settings()
    k = check_k(k)
    array = as_array(queries, "queries")
    single = array.ndim == 1
    matrix = as_vectors(array[None] if single else array, config.dim, name="queries")
    node = parse(where, config.policies)
    for attempt in range(_ATTEMPTS):
        try:
            hits = _Query(handle, opened, config, matrix, k, node, include_vectors).run(last=attempt == _ATTEMPTS - 1)
        except StaleConfigError:
            if attempt == _ATTEMPTS - 1:
                raise
            hits, config = None, handle.refresh()
        if hits is None:
            continue
        if attempt < _ATTEMPTS - 1 and any(len(found) < k for found in hits):
            # what was opened proves its settings; what is missing does not
            stale, config = config, handle.refresh()
            if config is not stale:
                continue
        return hits[0] if single else hits
    raise AssertionError("unreachable")


class _Query:
    """One run of a search over one state of the collection."""

    def __init__(
        self,
        handle: Handle,
        opened: OpenedVectors,
        config: CollectionConfig,
        matrix: npt.NDArray[np.float32],
        k: int,
        node: Filter | None,
        include_vectors: bool,
    ) -> None:
        self.handle, self.matrix, self.k, self.node, self.include_vectors = handle, matrix, k, node, include_vectors
        self.config = config
        self.decoded: dict[int, tuple[Decoded, bytes]] = {}  # row -> payload and its token and header
        self.sealed: dict[int, bytes] = {}  # row -> sealed payload that came with a candidate
        self.lost = False  # a row vanished under our hands: written anew by someone else
        self.predicate = pushdown(node, self.config.policies, handle.vault.blind_terms)
        self.probes: list[Probes] = []  # by key version: products of two compare only after opening
        if self.config.index_dim:
            self.candidates, self.wanted = self._from_index(self.predicate), k * handle.oversample
        else:
            self.candidates, self.wanted = self._from_opened(opened, self.predicate), k

    def run(self, *, last: bool) -> list[list[Hit]] | None:
        """Return the hits; None when rows vanished meanwhile and it is worth another try."""
        if not len(self.matrix):
            return []
        hits = self._rank(*self._nearest()) if is_covered(self.node, self.config.policies) else None
        if hits is None:  # not every candidate passes, so each is looked at
            hits = self._rank(*self._open(self._collect())) or []
        if self.lost and self.handle.refresh().revision != self.config.revision:  # else only how many are re-ranked
            raise StaleConfigError("the collection was rewritten under other settings meanwhile")
        return hits if last or not self.lost else None

    def _from_index(self, predicate: Predicate | None) -> Candidates:
        handle, config = self.handle, self.config
        points = config.metric.lift_query(self.matrix, config.max_norm or 1.0)
        versions = handle.vault.live
        if len(versions) > 1:
            present = by_version(handle.backend.spaces())
            versions = tuple(version for version in versions if version in present)
        probes: list[Probes] = [handle.vault.probes(version, config, points) for version in versions]
        self.probes = probes

        def candidates(positions: list[int], limit: int) -> list[Rows]:
            every = len(positions) == len(points)
            parts = [
                handle.backend.candidates(
                    some if every else {space: part[positions] for space, part in some.items()}, limit, predicate
                )
                for some in probes
            ]
            if len(parts) == 1:
                return parts[0]
            return [np.concatenate([np.empty(0, np.int64), *lists]) for lists in zip(*parts, strict=True)] or [
                np.empty(0, np.int64) for _ in positions
            ]

        return candidates

    def _from_opened(self, opened: OpenedVectors, predicate: Predicate | None) -> Candidates:
        allowed = None if predicate is None else self.handle.backend.rows(predicate)
        self.config.metric.check(self.matrix, None, "queries")  # as lift_query does where there is an index
        opened.refresh()

        def candidates(positions: list[int], limit: int) -> list[Rows]:
            return [offload(len(opened), opened.nearest, self.matrix[i], limit, allowed) for i in positions]

        return candidates

    def _nearest(self) -> Found:
        """Fetch and open `wanted` candidates of every query, leaving the filter to the store."""
        parts = [self.handle.nearest(some, self.wanted, self.predicate, self.config) for some in self.probes]
        if not parts:
            return self._open(self.candidates(list(range(len(self.matrix))), self.wanted))
        found, vectors, heads = parts[0]
        lists, rows = found.lists, found.rows
        if len(parts) > 1:
            lists = [np.concatenate(each) for each in zip(*(part.lists for part, _, _ in parts), strict=True)]
            rows = np.concatenate([part.rows for part, _, _ in parts])
            vectors, heads = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
        for part, _, _ in parts:
            self.sealed.update(part.payloads)
        self.lost |= len(rows) < len(union(lists))
        return lists, rows, vectors, heads

    def _open(self, lists: list[Rows]) -> Found:
        asked = union(lists)
        rows, vectors, heads = self.handle.open_vectors(asked, self.config)
        self.lost |= len(rows) < len(asked)
        return lists, rows, vectors, heads

    def _collect(self) -> list[Rows]:
        """Gather rows that pass the filter, at least `wanted` of them for every query where so many exist."""
        positions, limit = list(range(len(self.matrix))), self.wanted
        chosen: list[Rows] = [np.empty(0, np.int64) for _ in positions]
        while positions:
            lists = self.candidates(positions, limit)
            self._decode(union(lists))
            short = []
            for position, rows in zip(positions, lists, strict=True):
                chosen[position] = offload(len(rows), self._filtered, rows)
                if len(chosen[position]) < self.wanted and len(rows) >= limit:  # else the store has no more of them
                    short.append(position)
            positions, limit = short, limit * _GROWTH
        return chosen

    def _filtered(self, rows: Rows) -> Rows:
        return rows[[self._passes(int(row)) for row in rows]] if len(rows) else rows

    def _passes(self, row: int) -> bool:
        held = self.decoded.get(row)
        return held is not None and (self.node is None or self.node(held[0][1]))

    def _decode(self, rows: Rows) -> None:
        """Open the payloads of rows that are not open yet."""
        missing = np.array([row for row in rows.tolist() if row not in self.decoded], np.int64)
        if not len(missing):
            return
        found, payloads, prefixes = self.handle.open_payloads(missing, self.sealed)
        self.lost |= len(found) < len(missing)
        decoded = offload(len(payloads), list, map(decode_payload, payloads))
        self.decoded.update(zip(found.tolist(), zip(decoded, prefixes, strict=True), strict=True))

    def _rank(
        self, lists: list[Rows], rows: Rows, vectors: npt.NDArray[np.float32], heads: npt.NDArray[np.uint8]
    ) -> list[list[Hit]] | None:
        """Score opened candidates exactly and make hits of the best k; None where one of these fails the filter."""
        picks: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]] = []
        for query, places in zip(self.matrix, offload(len(rows), _places, rows, lists), strict=True):
            size = len(rows) if places is None else len(places)
            picks.append(offload(size, best, self.config.metric, query, vectors, places, self.k))
        chosen = union([rows[places] for places, _ in picks])
        self._decode(chosen)
        if self.node is not None and not all(map(self._passes, chosen.tolist())):
            return None
        return [self._hits(rows, vectors, heads, places, scores) for places, scores in picks]

    def _hits(
        self,
        rows: Rows,
        vectors: npt.NDArray[np.float32],
        heads: npt.NDArray[np.uint8],
        places: npt.NDArray[np.intp],
        scores: npt.NDArray[np.float64],
    ) -> list[Hit]:
        hits = []
        for place, score in zip(places.tolist(), scores.tolist(), strict=True):
            held = self.decoded.get(int(rows[place]))
            if held is None:
                continue
            (id, metadata, document), prefix = held
            if heads[place].tobytes() != prefix:  # one record's vector beside another's payload
                raise AuthenticationError("a record could not be authenticated")
            vector = vectors[place].copy() if self.include_vectors else None
            hits.append(Hit(id, score, dict(metadata), document, vector))
        if len({hit.id for hit in hits}) < len(hits):  # one record copied over another
            raise AuthenticationError("a record could not be authenticated")
        return hits


def _places(rows: Rows, lists: list[Rows]) -> list[npt.NDArray[np.intp] | None]:
    """Return for each list where in `rows` its rows are, those that are there; None for all of them."""
    if len(lists) == 1:
        return [None]
    if not len(rows):
        return [np.empty(0, np.intp) for _ in lists]
    order, asked = np.argsort(rows), np.concatenate(lists)
    found = order.take(np.searchsorted(rows, asked, sorter=order), mode="clip")
    present, ends = rows[found] == asked, np.cumsum([len(some) for some in lists])[:-1]
    return [at[there] for at, there in zip(np.split(found, ends), np.split(present, ends), strict=True)]
