"""Blobs beside the records in PostgreSQL: who waits for whom, and which tenants and roles see and write them."""

import numpy as np
import psycopg
import pytest

from encvec_store.errors import StoreUnreachableError
from encvec_store.storage import Blob
from encvec_store.storage.postgres.reading import RecordsReader
from tests.kits.postgres import role
from tests.kits.postgres_store import again, batch, opened
from tests.kits.tenants import TENANTS
from tests.kits.tenants import opened as opened_at


def parts(name, *contents):
    return [(name, part, Blob(1, content)) for part, content in enumerate(contents)]


def test_writers_do_not_wait_for_one_who_stores_blobs(pg_dsn):
    """But two who compare do wait for each other: the contract has that."""
    with opened(pg_dsn) as (_, first), opened(pg_dsn, lock_timeout=0.1) as (_, second):

        def blobs():
            yield "a", 0, Blob(1, b"one")
            second.put(batch(1, 5), under=b"settings")
            second.remove(second.rows()[:2])
            second.keep(parts("b", b"two"))
            yield "a", 1, Blob(1, b"two")

        assert first.keep(blobs())
        assert second.blobs("") == {"a": (2, 6), "b": (1, 3)}
        assert second.count() == 3


def test_blobs_can_be_stored_while_records_are_written(pg_dsn):
    with opened(pg_dsn) as (_, first), opened(pg_dsn, lock_timeout=0.1) as (_, second):

        def more():
            assert second.keep(parts("a", b"one"))
            yield batch(2, 3)

        first.put(batch(1, 5), under=b"settings", more=more())
        assert (first.blob("a"), first.count()) == (b"one", 8)


def test_vectors_and_generation_are_one_statement(pg_dsn, monkeypatch):
    with opened(pg_dsn) as (_, collection):
        collection.put(batch(1, 5), under=b"settings")
        rows, calls, of = collection.rows(), [], RecordsReader.on_content

        class Counting:
            def __init__(self, cursor):
                self.cursor = cursor

            def execute(self, *given):
                calls.append(given)
                return self.cursor.execute(*given)

        def counted(self, work):
            return of(self, lambda cursor, content: work(Counting(cursor), content))

        monkeypatch.setattr(RecordsReader, "on_content", counted)
        for asked in (rows, rows[:0], np.array([10**9])):
            collection.current(asked)
        assert len(calls) == 3


def test_another_process_replaces_the_tables(pg_dsn):
    with opened(pg_dsn) as (_, first), opened(pg_dsn) as (_, second):
        first.put(batch(1, 5), under=b"settings")
        before, rows, *_ = second.current(first.rows())
        for seed in (2, 3):
            first.replace([again(batch(seed, 5))], b"settings", under=b"settings")
            generation, found, vectors, _ = second.current(rows)
            assert generation > before
            assert found.tolist() == rows.tolist()
            assert np.array_equal(vectors, batch(seed, 5).vectors)


def test_each_tenant_has_its_own_blobs(pg_dsn, owner, filled):
    _, collections = filled
    for tenant, collection in collections.items():
        assert collection.keep(parts("index", tenant.encode() + b"!", b"more"), expect={"index": None})
    for tenant, collection in collections.items():
        own = len(tenant) + 1
        assert collection.blobs("") == {"index": (2, own + 4), "profile": (1, 6)}
        assert collection.blob("index") == tenant.encode() + b"!"
        assert len(collection.current(collection.rows())[1]) == 30
    assert collections["acme"].keep(drop=["index"])
    assert "index" in collections["globex"].blobs("")
    with psycopg.connect(owner) as connection:
        assert connection.execute("SELECT count(*) FROM encvec.blobs").fetchone() == (0,), "no tenant named"
        for tenant in TENANTS:
            connection.execute("SELECT set_config('encvec.tenant', %s, true)", (f"={tenant}",))
            (n,) = connection.execute("SELECT count(*) FROM encvec.blobs").fetchone()
            assert n == (1 if tenant == "acme" else 3)


def test_a_role_that_only_reads_stores_no_blobs(pg_dsn):
    with opened(pg_dsn) as (_, collection):
        collection.put(batch(1, 5), under=b"settings")
        collection.keep(parts("a", b"one"))
        rights = ("GRANT USAGE ON SCHEMA encvec TO {}", "GRANT SELECT ON ALL TABLES IN SCHEMA encvec TO {}")
        with role(pg_dsn, *rights) as reader, opened_at(reader) as store:
            records = store.open("tenant", "things")
            assert records.blobs("") == {"a": (1, 3)}
            assert len(records.current(collection.rows())[1]) == 5
            for given in ({}, {"expect": {"a": b"one"}}, {"drop": ["a"]}):
                with pytest.raises(StoreUnreachableError, match=r"lacks a right.*nothing was written"):
                    records.keep(parts("b", b"two"), **given)
        assert collection.blobs("") == {"a": (1, 3)}
