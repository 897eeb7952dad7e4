"""The store as the bench uses it: filled, searched, and asked for its first stage alone; imports store, handle."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..collection import Collection
from ..records import Hit
from ..store import Store

__all__ = ["Encrypted", "fill"]

Matrix = npt.NDArray[np.float32]
BATCH = 5_000


def fill(
    collection: Collection,
    vectors: Matrix,
    progress: Callable[[int], None] | None = None,
    *,
    batch: int = BATCH,
    metadata: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[str] | None = None,
) -> float:
    """Write vectors under the ids "0", "1", ...; returns the seconds until all of it was durable."""
    took = 0.0
    for first in range(0, len(vectors), batch):
        some = slice(first, min(first + batch, len(vectors)))
        ids = [str(i) for i in range(some.start, some.stop)]
        start = time.perf_counter()
        collection.upsert(
            ids,
            vectors[some],
            None if metadata is None else metadata[some],
            None if documents is None else documents[some],
        )
        took += time.perf_counter() - start
        if progress is not None:
            progress(len(ids))
    return took


class Encrypted:
    """A collection that `fill` wrote."""

    def __init__(self, store: Store, collection: Collection) -> None:
        self.collection = collection
        self._handle = collection._handle
        self._url = store.url
        self._places: dict[int, int] = {}

    def build(self) -> float:
        """Index what was written and save the index; returns the seconds."""
        start = time.perf_counter()
        self._handle.backend.flush()
        return time.perf_counter() - start

    def set_ef(self, ef: int) -> None:
        """Set HNSW's efSearch, which is an option of opening a `faiss:` store, without opening it anew."""
        backend: Any = self._handle.backend
        backend._options = replace(backend._options, ef_search=ef)

    @property
    def has_stage_one(self) -> bool:
        """Whether the scheme has index vectors at all."""
        return self._handle.config.index_dim > 0

    def candidates(self, query: Matrix, limit: int) -> npt.NDArray[np.int64]:
        """Search the index only: encrypt a (d,) query and return the store's first `limit` rows, unopened."""
        handle = self._handle
        config = handle.refresh()
        version = handle.vault.primary
        points = config.metric.lift_query(query[None], config.max_norm or 1.0)
        return handle.backend.candidates(handle.vault.probes(version, config, points), limit)[0]

    def search(self, query: Matrix, k: int) -> list[Hit]:
        """Search as anybody would."""
        return self.collection.search(query, k=k)

    def places(self, answers: Sequence[Any]) -> list[npt.NDArray[np.int64]]:
        """Turn answers of `candidates` or `search` into positions of the vectors."""
        if answers and isinstance(answers[0], np.ndarray):
            if not self._places:
                ids = [str(i) for i in range(self.collection.count())]
                tokens = self._handle.vault.tokens(ids)[self._handle.vault.primary]
                self._places = {int(row): i for i, row in enumerate(self._handle.backend.find(tokens))}
            return [np.array([self._places[int(row)] for row in answer], np.int64) for answer in answers]
        return [np.array([int(hit.id) for hit in answer], np.int64) for answer in answers]

    def stats(self) -> dict[str, Any]:
        """Return what the collection says of itself."""
        return self.collection.stats()
