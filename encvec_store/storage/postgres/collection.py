"""A collection in PostgreSQL: records, searches and checks put together; imports the files beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from ...data.fields import Term
from ...data.filters import Predicate
from ...indexes.pgvector.searching import Searcher
from ..protocol import Bytes, CacheAuthenticator, CollectionSpec, EncryptedBatch, Matrix, Nearest, Probes, Rows
from .check import check_content, sizes
from .records import Records
from .schema import Server
from .source import Source
from .writer import Writer

__all__ = ["PgvectorCollection"]


class PgvectorCollection:
    """Implements `BackendCollection`. Nothing is cached but the names of tables and indexes."""

    def __init__(self, source: Source, server: Server, collection: int, content: int, spec: CollectionSpec) -> None:
        self.spec = spec
        self._records = Records(source, server, collection, content, spec)
        self._writer = Writer(self._records)
        self._searcher = Searcher(self._records)

    def config(self) -> bytes:
        return self._records.config()

    def artefact(self, name: str) -> bytes | None:
        return self._records.artefact(name)

    def put(
        self,
        batch: EncryptedBatch,
        *,
        under: bytes,
        config: bytes | None = None,
        artefacts: Mapping[str, bytes] | None = None,
        more: Iterable[EncryptedBatch] = (),
    ) -> None:
        self._writer.put(chain([batch], more), under, config, artefacts)

    def remove(self, rows: Rows) -> int:
        return self._writer.remove(rows) if len(rows) else 0

    def replace(
        self,
        batches: Iterable[EncryptedBatch],
        config: bytes,
        *,
        under: bytes,
        index_dim: int | None = None,
        artefacts: Mapping[str, bytes] | None = None,
    ) -> None:
        self._writer.replace(batches, under, config, index_dim, artefacts, self._searcher.index_new)

    def find(self, tokens: Bytes) -> Rows:
        return self._records.find(tokens)

    def rows(self, predicate: Predicate | None = None, *, after: int = 0, limit: int | None = None) -> Rows:
        return self._records.rows(predicate, after, limit)

    def count(self) -> int:
        return sum(self.spaces().values())

    def spaces(self) -> dict[int, int]:
        return self._records.spaces()

    def candidates(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> list[Rows]:
        return self._searcher.candidates(probes, limit, predicate)

    def nearest(self, probes: Probes, limit: int, predicate: Predicate | None = None) -> Nearest:
        return self._searcher.nearest(probes, limit, predicate)

    def vectors(self, rows: Rows, *, source: bool = False) -> tuple[Rows, Bytes]:
        return self._records.envelopes(rows)

    def payloads(self, rows: Rows) -> tuple[Rows, list[bytes]]:
        return self._records.payloads(rows)

    def index_vectors(self, rows: Rows) -> tuple[Rows, Matrix]:
        return self._records.index_vectors(rows)

    def audit(self, rows: Rows) -> list[tuple[int, int, bytes, set[tuple[str, Term]]]]:
        return self._records.audit(rows)

    def generation(self) -> int:
        return self._records.generation()

    def authenticate_cache(self, authenticator: CacheAuthenticator) -> None:
        pass  # there are no files of ours

    def drop_cache(self) -> None:
        pass  # there is no second copy

    def check(self) -> list[str]:
        return self._records.on_content(lambda cursor, content: check_content(cursor, content, self._records))

    def stats(self) -> dict[str, Any]:
        states = self._searcher.states(fresh=True)
        kinds = {state.kind for state in states.values()} or {"none"}
        return {
            "index": "+".join(sorted("exact" if kind == "none" else kind for kind in kinds)),
            "spaces": {
                str(number): {
                    "index": state.kind,
                    "wanted": state.wanted,
                    "storage": state.storage,
                    "rows": state.records,
                    "bytes": state.bytes,
                }
                for number, state in states.items()
            },
            "searches": dict(self._searcher.ways),
            "row_security": self._records.server.row_security,
            "pgvector": ".".join(map(str, self._records.server.version)),
            "bytes": self._records.on_content(lambda cursor, content: sizes(cursor, content, self._records)),
        }

    def explain(self, space: int, query: Matrix, limit: int, predicate: Predicate | None = None) -> str:
        """Return the server's plan for a search of one query."""
        return self._searcher.explain(space, query, limit, predicate)

    def flush(self) -> None:
        self._searcher.build()
