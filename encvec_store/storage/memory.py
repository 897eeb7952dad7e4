"""Records in dictionaries. Tests compare the other stores with this one."""

from __future__ import annotations

from ..errors import CollectionNotFoundError, StoreClosedError
from ..runtime.forks import Mutex
from .memory_records import MemoryRecords
from .names import NAME, check_kind_of_names, check_no_collections
from .names import sealed_name as name_blobs
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
        self._name_key: bytes | None = None
        self._lock = Mutex()
        """Held for a moment while a collection or the name key is added."""
        self._closed = False

    def collections(self, tenant: str | None = None) -> list[tuple[str, str]]:
        """List (tenant, name), sorted."""
        return sorted(place for place in self._open_collections() if tenant in (None, place[0]))

    def open(self, tenant: str, name: str) -> MemoryRecords | None:
        """Return the same records object each time, or None if there is no such collection."""
        return self._open_collections().get((tenant, name))

    def create(self, spec: CollectionSpec, config: bytes, sealed_name: bytes | None = None) -> MemoryRecords:
        """Create a collection, or return the existing one."""
        made = MemoryRecords(spec, config, self._timeout)
        made.keep((blob, 0, content) for blob, content in name_blobs(sealed_name).items())
        with self._lock:
            check_kind_of_names(self.url, sealed=self._name_key is not None, given=sealed_name is not None)
            return self._open_collections().setdefault((spec.tenant, spec.name), made)

    def name_key(self) -> bytes | None:
        """Return the sealed name key; None if names are in clear."""
        return self._name_key

    def keep_name_key(self, sealed: bytes, expect: bytes | None = None) -> bool:
        """Keep the sealed name key, if the one before is as expected."""
        with self._lock:
            if self._name_key != expect:
                return False
            check_no_collections(self.url, there=expect is None and bool(self._collections))
            self._name_key = sealed
            return True

    def named(self, tenant: str | None = None) -> list[tuple[str, str, bytes]]:
        """List (tenant, name, sealed name)."""
        held = list(self._open_collections().items())
        return [(*place, made.blob(NAME) or b"") for place, made in held if tenant in (None, place[0])]

    def drop(self, tenant: str, name: str) -> bool:
        """Forget a collection."""
        if dropped := self._open_collections().pop((tenant, name), None):
            dropped.end(CollectionNotFoundError(f"collection {dropped.spec.called!r} was dropped"))
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
