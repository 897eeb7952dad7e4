"""A record store in a folder: one SQLite file for all collections."""

from __future__ import annotations

import shutil
from pathlib import Path

from ...errors import CollectionNotFoundError
from ..protocol import CollectionSpec
from ..values import WIDTH, integer, text
from . import names
from .database import Database
from .place import LOCK_TIMEOUT
from .records import SqliteRecords

__all__ = ["SqliteStore"]


class SqliteStore:
    """Implements `RecordStore`. Several processes may open a folder: one writes at a time, and all see its writes.

    A forked child may go on with its parent's store: it opens connections of its own.

    Args:
        folder: where the file is, or is made.
        lock_timeout: seconds to wait for another writer.
        url: what the store was opened by.
        read_only: never write. A folder that cannot be written is opened so by itself, with a warning.

    Raises:
        StoreUnreachableError: the folder cannot be made or read, or holds something else.
    """

    def __init__(
        self, folder: Path, lock_timeout: float = LOCK_TIMEOUT, url: str = "", *, read_only: bool = False
    ) -> None:
        self.folder = folder.absolute()
        self.url = url or f"faiss:{folder}"
        self._database = Database(self.folder, lock_timeout, read_only=read_only)

    @property
    def read_only(self) -> bool:
        """Whether every write is refused."""
        return self._database.read_only

    def collections(self, tenant: str | None = None) -> list[tuple[str, str]]:
        """List (tenant, name), sorted."""
        sql = "SELECT tenant, name FROM collections WHERE ? IS NULL OR tenant = ?"
        with self._database.read() as cursor:
            found = cursor.execute(sql, (tenant, tenant)).fetchall()
        return sorted((text(owner, "a tenant"), text(name, "a name")) for owner, name in found)

    def open(self, tenant: str, name: str) -> SqliteRecords | None:
        """Open a collection, or return None if there is none. Returns a new object each time."""
        sql = "SELECT id, index_dim, envelope_size FROM collections WHERE tenant = ? AND name = ?"
        with self._database.read() as cursor:
            found = cursor.execute(sql, (tenant, name)).fetchone()
        if found is None:
            return None
        number, *sizes = found
        index_dim, envelope_size = (integer(size, "a size of a collection", most=WIDTH) for size in sizes)
        return SqliteRecords(self._database, number, CollectionSpec(tenant, name, index_dim, envelope_size))

    def create(self, spec: CollectionSpec, config: bytes, sealed_name: bytes | None = None) -> SqliteRecords:
        """Create a collection, or open it if another process has just created it."""
        with self._database.write() as cursor:
            names.check(cursor, self.url, sealed_name)
            made = cursor.execute(
                "INSERT OR IGNORE INTO collections"
                " (tenant, name, index_dim, envelope_size, config, generation, stamp, purged_generation, content)"
                " VALUES (?, ?, ?, ?, ?, 1, 0, 1, 1)",
                (spec.tenant, spec.name, spec.index_dim, spec.envelope_size, config),
            )
            if made.rowcount == 1 and made.lastrowid is not None:
                names.name(cursor, made.lastrowid, sealed_name)
        found = self.open(spec.tenant, spec.name)
        if found is None:
            raise CollectionNotFoundError(f"collection {spec.called!r} was dropped by another process")
        return found

    def name_key(self) -> bytes | None:
        """Return the sealed name key; None if names are in clear."""
        with self._database.read() as cursor:
            return names.key(cursor)

    def keep_name_key(self, sealed: bytes, expect: bytes | None = None) -> bool:
        """Store the sealed name key, if the one that is stored is as expected."""
        with self._database.write() as cursor:
            return names.keep(cursor, self.url, sealed, expect)

    def named(self, tenant: str | None = None) -> list[tuple[str, str, bytes]]:
        """List (tenant, name, sealed name)."""
        with self._database.read() as cursor:
            return names.listed(cursor, tenant)

    def drop(self, tenant: str, name: str) -> bool:
        """Delete a collection and everything in it. Returns False if there is none."""
        with self._database.write() as cursor:
            sql = "SELECT id FROM collections WHERE tenant = ? AND name = ?"
            found = cursor.execute(sql, (tenant, name)).fetchone()
            if found is None:
                return False
            self._database.clear(cursor, found[0])
            cursor.execute("DELETE FROM blobs WHERE collection = ?", found)
            cursor.execute("DELETE FROM collections WHERE id = ?", found)
        # Every open index of this collection removes its files as well. But perhaps no index is open, and because the
        # number is never used again, nobody would look into this folder any more.
        shutil.rmtree(self.index_folder(found[0]), ignore_errors=True)
        return True

    def close(self) -> None:
        """Close every connection. Idempotent."""
        self._database.close()

    def index_folder(self, collection: int) -> Path:
        """Return the folder for the files of a collection's index."""
        return self.folder / "index" / str(collection)
