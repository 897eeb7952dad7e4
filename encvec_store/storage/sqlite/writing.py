"""One write transaction of one collection's records in SQLite."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from ...data.arrays import Rows
from ...errors import CollectionNotFoundError, StaleConfigError
from ..protocol import Blob, EncryptedBatch
from ..values import integer
from . import blobs as blob_table
from . import changes
from .database import OF_A_RECORD, Database, first_free

__all__ = ["SqliteWriter", "with_tokens"]

_TOKENS_AT_ONCE = 500


class SqliteWriter:
    """Writes records in a transaction. Call `finish` at the end, so that others learn what was written.

    Args:
        database: the store's database.
        cursor: a cursor in a write transaction.
        collection: the number of the collection.
        name: the name of the collection, for errors.
        under: the settings that must be stored now, or None for any settings.

    Raises:
        CollectionNotFoundError: the collection was dropped.
        StaleConfigError: other settings are stored now.
    """

    def __init__(
        self, database: Database, cursor: sqlite3.Cursor, collection: int, name: str, under: bytes | None = None
    ) -> None:
        self._database, self._cursor, self._collection = database, cursor, collection
        self._done = changes.Done()
        sql = "SELECT generation, config FROM collections WHERE id = ?"
        found = cursor.execute(sql, (collection,)).fetchone()
        if found is None:
            raise CollectionNotFoundError(f"collection {name!r} was dropped by another process")
        generation, stored = found
        if under is not None and stored != under:
            raise StaleConfigError("the collection's settings were changed meanwhile")
        self._generation = integer(generation, "the generation of a collection") + 1
        sql = "UPDATE collections SET generation = ?, stamp = ? WHERE id = ?"
        cursor.execute(sql, (self._generation, secrets.randbits(62), collection))

    def keep(self, config: bytes | None, blobs: Mapping[str, Blob | None] | None) -> None:
        """Store settings and blobs, if there are any."""
        if config:
            self._cursor.execute("UPDATE collections SET config = ? WHERE id = ?", (config, self._collection))
        new = blobs or {}
        blob_table.delete(self._cursor, self._collection, (name for name, blob in new.items() if blob is None))
        some = ((name, 0, blob) for name, blob in new.items() if blob is not None)
        blob_table.insert(self._cursor, self._collection, some)

    def clear(self, index_dim: int | None) -> None:
        """Delete every record, and store the new number of coordinates of index vectors."""
        # The step is random: if an older copy of the file was put back, other content must not get the same number.
        step = 1 + secrets.randbelow(1 << 32)
        sql = "UPDATE collections SET index_dim = coalesce(?, index_dim), content = content + ? WHERE id = ?"
        self._cursor.execute(sql, (index_dim, step, self._collection))
        self._database.clear(self._cursor, self._collection)

    def insert(self, batch: EncryptedBatch) -> None:
        """Insert records, or replace them by token. Rows are those of the batch, or new ones."""
        tokens = [token.tobytes() for token in np.ascontiguousarray(batch.tokens)]
        n = len(tokens)
        self._database.expect(self._cursor, n)
        named = sorted({*tokens, *batch.retired})  # sorted, because neighbours share pages of the index
        stale = [(row, partition) for row, partition, _ in with_tokens(self._cursor, self._collection, named)]
        if stale:
            self.delete(stale)
        if n and batch.rows is None:
            rows = self._new(n)
            self._write(batch, tokens, rows)
            self._done.added.append(rows)
        elif n and batch.rows is not None:
            self._write(batch, tokens, self._known(batch.rows, n))

    def reseal(self, batch: EncryptedBatch, gone: list[tuple[int, int]], *, renumber: bool) -> None:
        """Put records in the place of existing ones, given as (row, partition). `Records.reseal` says what is noted."""
        self.delete(gone)
        if not renumber:
            self._done.removed.clear()
        n = len(batch.payloads)
        rows = self._new(n) if renumber or batch.rows is None else batch.rows
        self._write(batch, [token.tobytes() for token in np.ascontiguousarray(batch.tokens)], rows)
        if renumber:
            self._done.added.append(rows)

    def delete(self, gone: list[tuple[int, int]]) -> None:
        """Delete existing records, given as (row, partition)."""
        rows = json.dumps([row for row, _ in gone])
        self._database.expect(self._cursor, len(gone))
        for table in OF_A_RECORD:
            sql = f"DELETE FROM {table} WHERE row IN (SELECT value FROM json_each(?))"  # noqa: S608
            self._cursor.execute(sql, (rows,))
        self._done.removed.append(np.array([row for row, _ in gone], np.int64))
        self._count({partition: -n for partition, n in Counter(partition for _, partition in gone).items()})

    def finish(self, *, replaced: bool = False) -> None:
        """Note what was done in the change table. After `replaced`, followers must list everything."""
        if replaced:
            changes.forget_all(self._cursor, self._collection)
        else:
            changes.note(self._cursor, self._collection, self._generation, self._done)

    def _new(self, n: int) -> Rows:
        first = self._database.allocate(self._cursor, n)
        return np.arange(first, first + n, dtype=np.int64)

    def _known(self, rows: Rows, n: int) -> Rows:
        """Check the rows that n records bring. The primary key of the table checks that they are distinct."""
        if rows.shape != (n,) or (rows < 1).any() or (rows >= first_free(self._cursor)).any():
            raise ValueError("rows of a batch must be the rows that its records have already, one for each record")
        return rows

    def _write(self, batch: EncryptedBatch, tokens: list[bytes], numbers: Rows) -> None:
        here, partitions, rows, cursor = self._collection, batch.partitions.tolist(), numbers.tolist(), self._cursor
        cursor.executemany(
            "INSERT INTO records (row, collection, partition, token, payload) VALUES (?, ?, ?, ?, ?)",
            (
                (row, here, partition, token, payload)
                for row, partition, token, payload in zip(rows, partitions, tokens, batch.payloads, strict=True)
            ),
        )
        envelopes = _slices(batch.vectors)
        cursor.executemany("INSERT INTO vectors (row, envelope) VALUES (?, ?)", zip(rows, envelopes, strict=True))
        if batch.index_vectors.shape[1]:
            index_vectors = _slices(batch.index_vectors.astype(batch.index_vectors.dtype.newbyteorder("<"), copy=False))
            cursor.executemany(
                "INSERT INTO index_vectors (row, vector) VALUES (?, ?)", zip(rows, index_vectors, strict=True)
            )
        if batch.terms:
            cursor.executemany(
                "INSERT OR IGNORE INTO terms (collection, field, kind, value, row) VALUES (?, ?, ?, ?, ?)",
                ((here, field, *term, rows[position]) for position, field, term in batch.terms),
            )
        self._count(Counter(partitions))

    def _count(self, more: dict[int, int]) -> None:
        self._cursor.executemany(
            "INSERT INTO partitions (collection, partition, records) VALUES (?, ?, ?)"
            " ON CONFLICT (collection, partition) DO UPDATE SET records = records + excluded.records",
            ((self._collection, partition, n) for partition, n in more.items()),
        )


def with_tokens(cursor: sqlite3.Cursor, collection: int, tokens: list[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Yield (row, partition, token) of the records with these tokens."""
    for i in range(0, len(tokens), _TOKENS_AT_ONCE):
        some = tokens[i : i + _TOKENS_AT_ONCE]
        marks = ",".join("?" * len(some))
        sql = f"SELECT row, partition, token FROM records WHERE collection = ? AND token IN ({marks})"  # noqa: S608
        yield from cursor.execute(sql, (collection, *some)).fetchall()


def _slices(array: npt.NDArray[np.generic]) -> Iterator[memoryview]:
    data = np.ascontiguousarray(array)
    flat = data.view(np.uint8).reshape(-1).data
    width = data.shape[1] * data.itemsize
    return (flat[i * width : (i + 1) * width] for i in range(len(data)))
