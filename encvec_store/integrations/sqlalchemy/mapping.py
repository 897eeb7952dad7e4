"""Mapped classes with encrypted vectors: values are checked when they are set, and encrypted before an UPDATE.

An INSERT needs nothing here: it is encrypted when the statement runs, from the ORM and from Core.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from sqlalchemy import Connection, Table, event, inspect
from sqlalchemy.orm import ColumnProperty, Mapper
from sqlalchemy.orm.attributes import flag_modified, set_attribute, set_committed_value
from sqlalchemy.sql.elements import ClauseElement

from ...errors import InputError
from ..cipher import plain_array
from .columns import encrypted_columns
from .identity import check_key, identity_of
from .ranked import SUFFIX, RankedVector
from .types import EncryptedVector
from .values import Cell, IndexText, PlainVector

__all__ = ["listen"]


def listen() -> None:
    """Watch for mapped classes with encrypted vectors. Called once, when the package is imported."""
    event.listen(Mapper, "mapper_configured", _configured)


def _configured(mapper: Mapper[Any], owner: type[Any]) -> None:
    for table in mapper.tables:
        if isinstance(table, Table) and encrypted_columns(table):
            check_key(table)
    for prop in mapper.column_attrs:
        kind = prop.columns[0].type
        if isinstance(kind, EncryptedVector) and prop.parent is mapper and isinstance(prop.columns[0].table, Table):
            attribute = getattr(owner, prop.key)
            event.listen(attribute, "set", partial(_set, kind, prop.key), retval=True, propagate=True)
            event.listen(mapper, "before_update", partial(_before_update, prop), propagate=True)
            event.listen(mapper, "after_update", partial(_after_update, prop.key), propagate=True)


def _set(kind: EncryptedVector, name: str, target: Any, value: Any, old: Any, initiator: Any) -> PlainVector | None:
    """Check a vector when it is set, not only at the flush. Raises InputError."""
    if value is None:
        return None
    if isinstance(value, ClauseElement):
        raise InputError(f"{name} must be a vector, which is encrypted before it is sent; got a SQL expression")
    return PlainVector.of(kind.cipher.checked(plain_array(value, name)[None], name)[0])


def _before_update(prop: ColumnProperty[Any], mapper: Mapper[Any], connection: Connection, target: Any) -> None:
    """Encrypt a vector that was set, or whose row gets a new primary key."""
    column = prop.columns[0]
    kind: EncryptedVector = column.type  # type: ignore[assignment]
    table: Table = column.table  # type: ignore[assignment]
    state = inspect(target)
    companion = mapper.get_property_by_column(table.c[column.key + SUFFIX]).key if kind.paired else None
    keys = [mapper.get_property_by_column(key).key for key in table.primary_key.columns]
    # The key of an expired object has no history. So the key changed only if it was set.
    moved = any(state.attrs[key].history.deleted for key in keys)
    if not (state.attrs[prop.key].history.added or moved):
        # `merge` may have set an envelope here. It is not written without its vector.
        if companion is not None and state.attrs[companion].history.added:
            set_committed_value(target, companion, None)
        return
    vector = getattr(target, prop.key)
    envelope = None
    if vector is not None:
        plain = PlainVector.of(vector)
        identity = identity_of(table, lambda key: getattr(target, mapper.get_property_by_column(key).key))
        checked = plain.view(np.ndarray)[None]
        sealed: IndexText | Cell
        if isinstance(kind, RankedVector):
            sealed, envelope = kind.pair(checked, identity)
        else:
            sealed = kind.sealed(checked, identity, connection)
        set_attribute(target, prop.key, plain)
        # the `set` event made a copy, which has no ciphertext yet
        state.dict[prop.key].sealed = sealed
    flag_modified(target, prop.key)
    if companion is not None:
        set_attribute(target, companion, envelope)
        flag_modified(target, companion)


def _after_update(name: str, mapper: Mapper[Any], connection: Connection, target: Any) -> None:
    """Drop the ciphertext: the vector may be used for another row next."""
    vector = inspect(target).dict.get(name)
    if isinstance(vector, PlainVector):
        vector.sealed = None
