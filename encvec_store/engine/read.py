"""Read and delete records by id or filter: rows -> open -> check -> records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..data.arrays import Rows
from ..data.filters import Filter, Predicate, parse, pushdown
from ..data.ids import Id, check_ids
from ..data.ordering import Order, parse_order
from ..data.records import Record
from ..data.values import check_limit, check_offset
from ..errors import InputError, StaleConfigError, StoreUnreachableError
from ..storage.portions import portions
from ..storage.protocol import BUSY, union
from . import lookup
from .candidates import Sources
from .session import Session
from .whole import require_whole

__all__ = ["count", "delete", "get", "index_vectors", "matching_rows", "pages", "select"]

_CHUNK, _ATTEMPTS, _LISTINGS = 1024, 4, 32


class Matched(NamedTuple):
    """Rows that were opened."""

    gone: int
    """How many were not there any more."""
    found: Rows
    matching: Rows
    """Those of `found` that satisfy the filter."""
    records: list[Record]
    """The records of these."""


def get(session: Session, ids: Sequence[Id], *, include_vectors: bool) -> list[Record]:
    """Return the records of ids, in the order asked. See `Collection.get`."""
    session.refresh()
    names = check_ids(ids, unique=False)
    opened: dict[int, Record] = {}
    for _ in lookup.looks(session, _LISTINGS):
        places = lookup.places(session, names)  # of an id under two key versions, the primary's: the other was put back
        rows = np.unique(places[places > 0]).tolist()
        new = np.array([row for row in rows if row not in opened], np.int64)  # the content of a row never changes
        found, read = _records(session, new, include_vectors=include_vectors)
        opened.update(zip(found.tolist(), read, strict=True))
        if len(found) == len(new):
            records = {record.id: record for record in map(opened.__getitem__, rows)}
            return [records[name] for name in names if name in records]
        # otherwise some were written again after they were found: look again
    raise AssertionError("unreachable")


def select(
    session: Session,
    sources: Sources,
    ids: Sequence[Id] | None,
    where: Mapping[str, Any] | None,
    *,
    order_by: str | Sequence[str] | None,
    offset: int,
    limit: int | None,
    include_vectors: bool,
) -> list[Record]:
    """Return records by id and filter, in an order, a part of them. See `Collection.get`."""
    policies = session.refresh().policies
    node, order = parse(where, policies), parse_order(order_by, policies)
    part = slice(check_offset(offset), None if limit is None else offset + check_limit(limit))
    if ids is None:
        return _selected(session, sources, node, order, part, include_vectors=include_vectors)
    records = get(session, ids, include_vectors=include_vectors)
    records = records if node is None else [record for record in records if node(record.metadata)]
    if order is not None:
        records = [records[place] for place in order.places([order.key(record.metadata) for record in records])]
    return records[part]


def _selected(
    session: Session, sources: Sources, node: Filter | None, order: Order | None, part: slice, *, include_vectors: bool
) -> list[Record]:
    """Return a part of the records that satisfy a filter. All were there at one moment; see `matching_rows`."""
    keys: dict[int, Any] = {}
    """Of rows that were opened: what orders them; None for those that fail the filter."""
    for _ in lookup.looks(session, _LISTINGS):
        listed = None if node is None else sources.matching(session.config, node)
        known = np.empty(0, np.int64) if listed is None else listed.known
        rows = lookup.listed(session, _pushed_down(session, node)) if listed is None else listed.rows
        rows = session.without(rows, session.keyring.dead)
        passing, gone = list[int](), 0
        for start in range(0, len(rows), _CHUNK):
            some = rows[start : start + _CHUNK]
            if node is None and order is None:
                passing += some.tolist()
            else:
                sure = np.isin(some, known) & (order is None)
                gone += _note(session, node, order, some[~sure], keys)
                passing += [
                    row
                    for row, is_sure in zip(some.tolist(), sure.tolist(), strict=True)
                    if is_sure or keys.get(row) is not None
                ]
            if order is None and part.stop is not None and len(passing) >= part.stop:
                break
        if gone:
            continue
        if order is not None:
            passing = [passing[place] for place in order.places([keys[row] for row in passing])]
        chosen = np.array(passing[part], np.int64)
        opened: dict[int, Record] = {}
        for some in portions(session.records, np.sort(chosen), _CHUNK):
            found, records = _records(session, some, include_vectors=include_vectors)
            opened.update(zip(found.tolist(), records, strict=True))
        if len(opened) == len(chosen):
            return [opened[row] for row in chosen.tolist()]
        # otherwise some were written again after they were listed: look again
    raise AssertionError("unreachable")


def _note(session: Session, node: Filter | None, order: Order | None, rows: Rows, keys: dict[int, Any]) -> int:
    """Open rows that were not opened yet, and note what orders them. Returns how many were not there any more."""
    new, gone = np.array([row for row in rows.tolist() if row not in keys], np.int64), 0
    for some in portions(session.records, new, _CHUNK):
        opened = _matching(session, node, some, include_vectors=False)
        gone += opened.gone
        keys.update(dict.fromkeys(opened.found.tolist()))
        for row, record in zip(opened.matching.tolist(), opened.records, strict=True):
            keys[row] = () if order is None else order.key(record.metadata)
    return gone


def delete(session: Session, sources: Sources, ids: Sequence[Id] | None, where: Mapping[str, Any] | None) -> int:
    """Delete records by id or by filter, all or nothing. See `Collection.delete`."""
    if (ids is None) == (where is None):
        raise InputError("delete takes either ids or where, not both and not neither")
    session.refresh()
    if ids is None and not where:
        raise InputError("where must not be empty: it would delete every record. Drop the collection instead")
    names, removed = None if ids is None else check_ids(ids, unique=False), 0
    for _ in range(_LISTINGS):
        rows = matching_rows(session, sources, where) if names is None else lookup.find(session, names)
        gone = session.records.remove(rows) if len(rows) else 0
        removed += gone
        if gone == len(rows):
            return removed
        # otherwise some were written or calibrated again after they were found: look again
    raise StoreUnreachableError(f"{BUSY}. {removed} records were deleted, and others were written again each time")


def count(session: Session, sources: Sources, where: Mapping[str, Any] | None) -> int:
    """Count records. See `Collection.count`."""
    if parse(where, session.refresh().policies) is None:
        return session.records.count()
    return len(matching_rows(session, sources, where, sure=False))


def pages(session: Session, where: Mapping[str, Any] | None, *, include_vectors: bool) -> Iterator[list[Record]]:
    """Yield pages of the records that satisfy a filter, in the order of their last write."""
    node = parse(where, session.refresh().policies)  # a bad filter raises now, not at the first record
    listing = lookup.pages(session, _CHUNK, _pushed_down(session, node))
    return (_matching(session, node, rows, include_vectors=include_vectors).records for rows in listing)


def index_vectors(session: Session, ids: Sequence[Id]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return the stored index vectors of ids. See `Collection.index_vectors`."""
    names = check_ids(ids)
    for _ in lookup.looks(session, _LISTINGS):
        rows = lookup.places(session, names)
        if not rows.all():
            raise InputError(f"no record {names[int(np.flatnonzero(rows == 0)[0])]!r}")
        if not session.config.index_dim:
            return np.empty((len(names), 0), np.float32)
        found, vectors = session.records.index_vectors(rows)
        if len(found) == len(rows):
            return vectors
        # otherwise some were written again after they were found: look again
    raise AssertionError("unreachable")


