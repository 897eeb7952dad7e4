"""Which rows a follower of the records has still to take in."""

from __future__ import annotations

import numpy as np

from ..data.arrays import Rows
from ..data.partitions import version_of
from ..storage.protocol import Changes
from .rowsets import is_among
from .state import Indexed
from .tail import Tail

__all__ = ["not_held", "readable_rows"]


def readable_rows(changes: Changes | None, dead: frozenset[int]) -> list[tuple[int, Rows]]:
    """Return the added rows of each key version that can be read."""
    added = {} if changes is None else changes.added
    versions = sorted(((version_of(partition), rows) for partition, rows in added.items()), key=lambda each: each[0])
    return [(version, rows) for version, rows in versions if version not in dead]


def not_held(readable: list[tuple[int, Rows]], parts: tuple[Indexed, ...], tail: Tail) -> list[tuple[int, Rows]]:
    """Return the rows of each key version that are neither in a part nor in the tail."""
    lists = [np.sort(tail.rows), *(part.rows for part in parts)]
    for held in lists:
        readable = [(version, rows[~is_among(rows, held)]) for version, rows in readable]
    return readable
