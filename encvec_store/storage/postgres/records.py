"""The records of one collection in PostgreSQL: reads, writes, changes and checks together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any, LiteralString

from psycopg.errors import UndefinedTable

from ...data.arrays import Rows
from ...data.filters import Predicate
from ...errors import StoreUnreachableError
from ..protocol import BUSY, Blob, Changes, CollectionSpec, EncryptedBatch
from .blobs import keep
from .changes import changed, following, purge
from .check import check_content, sizes
from .faults import translated
from .reading import RecordsReader
from .schema import require_ranking
from .server import Server
from .source import Cursor, Source
from .writer import PostgresWriter

__all__ = ["IndexNew", "PostgresRecords"]

IndexNew = Callable[[Cursor, int, dict[int, int], int], None]
"""Indexes tables before others can see them: (cursor, number of the tables, records by partition, index_dim)."""
_TOUCH: LiteralString = "SELECT FROM {records} LIMIT 0"
_ATTEMPTS = 5


class PostgresRecords(RecordsReader):
    """Implements `Records`."""

    remains = (
        "Dumps, base backups, archived WAL and replicas made before still hold the old ciphertexts, and so may free"
        " pages of the database. Run VACUUM FULL, make a new base backup, and delete the old backups, dumps and WAL."
    )

    def __init__(self, source: Source, server: Server, collection: int, content: int, spec: CollectionSpec) -> None:
        super().__init__(source, server, collection, content, spec)
        self._writer = PostgresWriter(self)
        self.on_replace: IndexNew | None = None
        """`replace` calls it in its transaction, after the last batch. A vector index on the server sets it, so that
        searches need not wait for an index on the new tables."""

    def keep(
        self,
        blobs: Iterable[tuple[str, int, Blob]] = (),
        *,
        drop: Iterable[str] = (),
        expect: Mapping[str, bytes | None] | None = None,
    ) -> bool:
        return keep(self, blobs, drop, expect or {})

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
        return self._writer.put(chain([batch], more), under, config, blobs or {}, over)

    def remove(self, rows: Rows) -> int:
        return self._writer.remove(rows) if len(rows) else 0

    def require_ranking(self, index_dim: int) -> None:
        with self.source.write() as cursor:
            require_ranking(cursor, self.source, self.server, self.spec, index_dim)

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
        spec = self.spec if ranked is None else replace(self.spec, ranked=ranked)
        self._writer.replace(batches, under, config, spec, index_dim, blobs or {}, drop, self.on_replace)
        self.spec = spec

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
        return self._writer.reseal(batch, old, under, config, blobs or {}, renumber=renumber, relist=relist)

    def changes(self, since: int, content: int, *, stamp: int | None = None) -> Changes | None:
        return changed(self, since, content, stamp)

    def following(self, since: int, content: int, predicate: Predicate) -> tuple[Changes | None, Rows]:
        return following(self, since, content, predicate)

    @contextmanager
    def frozen(self) -> Iterator[PostgresRecords]:
        with ExitStack() as stack:
            yield self._as_now(stack)

    def _as_now(self, stack: ExitStack) -> PostgresRecords:
        for _ in range(_ATTEMPTS):
            with translated("read", self.source.place), ExitStack() as trial:
                made = copy.copy(self)
                made.source = trial.enter_context(self.source.frozen())
                made._writer, made.on_replace = PostgresWriter(made), None  # noqa: SLF001
                made.catch_up()
                touch = made.names.sql(_TOUCH, made.content)
                try:  # from then on nobody can drop the table
                    made.source.read(lambda cursor, touch=touch: cursor.execute(touch))  # type: ignore[misc]
                except UndefinedTable:  # replaced after the snapshot was taken
                    continue
                stack.push(trial.pop_all())
                return made
        raise StoreUnreachableError(BUSY)

    def check(self) -> list[str]:
        return self.on_content(lambda cursor, content: check_content(cursor, content, self))

    def stats(self) -> dict[str, Any]:
        self.find_extension()
        return {
            "row_security": self.server.row_security,
            "pgvector": None if self.server.pgvector is None else str(self.server.pgvector),
            "bytes": self.on_content(lambda cursor, content: sizes(cursor, content, self)),
        }

    def flush(self) -> None:
        purge(self)
