"""A Chroma folder as a source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from . import metric_names
from .folder import FolderRow, FolderSource, package, picked

__all__ = ["ChromaSource"]

_DATABASE = "chroma.sqlite3"
_AT_ONCE = 5_000
"""Ids asked for at once: SQLite takes 32,766."""


class ChromaSource(FolderSource):
    """A collection of a folder of Chroma's `PersistentClient`, in its default database.

    Chroma's package counts in the folder that it was opened. An older layout is refused, not brought up to date.
    """

    kind = "chroma"
    _document = None
    _client: Any = None

    def again(self) -> None:
        """Check that the folder has not changed since it was opened. Raises InputError."""
        if self._stamped() != self._stamp:
            raise InputError(f"{self.name} was changed after it was read: stop its writers, and run the import again")

    def close(self) -> None:
        """Let go of the folder."""
        client, self._client = self._client, None
        if hasattr(client, "close"):
            client.close()

    def _open(self, table: str | None) -> None:
        self._chosen.refuse(self.kind, "id", "vector", "document")
        if not (self._path / _DATABASE).is_file():
            raise InputError(f"{self._path} is no folder of Chroma: it has no {_DATABASE}")
        chroma, config = package("chromadb", self.kind), package("chromadb.config", self.kind)
        # nothing is sent anywhere, and what belongs to others keeps its layout
        settings = config.Settings(anonymized_telemetry=False, migrations="validate")
        self._client = chroma.PersistentClient(str(self._path), settings=settings)
        names = [getattr(found, "name", found) for found in self._client.list_collections()]
        name = picked(names, table, str(self._path), "collection")
        self.name = f"{self._path}, {name!r}"
        # without its embedding function, which may want a key or a model
        self._collection = self._client.get_collection(name, embedding_function=None)
        self._stamp = self._stamped()
        self._keys = {id: id for id in self._collection.get(include=[])["ids"]}
        first = self._collection.get(limit=1, include=["embeddings"])["embeddings"]
        self.dim = len(first[0]) if len(first) else 0
        self._named = metric_names.of_name(self._space(), self.name)
        if self._named == "cosine":
            self.lossy = "Chroma keeps vectors of length 1 under cosine, and rounds the last bits of what it gives back"

    def _space(self) -> str:
        """Return the name of the metric; a collection that does not say is l2."""
        made = getattr(self._collection, "configuration_json", None) or {}
        for index in ("hnsw", "spann"):
            if made.get(index):
                return str(made[index].get("space") or "l2")
        return str((self._collection.metadata or {}).get("hnsw:space", "l2"))

    def _rows(self, ids: Sequence[str], *, bare: bool) -> Iterator[FolderRow]:
        parts = ["embeddings"] if bare else ["embeddings", "metadatas", "documents", "uris"]
        for start in range(0, len(ids), _AT_ONCE):
            yield from self._some(list(ids[start : start + _AT_ONCE]), parts)

    def _some(self, ids: list[str], parts: list[str]) -> Iterator[FolderRow]:
        found = self._collection.get(ids=ids, include=parts)
        none = [None] * len(found["ids"])
        vectors = np.asarray(found["embeddings"], np.float32)
        rest = [found.get(part) or none for part in ("metadatas", "documents", "uris")]
        for id, vector, fields, document, uri in zip(found["ids"], vectors, *rest, strict=True):
            held = dict(fields or {})
            if uri is not None and held.setdefault("uri", uri) != uri:
                raise InputError(f"{self.name}: record {id!r} has a uri, and other metadata of the name 'uri'")
            yield FolderRow(id, vector, held, document)

    def _stamped(self) -> tuple[int, int, int]:
        found = os.stat(self._path / _DATABASE)
        return found.st_ino, found.st_size, found.st_mtime_ns
