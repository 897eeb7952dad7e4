"""Searches that give exact answers, and rows written anew under the primary key."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection, LargeBinary, Select, Table, bindparam, func, or_, select, type_coerce, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from ...errors import InputError
from .cipher import BOUND
from .columns import column_of
from .identity import identity_of
from .types import SUFFIX, EncryptedVector
from .values import distance, text_of

__all__ = ["Ranked", "reencrypt", "rerank"]

_KIND, _VERSION = (19, 2), (25, 4)
"""Where they stand in an envelope, from 1, and their sizes."""


class Ranked(NamedTuple):
    """A row with its exact score."""

    item: Any
    """What the statement selects: the one entity or value, else the tuple of them."""
    score: float
    """Exact: the cosine, the Euclidean distance, or the inner product, by the column's metric."""


def rerank(
    bind: Session | Connection,
    statement: Select[Any],
    query: Any,
    k: int,
    *,
    column: Any = None,
    oversample: int = 10,
) -> list[Ranked]:
    """Fetch `oversample * k` candidates by ciphertext, compute their exact scores, return the best k.

    Rows under every live key version are found; a distance in `order_by` ranks those under the primary only.
    Under an async engine: `await session.run_sync(rerank, statement, query, k)`.

    Args:
        bind: a session or connection.
        statement: a select, with any WHERE; its ORDER BY, LIMIT and OFFSET are replaced.
        query: (dim,).
        k: rows wanted.
        column: the encrypted column, where the statement has more than one.
        oversample: candidates for each row wanted.
    """
    if k < 1 or oversample < 1:
        raise InputError("k and oversample are at least 1")
    target = _target(statement) if column is None else column
    kind: EncryptedVector = column_of(target).type  # type: ignore[assignment]
    cipher, metric = kind.cipher, kind.cipher.config.metric
    queries = {version: cipher.query(query, version) for version in cipher.live}
    sealed, _ = kind.sibling(_element(target))
    limit, rows = k * oversample, []
    before = _widen(bind, limit)
    for version, encrypted in queries.items():
        asked = statement.add_columns(kind.packed(_element(target))).order_by(None).offset(None)
        if len(cipher.versions) > 1:
            asked = asked.where(_bytes(sealed, *_VERSION) == version.to_bytes(4, "big"))
        asked = asked.order_by(distance(_element(target), encrypted)).limit(limit)
        rows += [row for row in bind.execute(asked) if row[-1] is not None]
    _narrow(bind, before)
    if not rows:
        return []
    vectors = cipher.open([bytes(row[-1]) for row in rows], bound=kind.require_identity)
    scores = metric.scores(np.asarray(query, np.float32), vectors)
    order = np.argsort(metric.order(scores), kind="stable")[:k]
    return [Ranked(rows[i][0] if len(rows[i]) == 2 else tuple(rows[i][:-1]), float(scores[i])) for i in order]


def reencrypt(bind: Session | Connection, column: Any, *, limit: int = 1000) -> int:
    """Write rows anew that are not under the primary key version, or whose primary key is not bound yet.

    Call it until it returns 0, and commit in between; after `keyset.rotate()`, or to bind the keys that the server
    made. Locks the rows it rewrites. Returns how many those were.
    """
    found = column_of(column)
    table: Table = found.table
    kind: EncryptedVector = found.type  # type: ignore[assignment]
    keys = list(table.primary_key.columns)
    sealed, identity = kind.sibling(found)
    cipher = kind.cipher
    version = cipher.live[0].to_bytes(4, "big")
    stale = _bytes(sealed, *_VERSION) != version
    if identity is not None:
        stale = or_(stale, _bytes(sealed, *_KIND) != BOUND.to_bytes(2, "big"))
    chosen = select(*keys, kind.packed(found)).where(stale).order_by(*keys).limit(limit).with_for_update()
    rows = [row for row in bind.execute(chosen).all() if row[-1] is not None]
    if not rows:
        return 0
    identities = [identity_of(table, dict(zip(keys, row, strict=False)).get) for row in rows]
    index, envelopes = kind.sealed_many(cipher.open([bytes(row[-1]) for row in rows]), identities)
    values = [
        {
            **{f"at_{i}": value for i, value in enumerate(row[:-1])},
            "to_index": text_of(one),
            "to_sealed": two.tobytes(),
        }
        for row, one, two in zip(rows, index, envelopes, strict=True)
    ]
    place = [key == bindparam(f"at_{i}") for i, key in enumerate(keys)]
    into: Any = {found: bindparam("to_index"), table.c[found.key + SUFFIX]: bindparam("to_sealed")}
    connection = bind.connection() if isinstance(bind, Session) else bind
    connection.execute(update(table).where(*place).values(into), values)
    return len(rows)


def _bytes(sealed: Any, start: int, size: int) -> ColumnElement[bytes]:
    """A part of the header, from 1."""
    return func.substring(type_coerce(sealed, LargeBinary()), start, size, type_=LargeBinary())


def _element(column: Any) -> ColumnElement[Any]:
    element: ColumnElement[Any] = column.__clause_element__() if hasattr(column, "__clause_element__") else column
    return element


def _target(statement: Select[Any]) -> Any:
    """Return the one encrypted column of what a statement selects from. Raises InputError."""
    sources = [source.c for source in statement.get_final_froms()]
    found = [column for columns in sources for column in columns if isinstance(column.type, EncryptedVector)]
    if len(found) != 1:
        raise InputError(f"the statement has {len(found)} encrypted columns: name one by `column`")
    return found[0]


def _widen(bind: Session | Connection, limit: int) -> list[tuple[str, str]]:
    """Let HNSW look at enough candidates, until the transaction's end or `_narrow`; returns what was set before."""
    wanted = {"hnsw.ef_search": str(min(1000, max(40, 2 * limit))), "hnsw.iterative_scan": "relaxed_order"}
    before = bind.execute(select(*(func.current_setting(name, True) for name in wanted))).one()
    bind.execute(select(*(func.set_config(name, value, True) for name, value in wanted.items())))
    return [(name, old or default) for name, old, default in zip(wanted, before, ("40", "off"), strict=True)]


def _narrow(bind: Session | Connection, before: list[tuple[str, str]]) -> None:
    bind.execute(select(*(func.set_config(name, value, True) for name, value in before)))
