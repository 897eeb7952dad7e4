"""One search over several sources: it merges their candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...data.arrays import Rows
from ..parts import Parts
from .base import Asked, Found

__all__ = ["Fused", "fused", "interleaved"]


def fused(parts: Sequence[Asked]) -> Asked:
    """Merge several prepared searches into one."""
    return parts[0] if len(parts) == 1 else Fused(parts)


class Fused:
    """A search over several sources. Each gives as many candidates as asked for, so none crowds out another."""

    def __init__(self, parts: Sequence[Asked]) -> None:
        self._parts = parts
        self.covers = all(part.covers for part in parts)
        self.parts: Parts | None = None

    def wanted(self, k: int, oversample: int) -> int:
        """Return the largest number that a source needs."""
        return max(part.wanted(k, oversample) for part in self._parts)

    def candidates(self, limit: int, positions: list[int] | None = None) -> list[Rows]:
        """Return the candidates of all sources, merged by rank."""
        lists = [part.candidates(limit, positions) for part in self._parts]
        return [interleaved(each) for each in zip(*lists, strict=True)]

    def opened(self, limit: int) -> Found | None:
        """Return the opened candidates of all sources; None if a source cannot give them at once."""
        parts = [part.opened(limit) for part in self._parts]
        found = [part for part in parts if part is not None]
        if len(found) < len(parts):
            return None
        rows, first = np.unique(np.concatenate([part.rows for part in found]), return_index=True)
        return Found(
            [interleaved(each) for each in zip(*(part.lists for part in found), strict=True)],
            rows,
            np.concatenate([part.vectors for part in found])[first],
            np.concatenate([part.heads for part in found])[first],
            {row: sealed for part in found for row, sealed in part.payloads.items()},
        )

    def explain(self, k: int, oversample: int) -> list[str]:
        """Describe how each source would answer."""
        return [line for part in self._parts for line in part.explain(k, oversample)]


def interleaved(lists: Sequence[Rows]) -> Rows:
    """Merge lists of rows by rank: the first of each, then the second of each, every row once."""
    rows = np.concatenate([np.empty(0, np.int64), *lists])
    ranks = np.concatenate([np.empty(0, np.int64), *(np.arange(len(each)) for each in lists)])
    merged = rows[np.argsort(ranks, kind="stable")]
    _, first = np.unique(merged, return_index=True)
    return merged[np.sort(first)] if len(first) < len(merged) else merged
