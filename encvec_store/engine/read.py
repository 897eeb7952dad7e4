"""Read and delete records by id or filter: rows -> open -> check -> records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..data.arrays import Rows
from ..data.filters import parse, pushdown
from ..data.records import Record, check_ids
from ..errors import InputError, StaleConfigError
from .session import Session

__all__ = ["count", "delete", "get", "index_vectors", "pages"]

_CHUNK, _ATTEMPTS = 1024, 4


def get(session: Session, ids: Sequence[str], *, include_vectors: bool) -> list[Record]:
    """Return the records of ids, in the order asked. See `Collection.get`."""
    session.refresh()
    names = check_ids(ids, unique=False)
    records: dict[str, Record] = {}
    for _ in range(_ATTEMPTS):
        rows = session.find(names)
        found, read = _records(session, rows, include_vectors=include_vectors)
        records = {record.id: record for record in read}
        if len(found) == len(rows):
            break  # otherwise some were written again after they were found: look again
    return [records[name] for name in names if name in records]


def delete(session: Session, ids: Sequence[str] | None, where: Mapping[str, Any] | None) -> int:
    """Delete records by id or by filter, all or nothing. See `Collection.delete`."""
    if (ids is None) == (where is None):
        raise InputError("delete takes either ids or where, not both and not neither")
    session.refresh()
    if ids is None and not where:
        raise InputError("where must not be empty: it would delete every record. Drop the collection instead")
    names, removed = None if ids is None else check_ids(ids, unique=False), 0
    for _ in range(_ATTEMPTS):
        rows = _matching_rows(session, where) if names is None else session.find(names, held=True)
        gone = session.records.remove(rows) if len(rows) else 0
        removed += gone
        if gone == len(rows):
            break  # otherwise some were written or calibrated again after they were found: look again
    return removed


def count(session: Session, where: Mapping[str, Any] | None) -> int:
    """Count records. See `Collection.count`."""
    if parse(where, session.refresh().policies) is None:
        return session.records.count()
    return len(_matching_rows(session, where))


def pages(session: Session, where: Mapping[str, Any] | None, *, include_vectors: bool) -> Iterator[list[Record]]:
    """Yield pages of the records that satisfy a filter, in the order of their last write."""
    parse(where, session.refresh().policies)  # a bad filter raises now, not at the first record
    matching = _matching(session, where, include_vectors=include_vectors)
    return ([record for _, record in page] for page in matching)


def index_vectors(session: Session, ids: Sequence[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return the stored index vectors of ids. See `Collection.index_vectors`."""
    names = check_ids(ids)
    found = session.places(names)
    if not found.all():
        raise InputError(f"no record {names[int(np.flatnonzero(found == 0)[0])]!r}")
    if not session.config.index_dim:
        return np.empty((len(names), 0), np.float32)
    return session.records.index_vectors(found)[1]


def _matching_rows(session: Session, where: Mapping[str, Any] | None) -> Rows:
    matching = _matching(session, where, include_vectors=False)
    return np.array([row for page in matching for row, _ in page], np.int64)


def _matching(
    session: Session, where: Mapping[str, Any] | None, *, include_vectors: bool
) -> Iterator[list[tuple[int, Record]]]:
    """Yield pages of (row, record) of the records that satisfy a filter and can be opened."""
    policies = session.config.policies
    node = parse(where, policies)
    predicate = pushdown(node, policies, session.keyring.blind_terms)
    for rows in session.pages(_CHUNK, predicate):
        readable = session.without(rows, session.keyring.dead)
        found, records = _records(session, readable, include_vectors=include_vectors)
        pairs = zip(found.tolist(), records, strict=True)
        yield [(row, record) for row, record in pairs if node is None or node(record.metadata)]


def _records(session: Session, rows: Rows, *, include_vectors: bool) -> tuple[Rows, list[Record]]:
    """Open all parts of rows. Raises AuthenticationError if the parts of a record do not belong together."""
    for attempt in range(_ATTEMPTS):
        try:
            return _read(session, rows, include_vectors=include_vectors)
        except StaleConfigError:  # rewritten between the two reads: the same rows hold other bytes now
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _read(session: Session, rows: Rows, *, include_vectors: bool) -> tuple[Rows, list[Record]]:
    before = session.config
    found, payloads, prefixes = session.open_payloads(rows)
    records = [Record(id, None, fields, text) for id, fields, text in payloads]
    if include_vectors and len(found):
        having, vectors, heads = session.open_vectors(found)
        if len(having) != len(found):  # some were deleted between the two reads: leave them out
            kept = np.isin(found, having)
            records = [record for record, keep in zip(records, kept, strict=True) if keep]
            prefixes = [prefix for prefix, keep in zip(prefixes, kept, strict=True) if keep]
            found = having
        session.require_whole(heads, prefixes, before)
        for record, vector in zip(records, vectors, strict=True):
            record.vector = vector
    return found, records
