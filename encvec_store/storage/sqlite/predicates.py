"""Find the rows that satisfy a predicate, by the index on `terms`.

Every leaf of a predicate is one range of the index. Leaves are combined as sorted arrays of rows.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import numpy as np

from ...data.arrays import Rows
from ...data.filters import AllOf, AnyOf, Match, Predicate, Present, Range, breadth
from .packing import ascending

__all__ = ["matching_rows"]

_AT_ONCE = 500
"""Terms in one statement, well below the limit of SQLite on variables."""
_FEW = 1_000
"""Up to so many rows are looked up one by one in the other parts of an AllOf. Otherwise those parts are listed."""


_FROM = "SELECT row FROM terms WHERE collection = ? AND field = ?"
_BY_NUMBER = " AND row IN (SELECT value FROM json_each(?))"


def matching_rows(
    cursor: sqlite3.Cursor, collection: int, predicate: Predicate, *, after: int = 0, limit: int | None = None
) -> Rows:
    """Return the rows above `after` that satisfy the predicate, ascending and distinct, at most `limit`."""
    single = isinstance(predicate, Match) and len(predicate.terms) == 1
    # only then does the index give the rows in order, so that it can stop early
    found = _rows(cursor, collection, predicate, after, limit if single else None, None)
    return found[:limit]


def _rows(
    cursor: sqlite3.Cursor, collection: int, node: Predicate, after: int, limit: int | None, within: Rows | None
) -> Rows:
    match node:
        case AllOf(parts):
            found = within
            # the narrowest part comes first: its rows may be few enough to be looked up
            for part in sorted(parts, key=breadth):
                few = found if found is not None and len(found) <= _FEW else None
                rows = _rows(cursor, collection, part, after, None, few)
                found = rows if found is None else np.intersect1d(found, rows, assume_unique=True)
                if not len(found):
                    break
            return found if found is not None else _all(cursor, collection, after)
        case AnyOf(parts):
            each = [_rows(cursor, collection, part, after, None, within) for part in parts]
            return np.unique(np.concatenate(each)) if each else np.empty(0, np.int64)
        case Present(field):
            return _leaf(cursor, _FROM, [collection, field], after, None, within)
        case Range(field, kind, low, high):
            sql, values = _FROM + " AND kind = ?", [collection, field, kind]
            for bound, compare in ((low, " AND value >= ?"), (high, " AND value <= ?")):
                if bound is not None:
                    sql, values = sql + compare, [*values, bound]
            return _leaf(cursor, sql, values, after, None, within)
    terms = sorted({(term.kind, term.value) for term in node.terms}, key=repr)
    each = [
        _leaf(cursor, *_one_of(collection, node.field, terms[i : i + _AT_ONCE]), after, limit, within)
        for i in range(0, len(terms), _AT_ONCE)
    ]
    return np.unique(np.concatenate(each)) if each else np.empty(0, np.int64)


def _one_of(collection: int, field: str, terms: list[tuple[str, Any]]) -> tuple[str, list[Any]]:
    pairs = ", ".join(["(?, ?)"] * len(terms))
    if len(terms) == 1:
        return _FROM + " AND kind = ? AND value = ?", [collection, field, *terms[0]]
    # a join with the list of terms: some versions of SQLite do not use the index for both columns of a row-value IN
    sql = (
        f"WITH wanted (kind, value) AS (VALUES {pairs}) SELECT row FROM wanted CROSS JOIN terms"  # noqa: S608
        " ON terms.kind = wanted.kind AND terms.value = wanted.value WHERE collection = ? AND field = ?"
    )
    return sql, [part for term in terms for part in term] + [collection, field]


def _leaf(
    cursor: sqlite3.Cursor, sql: str, values: list[Any], after: int, limit: int | None, within: Rows | None
) -> Rows:
    if within is not None:
        sql, values = sql + _BY_NUMBER, [*values, json.dumps(within.tolist())]
    elif after:
        sql, values = sql + " AND row > ?", [*values, after]
    if limit is not None:
        sql, values = sql + " ORDER BY row LIMIT ?", [*values, limit]
    return np.unique(_listed(cursor, sql, values))


def _all(cursor: sqlite3.Cursor, collection: int, after: int) -> Rows:
    sql = "SELECT row FROM records WHERE collection = ? AND row > ? ORDER BY row"
    return _listed(cursor, sql, [collection, after])


def _listed(cursor: sqlite3.Cursor, sql: str, values: list[Any]) -> Rows:
    return ascending(cursor.execute(f"SELECT group_concat(row) FROM ({sql})", values).fetchone()[0])  # noqa: S608
