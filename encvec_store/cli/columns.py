"""Which columns of a file hold what."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

__all__ = ["Columns", "text_id"]


@dataclass
class Columns:
    """Which columns hold what. None: the usual name, and for `id` none is needed."""

    id: str | None = None
    vector: str | None = None
    document: str | None = None
    prefix: str | None = None
    """Of the ids of rows that bring none: `prefix:row`."""
    vectors: bool = True
    """Whether there are vectors: a file of metadata has none."""


def text_id(value: Any, column: str) -> str:
    """Return an id as text; whole numbers are taken too. Raises InputError."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"id {column!r} must be a string or an integer, got {json.dumps(value, default=str)[:40]}")
