"""A table with a sealed column, as the records that a sealed index follows.

An entry of `<table>_<column>_rows` is a row of the index. A follower reads entries of transactions that are older than
every transaction that still runs: no entry of theirs can appear later. What is newer, each search reads by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Connection,
    Text,
    and_,
    any_,
    bindparam,
    delete,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert
from sqlalchemy.exc import DBAPIError, OperationalError

from ...data.arrays import Bytes, Matrix, Rows
from ...data.filters import Predicate
from ...data.partitions import partition_of
from ...errors import StoreError, StoreUnreachableError
from ...runtime.concurrency import offload
from ...sealing.codec import Decoded
from ...sealing.keyring import Keyring
from ...storage import Blob, Changes, Followed
from .companions import INCARNATION_NAME, Companions
from .types import EncryptedVector

__all__ = ["FIXED", "HORIZON", "SNAPSHOT", "Follower", "Run", "TableRecords", "array_of", "covers", "joined"]

T = TypeVar("T")
Run = Callable[[Callable[[Connection], T]], T]
"""Calls a function with a connection: the caller's own, or another one, in a transaction."""

SNAPSHOT = literal_column("pg_current_snapshot()::text", Text()).label("snapshot")
_LEVEL = "current_setting('transaction_isolation')"
FIXED = literal_column(f"{_LEVEL} IN ('repeatable read', 'serializable')", Boolean()).label("fixed")
HORIZON = literal_column("pg_snapshot_xmin(pg_current_snapshot())::text::bigint", BigInteger())
"""Transactions below this number have ended, as the statement sees it."""


def array_of(rows: Any) -> Any:
    """Return row numbers as a parameter."""
    return bindparam(None, np.asarray(rows, np.int64).tolist(), type_=ARRAY(BigInteger), unique=True)


def joined(companions: Companions, entries: Any, keys: Iterable[Any]) -> Any:
    """Return SQL that joins entries with the rows that have these key columns."""
    return and_(*(entries.c[mine.name] == key for mine, key in zip(companions.keys, keys, strict=True)))


def covers(mine: str, theirs: str) -> bool:
    """Say whether one snapshot sees every transaction as ended that another one saw as ended.

    A standby does not list which transactions run: then all that may run count as running.
    """
    (my_first, my_end, my_open), (_, their_end, their_open) = _parsed(mine), _parsed(theirs)
    my_end = my_end if my_open else my_first
    if their_end - my_end > len(their_open):
        return False
    unseen = {*range(my_end, their_end), *(xid for xid in my_open if xid < their_end)}
    return unseen <= their_open


def _parsed(snapshot: str) -> tuple[int, int, set[int]]:
    first, end, running = snapshot.split(":")
    return int(first), int(end), set(map(int, filter(None, running.split(","))))


@dataclass(eq=False)
class LastRead:
    """The snapshot in which the shared index last read what changed."""

    snapshot: str | None = None


