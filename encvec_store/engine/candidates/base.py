"""What a source of candidates is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...data.arrays import Matrix, Rows
from ...data.filters import Predicate
from ...sealing.config import CollectionConfig

__all__ = ["Asked", "CandidateSource", "Found"]


@dataclass
class Found:
    """Candidates of some queries, opened."""

    lists: list[Rows]
    """Rows of each query."""
    rows: Rows
    """(m,) rows of all of them that could be opened, once each."""
    vectors: Matrix
    """(m, dim) their exact vectors."""
    heads: npt.NDArray[np.uint8]
    """(m, PREFIX) token and header of their vector parts."""
    payloads: dict[int, bytes] = field(default_factory=dict)
    """Payload envelopes by row, of as many as came along."""


class CandidateSource(Protocol):
    """Names records that may be near a query. Exact scores decide later, on opened vectors."""

    def ask(self, config: CollectionConfig, queries: Matrix, predicate: Predicate | None) -> Asked:
        """Prepare the search of (q, dim) checked queries, under some settings.

        Args:
            config: the settings.
            queries: (q, dim).
            predicate: what the store can check of a filter; None where there is nothing.
        """
        ...


class Asked(Protocol):
    """Queries that were put to a source. The source encrypts them once, however often it is asked for more."""

    def wanted(self, k: int, oversample: int) -> int:
        """Return how many candidates a query needs for k hits."""
        ...

    def candidates(self, limit: int, positions: list[int] | None = None) -> list[Rows]:
        """Return up to `limit` rows for each query, nearest first.

        Fewer come only where no more records satisfy the predicate.

        Args:
            limit: how many.
            positions: which of the queries; None for all.
        """
        ...

    def opened(self, limit: int) -> Found | None:
        """Return the candidates of all queries with their vectors, where one step fetches both; None: it does not."""
        ...

    def explain(self, k: int, oversample: int) -> list[str]:
        """Say in lines how the first query would be answered."""
        ...
