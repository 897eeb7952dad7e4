"""The store as the bench uses it: fill it, search it, or search its index alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import low_level
from ...collection import Collection
from ...data import Hit, Matrix
from ...store import Store
from .source import Vectors, VectorSource

__all__ = ["Encrypted", "fill"]

BATCH = 5_000


def fill(
    collection: Collection,
    vectors: VectorSource | Vectors,
    progress: Callable[[int], None] | None = None,
    *,
    batch: int = BATCH,
    metadata: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[str] | None = None,
) -> float:
    """Write vectors under the ids "0", "1", ...; returns the seconds until all of it was durable."""
    source = vectors if isinstance(vectors, VectorSource) else VectorSource(vectors)
    took = 0.0
    for first, some in source.slices(batch):
        part = slice(first, first + len(some))
        ids = [str(i) for i in range(part.start, part.stop)]
        start = time.perf_counter()
        collection.upsert(
            ids,
            some,
            None if metadata is None else metadata[part],
            None if documents is None else documents[part],
        )
        took += time.perf_counter() - start
        if progress is not None:
            progress(len(ids))
    return took


class Encrypted:
    """A collection that `fill` wrote."""

    def __init__(self, store: Store, collection: Collection) -> None:
        self.collection = collection
        self._url = store.url
        self._places: dict[int, int] = {}

    def build(self) -> float:
        """Index what was written and save the index; returns the seconds."""
        start = time.perf_counter()
        self.collection.flush()
        return time.perf_counter() - start

    def set_ef(self, ef: int) -> None:
        """Set HNSW's efSearch of an open `faiss:` store without opening it again."""
        self.setting(ef_search=ef)()

    def setting(self, oversample: int | None = None, **options: int) -> Callable[[], None]:
        """Return a function that sets options of an open `faiss:` store and the candidates per hit, in microseconds."""
        return partial(low_level.set_search_options, self.collection, oversample=oversample, **options)

    @property
    def has_stage_one(self) -> bool:
        """True if the scheme has index vectors."""
        return low_level.session(self.collection).config.index_dim > 0

    def candidates(self, query: Matrix, limit: int) -> npt.NDArray[np.int64]:
        """Search the index only: encrypt a (d,) query and return the store's first `limit` rows, unopened."""
        return self.candidates_all(query[None], limit)[0]

    def candidates_all(self, queries: Matrix, limit: int) -> list[npt.NDArray[np.int64]]:
        """Do the same for (q, d) queries at once."""
        return low_level.candidates(self.collection, queries, limit)

    def search(self, query: Matrix, k: int) -> list[Hit]:
        """Search as an application does."""
        return self.collection.search(query, k=k)

    def search_all(self, queries: Matrix, k: int) -> list[list[Hit]]:
        """Search for (q, d) queries at once."""
        hits: list[list[Hit]] = self.collection.search(queries, k=k)  # type: ignore[assignment]
        return hits

    def places(self, answers: Sequence[Any]) -> list[npt.NDArray[np.int64]]:
        """Turn answers of `candidates` or `search` into positions of the vectors."""
        if answers and isinstance(answers[0], np.ndarray):
            if not self._places:
                ids = [str(i) for i in range(self.collection.count())]
                self._places = {int(row): i for i, row in enumerate(low_level.places(self.collection, ids))}
            return [np.array([self._places[int(row)] for row in answer], np.int64) for answer in answers]
        return [np.array([int(hit.id) for hit in answer], np.int64) for answer in answers]

    def stats(self) -> dict[str, Any]:
        """Return the statistics of the collection."""
        return self.collection.stats()
