"""encvec_store for VectorDBBench 2 (PyPI: vectordb-bench).

Copy this folder to vectordb_bench/backend/clients/encvec_store, and add a member to the enumeration `DB` there that
returns these three classes. A connection is the store's URL and the keyset's URI; every process opens both itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from pydantic import BaseModel, SecretStr
from vectordb_bench.backend.clients.api import (  # type: ignore[import-not-found,unused-ignore]
    DBCaseConfig,
    DBConfig,
    IndexType,
    MetricType,
    VectorDB,
)

import encvec_store as ev

METRICS = {MetricType.COSINE: "cosine", MetricType.L2: "l2", MetricType.IP: "ip", MetricType.DP: "ip"}


class EncvecConfig(DBConfig):  # type: ignore[misc,unused-ignore]
    """The places of the store and its keys; the passphrase of a key file comes from ENCVEC_PASSPHRASE."""

    url: SecretStr
    keys: str

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments of the client."""
        return {"url": self.url.get_secret_value(), "keys": self.keys}


class EncvecCase(BaseModel, DBCaseConfig):  # type: ignore[misc,unused-ignore]
    """How to index and search. None means the default of a new collection."""

    metric_type: MetricType | None = None
    index: IndexType = IndexType.HNSW
    scheme: str | None = None
    beta: float | None = None
    ef_search: int | None = None
    oversample: int | None = None

    def index_param(self) -> dict[str, Any]:
        """Return metric and scheme."""
        scheme = self.scheme if self.beta is None else {"name": self.scheme, "beta": self.beta}
        return {
            "metric": METRICS.get(self.metric_type, "cosine") if self.metric_type else "cosine",
            "scheme": scheme,
        }

    def search_param(self) -> dict[str, Any]:
        """Return efSearch and candidates per hit, which mean something to schemes with index vectors."""
        return {"ef_search": self.ef_search, "oversample": self.oversample}


class EncvecStore(VectorDB):  # type: ignore[misc,unused-ignore]
    """A collection of an encrypted store."""

    name = "encvec_store"

    def __init__(
        self,
        dim: int,
        db_config: dict[str, Any],
        db_case_config: EncvecCase | None = None,
        collection_name: str = "vdbbench",
        drop_old: bool = False,
        **kwargs: Any,
    ) -> None:
        self._dim, self._config, self._collection_name = dim, dict(db_config), collection_name
        self._case = db_case_config or EncvecCase()
        self._collection: Any = None
        with self._open() as store:
            if drop_old:
                store.drop(collection_name)
            self._of(store)

    @contextmanager
    def init(self) -> Iterator[None]:
        """Connect while the block runs."""
        with self._open() as store:
            self._collection = self._of(store)
            try:
                yield
            finally:
                self._collection = None  # between two blocks, the object is copied to other processes

    def insert_embeddings(
        self,
        embeddings: list[list[float]],
        metadata: list[int],
        labels_data: list[str] | None = None,
        tenant_labels_data: list[str] | None = None,
        **kwargs: Any,
    ) -> tuple[int, Exception | None]:
        """Write one batch, all or nothing; the ids are the numbers in `metadata`."""
        try:
            self._collection.upsert([str(number) for number in metadata], np.asarray(embeddings, np.float32))
        except ev.errors.EncvecError as error:
            return 0, error
        return len(metadata), None

    def search_embedding(
        self, query: list[float], k: int = 100, payload_profile: Any = None, tenant: str | None = None
    ) -> list[int]:
        """Return ids of the k nearest."""
        return [int(hit.id) for hit in self._collection.search(np.asarray(query, np.float32), k=k)]

    def optimize(self, data_size: int | None = None) -> None:
        """Build and save the index."""
        self._collection.flush()

    def _open(self) -> ev.Store:
        keyset = ev.Keyset.open(self._config["keys"])
        effort = self._case.ef_search
        options: dict[str, Any] = {} if effort is None else {"ef_search": effort}
        return ev.connect(self._config["url"], keyset=keyset, **options)

    def _of(self, store: ev.Store) -> ev.Collection:
        made = self._case.index_param()
        return store.collection(
            self._collection_name, self._dim, made["metric"], made["scheme"], oversample=self._case.oversample
        )
