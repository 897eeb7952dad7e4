"""The protocol of a candidate source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ...data.arrays import Matrix, Rows
from ...data.filters import Filter, Predicate
from ...sealing.config import CollectionConfig
from ..parts import Parts

__all__ = ["Asked", "CandidateSource", "Found", "Matching"]


@dataclass
class Found:
    """The opened candidates of some queries."""

    lists: list[Rows]
    """Rows of each query."""
    rows: Rows
    """(m,) rows of all lists, each once, without those that no longer exist."""
    vectors: Matrix
    """(m, dim) their exact vectors."""
    heads: npt.NDArray[np.uint8]
    """(m, PREFIX) token and header of their vector parts."""
    payloads: dict[int, bytes] = field(default_factory=dict)
    """Payload envelopes by row, for the rows whose payload was fetched too."""


class Matching(NamedTuple):
    """The rows that satisfy a filter, ascending, as of one moment."""

    rows: Rows
    """Among them those that nobody could open."""
    known: Rows
    """Without those."""


class CandidateSource(Protocol):
    """Names records that may be near a query. Exact scores of opened vectors decide later."""

    def ask(self, config: CollectionConfig, queries: Matrix, node: Filter | None, predicate: Predicate | None) -> Asked:
        """Prepare a search.

        Args:
            config: the settings to search under.
            queries: (q, dim), checked.
            node: the filter; None if there is none.
            predicate: the part of it that the store can check; None if there is none.
        """
        ...


class Asked(Protocol):
    """A prepared search. The queries are encrypted once, however often more candidates are asked for."""

    covers: bool
    """True if its candidates satisfy the whole filter, but for a few."""
    parts: Parts | None
    """Reads sealed parts of candidates; None for the store itself."""

    def wanted(self, k: int, oversample: int) -> int:
        """Return the number of candidates that a query needs for k hits."""
        ...

    def candidates(self, limit: int, positions: list[int] | None = None) -> list[Rows]:
        """Return up to `limit` rows for each query, nearest first.

        Fewer come only if no more records satisfy the filter, as far as this source checks it.

        Args:
            limit: how many.
            positions: which of the queries; None for all.
        """
        ...

    def opened(self, limit: int) -> Found | None:
        """Return the candidates of all queries with their vectors; None if this source cannot fetch both at once."""
        ...

    def explain(self, k: int, oversample: int) -> list[str]:
        """Describe, in lines of text, how the filter is checked and how the first query would be answered."""
        ...
