"""The public collection: one short method for each task."""

from __future__ import annotations

from .base import Shared
from .collection import Collection
from .texts import Embed, embedder

__all__ = ["Collection", "Embed", "Shared", "embedder"]
