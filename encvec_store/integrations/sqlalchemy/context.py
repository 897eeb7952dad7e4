"""The connection that a session itself would use: its bind for the mapped class, in its transaction and options."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Connection, Table, inspect
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.sql.elements import ClauseElement

from ...errors import InputError

__all__ = ["Bind", "connection_of"]

Bind = Session | scoped_session[Any] | Connection


def connection_of(bind: Bind, subject: Any) -> Connection:
    """Return the connection for a mapped class, attribute, table or statement. Raises InputError.

    It has the execution options of session and engine, `schema_translate_map` among them.
    """
    if isinstance(bind, Connection):
        return bind
    session = bind() if isinstance(bind, scoped_session) else bind
    if not isinstance(session, Session):
        raise InputError(
            f"expected a Session or Connection, got {type(bind).__name__};"
            " of an async one, give this function to its `run_sync`"
        )
    return session.connection(bind_arguments=_arguments(subject))


def _arguments(subject: Any) -> dict[str, Any]:
    """Return what `Session.get_bind` takes to find the engine of a subject."""
    subject = subject.table if isinstance(subject, Column) else subject
    if isinstance(subject, Table):
        return {"clause": subject}
    if isinstance(subject, ClauseElement):
        mapped = subject._propagate_attrs.get("plugin_subject")
        return {"clause": subject} if mapped is None else {"clause": subject, "mapper": mapped.mapper}
    mapped = inspect(subject, raiseerr=False)
    mapper = getattr(getattr(mapped, "parent", mapped), "mapper", None)
    return {"clause": subject} if mapper is None else {"mapper": mapper}
