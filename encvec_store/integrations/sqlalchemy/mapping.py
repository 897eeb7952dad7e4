"""Mapped classes with encrypted vectors: values checked when set, encrypted before an UPDATE.

INSERTs need nothing here: the companion's column default encrypts those, of mapped objects and of Core alike.
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
from .identity import identity_of
from .types import SUFFIX, EncryptedVector
from .values import PlainVector

__all__ = ["listen"]


def listen() -> None:
    """Watch for mapped classes that have encrypted vectors; once, when the package is imported."""
    event.listen(Mapper, "mapper_configured", _configured)


def _configured(mapper: Mapper[Any], owner: type[Any]) -> None:
    for prop in mapper.column_attrs:
        kind = prop.columns[0].type
        if isinstance(kind, EncryptedVector) and prop.parent is mapper and isinstance(prop.columns[0].table, Table):
            attribute = getattr(owner, prop.key)
            event.listen(attribute, "set", partial(_set, kind, prop.key), retval=True, propagate=True)
            event.listen(mapper, "before_update", partial(_before_update, prop), propagate=True)
            event.listen(mapper, "after_update", partial(_after_update, prop.key), propagate=True)


def _set(kind: EncryptedVector, name: str, target: Any, value: Any, old: Any, initiator: Any) -> PlainVector | None:
    """Check a vector where it is set, as a flush would tell of it late. Raises InputError."""
    if value is None:
        return None
    if isinstance(value, ClauseElement):
        raise InputError(f"{name} is encrypted here: give it a vector, no SQL expression")
    return PlainVector.of(kind.cipher.checked(np.asarray(value)[None], name)[0])


def _before_update(prop: ColumnProperty[Any], mapper: Mapper[Any], connection: Connection, target: Any) -> None:
    """Encrypt a vector that was set, or whose row gets another primary key."""
    column = prop.columns[0]
    kind: EncryptedVector = column.type  # type: ignore[assignment]
    table: Table = column.table  # type: ignore[assignment]
    state = inspect(target)
    companion = mapper.get_property_by_column(table.c[column.key + SUFFIX]).key
    keys = [mapper.get_property_by_column(key).key for key in table.primary_key.columns]
    # an object not yet loaded has no history of its key: only one that was set can have changed
    moved = any(state.attrs[key].history.deleted for key in keys)
    if not (state.attrs[prop.key].history.added or moved):
        # whatever was set here (by `merge`, say) is no other row's envelope: the pair is written together or not at all
        if state.attrs[companion].history.added:
            set_committed_value(target, companion, None)
        return
    vector = getattr(target, prop.key)
    sealed = None
    if vector is not None:
        plain = PlainVector.of(vector)
        identity = identity_of(table, lambda key: getattr(target, mapper.get_property_by_column(key).key))
        plain.text, sealed = kind.sealed(plain.view(np.ndarray)[None], identity)
        set_attribute(target, prop.key, plain)
        # `set` made its own copy, which has no ciphertext yet
        state.dict[prop.key].text = plain.text
    flag_modified(target, prop.key)
    set_attribute(target, companion, sealed)
    flag_modified(target, companion)


def _after_update(name: str, mapper: Mapper[Any], connection: Connection, target: Any) -> None:
    """Forget the ciphertext: the vector may go into another statement, whose row is not known."""
    vector = inspect(target).dict.get(name)
    if isinstance(vector, PlainVector):
        vector.text = None
