"""The incarnation of a table with a sealed vector: read once in each transaction that writes.

Reading it locks the companion table against DROP until the transaction ends, so it stays the same for all its writes.
A savepoint that is rolled back gives back the locks that were taken in it. So what was read in one counts only there.
"""

from __future__ import annotations

import os
import weakref
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from ...crypto.envelope import INCARNATION
from ...errors import StoreError
from .companions import INCARNATION_NAME, Companions

__all__ = ["commits_each", "incarnation_of"]

_Known = dict[tuple[Companions, str | None], bytes | None]
_known: weakref.WeakKeyDictionary[Any, _Known] = weakref.WeakKeyDictionary()
"""By transaction; None where this transaction drew the incarnation: a rollback to a savepoint may undo that."""


def incarnation_of(connection: Connection, companions: Companions) -> bytes:
    """Return the 16 random bytes that stand for this life of the table. They are drawn at the first write."""
    whole, place = connection.get_transaction(), (companions, connection.schema_for_object(companions.blobs))
    inner = connection.get_nested_transaction() or whole
    lasting = not (whole is None or inner is None or commits_each(connection))
    known: _Known = _known.setdefault(inner, {}) if lasting else {}
    found = known.get(place) or (_known.get(whole, {}).get(place) if lasting else None)
    if found is not None:
        return found
    blobs = companions.blobs
    asked = select(blobs.c.content).where(blobs.c.name == INCARNATION_NAME, blobs.c.part == 0)
    stored = connection.scalar(asked)
    if stored is None:
        known[place] = None
        values = {"name": INCARNATION_NAME, "part": 0, "key_version": 0, "content": os.urandom(INCARNATION)}
        connection.execute(insert(blobs).values(values).on_conflict_do_nothing())
        stored = connection.scalar(asked)
    life = bytes(stored or b"")
    if len(life) != INCARNATION:
        raise StoreError(
            f"{companions.blobs.name} must show this role the incarnation of {companions.table.name}, {INCARNATION}"
            f" bytes, got {len(life)}: no vector could be opened again. Does row-level security hide it?"
        )
    known.setdefault(place, life)
    return life


def commits_each(connection: Connection) -> bool:
    """Return True under AUTOCOMMIT, where a transaction of SQLAlchemy holds no locks."""
    try:
        return connection.dialect.detect_autocommit_setting(connection.connection.dbapi_connection)  # type: ignore[arg-type]
    except NotImplementedError:
        return True
