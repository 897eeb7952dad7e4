"""One collection's records in SQLite, the truth that indexes and caches are made of; imports database, predicates."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ...data.fields import Term
from ...data.filters import Predicate
from ...errors import CollectionNotFoundError, StaleConfigError, StoreUnreachableError
from ..protocol import Bytes, CollectionSpec, EncryptedBatch, Matrix, Rows
from .database import Database, ascending, numbers
from .predicates import matching_rows
from .tables import OF_A_RECORD

__all__ = ["Change", "Records"]

T = TypeVar("T")
_TOKENS_AT_ONCE = 500
_ROWS_AT_ONCE = 5_000
# A row of another collection is absent. `+collection` keeps SQLite from listing the collection to find the row in.
_THESE = "SELECT row, space FROM records WHERE row IN (SELECT value FROM json_each(?)) AND +collection = ?"
_PAYLOADS = "SELECT row, payload FROM records WHERE row IN (SELECT value FROM json_each(?)) AND +collection = ?"
_AUDIT = "SELECT row, space, token FROM records WHERE row IN (SELECT value FROM json_each(?)) AND +collection = ?"
_TERMS = "SELECT row, field, kind, value FROM terms WHERE row IN (SELECT value FROM json_each(?)) AND +collection = ?"
_ENVELOPES = """SELECT row, envelope FROM vectors WHERE row IN (
    SELECT row FROM records WHERE row IN (SELECT value FROM json_each(?)) AND collection = ?)"""
_INDEX_VECTORS = """SELECT row, vector FROM index_vectors WHERE row IN (
    SELECT row FROM records WHERE row IN (SELECT value FROM json_each(?)) AND collection = ?)"""
_ABOVE = "SELECT group_concat(row), group_concat(space) FROM records WHERE collection = ? AND row > ?"
_ROWS = """SELECT group_concat(row) FROM (
    SELECT row FROM records WHERE collection = ? AND row > ? ORDER BY row LIMIT ?)"""
_STATE = "SELECT generation, purged_generation, stamp, index_dim FROM collections WHERE id = ?"


@dataclass
class Change:
    """What happened to a collection since a generation. `added` is everything there is, if `whole`."""

    generation: int
    stamp: int
    added: dict[int, Rows]
    """By space, ascending."""
    removed: Rows
    whole: bool
    next_row: int = 1 << 62
    """Rows from here on were never given out, as far as the database knows."""
    index_dim: int | None = None
    """Coordinates of an index vector; None where the collection is gone."""


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

    def artefact(self, name: str) -> bytes | None:
        """Return a sealed artefact, or None."""
        sql = "SELECT content FROM artefacts WHERE collection = ? AND name = ?"
        with self.database.read() as cursor:
            found = cursor.execute(sql, (self.collection, name)).fetchone()
        # SQLite keeps values of any type in any column; what is no blob was damaged, and opens as nothing
        return found if found is None else found[0] if isinstance(found[0], bytes) else b""

    def index_dim(self) -> int:
        """Return how many coordinates an index vector has now."""
        sql = "SELECT index_dim FROM collections WHERE id = ?"
        with self.database.read() as cursor:
            return int(self._known(cursor.execute(sql, (self.collection,)).fetchone())[0])

    def generation(self) -> int:
        """Return the number of committed writes."""
        with self.database.read() as cursor:
            (generation, *_) = self._known(cursor.execute(_STATE, (self.collection,)).fetchone())
        if not isinstance(generation, int):
            raise StoreUnreachableError(f"{self.database.path} is damaged: a generation is no number")
        return generation

    def put(
        self,
        batches: Iterable[EncryptedBatch],
        under: bytes,
        config: bytes | None,
        artefacts: Mapping[str, bytes] | None,
    ) -> None:
        """Insert or replace by token, and drop the retired tokens."""
        with self.database.write() as cursor:
            generation = self._begin(cursor, under, config)
            self._keep(cursor, artefacts)
            for batch in batches:
                self._insert(cursor, batch, generation)

    def remove(self, rows: Rows) -> int:
        """Delete rows; returns how many there were."""
        with self.database.write() as cursor:
            sql = "SELECT row, space FROM records WHERE collection = ? AND row IN (SELECT value FROM json_each(?))"
            gone = cursor.execute(sql, (self.collection, _as_json(rows))).fetchall()
            if gone:
                self._delete(cursor, gone, self._begin(cursor))
            return len(gone)

    def replace(
        self,
        batches: Iterable[EncryptedBatch],
        under: bytes,
        config: bytes,
        index_dim: int | None,
        artefacts: Mapping[str, bytes] | None,
    ) -> None:
        """Replace everything. Others read the old content until the end."""
        with self.database.write() as cursor:
            generation = self._begin(cursor, under, config)
            self._keep(cursor, artefacts)
            sql = "UPDATE collections SET index_dim = coalesce(?, index_dim) WHERE id = ?"
            cursor.execute(sql, (index_dim, self.collection))
            self.database.clear(cursor, self.collection)
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
        with self.database.read() as cursor:
            values = (self.collection, after, -1 if limit is None else limit)
            return ascending(cursor.execute(_ROWS, values).fetchone()[0])

    def spaces(self) -> dict[int, int]:
        """Count records by space."""
        sql = "SELECT space, records FROM spaces WHERE collection = ? AND records > 0 ORDER BY space"
        with self.database.read() as cursor:
            return dict(cursor.execute(sql, (self.collection,)).fetchall())

    def envelopes(self, rows: Rows) -> tuple[Rows, Bytes]:
        """Return (found rows in the order asked, (m, envelope_size) uint8)."""
        found, blobs = self._fetch(_ENVELOPES, rows)
        return found, _matrix(blobs, self.spec.envelope_size)

    def index_vectors(self, rows: Rows) -> tuple[Rows, Matrix]:
        """Return (found rows in the order asked, (m, index_dim) float32)."""
        dim = self.index_dim()
        if not dim:
            found, _ = self._fetch(_PAYLOADS, rows)
            return found, np.empty((len(found), 0), np.float32)
        found, blobs = self._fetch(_INDEX_VECTORS, rows)
        # a collection has one precision, told by the length of most; what has another one is damaged
        kind = "<f2" if 2 * sum(len(blob) == 2 * dim for blob in blobs) > len(blobs) else "<f4"
        return found, _matrix(blobs, np.dtype(kind).itemsize * dim).view(kind).astype(np.float32, copy=False)

    def payloads(self, rows: Rows) -> tuple[Rows, list[bytes]]:
        """Return (found rows in the order asked, sealed payloads)."""
        return self._fetch(_PAYLOADS, rows)

    def audit(self, rows: Rows) -> list[tuple[int, int, bytes, set[tuple[str, Term]]]]:
        """Return (row, space, token, {(field, term)}) of the rows found, in the order asked."""
        asked = np.asarray(rows, np.int64)
        known: dict[int, tuple[int, bytes]] = {}
        terms: defaultdict[int, set[tuple[str, Term]]] = defaultdict(set)
        with self.database.snapshot() as cursor:
            for i in range(0, len(asked), _ROWS_AT_ONCE):
                numbers = _as_json(asked[i : i + _ROWS_AT_ONCE])
                for row, space, token in cursor.execute(_AUDIT, (numbers, self.collection)):
                    known[row] = (space, token)
                for row, field, kind, value in cursor.execute(_TERMS, (numbers, self.collection)):
                    terms[row].add((field, Term(kind, value)))
        return [(row, *known[row], terms[row]) for row in asked.tolist() if row in known]

    def changes(self, generation: int, last: int, stamp: int | None = None) -> Change | None:
        """Return what changed since a generation whose last row was `last`; None where nothing did.

        With a stamp, everything is listed unless it is the stamp of that generation.
        """
        with self.database.snapshot() as cursor:
            state = cursor.execute(_STATE, (self.collection,)).fetchone()
            if state is None:  # dropped by another process
                return Change(generation, 0, {}, np.empty(0, np.int64), whole=True)
            if state[0] == generation and stamp in (None, state[2]):
                return None
            whole = generation < state[1] or stamp is not None
            added = self._added(cursor, 0 if whole else last)
            sql = "SELECT group_concat(row) FROM tombstones WHERE collection = ? AND generation > ?"
            gone = None if whole else cursor.execute(sql, (self.collection, generation)).fetchone()[0]
            (next_row,) = cursor.execute("SELECT value FROM meta WHERE name = 'next_row'").fetchone()
        return Change(state[0], state[2], added, ascending(gone), whole, next_row, state[3])

    def _added(self, cursor: sqlite3.Cursor, last: int) -> dict[int, Rows]:
        """Return the rows above `last` by space: one pass, however many spaces there are."""
        sql = "SELECT space FROM spaces WHERE collection = ?"
        added = {space: np.empty(0, np.int64) for (space,) in cursor.execute(sql, (self.collection,)).fetchall()}
        listed, theirs = cursor.execute(_ABOVE, (self.collection, last)).fetchone()
        rows, spaces = numbers(listed), numbers(theirs)
        if len(rows):
            order = np.lexsort((rows, spaces))
            present, starts = np.unique(spaces[order], return_index=True)
            added.update(zip(present.tolist(), np.split(rows[order], starts[1:]), strict=True))
        return added

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

    def _begin(self, cursor: sqlite3.Cursor, under: bytes | None = None, config: bytes | None = None) -> int:
        """Count a write, if the settings are still those it was made under; return its generation."""
        sql = "SELECT generation, config FROM collections WHERE id = ?"
        generation, stored = self._known(cursor.execute(sql, (self.collection,)).fetchone())
        if under is not None and stored != under:
            raise StaleConfigError("the collection's settings were changed meanwhile")
        sql = "UPDATE collections SET generation = ?, stamp = ?, config = coalesce(?, config) WHERE id = ?"
        cursor.execute(sql, (generation + 1, secrets.randbits(62), config or None, self.collection))
        return int(generation) + 1

    def _keep(self, cursor: sqlite3.Cursor, artefacts: Mapping[str, bytes] | None) -> None:
        if artefacts is None:
            return
        cursor.execute("DELETE FROM artefacts WHERE collection = ?", (self.collection,))
        cursor.executemany(
            "INSERT INTO artefacts (collection, name, content) VALUES (?, ?, ?)",
            ((self.collection, name, content) for name, content in artefacts.items()),
        )

    def _insert(self, cursor: sqlite3.Cursor, batch: EncryptedBatch, generation: int) -> None:
        tokens = [token.tobytes() for token in np.ascontiguousarray(batch.tokens)]
        self.database.expect(cursor, len(tokens))
        named = sorted({*tokens, *batch.retired})  # neighbours in the index together
        stale = [(row, space) for row, space, _ in self._with_tokens(cursor, named)]
        if stale:
            self._delete(cursor, stale, generation)
        n = len(tokens)
        if not n:
            return
        first = self.database.allocate(cursor, n)
        rows = range(first, first + n)
        here, spaces = self.collection, batch.spaces.tolist()
        cursor.executemany(
            "INSERT INTO records (row, collection, space, token, payload) VALUES (?, ?, ?, ?, ?)",
            (
                (row, here, space, token, payload)
                for row, space, token, payload in zip(rows, spaces, tokens, batch.payloads, strict=True)
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
                ((here, field, *term, first + position) for position, field, term in batch.terms),
            )
        self._count(cursor, Counter(spaces))

    def _delete(self, cursor: sqlite3.Cursor, gone: list[tuple[int, int]], generation: int) -> None:
        rows = json.dumps([row for row, _ in gone])
        self.database.expect(cursor, len(gone))
        for table in OF_A_RECORD:
            cursor.execute(f"DELETE FROM {table} WHERE row IN (SELECT value FROM json_each(?))", (rows,))  # noqa: S608
        cursor.execute(
            "INSERT OR IGNORE INTO tombstones (collection, generation, row) SELECT ?, ?, value FROM json_each(?)",
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
        asked = np.asarray(rows, np.int64).tolist()
        held: dict[int, bytes] = {}
        with self.database.read() as cursor:
            for i in range(0, len(asked), _ROWS_AT_ONCE):
                some = json.dumps(asked[i : i + _ROWS_AT_ONCE])
                held.update(cursor.execute(select, (some, self.collection)).fetchall())
        found = [row for row in asked if row in held]
        blobs = [held[row] for row in found]
        # SQLite keeps values of any type in any column; what is no blob was damaged, and opens as nothing
        return np.array(found, np.int64), [blob if isinstance(blob, bytes) else b"" for blob in blobs]

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
    flat = data.view(np.uint8).reshape(-1).data
    width = data.shape[1] * data.itemsize
    return (flat[i * width : (i + 1) * width] for i in range(len(data)))
