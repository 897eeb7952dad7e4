"""Search in the trusted process: an index over opened vectors, kept in the record store as sealed segments."""

from __future__ import annotations

__all__: list[str] = []
