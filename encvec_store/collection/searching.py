"""Search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ..data.records import Hit
from ..engine.explain import explain
from ..engine.search import search
from ..maintenance.recall import RecallWatch
from .base import OpenCollection

__all__ = ["SearchVerbs"]


class SearchVerbs(OpenCollection):
    """What a collection answers to queries."""

    @overload
    def search(
        self,
        queries: Sequence[float] | np.ndarray[tuple[int], Any],
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        include_vectors: bool = False,
    ) -> list[Hit]: ...
    @overload
    def search(
        self,
        queries: Any,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        include_vectors: bool = False,
    ) -> Any: ...
    def search(
        self, queries: Any, k: int = 10, where: Mapping[str, Any] | None = None, *, include_vectors: bool = False
    ) -> list[Hit] | list[list[Hit]]:
        """Find the k nearest records that satisfy a filter, nearest first, with exact scores.

        Args:
            queries: (dim,) gives one list of hits, (q, dim) gives q lists.
            k: hits for each query. Fewer come only if fewer records satisfy the filter.
            where: a filter, such as {"country": "de"}; the guide lists the operators.
            include_vectors: if True, each hit has its vector.

        Raises:
            InputError: wrong shape, NaN, zero query under cosine, malformed filter, unknown field.
            AuthenticationError: a candidate was altered, or the key is wrong.
            StoreUnreachableError: candidates were written again before they could be read, each time it tried.
        """
        hits = search(
            self._session,
            self._sources,
            queries,
            k,
            where,
            oversample=self._oversample,
            include_vectors=include_vectors,
        )
        self._lifecycle.looked()
        if self._watch is not None and where is None:
            self._watch.saw(queries, k, hits)
        return hits

    def watch_recall(self, share: float = 0.01, sample: int = 2_000) -> None:
        """Estimate the recall of searches, for `stats`: compare some with a random sample of records, kept in memory.

        A check takes about a millisecond for each thousand records. Searches with a filter are not checked. Which
        records a check reads depends on the query, so this raises InputError under threat "watching-server".

        Args:
            share: of the searches to check; 0 turns checking off, as it is until this method is called.
            sample: how many records to compare with.
        """
        hides = self._sources.hides(self._session.config.index_dim)
        self._watch = RecallWatch(self._session, share, sample, hides=hides) if share else None

    def explain(self, query: npt.ArrayLike, k: int = 10, where: Mapping[str, Any] | None = None) -> str:
        """Describe for people how `search` would answer one query: filters, index or scan, the server's plan."""
        return explain(self._session, self._sources, query, k, where, oversample=self._oversample)
