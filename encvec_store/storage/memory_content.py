"""The records of one collection in dictionaries, and how predicates are checked on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from ..data.arrays import Bytes, Kept, Rows
from ..data.fields import Term
from ..data.filters import AllOf, AnyOf, Match, Predicate, Present, Range
from .protocol import Blob, EncryptedBatch

__all__ = ["Content", "Row", "by_partition", "changed", "chosen_of", "matching", "passes", "sizes"]

Blobs = dict[tuple[str, int], Blob]
"""Blobs by name and part."""
Terms = Mapping[str, set[Term]]
"""The terms of one record, by field."""


@dataclass(slots=True)
class Row:
    """What is kept of one record."""

    partition: int
    token: bytes
    index_vector: Kept
    vector: Bytes
    payload: bytes
    terms: dict[str, set[Term]]


@dataclass
class Content:
    """Records by row, and rows by token."""

    rows: dict[int, Row] = field(default_factory=dict)
    tokens: dict[bytes, int] = field(default_factory=dict)

    def insert(self, batch: EncryptedBatch, numbers: Iterable[int]) -> tuple[list[int], list[int]]:
        """Insert records or replace them by token; return (added rows, removed rows)."""
        terms: list[dict[str, set[Term]]] = [{} for _ in batch.payloads]
        for position, name, term in batch.terms:
            terms[position].setdefault(name, set()).add(term)
        came, went = list(numbers), list[int]()
        for token in chain(batch.retired, (token.tobytes() for token in batch.tokens)):
            row = self.tokens.pop(token, None)
            if row is not None:
                del self.rows[row]
                went.append(row)
        for i, (row, payload) in enumerate(zip(came, batch.payloads, strict=True)):
            if row in self.rows:
                raise ValueError(f"each row must come once in the batches of replace, got row {row} twice")
            token = batch.tokens[i].tobytes()
            index_vector, vector = batch.index_vectors[i].copy(), batch.vectors[i].copy()
            self.rows[row] = Row(int(batch.partitions[i]), token, index_vector, vector, payload, terms[i])
            self.tokens[token] = row
        return came, went


def passes(predicate: Predicate | None) -> Callable[[Terms], bool]:
    """Return the function that says whether terms satisfy a predicate: made once, called for each record."""
    match predicate:
        case None:
            return lambda terms: True
        case Match(field, wanted):
            these = frozenset(wanted)
            return lambda terms: not these.isdisjoint(terms.get(field, ()))
        case Present(field):
            return lambda terms: bool(terms.get(field))
        case AllOf(parts):
            every = [passes(part) for part in parts]
            return lambda terms: all(part(terms) for part in every)
        case AnyOf(parts):
            some = [passes(part) for part in parts]
            return lambda terms: any(part(terms) for part in some)
    return lambda terms: any(_within(predicate, term) for term in terms.get(predicate.field, ()))


def _within(bounds: Range, term: Term) -> bool:
    return (
        term.kind == bounds.kind
        and (bounds.low is None or term.value >= bounds.low)  # type: ignore[operator]
        and (bounds.high is None or term.value <= bounds.high)  # type: ignore[operator]
    )


def changed(blobs: Blobs, new: Mapping[str, Blob | None]) -> Blobs:
    """Return blobs with a new part 0 of each name; None removes all parts of a name."""
    left = {place: blob for place, blob in blobs.items() if new.get(place[0], blob) is not None}
    return left | {(name, 0): blob for name, blob in new.items() if blob is not None}


def sizes(blobs: Blobs, prefix: str) -> dict[str, tuple[int, int]]:
    """Return {name: (parts, bytes)} of the blobs whose names begin with a prefix."""
    found: dict[str, tuple[int, int]] = {}
    for (name, _), blob in blobs.items():
        if name.startswith(prefix):
            parts, size = found.get(name, (0, 0))
            found[name] = parts + 1, size + len(blob.content)
    return found


def matching(content: Content, predicate: Predicate | None, after: int = 0) -> Rows:
    """Return the rows above `after` that satisfy a predicate, ascending."""
    passed = passes(predicate)
    return np.array(sorted(n for n, row in content.rows.items() if n > after and passed(row.terms)), np.int64)


def chosen_of(content: Content, rows: Rows) -> tuple[Rows, list[Row]]:
    """Return those of some rows that are there, in the order asked."""
    found = [row for row in map(int, rows) if row in content.rows]
    return np.array(found, np.int64), [content.rows[row] for row in found]


def by_partition(content: Content, rows: Iterable[int]) -> dict[int, Rows]:
    """Return rows by their partitions, ascending."""
    found: dict[int, list[int]] = {}
    for row in sorted(rows):
        found.setdefault(content.rows[row].partition, []).append(row)
    return {partition: np.array(some, np.int64) for partition, some in sorted(found.items())}
