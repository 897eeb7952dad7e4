"""The records of one collection in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from ...data.arrays import Bytes, Matrix, Rows
from ...data.fields import Term
from ...data.filters import Predicate
from ...errors import CollectionNotFoundError
from ..protocol import Blob, Changes, CollectionSpec, EncryptedBatch, check_resealed
from ..values import WIDTH, integer
from . import blobs as blob_table
from . import changes, statements
from .blobs import content as _blob
from .check import check_records
from .database import FILE_NAME, Database
from .packing import as_json, ascending, matrix
from .predicates import matching_rows
from .writing import SqliteWriter, with_tokens

__all__ = ["SqliteRecords"]

_ROWS_AT_ONCE = 5_000
_FEW = 64
"""At most so many rows are named one by one in a statement, which is faster than JSON."""


class SqliteRecords(blob_table.SqliteBlobs):
    """Implements `Records`. Every write is one durable transaction."""

    remains = (
        "Backups, snapshots and copies of the folder made before still hold the old ciphertexts, and so do free pages"
        f" of its file. Close the store everywhere, run `sqlite3 {FILE_NAME} VACUUM` there, make a new backup, and"
        " delete the old ones."
    )

    def __init__(self, database: Database, collection: int, spec: CollectionSpec) -> None:
        self.spec = spec
        self.collection = collection
        """The number of the collection in the file. It is never used again."""
        self._database = database
        self._known = -1, -1
        """A data version of the file, and a generation that the collection had then, or a later one."""

    def config(self) -> bytes:
        """Return the sealed settings."""
        with self._database.read() as cursor:
            return _blob(self._of_collection(cursor, "config")[0])

    def keep(
        self,
        blobs: Iterable[tuple[str, int, Blob]] = (),
        *,
        drop: Iterable[str] = (),
        expect: Mapping[str, bytes | None] | None = None,
    ) -> bool:
        """Store blobs, if those expected are there."""
        with self._database.write() as cursor:
            self._of_collection(cursor, "id")
            if not blob_table.expected(cursor, self.collection, expect or {}):
                return False
            blob_table.delete(cursor, self.collection, drop)
            blob_table.insert(cursor, self.collection, blobs)
        return True

    def put(
        self,
        batch: EncryptedBatch,
        *,
        under: bytes,
        config: bytes | None = None,
        blobs: Mapping[str, Blob | None] | None = None,
        more: Iterable[EncryptedBatch] = (),
        over: Rows | None = None,
    ) -> bool:
        """Insert or replace by token, and drop the retired tokens."""
        with self._database.write() as cursor:
            if over is not None:
                (there,) = cursor.execute(statements.COUNT, (as_json(over), self.collection)).fetchone()
                if there < len(over):
                    return False
            writer = self._writer(cursor, under)
            writer.keep(config, blobs)
            for part in chain([batch], more):
                if part.rows is not None:
                    raise ValueError(
                        "a batch to put must have no rows: new ones are given out, only replace keeps them"
                    )
                writer.insert(part)
            writer.finish()
        return True

    def remove(self, rows: Rows) -> int:
        """Delete rows; returns how many there were."""
        if not len(rows):
            return 0
        with self._database.write() as cursor:
            gone = cursor.execute(statements.PLACES, (as_json(rows), self.collection)).fetchall()
            if gone:
                writer = self._writer(cursor)
                writer.delete(gone)
                writer.finish()
            return len(gone)

    def replace(
        self,
        batches: Iterable[EncryptedBatch],
        config: bytes,
        *,
        under: bytes,
        index_dim: int | None = None,
        ranked: bool | None = None,
        blobs: Mapping[str, Blob | None] | None = None,
        drop: Sequence[str] = (),
    ) -> None:
        """Replace everything. Others read the old content until the end."""
        with self._database.write() as cursor:
            writer = self._writer(cursor, under)
            for prefix in drop:
                blob_table.delete(cursor, self.collection, blob_table.sizes(cursor, self.collection, prefix))
            writer.keep(config, blobs)
            writer.clear(index_dim)
            for batch in batches:
                if batch.rows is None:
                    raise ValueError("a batch of replace must have rows: those that its records keep")
                writer.insert(batch)
            writer.finish(replaced=True)

    def reseal(
        self,
        batch: EncryptedBatch,
        old: Collection[int],
        *,
        under: bytes,
        config: bytes | None = None,
        blobs: Mapping[str, Blob | None] | None = None,
        renumber: bool = False,
        relist: bool = False,
    ) -> int:
        """Put records that were sealed anew in the place of what they were."""
        asked, partitions = check_resealed(batch), set(old)
        with self._database.write() as cursor:
            found = cursor.execute(statements.PLACES, (json.dumps(asked), self.collection)).fetchall()
            there = {row: partition for row, partition in found if partition in partitions}
            if there or relist:
                writer = self._writer(cursor, under)
                writer.keep(config, blobs)
                places = np.flatnonzero([row in there for row in asked])
                writer.reseal(batch.only(places), list(there.items()), renumber=renumber)
                writer.finish(replaced=relist)
            return len(there)

    def rows_of(self, partitions: Collection[int], *, after: int = 0, limit: int | None = None) -> Rows:
        """Return rows above `after` in some partitions, ascending."""
        values = (self.collection, after, json.dumps(list(partitions)), -1 if limit is None else limit)
        with self._database.read() as cursor:
            return ascending(cursor.execute(statements.ROWS_OF, values).fetchone()[0])

    def find(self, tokens: Bytes) -> Rows:
        """Return rows of (n, 16) tokens, 0 where there is none."""
        wanted = [token.tobytes() for token in np.ascontiguousarray(tokens)]
        with self._database.read() as cursor:
            rows = {token: row for row, _, token in with_tokens(cursor, self.collection, wanted)}
        return np.fromiter((rows.get(token, 0) for token in wanted), np.int64, len(wanted))

    def rows(self, predicate: Predicate | None = None, *, after: int = 0, limit: int | None = None) -> Rows:
        """Return rows above `after`, ascending."""
        if predicate is not None:
            with self._database.snapshot() as cursor:
                return matching_rows(cursor, self.collection, predicate, after=after, limit=limit)
        with self._database.read() as cursor:
            values = (self.collection, after, -1 if limit is None else limit)
            return ascending(cursor.execute(statements.ROWS, values).fetchone()[0])

    def count(self) -> int:
        """Count all rows."""
        return sum(self.partitions().values())

    def newest(self) -> int:
        """Return the largest row, or 0 if there is none."""
        sql = "SELECT coalesce(max(row), 0) FROM records WHERE collection = ?"
        with self._database.read() as cursor:
            return int(cursor.execute(sql, (self.collection,)).fetchone()[0])

    def partitions(self) -> dict[int, int]:
        """Count rows by partition."""
        sql = "SELECT partition, records FROM partitions WHERE collection = ? AND records > 0 ORDER BY partition"
        with self._database.read() as cursor:
            found = cursor.execute(sql, (self.collection,)).fetchall()
        return {integer(number, "a partition"): integer(n, "a count of records") for number, n in found}

    def vectors(self, rows: Rows) -> tuple[Rows, Bytes]:
        """Return (found rows in the order asked, (m, envelope_size) uint8)."""
        with self._database.read() as cursor:
            found, envelopes = self._fetch(cursor, statements.ENVELOPES, rows)
        return found, matrix(envelopes, self.spec.envelope_size)

    def current(self, rows: Rows, most: int = 0) -> tuple[int, Rows, Bytes, dict[int, bytes]]:
        """Return (a generation, *vectors(rows), {row: payload of at most `most` bytes})."""
        if not most:
            generation = self.generation()
            with self._database.read() as cursor:
                found, envelopes = self._fetch(cursor, statements.KNOWN, rows)
            return generation, found, matrix(envelopes, self.spec.envelope_size), {}
        asked, lines = rows.tolist(), list[tuple[int, Any, Any, Any]]()
        self._database.require_in_place()
        with self._database.read() as cursor:
            for start in range(0, len(asked), _FEW):
                some = asked[start : start + _FEW]
                sql = statements.WITH_PAYLOADS.format(",".join("?" * len(some)))
                lines += cursor.execute(sql, (most, self.collection, *some)).fetchall()
        first = lines[0][3] if lines else None  # None: all rows are gone, or the collection is
        generation = self.generation() if first is None else integer(first, "the generation of a collection")
        held = {row: _blob(envelope) for row, envelope, *_ in lines}
        present = [row for row in asked if row in held]
        vectors = matrix([held[row] for row in present], self.spec.envelope_size)
        payloads = {row: _blob(payload) for row, _, payload, _ in lines if payload is not None}
        return generation, np.array(present, np.int64), vectors, payloads

    def payloads(self, rows: Rows) -> tuple[Rows, list[bytes]]:
        """Return (found rows in the order asked, sealed payloads)."""
        with self._database.read() as cursor:
            return self._fetch(cursor, statements.PAYLOADS, rows)

    def payload_sizes(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return (found rows in the order asked, bytes of their payloads)."""
        asked = np.asarray(rows, np.int64)
        sizes: dict[int, int] = {}
        with self._database.read() as cursor:
            for i in range(0, len(asked), _ROWS_AT_ONCE):
                sizes.update(cursor.execute(statements.SIZES, (as_json(asked[i : i + _ROWS_AT_ONCE]), self.collection)))
        found = [row for row in asked.tolist() if row in sizes]
        return np.array(found, np.int64), np.array([sizes[row] for row in found], np.int64)

    def index_vectors(self, rows: Rows) -> tuple[Rows, Matrix]:
        """Return (found rows in the order asked, (m, index_dim) float32)."""
        with self._database.snapshot() as cursor:  # `replace` changes dimension and vectors together
            dim = self._index_dim(cursor)
            found, vectors = self._fetch(cursor, statements.INDEX_VECTORS if dim else statements.THERE, rows)
        if not dim:
            return found, np.empty((len(found), 0), np.float32)
        # a collection has one precision: most lengths tell which, and other lengths are damage
        kind = "<f2" if 2 * sum(len(vector) == 2 * dim for vector in vectors) > len(vectors) else "<f4"
        return found, matrix(vectors, np.dtype(kind).itemsize * dim).view(kind).astype(np.float32, copy=False)

    def audit(self, rows: Rows) -> list[tuple[int, int, bytes, set[tuple[str, Term]]]]:
        """Return (row, partition, token, {(field, term)}) of the rows found, in the order asked."""
        asked = np.asarray(rows, np.int64)
        known: dict[int, tuple[int, bytes]] = {}
        terms: defaultdict[int, set[tuple[str, Term]]] = defaultdict(set)
        with self._database.snapshot() as cursor:
            for i in range(0, len(asked), _ROWS_AT_ONCE):
                numbers = as_json(asked[i : i + _ROWS_AT_ONCE])
                for row, partition, token in cursor.execute(statements.AUDIT, (numbers, self.collection)):
                    known[row] = (partition if type(partition) is int else -1, _blob(token))
                for row, field, kind, value in cursor.execute(statements.TERMS, (numbers, self.collection)):
                    terms[row].add((field, Term(kind, value)))
        return [(row, *known[row], terms[row]) for row in asked.tolist() if row in known]

    def generation(self) -> int:
        """Return the number of committed writes. Takes microseconds if nobody has written since the last call."""
        version, generation = self._known
        now = self._database.data_version()
        if now != version:  # read before the generation, so that a commit in between is seen the next time
            with self._database.read() as cursor:
                generation, index_dim = self._of_collection(cursor, "generation, index_dim")
            integer(generation, "the generation of a collection")
            integer(index_dim, "a number of coordinates", most=WIDTH)
            if index_dim != self.spec.index_dim:
                self.spec = replace(self.spec, index_dim=index_dim)
            self._known = now, generation
        return generation

    def changes(self, since: int, content: int, *, stamp: int | None = None) -> Changes | None:
        """Return what was written after a generation, or None if nothing was."""
        with self._database.snapshot() as cursor:
            return changes.listed(cursor, self.collection, since, content, stamp)

    def following(self, since: int, content: int, predicate: Predicate) -> tuple[Changes | None, Rows]:
        """Return the changes, and the rows that satisfy a predicate, both as of the same moment."""
        with self._database.snapshot() as cursor:
            changed = changes.listed(cursor, self.collection, since, content, None)
            return changed, matching_rows(cursor, self.collection, predicate)

    @contextmanager
    def frozen(self) -> Iterator[SqliteRecords]:
        """Give the records as they are now."""
        with self._database.frozen() as database:
            made = SqliteRecords(database, self.collection, self.spec)
            made.generation()  # reads the number of coordinates, too
            yield made

    def check(self) -> list[str]:
        """Look for damage in the whole file, and in the records of this collection."""
        with self._database.read() as cursor:
            index_dim = self._index_dim(cursor)
        return check_records(self._database, self.collection, replace(self.spec, index_dim=index_dim))

    def stats(self) -> dict[str, Any]:
        """Return the bytes of the collection's records, and the size of the file, which all collections share."""
        with self._database.read() as cursor:
            own = sum(cursor.execute(sql, (self.collection,)).fetchone()[0] for sql in statements.BYTES)
        return {"bytes": {"records": own}, "file_bytes": self._database.size()}

    def flush(self) -> None:
        """Forget old changes and fold the write-ahead log into the file."""
        if self._database.read_only:
            return
        with self._database.read() as cursor:
            worth = changes.many(cursor, self.collection)
        if worth:
            with self._database.write() as cursor:
                changes.forget_some(cursor, self.collection)
        self._database.fold()

    def _writer(self, cursor: sqlite3.Cursor, under: bytes | None = None) -> SqliteWriter:
        return SqliteWriter(self._database, cursor, self.collection, self.spec.called, under)

    def _index_dim(self, cursor: sqlite3.Cursor) -> int:
        return integer(self._of_collection(cursor, "index_dim")[0], "a number of coordinates", most=WIDTH)

    def _of_collection(self, cursor: sqlite3.Cursor, columns: str) -> tuple[Any, ...]:
        sql = f"SELECT {columns} FROM collections WHERE id = ?"  # noqa: S608
        found: tuple[Any, ...] | None = cursor.execute(sql, (self.collection,)).fetchone()
        if found is None:
            raise CollectionNotFoundError(f"collection {self.spec.called!r} was dropped by another process")
        return found

    def _fetch(self, cursor: sqlite3.Cursor, select: str, rows: Rows) -> tuple[Rows, list[bytes]]:
        asked = np.asarray(rows, np.int64).tolist()
        held: dict[int, bytes] = {}
        for i in range(0, len(asked), _ROWS_AT_ONCE):
            held.update(cursor.execute(select, (json.dumps(asked[i : i + _ROWS_AT_ONCE]), self.collection)).fetchall())
        found = [row for row in asked if row in held]
        values = [held[row] for row in found]
        return np.array(found, np.int64), values if set(map(type, values)) <= {bytes} else list(map(_blob, values))
