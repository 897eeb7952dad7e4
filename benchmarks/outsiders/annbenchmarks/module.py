"""encvec_store for ann-benchmarks (github.com/erikbern/ann-benchmarks).

Copy this folder to ann_benchmarks/algorithms/encvec_store there; then

    python install.py --algorithm encvec_store
    python run.py --algorithm encvec_store --dataset glove-100-angular
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
from ann_benchmarks.algorithms.base.module import BaseANN  # type: ignore[import-not-found,unused-ignore]

import encvec_store as ev
from encvec_store.low_level import set_search_options

METRICS = {"angular": "cosine", "euclidean": "l2"}
_BATCH = 5_000


class EncvecStore(BaseANN):  # type: ignore[misc,unused-ignore]
    """A `faiss:` store in a temporary folder: everything sealed, hits ranked exactly.

    Args:
        metric: angular or euclidean.
        options: scheme (a name; none for the default, `sealed`), beta, and options of the store: index, storage, m.
    """

    def __init__(self, metric: str, options: dict[str, Any]) -> None:
        if metric not in METRICS:
            raise NotImplementedError(f"encvec_store has no distance {metric!r}")
        options = dict(options)
        self._metric = METRICS[metric]
        self._scheme = {"name": options.pop("scheme", "sealed")}
        if "beta" in options:
            self._scheme["beta"] = options.pop("beta")
        self._folder = tempfile.TemporaryDirectory(prefix="encvec-ann-")
        self._store = ev.connect(f"faiss:{self._folder.name}", keyset=ev.Keyset.create("memory:"), **options)
        self._told = {**self._scheme, **options}
        self._collection: Any = None
        self.name = f"encvec_store({self._told})"

    def fit(self, X: Any) -> None:
        """Encrypt, store and index (n, d) vectors."""
        vectors = np.asarray(X, np.float32)
        largest = float(np.linalg.norm(vectors, axis=1).max())
        free = self._metric == "cosine" or self._scheme["name"] == "sealed"
        bound = None if free else largest * 1.01
        self._collection = self._store.collection("ann", vectors.shape[1], self._metric, self._scheme, max_norm=bound)
        for start in range(0, len(vectors), _BATCH):
            some = vectors[start : start + _BATCH]
            self._collection.upsert([str(start + i) for i in range(len(some))], some)
        self._collection.flush()

    def set_query_arguments(self, ef_search: int, oversample: int) -> None:
        """Set efSearch of HNSW, and how many candidates are re-ranked for each hit. `sealed` measures its own."""
        set_search_options(self._collection, ef_search=ef_search, oversample=oversample)
        self.name = f"encvec_store({self._told}, ef={ef_search}, oversample={oversample})"

    def query(self, q: Any, n: int) -> Any:
        """Return the positions of the n nearest."""
        return np.array([int(hit.id) for hit in self._collection.search(np.asarray(q, np.float32), k=n)])

    def batch_query(self, X: Any, n: int) -> None:
        """Search for all queries in one call."""
        found = self._collection.search(np.asarray(X, np.float32), k=n)
        self.res = [np.array([int(hit.id) for hit in hits]) for hits in found]

    def done(self) -> None:
        """Remove everything."""
        self._store.close()
        self._folder.cleanup()
