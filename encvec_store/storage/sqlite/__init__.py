"""Records in a SQLite file."""

from __future__ import annotations

from .records import SqliteRecords
from .store import SqliteStore

__all__ = ["SqliteRecords", "SqliteStore"]
