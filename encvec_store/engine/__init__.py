"""Writes, reads and searches of one open collection."""

from __future__ import annotations

from .lookup import places
from .search import ATTEMPTS
from .session import Session

__all__ = ["ATTEMPTS", "Session", "places"]
