"""A folder of Qdrant's local mode as a source."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import InputError
from . import metric_names
from .folder import FolderRow, FolderSource, package, picked

__all__ = ["QdrantSource"]


class QdrantSource(FolderSource):
    """A collection of a folder of `QdrantClient(path=...)`. It is locked meanwhile, so nobody else can change it.

    Qdrant's package holds the whole folder in memory, and reads it with `pickle`: a folder of a stranger can run code.
    """

    kind = "qdrant"
    _client: Any = None

    def again(self) -> None:
        """Do nothing: the folder is locked."""

    def close(self) -> None:
        """Unlock the folder."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open(self, table: str | None) -> None:
        self._chosen.refuse(self.kind, "id")
        if not (self._path / "meta.json").is_file():
            raise InputError(f"{self._path} is no folder of Qdrant's local mode: it has no meta.json")
        qdrant = package("qdrant_client", self.kind)
        with warnings.catch_warnings():  # that a large collection is slow in this mode
            warnings.simplefilter("ignore")
            self._client = qdrant.QdrantClient(path=str(self._path))
        self._models = package("qdrant_client.models", self.kind)
        names = [found.name for found in self._client.get_collections().collections]
        self._table = picked(names, table, str(self._path), "collection")
        self.name = f"{self._path}, {self._table!r}"
        self._vector, settings = self._only_vector(self._client.get_collection(self._table).config.params)
        if settings.multivector_config is not None:
            raise InputError(f"{self.name}: a record has several vectors in one; a record here has one vector")
        self.dim = settings.size
        distance = settings.distance
        self._named = metric_names.of_name(getattr(distance, "value", distance), self.name)
        # in one page: the local mode sorts all ids for each one
        n = self._client.count(self._table, exact=True).count
        points = self._client.scroll(self._table, limit=max(n, 1), with_payload=False, with_vectors=False)[0]
        self._keys = {str(point.id): point.id for point in points}

    def _only_vector(self, params: Any) -> tuple[str | None, Any]:
        """Return name and settings of the vector to take; it has no name if the collection has but one."""
        wanted, dense = self._chosen.vector, params.vectors
        if isinstance(dense, self._models.VectorParams):
            if wanted:
                raise InputError(f"{self.name} has one vector a record, without a name: leave out --vector-column")
            return None, dense
        sparse = dict(params.sparse_vectors or {})
        names = ", ".join([*dense, *(f"{name} (sparse)" for name in sparse)])
        if wanted is None and len(dense) + len(sparse) != 1:
            raise InputError(f"{self.name} has the vectors {names}: choose one with --vector-column")
        name = wanted or next(iter([*dense, *sparse]))
        if name not in dense:
            what = "is sparse, and a vector here has all its numbers" if name in sparse else "is not there"
            raise InputError(f"{self.name}: the vector {name!r} {what}; it has: {names}")
        return name, dense[name]

    def _rows(self, ids: Sequence[str], *, bare: bool) -> Iterator[FolderRow]:
        keys = [self._keys[id] for id in ids]
        wanted: Any = True if self._vector is None else [self._vector]
        for point in self._client.retrieve(self._table, keys, with_payload=not bare, with_vectors=wanted):
            vector = point.vector if self._vector is None else (point.vector or {}).get(self._vector)
            yield FolderRow(str(point.id), vector or None, point.payload or {})
