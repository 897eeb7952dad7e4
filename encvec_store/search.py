"""The query walk, top to bottom: query -> encrypt -> backend -> open -> residual filter -> re-rank -> hits.

Imports handle, rerank, filters, records, metrics. A backend's order is a hint, never an answer: scores come
from opened vectors, filters are checked again on opened metadata, and the fetch grows until enough is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .backends import Rows
from .config import CollectionConfig, check_k
from .errors import AuthenticationError, StaleConfigError
from .filters import Filter, Predicate, parse, pushdown
from .handle import Handle
from .metrics import as_array, as_vectors
from .records import Hit, decode_payload
from .rerank import OpenedVectors, best
from .waits import offload

__all__ = ["search"]

_GROWTH = 4
_ATTEMPTS = 4

Decoded = tuple[str, dict[str, Any], str | None]
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
    config = handle.refresh()
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
        if hits is not None:
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
        self.lost = False  # a row vanished under our hands: written anew by someone else
        predicate = pushdown(node, self.config.policies, handle.vault.blind_terms)
        if self.config.index_dim:
            self.candidates, self.wanted = self._from_index(predicate), k * handle.oversample
        else:
            self.candidates, self.wanted = self._from_opened(opened, predicate), k

    def run(self, *, last: bool) -> list[list[Hit]] | None:
        """Return the hits; None when rows vanished meanwhile and it is worth another try."""
        rows = self._collect()
        hits = self._rank(rows)
        if self.lost and self.handle.refresh() is not self.config:
            raise StaleConfigError("the collection was rewritten under other settings meanwhile")
        return hits if last or not self.lost else None

    def _from_index(self, predicate: Predicate | None) -> Candidates:
        handle, config = self.handle, self.config
        points = config.metric.lift_query(self.matrix, config.max_norm or 1.0)
        spaces = handle.vault.live
        if len(spaces) > 1:
            spaces = tuple(space for space in spaces if space in handle.backend.spaces())
        keyed = {space: handle.vault.scheme(space, config) for space in spaces}
        encrypted = {space: offload(len(points), scheme.encrypt_query, points) for space, scheme in keyed.items()}

        def candidates(positions: list[int], limit: int) -> list[Rows]:
            every = len(positions) == len(points)
            parts = [
                handle.backend.candidates(space, part if every else part[positions], limit, predicate)
                for space, part in encrypted.items()
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

    def _collect(self) -> list[Rows]:
        """Gather rows that pass the filter, at least `wanted` of them for every query where so many exist."""
        positions, limit = list(range(len(self.matrix))), self.wanted
        if self.node is None:
            return self.candidates(positions, limit) if positions else []
        chosen: list[Rows] = [np.empty(0, np.int64) for _ in positions]
        total = self.handle.backend.count()
        while positions:
            lists = self.candidates(positions, limit)
            self._decode(np.unique(np.concatenate(lists)))
            short = []
            for position, rows in zip(positions, lists, strict=True):
                chosen[position] = offload(len(rows), self._filtered, rows)
                if len(chosen[position]) < self.wanted and limit < total:
                    short.append(position)
            positions, limit = short, limit * _GROWTH
        return chosen

    def _filtered(self, rows: Rows) -> Rows:
        return rows[[self._passes(int(row)) for row in rows]] if len(rows) else rows

    def _passes(self, row: int) -> bool:
        held = self.decoded.get(row)
        return held is not None and self.node is not None and self.node(held[0][1])

    def _decode(self, rows: Rows) -> None:
        """Open the payloads of rows that are not open yet."""
        missing = np.array([row for row in rows.tolist() if row not in self.decoded], np.int64)
        if not len(missing):
            return
        found, payloads, prefixes = self.handle.open_payloads(missing)
        self.lost |= len(found) < len(missing)
        decoded = offload(len(payloads), list, map(decode_payload, payloads))
        self.decoded.update(zip(found.tolist(), zip(decoded, prefixes, strict=True), strict=True))

    def _rank(self, lists: list[Rows]) -> list[list[Hit]]:
        """Open the candidates' vectors, score them exactly, and make hits of the best k."""
        if not lists:
            return []
        union = lists[0] if len(lists) == 1 else np.unique(np.concatenate(lists))
        rows, vectors, heads = self.handle.open_vectors(union, self.config)
        self.lost |= len(rows) < len(union)
        picks: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]] = []
        for position, asked in enumerate(lists):
            place = None if len(lists) == 1 else np.flatnonzero(np.isin(rows, asked, assume_unique=True))
            size = len(rows) if place is None else len(place)
            picks.append(offload(size, best, self.config.metric, self.matrix[position], vectors, place, self.k))
        chosen = [rows[places] for places, _ in picks]
        self._decode(chosen[0] if len(chosen) == 1 else np.unique(np.concatenate(chosen)))
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