def matching_rows(session: Session, sources: Sources, where: Mapping[str, Any] | None, *, sure: bool = True) -> Rows:
    """Return the rows that satisfy a filter, as of one moment, ascending.

    The content of a row never changes, so each row is opened once. If rows vanish before they are opened, all rows are
    listed again and the new ones are opened. In the end, everything in one list was opened. If columns in memory say
    which rows match, only these are opened; none but the unreadable unless the caller must be `sure`.
    """
    node = parse(where, session.config.policies)
    known = matching = np.empty(0, np.int64)
    for _ in lookup.looks(session, _LISTINGS):
        listed = None if node is None else sources.matching(session.config, node)
        if listed is not None and not sure:
            known = matching = listed.known
        rows = lookup.listed(session, _pushed_down(session, node)) if listed is None else listed.rows
        new = np.setdiff1d(rows, known, assume_unique=True)
        gone = 0
        for part in portions(session.records, new, _CHUNK):
            opened = _matching(session, node, part, include_vectors=False)
            known, matching = union([known, opened.found]), union([matching, opened.matching])
            gone += opened.gone
        if not gone:
            return rows[np.isin(rows, matching, assume_unique=True)]
    raise AssertionError("unreachable")


def _pushed_down(session: Session, node: Filter | None) -> Callable[[], Predicate | None] | None:
    """Return a function that makes the part of a filter that the store can check, under the keys that are live."""
    return None if node is None else lambda: pushdown(node, session.config.policies, session.keyring.blind_terms)


def _matching(session: Session, node: Filter | None, rows: Rows, *, include_vectors: bool) -> Matched:
    """Open rows and check the filter on them."""
    readable = session.without(rows, session.keyring.dead)
    found, records = _records(session, readable, include_vectors=include_vectors)
    passes = [node is None or node(record.metadata) for record in records]
    matching = [record for record, passed in zip(records, passes, strict=True) if passed]
    return Matched(len(readable) - len(found), found, found[np.array(passes, bool)], matching)


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
        require_whole(session, found, heads, prefixes, before)
        for record, vector in zip(records, vectors, strict=True):
            record.vector = vector
    return found, records
