"""Measure searches of a sealed mapped column beside a plaintext one, with objects loaded, in one run.

Usage: python -m benchmarks.pgvector --orm 20000 [--quick]

Both sides are mapped classes in one database, searched through one open session each. Before every search, untimed, the
session forgets its objects, so that each search loads its 10. Plaintext is pgvector's `Vector` under HNSW, ordered by
its distance; ours is `nearest`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Engine, Index, create_engine, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.datasets import Dataset, load
from benchmarks.postgres import Watched
from benchmarks.report import Row, Show, Target
from encvec_store import Keyset
from encvec_store.data import metric
from encvec_store.integrations.sqlalchemy import EncryptedVector, bulk_insert, maintain, nearest
from encvec_store.lab.bench.postgres import database
from encvec_store.lab.bench.timing import interleave
from encvec_store.lab.bench.truth import Truth

__all__ = ["run"]

K, RECALL, BATCH = 10, 0.99, 2_000
EFS = (40, 100, 200)
QUERIES, QUICK, QUICK_QUERIES = 200, 600, 20


def mapped(dim: int) -> tuple[Any, Any, Any]:
    """Return the base, the plaintext class and the sealed one."""

    class Base(DeclarativeBase):
        pass

    class Plain(Base):
        __tablename__ = "plain"
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        title: Mapped[str]
        embedding: Mapped[Any] = mapped_column(VECTOR(dim))

    class Sealed(Base):
        __tablename__ = "sealed"
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        title: Mapped[str]
        embedding: Mapped[Any] = mapped_column(EncryptedVector(dim, keyset=Keyset.create("memory:")))

    return Base, Plain, Sealed


def run(n: int, quick: bool, show: Show) -> tuple[list[Row], list[Target]]:
    """Load n vectors of 384 dimensions into both, and search them by turns."""
    data = load(f"synthetic:{QUICK if quick else n}x384")
    queries = data.queries[: QUICK_QUERIES if quick else QUERIES]
    base, plain, sealed = mapped(data.dim)
    with database() as db, ExitStack() as open_now:

        def engine(**settings: int) -> Engine:
            given = " ".join(f"-c {name}={value}" for name, value in settings.items())
            url = db.url.replace("postgresql:", "postgresql+psycopg:", 1)
            made = create_engine(url, hide_parameters=True, connect_args={"options": given} if given else {})
            open_now.callback(made.dispose)
            return made

        first = engine()
        _load(first, base, plain, sealed, data, show)
        variants: dict[str, Watched] = {}
        prepare: dict[str, Callable[[], None]] = {}
        for what, effort in [*(("plaintext", ef) for ef in EFS), ("encrypted", 0)]:
            used = engine(**{"hnsw.ef_search": effort}) if effort else first
            session = open_now.enter_context(Session(used))
            pid = session.scalar(select(text("pg_backend_pid()")))
            name = f"{what} {effort}"
            search = _plainly(session, plain) if effort else _ours(session, sealed)
            variants[name] = Watched(search, None if db.pid is None else pid)
            prepare[name] = session.expunge_all
        with show.stage("search", len(queries)) as done:
            timed = interleave(variants, queries, progress=done, prepare=prepare)
        truth = Truth(metric("cosine"), data.vectors, queries, K)
        rows: list[Row] = []
        for name, measured in timed.items():
            what, ef = name.split()
            row: Row = {"bench": "pgvector", "part": "orm", "dataset": data.name, "n": len(data.vectors), "d": data.dim}
            row |= {"what": what, **db.versions, "ef_search": int(ef) or None}
            answers = [np.array(ids, np.int64) for ids in measured.answers]
            rows.append({**row, **measured.row(), **variants[name].row(), "recall@10": truth.recall(answers, K)})
    good = [row for row in rows if row["recall@10"] >= RECALL]
    plainly = sorted((row for row in good if row["what"] == "plaintext"), key=lambda row: float(row["p50_ms"]))
    for part in ("p50", "cpu") if plainly else ():
        least = float(plainly[0][f"{part}_ms"])
        for row in good:
            row[f"{part}_ratio"] = float(row[f"{part}_ms"]) / least
    show.table(
        f"{data.name}: mapped classes, {K} objects loaded",
        [{key: value for key, value in row.items() if key not in ("dataset", "n", "d")} for row in rows],
    )
    ratio = next((row["p50_ratio"] for row in good if plainly and row["what"] == "encrypted"), float("nan"))
    return rows, [Target(f"orm: p50 of `nearest` at recall@10 >= {RECALL} over plaintext's", ratio, "<=", 1.5)]


def _load(engine: Engine, base: Any, plain: Any, sealed: Any, data: Dataset, show: Show) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
    base.metadata.create_all(engine)
    n = len(data.vectors)
    with show.stage("load", n) as done, Session(engine) as session:
        for first in range(0, n, BATCH):
            some = enumerate(data.vectors[first : first + BATCH], first)
            rows = [{"id": i, "title": f"item {i}", "embedding": vector} for i, vector in some]
            session.execute(insert(plain), rows)
            bulk_insert(session, sealed, rows)
            session.commit()
            done(len(rows))
    with show.stage("indexes", 2) as done, Session(engine) as session:
        Index(
            "plain_hnsw", plain.embedding, postgresql_using="hnsw", postgresql_ops={"embedding": "vector_cosine_ops"}
        ).create(session.connection())
        session.commit()
        done(1)
        maintain(session, sealed.embedding)
        session.rollback()
        done(1)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def _plainly(session: Session, plain: Any) -> Callable[[Any], list[int]]:
    def search(query: Any) -> list[int]:
        near = select(plain).order_by(plain.embedding.cosine_distance(query)).limit(K)
        return [item.id for item in session.scalars(near)]

    return search


def _ours(session: Session, sealed: Any) -> Callable[[Any], list[int]]:
    def search(query: Any) -> list[int]:
        return [hit.item.id for hit in nearest(session, select(sealed), sealed.embedding, query, K)]

    return search
