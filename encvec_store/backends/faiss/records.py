"""One collection's records in SQLite, the truth that indexes and caches are made of; imports database, predicates."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ...errors import CollectionNotFoundError
from ...filters import Predicate
from ..base import Bytes, CollectionSpec, EncryptedBatch, Matrix, Rows, order_found
from .database import Database
from .predicates import matching_rows

__all__ = ["Change", "Records"]

T = TypeVar("T")
_TOKENS_AT_ONCE = 500
_ROWS_AT_ONCE = 5_000
_STATE = "SELECT generation, purged_generation FROM collections WHERE id = ?"


@dataclass
class Change:
    """What happened to a collection since a generation. `added` is everything there is, if `whole`."""

    generation: int
    added: list[tuple[int, int]]
    """(row, space), by row."""
    removed: list[int]
    whole: bool


class Records:
    """Reads and writes of one collection. Every write is one durable transaction."""

    def __init__(self, database: Database, collection: int, spec: CollectionSpec) -> None:
        self.database = database
        self.collection = collection
        self.spec = spec

    def config(self) -> bytes:
        """Return the sealed settings."""
        with self.database.read() as cursor:
            sql = "SELECT config FROM collections WHERE id = ?"
            return bytes(self._known(cursor.execute(sql, (self.collection,)).fetchone())[0])

    def generation(self) -> int:
        """Return the number of committed writes."""
        with self.database.read() as cursor:
            return int(self._known(cursor.execute(_STATE, (self.collection,)).fetchone())[0])

    def put(self, batch: EncryptedBatch, config: bytes | None) -> None:
        """Insert or replace by token, and drop the retired tokens."""
        with self.database.write() as cursor:
            generation = self._begin(cursor, config)
            self._insert(cursor, batch, generation)

    def remove(self, rows: Rows) -> int:
        """Delete rows; returns how many there were."""
        with self.database.write() as cursor:
            sql = (
                "SELECT row, space FROM records WHERE collection = ?"
                " AND row IN (SELECT value FROM json_each(?))"
            )
            gone = cursor.execute(sql, (self.collection, _as_json(rows))).fetchall()
            if gone:
                self._delete(cursor, gone, self._begin(cursor, None))
            return len(gone)

    def replace(self, batches: Iterable[EncryptedBatch], config: bytes) -> None:
        """Replace everything. Others read the old content until the end."""
        with self.database.write() as cursor:
            generation = self._begin(cursor, config)
            for table in ("records", "spaces", "tombstones"):
                cursor.execute(f"DELETE FROM {table} WHERE collection = ?", (self.collection,))  # noqa: S608
            # no tombstone each: everybody who follows lists anew
            sql = "UPDATE collections SET purged_generation = generation WHERE id = ?"
            cursor.execute(sql, (self.collection,))
            for batch in batches:
                self._insert(cursor, batch, generation)

    def find(self, tokens: Bytes) -> Rows:
        """Return rows of (n, 16) tokens, 0 where there is none."""
        wanted = [token.tobytes() for token in np.ascontiguousarray(tokens)]
        with self.database.read() as cursor:
            rows = {token: row for row, _, token in self._with_tokens(cursor, wanted)}
        return np.fromiter((rows.get(token, 0) for token in wanted), np.int64, len(wanted))

    def rows(self, predicate: Predicate | None, after: int, limit: int | None) -> Rows:
        """Return rows above `after`, ascending."""
        if predicate is not None:
            with self.database.snapshot() as cursor:
                return matching_rows(cursor, self.collection, predicate, after=after, limit=limit)
        sql = "SELECT row FROM records WHERE collection = ? AND row > ? ORDER BY row LIMIT ?"
        with self.database.read() as cursor:
            rows = cursor.execute(sql, (self.collection, after, -1 if limit is None else limit)).fetchall()
        return np.fromiter((row for (row,) in rows), np.int64, len(rows))

    def spaces(self) -> dict[int, int]:
        """Count records by space."""
        sql = "SELECT space, records FROM spaces WHERE collection = ? AND records > 0 ORDER BY space"
        with self.database.read() as cursor:
            return dict(cursor.execute(sql, (self.collection,)).fetchall())

    def envelopes(self, rows: Rows) -> tuple[Rows, Bytes]:
        """Return (found rows in the order asked, (m, envelope_size) uint8)."""
        found, blobs = self._fetch("SELECT row, envelope FROM vectors WHERE row", rows)
        return found, _matrix(blobs, self.spec.envelope_size)

    def index_vectors(self, rows: Rows) -> tuple[Rows, Matrix]:
        """Return (found rows in the order asked, (m, index_dim) float32)."""
        found, blobs = self._fetch("SELECT row, vector FROM index_vectors WHERE row", rows)
        data = _matrix(blobs, 4 * self.spec.index_dim)
        return found, data.view("<f4").astype(np.float32, copy=False).reshape(-1, self.spec.index_dim)

    def payloads(self, rows: Rows) -> tuple[Rows, list[bytes]]:
        """Return (found rows in the order asked, sealed payloads)."""
        return self._fetch("SELECT row, payload FROM records WHERE row", rows)

    def changes(self, generation: int, last: int) -> Change | None:
        """Return what changed since a generation whose last row was `last`; None where nothing did."""
        with self.database.snapshot() as cursor:
            state = cursor.execute(_STATE, (self.collection,)).fetchone()
            if state is None:  # dropped by another process
                return Change(generation, [], [], whole=True)
            if state[0] == generation:
                return None
            whole = generation < state[1]
            sql = "SELECT row, space FROM records WHERE collection = ? AND row > ? ORDER BY row"
            added = cursor.execute(sql, (self.collection, 0 if whole else last)).fetchall()
            sql = "SELECT row FROM tombstones WHERE collection = ? AND generation > ?"
            gone = [] if whole else cursor.execute(sql, (self.collection, generation)).fetchall()
        return Change(state[0], added, [row for (row,) in gone], whole)

    def purge(self, above: int) -> None:
        """Forget the tombstones if there are more than `above`; others who follow will list what is there."""
        sql = "SELECT count(*) FROM tombstones WHERE collection = ?"
        with self.database.read() as cursor:
            (n,) = cursor.execute(sql, (self.collection,)).fetchone()
        if n > above:
            with self.database.write() as cursor:
                cursor.execute("DELETE FROM tombstones WHERE collection = ?", (self.collection,))
                sql = "UPDATE collections SET purged_generation = generation WHERE id = ?"
                cursor.execute(sql, (self.collection,))

    def _begin(self, cursor: sqlite3.Cursor, config: bytes | None) -> int:
        """Count a write; return its generation."""
        sql = "UPDATE collections SET generation = generation + 1, config = coalesce(?, config) WHERE id = ?"
        cursor.execute(sql, (config, self.collection))
        return int(self._known(cursor.execute(_STATE, (self.collection,)).fetchone())[0])

    def _insert(self, cursor: sqlite3.Cursor, batch: EncryptedBatch, generation: int) -> None:
        tokens = [token.tobytes() for token in np.ascontiguousarray(batch.tokens)]
        named = list({*tokens, *batch.retired})
        stale = [(row, space) for row, space, _ in self._with_tokens(cursor, named)]
        if stale:
            self._delete(cursor, stale, generation)
        n = len(tokens)
        if not n:
            return
        (first,) = cursor.execute("SELECT value FROM meta WHERE name = 'next_row'").fetchone()
        cursor.execute("UPDATE meta SET value = ? WHERE name = 'next_row'", (first + n,))
        rows = range(first, first + n)
        here, space = self.collection, batch.space
        cursor.executemany(
            "INSERT INTO records (row, collection, space, token, payload) VALUES (?, ?, ?, ?, ?)",
            (
                (row, here, space, token, payload)
                for row, token, payload in zip(rows, tokens, batch.payloads, strict=True)
            ),
        )
        envelopes = _slices(batch.vectors)
        cursor.executemany(
            "INSERT INTO vectors (row, envelope) VALUES (?, ?)", zip(rows, envelopes, strict=True)
        )
        if self.spec.index_dim:
            index_vectors = _slices(np.asarray(batch.index_vectors, "<f4"))
            cursor.executemany(
                "INSERT INTO index_vectors (row, vector) VALUES (?, ?)", zip(rows, index_vectors, strict=True)
            )
        if batch.terms:
            cursor.executemany(
                "INSERT OR IGNORE INTO terms (collection, field, kind, value, row) VALUES (?, ?, ?, ?, ?)",
                ((here, field, *term, first + position) for position, field, term in batch.terms),
            )
        self._count(cursor, {space: n})

    def _delete(self, cursor: sqlite3.Cursor, gone: list[tuple[int, int]], generation: int) -> None:
        rows = json.dumps([row for row, _ in gone])
        cursor.execute("DELETE FROM records WHERE row IN (SELECT value FROM json_each(?))", (rows,))
        cursor.execute(
            "INSERT OR IGNORE INTO tombstones (collection, generation, row)"
            " SELECT ?, ?, value FROM json_each(?)",
            (self.collection, generation, rows),
        )
        self._count(cursor, {space: -n for space, n in Counter(space for _, space in gone).items()})

    def _count(self, cursor: sqlite3.Cursor, more: dict[int, int]) -> None:
        cursor.executemany(
            "INSERT INTO spaces (collection, space, records) VALUES (?, ?, ?)"
            " ON CONFLICT (collection, space) DO UPDATE SET records = records + excluded.records",
            ((self.collection, space, n) for space, n in more.items()),
        )

    def _with_tokens(self, cursor: sqlite3.Cursor, tokens: list[bytes]) -> Iterator[tuple[int, int, bytes]]:
        for i in range(0, len(tokens), _TOKENS_AT_ONCE):
            some = tokens[i : i + _TOKENS_AT_ONCE]
            marks = ",".join("?" * len(some))
            sql = f"SELECT row, space, token FROM records WHERE collection = ? AND token IN ({marks})"  # noqa: S608
            yield from cursor.execute(sql, (self.collection, *some)).fetchall()

    def _fetch(self, select: str, rows: Rows) -> tuple[Rows, list[bytes]]:
        asked = np.asarray(rows, np.int64)
        pairs: list[tuple[int, bytes]] = []
        with self.database.read() as cursor:
            for i in range(0, len(asked), _ROWS_AT_ONCE):
                some = asked[i : i + _ROWS_AT_ONCE]
                sql = select + " IN (SELECT value FROM json_each(?))"
                pairs += cursor.execute(sql, (_as_json(some),)).fetchall()
        found = np.fromiter((row for row, _ in pairs), np.int64, len(pairs))
        order = order_found(asked, found)
        return found[order], [pairs[i][1] for i in order.tolist()]

    def _known(self, row: T | None) -> T:
        if row is None:
            raise CollectionNotFoundError(f"collection {self.spec.name!r} was dropped by another process")
        return row


def _as_json(rows: npt.ArrayLike) -> str:
    return json.dumps(np.asarray(rows, np.int64).tolist())


def _matrix(blobs: list[bytes], width: int) -> Bytes:
    """Stack blobs; one of a wrong length, which only damage makes, becomes zeros that open as nothing."""
    if any(len(blob) != width for blob in blobs):
        blobs = [blob if len(blob) == width else bytes(width) for blob in blobs]
    return np.frombuffer(bytearray().join(blobs), np.uint8).reshape(len(blobs), width)


def _slices(array: npt.NDArray[np.generic]) -> Iterator[memoryview]:
    data = np.ascontiguousarray(array)
    flat = memoryview(data.view(np.uint8).reshape(-1))
    width = data.shape[1] * data.itemsize
    return (flat[i * width : (i + 1) * width] for i in range(len(data)))
