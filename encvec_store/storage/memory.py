"""Records in dictionaries. Tests compare the other stores with this one."""

from __future__ import annotations

from ..errors import CollectionNotFoundError, StoreClosedError
from .memory_records import MemoryRecords
from .protocol import CollectionSpec

__all__ = ["MemoryRecords", "MemoryStore"]


class MemoryStore:
    """Implements `RecordStore`: collections that live as long as this object.

    Args:
        lock_timeout: seconds to wait for another writer.
    """

    def __init__(self, lock_timeout: float = 5.0) -> None:
        self.url = "memory:"
        self._timeout = lock_timeout
        self._collections: dict[tuple[str, str], MemoryRecords] = {}
        self._closed = False

    def collections(self, tenant: str | None = None) -> list[tuple[str, str]]:
        """List (tenant, name), sorted."""
        return sorted(place for place in self._open_collections() if tenant in (None, place[0]))

    def open(self, tenant: str, name: str) -> MemoryRecords | None:
        """Return the same records object each time, or None if there is no such collection."""
        return self._open_collections().get((tenant, name))

    def create(self, spec: CollectionSpec, config: bytes) -> MemoryRecords:
        """Create a collection, or return the existing one."""
        return self._open_collections().setdefault((spec.tenant, spec.name), MemoryRecords(spec, config, self._timeout))

    def drop(self, tenant: str, name: str) -> bool:
        """Forget a collection."""
        if dropped := self._open_collections().pop((tenant, name), None):
            dropped.end(CollectionNotFoundError(f"collection {name!r} was dropped"))
        return dropped is not None

    def close(self) -> None:
        """Forget everything."""
        self._closed = True
        for records in self._collections.values():
            records.end(StoreClosedError("the store is closed"))
        self._collections.clear()

    def _open_collections(self) -> dict[tuple[str, str], MemoryRecords]:
        if self._closed:
            raise StoreClosedError("the store is closed")
        return self._collections
