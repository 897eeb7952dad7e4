"""The table URL scheme -> backend, loaded on first use; imports errors."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

from ..errors import UriError
from .protocol import Backend

__all__ = ["ASYNC_BACKENDS", "BACKENDS", "open_backend", "waits_in_loop"]

BACKENDS: dict[str, str] = {
    "memory": "encvec_store.storage.memory:MemoryBackend",
    "faiss": "encvec_store.indexes.faiss:FaissBackend",
    "postgresql": "encvec_store.storage.postgres:PgvectorBackend",
    "postgres": "encvec_store.storage.postgres:PgvectorBackend",
    "postgresql+psycopg": "encvec_store.storage.postgres:PgvectorBackend",
}
"""URL scheme -> module:class, called with the URL and options. Add an entry to bring your own."""

ASYNC_BACKENDS: dict[str, str] = dict.fromkeys(
    ("postgresql", "postgres", "postgresql+psycopg"), "encvec_store.storage.postgres:AsyncPgvectorBackend"
)
"""The same for async callers: backends that wait in the event loop (`waits.wait_for`). Others are called in threads."""


def waits_in_loop(url: str) -> bool:
    """Say whether async callers have a backend of their own for a URL."""
    return isinstance(url, str) and url.partition(":")[0] in ASYNC_BACKENDS


def open_backend(url: str, table: Mapping[str, str] = BACKENDS, /, **options: Any) -> Backend:
    """Open the backend that a URL names in a table. Raises UriError, StoreUnreachableError."""
    scheme, colon, _ = url.partition(":") if isinstance(url, str) else ("", "", "")
    if not colon or scheme not in table:
        known = ", ".join(f"{name}:" for name in table)
        raise UriError(f"no store for {url!r}; a store URL begins with one of {known}")
    module, _, name = table[scheme].partition(":")
    return cast(Backend, getattr(importlib.import_module(module), name)(url, **options))
