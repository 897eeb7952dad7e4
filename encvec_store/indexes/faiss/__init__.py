"""The `faiss:` store: records in SQLite, indexes by FAISS, caches of them on disk; imports backend."""

from __future__ import annotations

from .backend import FaissBackend

__all__ = ["FaissBackend"]
