"""The table URL scheme -> backend, loaded on first use; imports errors."""

from __future__ import annotations

import importlib
from typing import Any, cast

from ..errors import UriError
from .base import Backend

__all__ = ["BACKENDS", "open_backend"]

BACKENDS: dict[str, str] = {
    "memory": "encvec_store.backends.memory:MemoryBackend",
    "faiss": "encvec_store.backends.faiss:FaissBackend",
    "postgresql": "encvec_store.backends.pgvector:PgvectorBackend",
    "postgres": "encvec_store.backends.pgvector:PgvectorBackend",
    "postgresql+psycopg": "encvec_store.backends.pgvector:PgvectorBackend",
}
"""URL scheme -> module:class, called with the URL and options. Add an entry to bring your own."""


def open_backend(url: str, **options: Any) -> Backend:
    """Open the backend that a URL names. Raises UriError, StoreUnreachableError."""
    scheme, colon, _ = url.partition(":") if isinstance(url, str) else ("", "", "")
    if not colon or scheme not in BACKENDS:
        known = ", ".join(f"{name}:" for name in BACKENDS)
        raise UriError(f"no store for {url!r}; a store URL begins with one of {known}")
    module, _, name = BACKENDS[scheme].partition(":")
    return cast(Backend, getattr(importlib.import_module(module), name)(url, **options))
