"""Stores of ciphertext: opaque tokens, sealed bytes and index vectors, never a key; imports filters, fields, errors."""

from __future__ import annotations

from .protocol import (
    Backend,
    BackendCollection,
    CacheAuthenticator,
    CollectionSpec,
    EncryptedBatch,
    Nearest,
    Probes,
    Rows,
    share,
    union,
)
from .registry import ASYNC_BACKENDS, BACKENDS, open_backend, waits_in_loop

__all__ = [
    "ASYNC_BACKENDS",
    "BACKENDS",
    "Backend",
    "BackendCollection",
    "CacheAuthenticator",
    "CollectionSpec",
    "EncryptedBatch",
    "Nearest",
    "Probes",
    "Rows",
    "open_backend",
    "share",
    "union",
    "waits_in_loop",
]
