"""A plaintext pgvector table as a source.

It is read in one transaction with one snapshot, by a cursor on the server, so writes by others do not change what is
read. Vectors come in PostgreSQL's binary form, never as text.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql
from psycopg.adapt import Loader
from psycopg.pq import Format

from ..data.ids import Id
from ..errors import InputError
from ..storage.postgres.faults import translated
from ..storage.postgres.options import database_of
from ..storage.postgres.transport import parameters_for
from . import metric_names
from .batch import Batch, Fault
from .catalog import Column, extension_schema, find_table
from .flatten import flattened
from .typed import from_json, metadata_from_json

__all__ = ["TableSource"]

Row = tuple[Any, ...]
_NUMBERS = {"vector": ">f4", "halfvec": ">f2"}
_BYTES = 64 << 20
"""A batch ends at so many bytes: documents may have megabytes."""
_FIRST_ROWS, _ROWS = 16, 1_024
"""Rows fetched at once: at first, and at most."""


class _Bytes(Loader):
    """Leaves a value in its binary form."""

    format = Format.BINARY

    def load(self, data: Any) -> bytes:
        return bytes(data)


class TableSource:
    """Records of a table (id, vector, metadata, document); NULLs in metadata are left out.

    A column of JSON that is named in `flatten` gives its keys, and a JSON column `metadata` always does; other columns
    are a key each. JSON is read as files are, with tags.

    Args:
        url: `postgresql://...`; without a password, better: PGPASSFILE, PGPASSWORD or a service give it.
        table: see `catalog.find_table`, also for the columns.

    Raises:
        InputError: no such table or column, NULL or repeated ids, a type that cannot be taken.
        StoreUnreachableError: no connection, or the role may not read it.
    """

    unit = "id"
    lossy = ""

    def __init__(self, url: str, table: str, **columns: Any) -> None:
        self._target, self._shown = database_of(url)
        self._before: psycopg.Connection[Row] | None = None
        self._now = self._connect()
        self._numbered = 0
        try:
            with self._talking(), self._now.cursor() as cursor:
                self._table = find_table(cursor, table, **columns)
                self.name = self._table.shown
                self._check_ids(cursor)
                self.dim = self._dim(cursor)
                self.total: int | None = self._count(cursor)
        except BaseException:
            self.close()
            raise

    @property
    def metric(self) -> str | None:
        """The metric of the vector column's index, if there is one. Raises MetricError for an unsupported one."""
        return metric_names.told(self._table.named)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield records in no order."""
        yield from self._read(sql.SQL("SELECT {} FROM {}").format(self._selected(), self._table.name), size)

    def scan(self, size: int) -> Generator[npt.NDArray[Any]]:
        """Yield the vectors."""
        for batch in self._read(sql.SQL("SELECT {} FROM {}").format(self._selected(0), self._table.name), size, 0):
            yield batch.vectors

    def sample(self, n: int, seed: int) -> npt.NDArray[np.float32]:
        """Return at most n vectors by chance, the server's: the seed has no meaning here."""
        query = sql.SQL("SELECT {} FROM {} WHERE {} IS NOT NULL ORDER BY random() LIMIT {}").format(
            self._selected(0), self._table.name, sql.Identifier(self._table.vector.name), n
        )
        parts = [batch.vectors for batch in self._read(query, n, 0)]
        return np.concatenate([np.empty((0, self.dim), np.float32), *parts])

    def again(self) -> None:
        """Take a new snapshot. `as_read` still gives what was read before."""
        if self._before is not None:
            self._before.close()
        self._before, self._now = self._now, self._connect()
        with self._talking(), self._now.cursor() as cursor:
            self._check_ids(cursor)
            self.total = self._count(cursor)

    def as_read(self, ids: Sequence[Id]) -> Batch:
        """Return records of the first snapshot by id."""
        then = self._before or self._now
        query = sql.SQL("SELECT {} FROM {} WHERE {} = ANY(%s::text[]::{}[])").format(
            self._selected(), self._table.name, sql.Identifier(self._table.id.name), sql.SQL(self._table.id.type)
        )
        with self._talking(), then.cursor() as cursor:
            rows = cursor.execute(query, [list(ids)], binary=True).fetchall()
        return self._batch(rows)

    def close(self) -> None:
        """Close the connections."""
        for connection in (self._before, self._now):
            if connection is not None:
                connection.close()

    def _connect(self) -> psycopg.Connection[Row]:
        with self._talking():
            parameters = {"connect_timeout": 10, **parameters_for(self._target, self._shown)}
            # prepares nothing: behind a pooler, a session may know a statement of that name from another client
            connection = psycopg.connect(
                "", fallback_application_name="encvec import", prepare_threshold=None, **parameters
            )
            try:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                connection.read_only = True
                # writing takes its time on the other side; instants come back in UTC
                connection.execute("SET idle_in_transaction_session_timeout = 0")
                connection.execute("SET TimeZone = 'UTC'")
                types = "SELECT oid FROM pg_type WHERE typname IN ('vector', 'halfvec')"
                for (oid,) in connection.execute(types).fetchall():
                    connection.adapters.register_loader(oid, _Bytes)
            except BaseException:
                connection.close()
                raise
        return connection

    def _talking(self) -> AbstractContextManager[None]:
        return translated("read", self._shown)

    def _check_ids(self, cursor: psycopg.Cursor[Row]) -> None:
        place = {"id": sql.Identifier(self._table.id.name), "table": self._table.name}
        (nulls,) = _one(cursor, sql.SQL("SELECT count(*) FROM {table} WHERE {id} IS NULL").format(**place))
        if nulls:
            raise InputError(f"{self.name}: {nulls:,} rows have no id: {self._table.id.name!r} is NULL")
        if self._table.unique:
            return
        query = "SELECT {id}::text, count(*) FROM {table} GROUP BY {id} HAVING count(*) > 1 ORDER BY {id} LIMIT 6"
        twice = cursor.execute(sql.SQL(query).format(**place)).fetchall()
        if twice:
            listed = ", ".join(f"{id!r} ({n} rows)" for id, n in twice[:5]) + (", ..." if len(twice) > 5 else "")
            raise InputError(f"{self.name}: ids repeat in column {self._table.id.name!r}: {listed}")

    def _dim(self, cursor: psycopg.Cursor[Row]) -> int:
        if self._table.vector.dim > 0:
            return self._table.vector.dim
        function = sql.Identifier(extension_schema(cursor) or "public", "vector_dims")
        place = {"dims": function, "vector": sql.Identifier(self._table.vector.name), "table": self._table.name}
        query = sql.SQL("SELECT {dims}({vector}) FROM {table} WHERE {vector} IS NOT NULL LIMIT 1")
        found = cursor.execute(query.format(**place)).fetchone()
        if found is None:
            raise InputError(f"{self.name} holds no vectors in column {self._table.vector.name!r}")
        return int(found[0])

    def _count(self, cursor: psycopg.Cursor[Row]) -> int:
        return int(_one(cursor, sql.SQL("SELECT count(*) FROM {}").format(self._table.name))[0])

    def _columns(self, more: int | None = None) -> list[Column]:
        """The columns beside id and vector: all of them, or so many."""
        document = [self._table.document] if self._table.document is not None else []
        return [*document, *self._table.metadata][:more]

    def _selected(self, more: int | None = None) -> sql.Composable:
        table = self._table
        parts: list[sql.Composable] = [sql.SQL("{}::text").format(sql.Identifier(table.id.name))]
        parts.append(sql.Identifier(table.vector.name))
        return sql.SQL(", ").join([*parts, *(column.expression for column in self._columns(more))])

    def _read(self, query: sql.Composed, size: int, more: int | None = None) -> Iterator[Batch]:
        self._numbered += 1
        with self._talking(), self._now.cursor(name=f"encvec_{self._numbered}") as cursor:
            cursor.execute(query, binary=True)
            rows: list[Row] = []
            held, step = 0, _FIRST_ROWS
            while True:
                try:
                    some = cursor.fetchmany(min(step, size - len(rows)))
                except psycopg.DataError as error:  # of the client: a timestamp beyond the year 9999
                    names = ", ".join(repr(c.name) for c in self._columns(more) if c.is_date)
                    reason = str(error).partition(":")[0]
                    raise InputError(
                        f"{self.name}: a value of a column that Python cannot hold, {reason}; look in {names}"
                    ) from None
                rows += some
                held += sum(len(value) for row in some for value in row if isinstance(value, bytes | str))
                step = max(1, min(_ROWS, _BYTES * len(rows) // max(held, 1)))
                if rows and (not some or len(rows) == size or held >= _BYTES):
                    yield self._batch(rows, more)
                    rows, held = [], 0
                if not some:
                    return

    def _batch(self, rows: list[Row], more: int | None = None) -> Batch:
        kind, columns = np.dtype(_NUMBERS[self._table.vector.type]), self._columns(more)
        length = 4 + self.dim * kind.itemsize
        ids: list[str] = []
        parts: list[bytes] = []
        metadata: list[dict[str, Any]] = []
        documents: list[Any] = []
        faults: list[Fault] = []
        for id, vector, *values in rows:
            try:
                if vector is None:
                    raise InputError("the vector is NULL")
                if len(vector) != length:
                    raise InputError(f"a vector of {(len(vector) - 4) // kind.itemsize} numbers, not {self.dim}")
                document, fields = self._fields(columns, values)
            except InputError as error:
                faults.append(Fault(id, str(error)))
                continue
            ids.append(id)
            parts.append(vector)
            metadata.append(fields)
            documents.append(document)
        packed = np.frombuffer(b"".join(parts), np.uint8).reshape(len(parts), length)[:, 4:]
        vectors = np.ascontiguousarray(packed).view(kind).astype(np.float32)
        return Batch(ids, ids, vectors.reshape(len(parts), self.dim), metadata, documents, faults)

    def _fields(self, columns: list[Column], values: list[Any]) -> tuple[Any, dict[str, Any]]:
        document, fields = None, {}
        for column, value in zip(columns, values, strict=True):
            if column is self._table.document:
                document = value
            elif value is not None:
                fields[column.name] = self._untagged(column, value)
        return document, flattened(fields, self._table.flatten)

    def _untagged(self, column: Column, value: Any) -> Any:
        if not column.is_json:
            return value
        if column.name in self._table.flatten and isinstance(value, dict):
            return metadata_from_json(value)  # its keys are names, never tags
        return from_json(value)


def _one(cursor: psycopg.Cursor[Row], query: sql.Composed) -> Row:
    found = cursor.execute(query).fetchone()
    assert found is not None  # noqa: S101 - an aggregate always has a row
    return found
