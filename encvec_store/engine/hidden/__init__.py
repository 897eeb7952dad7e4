"""Searches whose reads of the store do not depend on the query, or on it only through whole buckets.

All sealed records are fetched at opening and stay sealed in memory, if they fit. Otherwise whole buckets of random rows
are fetched, each once, and kept in a local file.
"""

from __future__ import annotations

from .hidden import HiddenParts

__all__ = ["HiddenParts"]
