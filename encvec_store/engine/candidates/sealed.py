"""Candidates from the sealed index: a search in this process, over opened vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...data.arrays import Matrix, Rows
from ...data.filters import Filter, Predicate, is_covered
from ...errors import InputError, StaleConfigError
from ...runtime.concurrency import offload
from ...sealed_index import BUDGET, Allowed, Halves, Indexed, Indexes, Listed, Looked, SealedIndex, Snapshot
from ...sealed_index.ondemand import fetches, lists_of, nearest, needed
from ...sealing.config import CollectionConfig
from ...storage.protocol import union
from ..hidden import HiddenParts
from ..parts import Parts, Recent
from ..session import Session
from .base import Asked, Found, Matching
from .columns import passing
from .halves import halves_of
from .reading import Reading

__all__ = ["SealedSource"]

_ATTEMPTS = 8
_SHORT = 4_096
"""Bytes of a payload that is fetched with its vector, although only those of the hits are needed: one read is faster
than two. Longer ones are fetched for the hits alone."""

_BY_QUERY = (
    "the index is larger than index_memory, so that the query decides which of its lists are fetched, and"
    " threat='watching-server' forbids that: give more index_memory, or open the store with index=hnsw or index=ivf"
)


class SealedSource:
    """Names the records nearest to the queries, from vectors that are open in memory."""

    def __init__(self, session: Session, indexes: Indexes, reading: Reading) -> None:
        self._session, self._indexes, self._reading = session, indexes, reading
        self._recent = Recent(session.records) if reading.reads == "hits" else None
        self._hidden = HiddenParts(session, reading.folder) if reading.hides else None

    def ask(self, config: CollectionConfig, queries: Matrix, node: Filter | None, predicate: Predicate | None) -> Asked:
        """Check the queries. The index is brought up to date when candidates are asked for."""
        config.metric.check(queries, None, "queries")
        index = self._indexes.current.sealed
        if index.state is None and self._session.refresh().index_dim:  # do not open all vectors for a search in vain
            raise StaleConfigError("the collection's settings were changed meanwhile")
        BUDGET.used(index)
        kept = self._hidden or self._recent
        if kept is not None:
            index.beside.add(kept)
        if self._by_columns(index, config, node):
            predicate = None
        else:
            node = None
        return _Search(self._session, index, config, queries, node, predicate, self._reading, kept)

    def stats(self) -> dict[str, Any]:
        """Describe how searches read the store."""
        kept, buckets = self._hidden or self._recent, self._hidden is not None and self._hidden.buckets
        reads = None if self._reading.hides else self._reading.reads or "candidates"
        return {
            "reads": reads,
            "threat": self._reading.threat,
            "server_sees": self._reading.sees(buckets=buckets),
            "remembered_bytes": 0 if kept is None else kept.bytes,
        }

    def matching(self, config: CollectionConfig, node: Filter) -> Matching | None:
        """Return the rows that satisfy a filter; None if no index is in memory."""
        index = self._indexes.current.sealed
        if index.state is None or not self._by_columns(index, config, node):
            return None
        state, _ = index.current(self._session)
        allowed = passing(self._session, index, state, node)
        rows = offload(state.living, state.matching, allowed)
        return Matching(rows, allowed.known(rows))

    def _by_columns(self, index: SealedIndex, config: CollectionConfig, node: Filter | None) -> bool:
        """Say whether a filter is checked in memory. What the store can check needs no columns to be made."""
        if node is None or self._reading.hides:
            return node is not None
        return bool(index.columns.count) or not is_covered(node, config.policies)


class _Search:
    def __init__(
        self,
        session: Session,
        index: SealedIndex,
        config: CollectionConfig,
        queries: Matrix,
        node: Filter | None,
        predicate: Predicate | None,
        reading: Reading,
        kept: HiddenParts | Recent | None,
    ) -> None:
        self._session, self._index, self._config = session, index, config
        self._queries, self._node, self._predicate = queries, node, predicate
        self._hits = 1
        self._reading = reading
        self._recent = kept if isinstance(kept, Recent) else None
        self._hidden = kept if isinstance(kept, HiddenParts) else None
        self.parts: Parts | None = None
        self.covers = True

    def wanted(self, k: int, oversample: int) -> int:
        self._hits = k
        state = self._index.state or self._index.current(self._session)[0]
        return state.needs(k)

    def candidates(self, limit: int, positions: list[int] | None = None) -> list[Rows]:
        state, allowed = self._current()
        self._ranks(state)
        chosen = self._queries if positions is None else self._queries[positions]
        return self._nearest(state, chosen, limit, allowed)[1]

    def opened(self, limit: int) -> Found | None:
        """Return the candidates with their vectors. The statement that reads these tells whether the state is new."""
        session = self._session
        state = self._index.state
        sure = self._predicate is not None or self._hidden is not None
        if state is None or sure or state.dead != session.keyring.dead:
            state, allowed = self._current()
        else:
            allowed = self._passing(state)
        looked: Looked | None = None
        seen: Found | None = None
        for _ in range(_ATTEMPTS):
            most = max(limit, state.needs(self._hits))
            ranks = self._ranks(state)
            state, lists, looked = self._nearest(state, self._queries, most, allowed, looked, ranks)
            if seen is not None and (again := _still(seen, lists)) is not None:
                return again
            short = _SHORT if len(lists) == 1 or ranks is not None else 0
            generation, rows, vectors, heads, payloads = session.current(union(lists), self._config, short, self.parts)
            if self._recent is not None and self._recent.swollen():
                BUDGET.make_room(self._index)
            seen = Found(lists, rows, vectors, heads, payloads)
            if generation == state.generation and len(rows) < len(union(lists)):
                self._index.doubt(state)
            if generation == state.generation or sure:
                return seen
            before = state.content
            state, _ = self._index.current(session, None, stale=True)
            allowed = self._passing(state)
            if state.content != before:  # everything was replaced; other writes leave the settings as they are
                config = session.refresh()
                if config.index_dim or config.rewritten != self._config.rewritten:
                    raise StaleConfigError("the collection's settings were changed meanwhile")
                seen = None
        return None

    def explain(self, k: int, oversample: int) -> list[str]:
        state, allowed = self._current()
        half = self._ranks(state) is not None
        sees = self._reading.sees(buckets=self._hidden is not None and self._hidden.buckets, half=half)
        more = "" if half or self._recent is None else ". Vectors in half precision do not fit in index_memory"
        lines = [f"the store sees {sees}{more}"]
        limit = state.needs(k)
        if allowed is not None:
            passing = len(state.matching(allowed))
            how = "by columns in memory" if self._node is not None else "as the store says"
            lines.append(f"filter: {passing:,} of {state.living:,} records pass, {how}, before the search")
        lines += [
            f"index: {part.graph.kind} of {part.living:,} opened vectors in memory, {part.graph.bytes / 1e6:,.1f} MB"
            + (", searched on a GPU" if allowed is None and self._index.gpus.holds(part.graph) else "")
            for part in state.parts
            if not fetches(part)
        ]
        lines += [_fetched(self._index, part, self._queries[0], limit) for part in state.parts if fetches(part)]
        if state.tail.living or not state.parts:
            lines.append(f"compared one by one: {state.tail.living:,} opened vectors in memory")
        return lines

    def _current(self) -> tuple[Snapshot, Allowed | None]:
        """Return the state of the index, and what passes the filter."""
        state, rows = self._index.current(self._session, self._predicate)
        return state, self._passing(state) if rows is None else Listed(rows)

    def _passing(self, state: Snapshot) -> Allowed | None:
        return None if self._node is None else passing(self._session, self._index, state, self._node)

    def _ranks(self, state: Snapshot) -> Halves | None:
        """Prepare reading the rows of a state. Returns what ranks candidates, so that only hits are read, or None."""
        self.parts = self._hidden
        if self._hidden is not None:
            if any(map(fetches, state.parts)):
                raise InputError(_BY_QUERY)
            self._hidden.prepare(self._index, state)
            if not self._hidden.buckets:
                return None
        elif self._recent is None:
            return None
        ranks = halves_of(self._session, self._index, state)
        if ranks is not None and self._recent is not None:
            self._recent.follow(state)
            self.parts = self._recent
        return ranks

    def _nearest(
        self,
        state: Snapshot,
        queries: Matrix,
        limit: int,
        allowed: Allowed | None,
        before: Looked | None = None,
        ranks: Halves | None = None,
    ) -> tuple[Snapshot, list[Rows], Looked]:
        most = None if ranks is None else self._hits
        return nearest(self._session, self._index, state, queries, limit, allowed, before, ranks, most)


def _fetched(index: SealedIndex, part: Indexed, query: Matrix, limit: int) -> str:
    """Describe a part whose codes lie in the store, and what a search of it reads."""
    parts, reads = lists_of(part).blocks.parts, needed(index.blocks, part, query, limit)
    return (
        f"index: {lists_of(part).lists:,} lists of {part.living:,} vectors, in {parts:,} sealed blocks in the store;"
        f" this query reads {reads.lists:,} lists in {reads.blocks:,} blocks: {reads.cached:,} are open in memory, and"
        f" {reads.bytes / 1e6:,.2f} MB are fetched"
    )


def _still(seen: Found, lists: list[Rows]) -> Found | None:
    """Return the records of newer candidates out of those that were read; None if one is not among them.

    The content of a row never changes, and a row that was removed since is not among the candidates.
    """
    wanted = union(lists)
    places = np.flatnonzero(np.isin(seen.rows, wanted))
    if len(places) < len(wanted):
        return None
    return Found(lists, seen.rows[places], seen.vectors[places], seen.heads[places], seen.payloads)
