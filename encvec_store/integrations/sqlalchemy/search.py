"""Searches with exact scores, and encrypting rows again under the primary key version."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection, LargeBinary, Select, Table, bindparam, func, or_, select, type_coerce, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import ColumnElement

from ...errors import InputError
from ..cipher import BOUND, plain_array
from .columns import column_of, ranked_kind
from .context import Bind, connection_of
from .identity import namer
from .ranked import SUFFIX, RankedVector
from .types import EncryptedVector
from .values import Cell, distance, text_of

__all__ = ["Ranked", "reencrypt", "rerank"]

_KIND, _VERSION = (19, 2), (25, 4)
"""Position in an envelope, from 1, and size."""
_log = logging.getLogger("encvec_store")
_told: set[str] = set()
"""Columns that a warning was logged for: once each."""


class Ranked(NamedTuple):
    """A row with its exact score."""

    item: Any
    """What the statement selects: an entity or value, or a tuple if there are several."""
    score: float
    """The exact cosine, Euclidean distance or inner product, by the metric of the column."""


def rerank(
    bind: Bind,
    statement: Select[Any],
    query: Any,
    k: int,
    *,
    column: Any = None,
    oversample: int = 10,
) -> list[Ranked]:
    """Fetch `oversample * k` candidates by ciphertext, compute their exact scores, return the best k.

    It finds rows under every live key version, while a distance in `order_by` ranks rows under the primary one only. If
    the index gives too few rows, as under a filter that few rows pass, all rows that pass are compared.
    With an async session: `await session.run_sync(rerank, statement, query, k)`.

    Args:
        bind: a session or connection.
        statement: a select, with any WHERE; its ORDER BY, LIMIT and OFFSET are replaced.
        query: (dim,).
        k: number of rows to return.
        column: the encrypted column, if the statement has more than one.
        oversample: candidates for each row returned.
    """
    if k < 1 or oversample < 1:
        raise InputError(f"k and oversample must be integers >= 1, got {k} and {oversample}")
    target = _element(_target(statement) if column is None else column)
    kind = ranked_kind(column_of(target), "use nearest(session, statement, Model.column, query, k)")
    cipher, metric = kind.cipher, kind.cipher.config.metric
    queries = {version: cipher.query(query, version) for version in cipher.live}
    sealed, _ = kind.sibling(target)
    limit, rows = k * oversample, []
    wanted = statement.add_columns(kind.packed(target)).order_by(None).offset(None).limit(limit)
    with _wide(connection_of(bind, statement), limit):
        for version, encrypted in queries.items():
            asked = wanted
            if len(cipher.versions) > 1:
                asked = asked.where(_bytes(sealed, *_VERSION) == version.to_bytes(4, "big"))
            found = bind.execute(asked.order_by(distance(target, encrypted))).all()
            if len(found) < limit:
                indexed = len(found)
                found = bind.execute(asked.order_by(distance(target, encrypted, exact=True))).all()
                _tell(cipher.place, indexed, len(found))
            rows += [row for row in found if row[-1] is not None]
    if not rows:
        return []
    vectors = cipher.open([bytes(row[-1]) for row in rows], bound=kind.require_identity)
    scores = metric.scores(plain_array(query, "query").astype(np.float32), vectors)
    order = np.argsort(metric.order(scores), kind="stable")[:k]
    return [Ranked(rows[i][0] if len(rows[i]) == 2 else tuple(rows[i][:-1]), float(scores[i])) for i in order]


def reencrypt(bind: Bind, column: Any, *, limit: int = 1000) -> int:
    """Encrypt again the rows that are not under the primary key version, or not bound to their primary key.

    Use it after `keyset.rotate()`, or to bind rows whose keys the server made. Call it until it returns 0, and commit
    after each call: it locks the rows that it rewrites. Each call rewrites all of its rows or none. That is so under
    AUTOCOMMIT too, where rows are not locked: one that is written meanwhile keeps its new vector. Returns the number of
    rows.
    """
    found = column_of(column)
    table: Table = found.table
    kind: EncryptedVector = found.type  # type: ignore[assignment]
    keys = list(table.primary_key.columns)
    sealed: Any = kind.sibling(found)[0] if isinstance(kind, RankedVector) else found
    cipher = kind.cipher
    version = cipher.live[0].to_bytes(4, "big")
    stale = _bytes(sealed, *_VERSION) != version
    if keys:
        stale = or_(stale, _bytes(sealed, *_KIND) != BOUND.to_bytes(2, "big"))
    envelope = type_coerce(sealed, LargeBinary())
    chosen = select(*keys, envelope, kind.packed(found)).where(stale).order_by(*keys).limit(limit).with_for_update()
    connection = connection_of(bind, column)
    rows = [row for row in connection.execute(chosen).all() if row[-1] is not None]
    if not rows:
        return 0
    identities = list(map(namer(table), (dict(zip(keys, row, strict=False)).get for row in rows)))
    vectors = cipher.open([bytes(row[-1]) for row in rows])
    into: dict[Any, Any] = {found: bindparam("to_sealed")}
    new: list[dict[str, Any]]
    if isinstance(kind, RankedVector):
        pairs = zip(*kind.pairs(vectors, identities), strict=True)
        new = [{"to_index": text_of(index), "to_sealed": envelope.tobytes()} for index, envelope in pairs]
        into = {found: bindparam("to_index"), table.c[found.key + SUFFIX]: bindparam("to_sealed")}
    else:
        cells = kind.sealed_many(vectors, identities, connection)
        new = [{"to_sealed": Cell(cell.tobytes())} for cell in cells]
    values = [
        {**{f"at_{i}": value for i, value in enumerate(row[:-2])}, "from_sealed": row[-2], **made}
        for row, made in zip(rows, new, strict=True)
    ]
    # With AUTOCOMMIT nothing is locked: a row that was written meanwhile keeps its new vector.
    place = [envelope == bindparam("from_sealed"), *(key == bindparam(f"at_{i}") for i, key in enumerate(keys))]
    connection.execute(update(table).where(*place).values(into), values)
    return len(rows)


def _bytes(sealed: Any, start: int, size: int) -> ColumnElement[bytes]:
    """Select a part of the header; positions count from 1."""
    return func.substring(type_coerce(sealed, LargeBinary()), start, size, type_=LargeBinary())


def _element(column: Any) -> ColumnElement[Any]:
    element: ColumnElement[Any] = column.__clause_element__() if hasattr(column, "__clause_element__") else column
    return element


def _target(statement: Select[Any]) -> Any:
    """Return the only encrypted column that a statement selects from. Raises InputError."""
    sources = [source.c for source in statement.get_final_froms()]
    found = [column for columns in sources for column in columns if isinstance(column.type, EncryptedVector)]
    if len(found) != 1:
        raise InputError(f"the statement must have one encrypted column, got {len(found)}: name one by `column`")
    return found[0]


def _tell(place: str, indexed: int, found: int) -> None:
    if found > indexed and place not in _told:
        _told.add(place)
        _log.warning(
            "rerank on %s: the index gave %d rows where %d pass the filter, so all of these were compared. An ordinary"
            " index on the columns of the filter makes this fast",
            place,
            indexed,
            found,
        )


@contextmanager
def _wide(connection: Connection, limit: int) -> Iterator[None]:
    """Let HNSW look at enough candidates, then put the settings of the transaction back."""
    wanted = {"hnsw.ef_search": str(min(1000, max(40, 2 * limit))), "hnsw.iterative_scan": "relaxed_order"}
    before = connection.execute(select(*(func.current_setting(name, True) for name in wanted))).one()
    _set(connection, wanted)
    old = {name: value or default for name, value, default in zip(wanted, before, ("40", "off"), strict=True)}
    try:
        yield
    except DBAPIError:  # the server has undone the settings with the transaction
        raise
    except Exception:
        _set(connection, old)
        raise
    _set(connection, old)


def _set(connection: Connection, settings: dict[str, str]) -> None:
    connection.execute(select(*(func.set_config(name, value, True) for name, value in settings.items())))
