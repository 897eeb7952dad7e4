"""The index of a sealed column that all sessions of a process share, for one database, table and role."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal,
    literal_column,
    or_,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import OID

from ...sealed_index import Index, Snapshot, fetches, index_of
from .companions import INCARNATION_NAME, Companions
from .following import FIXED, HORIZON, SNAPSHOT, Follower, LastRead, Run, TableRecords, covers
from .triggers import FOLLOWED_NAME, KINDS
from .types import EncryptedVector

__all__ = ["HEAD", "Head", "SharedIndex", "address_of", "head_columns", "head_of", "last_read", "options_of"]

_TRIGGERS = table(
    "pg_trigger", column("tgrelid"), column("tgname"), column("tgenabled"), column("xmin"), schema="pg_catalog"
)
_PARTS = table("pg_inherits", column("inhrelid"), column("inhparent"), schema="pg_catalog")
_SUBSCRIBED = table("pg_subscription_rel", column("srrelid"), schema="pg_catalog")
_SERVER = literal_column("pg_postmaster_start_time()::text", Text())
"""Another server, or an older state of this one, must not pass for the one that an index was read from."""
_held: weakref.WeakKeyDictionary[Any, dict[Hashable, Index]] = weakref.WeakKeyDictionary()
"""By connection pool: indexes stay as long as somebody can connect to their database."""
_seen: weakref.WeakKeyDictionary[Index, LastRead] = weakref.WeakKeyDictionary()


HEAD = 11
"""Values of a head in a row."""


_SERVERS = 4
"""How many servers behind one address keep their indexes, or how many lives of a table."""


class IndexPlace(NamedTuple):
    """What an index belongs to."""

    server: str
    life: bytes
    rest: Hashable


@dataclass(frozen=True)
class Head:
    """What a session sees of a followed table."""

    place: IndexPlace
    incarnation: bytes
    followed: bool
    """True if all triggers are there, were never disabled, and see all rows."""
    hidden: bool
    """True if row-level security applies to this role."""
    fixed: bool
    """True if all statements of the transaction have one snapshot."""
    snapshot: str
    generation: int
    gone: int
    """Entries that are gone, and are newer than what was asked for."""

    @classmethod
    def of(cls, kind: EncryptedVector, address: Hashable, values: tuple[Any, ...]) -> Head:
        """Return the head from the values of `head_columns`."""
        number, role, database, server, hidden, fixed, snapshot, count, life, newest, gone = values
        life, keyset, place = bytes(life or b""), kind.keyset, kind.cipher.place
        where = (address, database, number, role, keyset, kind.tenant, place, kind.metric, kind.dim)
        followed, generation = count == len(KINDS), 0 if newest is None else newest + 1
        return cls(
            IndexPlace(server, life, where), life, followed, bool(hidden), bool(fixed), snapshot, generation, gone
        )

    def sees(self, snapshot: str | None) -> bool:
        """Say whether a statement of now sees what an earlier statement saw in this snapshot, on the same server."""
        return not self.fixed or snapshot is None or covers(self.snapshot, snapshot)


def options_of(connection: Connection, statement: Any = None) -> dict[str, Any]:
    """Return the `schema_translate_map` of a connection or statement, as execution options."""
    options: Mapping[str, Any] = connection.get_execution_options()
    if statement is not None:
        options = {**options, **statement.get_execution_options()}
    found = options.get("schema_translate_map")
    return {} if found is None else {"schema_translate_map": found}


def head_columns(companions: Companions) -> list[Any]:
    """Return the SQL of a head: subqueries, which a statement computes once. `Head.of` takes their values.

    Their parameters are `encvec_table` and `encvec_entries`, the names of the table and of its entries, and
    `encvec_since`: entries that are gone are counted from this generation on.
    """
    found: list[Any] | None = companions.searched.get("head")
    if found is None:
        rows, blobs = companions.rows.c, companions.blobs.c
        oid, entries = (
            cast(func.to_regclass(bindparam(f"encvec_{name}", type_=Text())), OID) for name in ("table", "entries")
        )
        names = [literal(f"{companions.base}_{part}", Text()) for part in KINDS]
        enabled = [literal_column(sign, Text()) for sign in ("'O'", "'A'")]
        maker = select(func.convert_from(blobs.content, literal_column("'UTF8'"))).where(
            blobs.name == FOLLOWED_NAME, blobs.part == 0
        )
        elsewhere = (  # statements on parents, children and partitions, and subscriptions, fire no trigger of the table
            select(_PARTS).where(or_(_PARTS.c.inhrelid == oid, _PARTS.c.inhparent == oid)).correlate(None).exists(),
            select(_SUBSCRIBED).where(_SUBSCRIBED.c.srrelid == oid).correlate(None).exists(),
        )
        triggers = select(func.count()).where(
            _TRIGGERS.c.tgrelid == oid,
            _TRIGGERS.c.tgname.in_(names),
            _TRIGGERS.c.tgenabled.in_(enabled),
            cast(_TRIGGERS.c.xmin, Text) == maker.correlate(None).scalar_subquery(),
            *(~one for one in elsewhere),
        )
        life = select(blobs.content).where(blobs.name == INCARNATION_NAME, blobs.part == 0)
        newest = select(func.max(rows.xid)).where(rows.xid < HORIZON)
        since = bindparam("encvec_since", type_=BigInteger())
        gone = select(func.count()).select_from(companions.rows).where(rows.xid >= since, rows.gone)
        here = (cast(oid, BigInteger), cast(func.current_user(), Text), func.current_database(), _SERVER)
        told = (
            *here,
            or_(*(func.row_security_active(one, type_=Boolean()) for one in (oid, entries))),
            FIXED,
            SNAPSHOT,
        )
        parts = (*(select(one) for one in told), triggers, life, newest, gone)
        found = [part.correlate(None).scalar_subquery() for part in parts]
        found = companions.searched.setdefault("head", found)
    return found


def _whole(companions: Companions) -> Any:
    found = companions.searched.get("whole head")
    return companions.searched.setdefault("whole head", select(*head_columns(companions))) if found is None else found


def _values(companions: Companions, connection: Connection, options: Mapping[str, Any], since: int) -> dict[str, Any]:
    """Return the parameters of `head_columns`."""
    schema = (options.get("schema_translate_map") or {}).get(companions.table.schema, companions.table.schema)
    quote = connection.dialect.identifier_preparer
    home = f"{quote.quote_schema(schema)}." if schema else ""
    names = {"encvec_table": companions.table.name, "encvec_entries": companions.rows.name}
    return {**{key: home + quote.quote(name) for key, name in names.items()}, "encvec_since": since}


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

    def work(connection: Connection) -> Any:
        values = _values(companions, connection, options, since)
        return connection.execute(_whole(companions), values, execution_options=dict(options)).one()

    return Head.of(kind, address, tuple(run(work)))


class SharedIndex:
    """The shared index, as one session uses it.

    Args:
        kind: of the column.
        connection: of the session.
        statement: that is searched: its execution options count.
    """

    head: Head
    index: Index
    follower: Follower

    def __init__(self, kind: EncryptedVector, connection: Connection, statement: Any) -> None:
        self._kind, self._connection = kind, connection
        self.options = options_of(connection, statement)
        self._address = address_of(connection)
        schema = kind.companions.table.schema
        translated = (self.options.get("schema_translate_map") or {}).get(schema, schema)
        self._indexes = _held.setdefault(connection.engine.pool, {})
        self._hint = kind.cipher, translated
        self._last = self._indexes.get(self._hint)
        if self._last is not None:
            self.index = self._last

    def guess(self) -> Snapshot | None:
        """Return the state that was searched last, which is most likely the right one; None if it cannot be.

        None also if parts of it must be fetched: that takes a follower.

        A search may use it at once, if it reads the head in the statement that ranks, and asks if that `confirms` it.
        """
        state = None if self._last is None else self._last.sealed.state
        if state is None or state.dead != frozenset(self._kind.cipher.keyring().dead):
            return None
        return None if any(fetches(part) for part in state.parts) else state

    def confirms(self, state: Snapshot, head: Head) -> bool:
        """Say whether nothing was committed since the state that this session sees, and the index may answer."""
        if head.generation > state.generation or head.gone or self._indexes.get(head.place) is not self._last:
            return False
        self._use(head)
        return self.followed and head.sees(self._seen.snapshot)

    def holds(self, head: Head) -> bool:
        """Say whether the index may still answer, by the head of the statement that ranked."""
        same = head.place == self.head.place and head.followed and not head.hidden
        return same and head.sees(self._seen.snapshot)

    def values(self, since: int) -> dict[str, Any]:
        """Return the parameters of `head_columns`."""
        return _values(self._kind.companions, self._connection, self.options, since)

    def head_from(self, values: tuple[Any, ...]) -> Head:
        """Return the head from the values of `head_columns`."""
        return Head.of(self._kind, self._address, values)

    def read(self) -> None:
        """Read the head, and find the index."""
        state = None if self._last is None else self._last.sealed.state
        self._use(self._read(0 if state is None else state.generation))

    def _use(self, head: Head) -> None:
        self.head = head
        self.index = self._indexes.get(head.place) or self._made()
        if head.place not in self._indexes:
            self._let_go(head.place)
        self._indexes[head.place] = self.index
        if self.followed:
            self._indexes[self._hint] = self.index
        else:  # another session may follow it
            self._indexes.pop(self._hint, None)
        self._seen = last_read(self.index)
        records = TableRecords(self._kind.companions, self._run, self.options, self._seen)
        self.follower = Follower(records, self._kind.cipher.keyring(head.incarnation), self._kind)

    def _made(self) -> Index:
        kind = self._kind
        made = index_of(self.head.place, kind.cipher.config.metric, kind.dim, "auto", builds=True, fields=False)
        kind.cipher.keyring(self.head.incarnation).until_erased(made.sealed)
        return made

    def _let_go(self, place: IndexPlace) -> None:
        """Forget the indexes of servers that were restarted, and of lives that ended."""
        places = [one for one in list(self._indexes) if isinstance(one, IndexPlace) and one.rest == place.rest]
        for one in places[: max(0, len(places) - _SERVERS + 1)]:
            self._indexes.pop(one, None)

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
        return state if self.head.sees(self._seen.snapshot) else None

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
