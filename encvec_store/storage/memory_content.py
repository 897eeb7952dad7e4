"""The records of one collection in dictionaries, and how predicates are checked on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from ..data.arrays import Bytes, Kept
from ..data.fields import Term
from ..data.filters import AllOf, AnyOf, Match, Predicate, Present
from .protocol import EncryptedBatch

__all__ = ["Content", "Row", "holds"]


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


def holds(predicate: Predicate | None, terms: dict[str, set[Term]]) -> bool:
    """True if these terms satisfy a predicate."""
    match predicate:
        case None:
            return True
        case Match(field, wanted):
            return not terms.get(field, set()).isdisjoint(wanted)
        case Present(field):
            return bool(terms.get(field))
        case AllOf(parts):
            return all(holds(part, terms) for part in parts)
        case AnyOf(parts):
            return any(holds(part, terms) for part in parts)
    return any(
        term.kind == predicate.kind
        and (predicate.low is None or term.value >= predicate.low)  # type: ignore[operator]
        and (predicate.high is None or term.value <= predicate.high)  # type: ignore[operator]
        for term in terms.get(predicate.field, set())
    )
