"""The public collection: one short method for each task."""

from __future__ import annotations

from .base import Shared
from .collection import Collection

__all__ = ["Collection", "Shared"]