class TableRecords:
    """The entries of a column, as `Followed`.

    Args:
        companions: of the column.
        run: gives a connection.
        options: execution options, such as `schema_translate_map`.
        seen: is told which snapshot was read.
    """

    def __init__(self, companions: Companions, run: Run[Any], options: Mapping[str, Any], seen: LastRead) -> None:
        self._companions, self._run, self._options, self._seen = companions, run, dict(options), seen

    def rows_of(self, statement: Any) -> list[Any]:
        """Run a statement and return its rows."""

        def work(connection: Connection) -> list[Any]:
            return list(connection.execute(statement, execution_options=self._options).all())

        with _named():
            found: list[Any] = self._run(work)
        return found

    # what is followed

    def generation(self) -> int:
        """Return a number that is larger than that of every transaction that was followed."""
        c = self._companions.rows.c
        (row,) = self.rows_of(select(func.max(c.xid)).where(c.xid < HORIZON))
        return 0 if row[0] is None else int(row[0]) + 1

    def count(self) -> int:
        """Count the entries that are followed and not gone."""
        c = self._companions.rows.c
        (row,) = self.rows_of(select(func.count()).where(c.xid < HORIZON, ~c.gone))
        return int(row[0])

    def changes(self, since: int, content: int, *, stamp: int | None = None) -> Changes | None:
        """Return what was written since; see `Followed.changes`. There are no stamps."""
        c = self._companions.rows.c
        packed = func.string_agg(func.int8send(c.row), aggregate_order_by(literal_column("''::bytea"), c.row.asc()))
        asked = select(c.gone, c.version, func.max(c.xid), packed, FIXED, SNAPSHOT).where(c.xid < HORIZON)
        if since >= 0:
            asked = asked.where(c.xid >= since)
        found = self.rows_of(asked.group_by(c.gone, c.version))
        if not found and since >= 0:
            return None
        if since >= 0 and found[0].fixed and not covers(found[0].snapshot, self._seen.snapshot or found[0].snapshot):
            return None  # the state has seen more than this transaction sees
        added: dict[int, Rows] = {}
        removed = [np.empty(0, np.int64)]
        for gone, version, _, rows, *_ in found:
            listed = np.frombuffer(bytes(rows), ">i8").astype(np.int64)
            if gone:
                removed.append(listed)
            else:
                added[partition_of(int(version))] = listed
        self._seen.snapshot = found[0][-1] if found else self._seen.snapshot
        if since >= 0 and any((rows == 0).any() for rows in removed):  # what was gone was forgotten meanwhile
            return self.changes(-1, content)
        generation = max([0, since, *(int(row[2]) + 1 for row in found)])
        whole = since < 0
        gone_rows = np.empty(0, np.int64) if whole else np.sort(np.concatenate(removed))
        return Changes(generation, content if since >= 0 else 0, 0, added, gone_rows, whole, index_dim=0)

    def following(self, since: int, content: int, predicate: Predicate) -> NoReturn:
        """Rows of a table have no fields: its own statement filters them. Raises TypeError."""
        raise TypeError("a table must be filtered by the WHERE of a statement, got a predicate of fields")

    def payload_sizes(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return nothing: rows of a table have no payloads."""
        return np.empty(0, np.int64), np.empty(0, np.int64)

    # blobs

    def blob(self, name: str, part: int = 0) -> bytes | None:
        """Return the content of a sealed blob; None if there is none."""
        c = self._companions.blobs.c
        found = self.rows_of(select(c.content).where(c.name == name, c.part == part))
        return bytes(found[0][0]) if found else None

    def blob_parts(self, name: str, parts: Sequence[int]) -> dict[int, bytes]:
        """Return the content of some parts of a sealed blob, by part; missing ones are left out."""
        c = self._companions.blobs.c
        asked = select(c.part, c.content).where(c.name == name, c.part == any_(array_of(parts)))
        return {int(part): bytes(content) for part, content in self.rows_of(asked)}

    def blobs(self, prefix: str) -> dict[str, tuple[int, int]]:
        """Return {name: (parts, bytes)} of the blobs whose names begin with a prefix."""
        c = self._companions.blobs.c
        asked = select(c.name, func.count(), func.sum(func.octet_length(c.content))).group_by(c.name)
        found = self.rows_of(asked.where(c.name.startswith(prefix, autoescape=True)))
        return {name: (int(parts), int(size)) for name, parts, size in found}

    def keep(
        self,
        blobs: Iterable[tuple[str, int, Blob]] = (),
        *,
        drop: Iterable[str] = (),
        expect: Mapping[str, bytes | None] | None = None,
    ) -> bool:
        """Store blobs in one transaction; see `Followed.keep`. Only for a `run` that commits."""
        table, c = self._companions.blobs, self._companions.blobs.c
        names = list(drop)

        def work(connection: Connection) -> bool:
            def execute(statement: Any) -> Any:
                return connection.execute(statement, execution_options=self._options)

            if expect:
                execute(select(c.name).where(c.name == INCARNATION_NAME).with_for_update())
                held = select(c.name, c.content).where(c.name.in_(list(expect)), c.part == 0)
                there = {row[0]: bytes(row[1]) for row in execute(held)}
                if any(there.get(name) != content for name, content in expect.items()):
                    return False
            if names:
                execute(delete(table).where(c.name.in_(names)))
            for name, part, blob in blobs:
                values = {"name": name, "part": part, "key_version": blob.key_version, "content": blob.content}
                fresh = insert(table).values(values)
                new = {key: fresh.excluded[key] for key in ("key_version", "content")}
                execute(fresh.on_conflict_do_update(index_elements=["name", "part"], set_=new))
            return True

        with _named():
            return bool(self._run(work))


class Follower:
    """What a sealed index needs of an open table: implements `sealed_index.Opener`."""

    def __init__(self, table: TableRecords, keyring: Keyring, kind: EncryptedVector) -> None:
        self.records: Followed = table
        self.keyring = keyring
        self._table, self._kind = table, kind

    def open_vectors(
        self, rows: Rows, *, sent: tuple[Rows, Bytes] | None = None
    ) -> tuple[Rows, Matrix, npt.NDArray[np.uint8]]:
        """Fetch and open exact vectors: (found rows in order, (m, dim) vectors, nothing)."""
        companions, kind = self._kind.companions, self._kind
        entries = companions.rows.alias("encvec_rows")
        keys = companions.table.primary_key.columns
        asked = select(entries.c.row, kind.packed(companions.column)).where(
            joined(companions, entries, keys), entries.c.row == any_(array_of(rows)), ~entries.c.gone
        )
        found = self._table.rows_of(asked)
        nothing = np.empty((0, 0), np.uint8)
        if not found:
            return np.empty(0, np.int64), np.empty((0, kind.dim), np.float32), nothing
        numbers = np.array([row[0] for row in found], np.int64)
        order = np.argsort(numbers)
        cells = [bytes(found[i][1] or b"") for i in order]
        bound = kind.require_identity
        return numbers[order], offload(len(cells), _opened, kind, cells, bound), nothing

    def open_payloads(self, rows: Rows) -> tuple[Rows, list[Decoded], list[bytes]]:
        """Return nothing: rows of a table have no payloads."""
        return np.empty(0, np.int64), [], []


def _opened(kind: EncryptedVector, cells: list[bytes], bound: bool) -> Matrix:
    return kind.cipher.open(cells, bound=bound)


@contextmanager
def _named() -> Iterator[None]:
    """Raise what the driver raises as errors of a store, which a builder of an index knows."""
    try:
        yield
    except OperationalError as error:
        raise StoreUnreachableError(f"the database did not answer: {error.orig}") from error
    except DBAPIError as error:
        raise StoreError(f"the companion tables cannot be used: {error.orig}") from error
