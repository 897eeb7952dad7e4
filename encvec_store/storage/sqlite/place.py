"""What the parts of a store in a folder share: options of its URL, and the name of a table."""

from __future__ import annotations

from typing import Any

from ...errors import UriError

__all__ = ["LOCK_TIMEOUT", "NAME_KEY", "seconds"]

NAME_KEY = "name_key"
"""The table that only a store with sealed names has."""
LOCK_TIMEOUT = 5.0
"""Seconds to wait for another writer, unless the URL says otherwise."""
_LONGEST = 86_400


def seconds(value: Any) -> float:
    """Return a lock timeout. Raises UriError unless it is a number from 0 to a day."""
    try:
        timeout = float(value)
    except (TypeError, ValueError):
        timeout = -1.0
    if not 0 <= timeout <= _LONGEST:  # this refuses NaN, too
        raise UriError(f"faiss store: lock_timeout must be 0 to {_LONGEST} seconds, got {value!r}")
    return timeout
