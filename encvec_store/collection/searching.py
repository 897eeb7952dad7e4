"""Search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ..data.frames import ResultList
from ..data.ids import Id
from ..data.records import Hit
from ..engine.explain import explain
from ..engine.refine import Refinement, recommend, refined
from ..engine.search import search
from ..maintenance.recall import RecallWatch
from ..runtime.observing import observed
from .base import OpenCollection
from .texts import are_texts, check_texts

__all__ = ["SearchVerbs"]


class SearchVerbs(OpenCollection):
    """What a collection answers to queries."""

    @overload
    def search(
        self,
        queries: str | Sequence[float] | np.ndarray[tuple[int], Any],
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        offset: int = 0,
        threshold: float | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        diversity: float | None = None,
        pool: int | None = None,
        include_vectors: bool = False,
    ) -> ResultList[Hit]: ...
    @overload
    def search(
        self,
        queries: Any,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        offset: int = 0,
        threshold: float | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        diversity: float | None = None,
        pool: int | None = None,
        include_vectors: bool = False,
    ) -> Any: ...
    @observed
    def search(
        self,
        queries: Any,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        offset: int = 0,
        threshold: float | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        diversity: float | None = None,
        pool: int | None = None,
        include_vectors: bool = False,
    ) -> ResultList[Hit] | list[ResultList[Hit]]:
        """Find the k nearest records that satisfy a filter, nearest first, with exact scores.

        The options work in this order: filter, threshold, groups, diversity, offset, k. Fewer than k hits come only if
        fewer records are left. With groups, several searches may run, so that hits may be of several moments. A list of
        hits has `to_arrow`, `to_pandas` and `to_polars`.

        Args:
            queries: (dim,) gives one list of hits, (q, dim) gives q lists. So do a string and q strings, if the
                collection was opened with `embed`.
            k: hits for each query.
            where: a filter, such as {"country": "de"}; docs/records.md lists the operators.
            offset: skip so many hits.
            threshold: cosine and ip: only records with at least this score. l2: with at most this distance.
            group_by: a field: of the records with the same value only the nearest `group_size`. Values are the same if
                a filter takes them as equal. Records without the field are one group.
            group_size: hits of a group.
            diversity: from 0 to 1: choose among the `pool` nearest by maximal marginal relevance. The nearest comes
                first. Each next one has the largest (1 - diversity) s(query) - diversity m. s is the score, under l2
                the negative distance, and m the largest s between it and a hit already chosen. Hits come as chosen.
            pool: the records to choose from; by default 4 (offset + k).
            include_vectors: if True, each hit has its vector.

        Raises:
            InputError: wrong shape, NaN, zero query under cosine, malformed filter or option, unknown field.
            AuthenticationError: a candidate was altered, or the key is wrong.
            StoreUnreachableError: candidates were written again before they could be read, each time it tried.
        """
        queries = self._in_numbers(queries)
        wish = Refinement(offset, threshold, group_by, group_size, diversity, pool)
        how: dict[str, Any] = {"oversample": self._oversample, "include_vectors": include_vectors}
        if not wish.plain:
            hits = refined(self._session, self._sources, queries, k, where, wish, **how)
        else:
            hits = search(self._session, self._sources, queries, k, where, **how)
            if self._watch is not None and where is None:
                self._watch.saw(queries, k, hits)
        self._lifecycle.looked()
        found: list[Any] = hits
        if found and isinstance(found[0], list):
            return [ResultList(each, scored=True) for each in found]
        return ResultList(found, scored=True)

    def _in_numbers(self, queries: Any) -> Any:
        """Return queries, with the vectors of words in place of the words."""
        if not are_texts(queries):
            return queries
        single = isinstance(queries, str)
        words, config = check_texts([queries] if single else queries), self._session.settings()
        vectors = self._embedder.vectors(words, config, self.name, queries=True)
        return vectors[0] if single else vectors

    @observed
    def recommend(
        self,
        positive: Sequence[Id],
        negative: Sequence[Id] = (),
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        offset: int = 0,
        threshold: float | None = None,
        group_by: str | None = None,
        group_size: int = 1,
        diversity: float | None = None,
        pool: int | None = None,
        include_vectors: bool = False,
    ) -> ResultList[Hit]:
        """Find the k records nearest to what examples stand for, without the examples. Scores are those of that query.

        The query is p, the mean of the positive vectors; with negative ones it is 2 p - n, where n is their mean. Under
        cosine, all are scaled to length 1 first. An id that is given twice counts twice.

        Args:
            positive: ids of at least one record that exists.
            negative: ids of records that exist.
            k: as for `search`.
            where: as for `search`.
            offset: as for `search`.
            threshold: as for `search`.
            group_by: as for `search`.
            group_size: as for `search`.
            diversity: as for `search`.
            pool: as for `search`.
            include_vectors: as for `search`.

        Raises:
            InputError: an unknown id; under cosine, examples that cancel each other; and as for `search`.
            AuthenticationError: a record was altered, or the key is wrong.
            StoreUnreachableError: records were written again before they could be read, each time it tried.
        """
        query, examples = recommend(self._session, positive, negative)
        wish = Refinement(offset, threshold, group_by, group_size, diversity, pool, examples)
        how: dict[str, Any] = {"oversample": self._oversample, "include_vectors": include_vectors}
        hits: Any = refined(self._session, self._sources, query, k, where, wish, **how)
        self._lifecycle.looked()
        return ResultList(hits, scored=True)

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

    def explain(self, query: npt.ArrayLike | str, k: int = 10, where: Mapping[str, Any] | None = None) -> str:
        """Describe for people how `search` would answer one query: filters, index or scan, the server's plan."""
        query = self._in_numbers(query)
        return explain(self._session, self._sources, query, k, where, oversample=self._oversample)
