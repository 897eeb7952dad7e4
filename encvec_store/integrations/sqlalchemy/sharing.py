"""The index of a sealed column that all sessions of a process share, for one database, table and role."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Connection, Text, cast, column, func, select, table
from sqlalchemy.dialects.postgresql import OID

from ...sealed_index import Index, Snapshot, index_of
from .companions import INCARNATION_NAME
from .following import HORIZON, SNAPSHOT, Follower, LastRead, Run, TableRecords, covers
from .triggers import KINDS
from .types import EncryptedVector

__all__ = ["Head", "SharedIndex", "address_of", "head_of", "last_read", "options_of"]

_TRIGGERS = table("pg_trigger", column("tgrelid"), column("tgname"), column("tgenabled"), schema="pg_catalog")
_held: weakref.WeakKeyDictionary[Any, dict[Hashable, Index]] = weakref.WeakKeyDictionary()
"""By connection pool: indexes stay as long as somebody can connect to their database."""
_seen: weakref.WeakKeyDictionary[Index, LastRead] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Head:
    """What a session sees of a followed table."""

    place: Hashable
    incarnation: bytes
    followed: bool
    """True if all triggers are there."""
    hidden: bool
    """True if row-level security applies to this role."""
    snapshot: str
    generation: int
    gone: int
    """Entries that are gone, and are newer than what was asked for."""


def options_of(connection: Connection, statement: Any = None) -> dict[str, Any]:
    """Return the `schema_translate_map` of a connection or statement, as execution options."""
    options: Mapping[str, Any] = connection.get_execution_options()
    if statement is not None:
        options = {**options, **statement.get_execution_options()}
    found = options.get("schema_translate_map")
    return {} if found is None else {"schema_translate_map": found}


def head_of(kind: EncryptedVector, run: Run[Any], options: Mapping[str, Any], since: int, address: Hashable) -> Head:
    """Read the head, in one statement.

    Args:
        kind: of the column.
        run: gives a connection.
        options: execution options.
        since: count entries that are gone from this generation on.
        address: of the database.
    """
    companions = kind.companions
    rows, blobs = companions.rows.c, companions.blobs.c
    schema = (options.get("schema_translate_map") or {}).get(companions.table.schema, companions.table.schema)

    def work(connection: Connection) -> Any:
        quote = connection.dialect.identifier_preparer
        name = quote.quote(companions.table.name)
        oid = cast(func.to_regclass(f"{quote.quote_schema(schema)}.{name}" if schema else name), OID)
        triggers = select(func.count()).where(
            _TRIGGERS.c.tgrelid == oid,
            _TRIGGERS.c.tgname.in_([f"{companions.base}_{part}" for part in KINDS]),
            _TRIGGERS.c.tgenabled.in_(["O", "A"]),
        )
        life = select(blobs.content).where(blobs.name == INCARNATION_NAME, blobs.part == 0)
        newest = select(func.max(rows.xid)).where(rows.xid < HORIZON)
        gone = select(func.count()).select_from(companions.rows).where(rows.xid >= since, rows.gone)
        asked = select(
            cast(oid, BigInteger),
            cast(func.current_user(), Text),
            func.current_database(),
            func.row_security_active(oid),
            SNAPSHOT,
            *(part.scalar_subquery() for part in (triggers, life, newest, gone)),
        )
        return connection.execute(asked, execution_options=dict(options)).one()

    number, role, database, hidden, snapshot, count, life, newest, gone = run(work)
    life = bytes(life or b"")
    place = (address, database, number, role, life, kind.keyset, kind.tenant, kind.cipher.place, kind.metric, kind.dim)
    generation = 0 if newest is None else newest + 1
    return Head(place, life, count == len(KINDS), bool(hidden), snapshot, generation, gone)


class SharedIndex:
    """The shared index, as one session uses it.

    Args:
        kind: of the column.
        connection: of the session.
        statement: that is searched: its execution options count.
    """

    def __init__(self, kind: EncryptedVector, connection: Connection, statement: Any) -> None:
        self._kind, self._connection = kind, connection
        self.options = options_of(connection, statement)
        self._address = address_of(connection)
        schema = kind.companions.table.schema
        translated = (self.options.get("schema_translate_map") or {}).get(schema, schema)
        indexes, self._hint = _held.setdefault(connection.engine.pool, {}), (kind.cipher, translated)
        before = indexes.get(self._hint)
        state = None if before is None else before.sealed.state
        self.head = self._read(0 if state is None else state.generation)
        self.index = indexes.get(self.head.place) or self._made()
        indexes[self._hint] = indexes[self.head.place] = self.index
        self._seen = last_read(self.index)
        records = TableRecords(kind.companions, self._run, self.options, self._seen)
        self.follower = Follower(records, kind.cipher.keyring(self.head.incarnation), kind)

    def _made(self) -> Index:
        kind = self._kind
        return index_of(self.head.place, kind.cipher.config.metric, kind.dim, "auto", builds=True, fields=False)

    @property
    def followed(self) -> bool:
        """True if the index may answer."""
        return self.head.followed and not self.head.hidden

    def state(self) -> Snapshot | None:
        """Return the state of the index, brought up to date; None if the session sees an older state of the table.

        Everything that ended before this call is in it, or is newer than its generation.
        """
        sealed, counted = self.index.sealed, self.head.generation
        state = sealed.state
        if state is None or state.dead != frozenset(self.follower.keyring.dead) or state.generation < counted:
            state, _ = sealed.current(self.follower, stale=True)
            self.head = self._read(state.generation)
        seen = self._seen.snapshot
        if seen is not None and not covers(self.head.snapshot, seen):
            self.head = self._read(state.generation)  # another session has updated the index meanwhile
            if not covers(self.head.snapshot, seen):
                return None
        return state

    def _run(self, work: Any) -> Any:
        return work(self._connection)

    def _read(self, since: int) -> Head:
        return head_of(self._kind, self._run, self.options, since, self._address)


def address_of(connection: Connection) -> Hashable:
    """Return what tells the databases of a process apart."""
    url = connection.engine.url
    return url.host, url.port, tuple(sorted(url.query.items()))


def last_read(index: Index) -> LastRead:
    """Return what is noted of the last reading of an index."""
    return _seen.setdefault(index, LastRead())
