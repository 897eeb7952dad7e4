"""`faiss:` store: one folder, records in SQLite, indexes by FAISS; imports the files beside it."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

from ...errors import CollectionNotFoundError, StoreClosedError
from ...storage.protocol import BackendCollection, CollectionSpec
from ...storage.sqlite.database import Database
from .collection import FaissCollection
from .options import parse_url

__all__ = ["FaissBackend"]


class FaissBackend:
    """Collections in a folder. Several processes may open it: one writes at a time, all follow.

    A backend must not be used across a fork: open it in the child.

    Args:
        url: `faiss:///absolute/folder`, `faiss:relative/folder` or `faiss://./relative/folder`, with options
            as `?index=hnsw&ef_search=200`; see `Options`.
        options: the same as keyword arguments.

    Raises:
        UriError: the URL or an option means nothing.
        StoreUnreachableError: the folder cannot be made or written, or holds something else.
    """

    def __init__(self, url: str, **options: Any) -> None:
        folder, self._options = parse_url(url, options)
        self.url, self.device = url, self._options.device
        self._folder = folder.absolute()
        self._lock = threading.Lock()
        self._open: dict[int, FaissCollection] = {}
        self._closed = False
        self._database = Database(self._folder, self._options.lock_timeout)

    def collections(self, tenant: str | None = None) -> list[tuple[str, str]]:
        """List (tenant, name), sorted."""
        sql = "SELECT tenant, name FROM collections WHERE ? IS NULL OR tenant = ?"
        with self._database.read() as cursor:
            return sorted(cursor.execute(sql, (tenant, tenant)).fetchall())

    def open(self, tenant: str, name: str) -> BackendCollection | None:
        """Open a collection, or return None where there is none. The same object every time."""
        sql = "SELECT id, index_dim, envelope_size FROM collections WHERE tenant = ? AND name = ?"
        with self._database.read() as cursor:
            found = cursor.execute(sql, (tenant, name)).fetchone()
        if found is None:
            return None
        number, index_dim, envelope_size = found
        with self._lock:
            if self._closed:
                raise StoreClosedError("the store is closed")
            if number not in self._open:
                spec = CollectionSpec(tenant, name, index_dim, envelope_size)
                folder = self._index_folder(number)
                self._open[number] = FaissCollection(self._database, number, spec, folder, self._options)
            return self._open[number]

    def create(self, spec: CollectionSpec, config: bytes) -> BackendCollection:
        """Create a collection, or open the one that another process created meanwhile."""
        with self._database.write() as cursor:
            cursor.execute(
                "INSERT OR IGNORE INTO collections"
                " (tenant, name, index_dim, envelope_size, config, generation, stamp, purged_generation)"
                " VALUES (?, ?, ?, ?, ?, 1, 0, 0)",
                (spec.tenant, spec.name, spec.index_dim, spec.envelope_size, config),
            )
        made = self.open(spec.tenant, spec.name)
        if made is None:
            raise CollectionNotFoundError(f"collection {spec.name!r} was dropped by another process")
        return made

    def drop(self, tenant: str, name: str) -> bool:
        """Delete a collection and everything in it; False where there is none."""
        with self._database.write() as cursor:
            sql = "SELECT id FROM collections WHERE tenant = ? AND name = ?"
            found = cursor.execute(sql, (tenant, name)).fetchone()
            if found is None:
                return False
            self._database.clear(cursor, found[0])
            cursor.execute("DELETE FROM artefacts WHERE collection = ?", found)
            cursor.execute("DELETE FROM collections WHERE id = ?", found)
        with self._lock:
            collection = self._open.pop(found[0], None)
        if collection is not None:
            collection.remove_files()
        else:
            shutil.rmtree(self._index_folder(found[0]), ignore_errors=True)
        return True

    def close(self) -> None:
        """Save indexes and release everything. Idempotent."""
        with self._lock:
            self._closed = True
            left, self._open = list(self._open.values()), {}
        try:
            for collection in left:
                collection.close()
        finally:
            self._database.close()

    def _index_folder(self, number: int) -> Path:
        return self._folder / "index" / str(number)
