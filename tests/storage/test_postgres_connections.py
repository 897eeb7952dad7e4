"""Connections of a PostgreSQL store: dropped, used up, timed out, waiting for a lock."""

import contextlib
import time

import numpy as np
import psycopg
import pytest
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine

from encvec_store import errors
from tests.kits.postgres_store import again, ask, batch, opened, oracle, sound

OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def end_connections(dsn):
    assert ask(dsn, OTHERS)
    time.sleep(0.05)


def sources(dsn):
    """The three ways to connections: our pool, a caller's pool, a caller's engine."""
    yield {}, lambda: None
    for autocommit in (False, True):
        pool = ConnectionPool(dsn, min_size=2, kwargs={"autocommit": autocommit}, open=True)
        yield {"pool": pool}, pool.close
    engine = create_engine(dsn.replace("postgresql:", "postgresql+psycopg:"), hide_parameters=True)
    yield {"engine": engine}, engine.dispose


def test_opening_a_store_takes_one_connection(pg_dsn, monkeypatch):
    """The pool begins with the one that showed that the server can be reached, and makes more when they are needed."""
    made = []

    def counted(connect):
        def call(*given, **how):
            made.append(connect(*given, **how))
            return made[-1]

        return call

    for place in (psycopg, psycopg.Connection):
        monkeypatch.setattr(place, "connect", counted(place.connect))
    with opened(pg_dsn) as (store, collection):
        assert collection.count() == 0
        assert len(made) == 1
        with store._source.session(), store._source.session():
            assert len(made) == 2
    assert all(connection.closed for connection in made)


@pytest.mark.parametrize("which", range(4), ids=["own", "pool", "autocommit-pool", "engine"])
def test_dropped_connections_are_replaced(pg_dsn, which):
    for i, (given, dispose) in enumerate(sources(pg_dsn)):
        if i != which:
            dispose()
            continue
        with opened(pg_dsn, **given) as (_, collection):
            expected = oracle()
            for seed in range(4):
                if seed:
                    end_connections(pg_dsn)
                for store in (collection, expected):
                    store.put(batch(seed, 5), under=b"settings")
                end_connections(pg_dsn)
                sound(collection, expected)
        with pytest.raises(errors.StoreClosedError):
            collection.count()
        if "pool" in given:  # ours to use, not to close
            with given["pool"].connection() as connection:
                assert connection.autocommit is (which == 2)
                assert connection.execute("SELECT 1").fetchone() == (1,)
        if "engine" in given:
            with given["engine"].connect() as connection:
                assert connection.exec_driver_sql("SELECT 1").scalar() == 1
                assert connection.connection.driver_connection.autocommit is False
        dispose()


def test_a_connection_lost_in_the_middle_of_a_write(pg_dsn):
    with opened(pg_dsn) as (_, collection):
        expected = oracle()
        for store in (collection, expected):
            store.put(batch(1, 5), under=b"settings")

        def batches():
            yield again(batch(2, 2), 1)
            end_connections(pg_dsn)
            yield again(batch(3, 2), 3)

        with pytest.raises(errors.StoreUnreachableError):
            collection.replace(batches(), b"new", under=b"settings")
        sound(collection, expected)
        for store in (collection, expected):
            store.replace([again(batch(2, 2), 1), again(batch(3, 2), 3)], b"new", under=b"settings")
        sound(collection, expected)


EXHAUSTED = {
    "own": r"none of the pool's 1 connections was free within 0\.5 s; allow more \(option pool_size\)",
    "pool": r"none of the pool's 1 connections was free within 0\.5 s; make the pool given larger \(max_size\)",
    "engine": r"all connections of the engine are in use; make its pool larger \(pool_size of create_engine\)",
}


@contextlib.contextmanager
def one_connection(dsn, given):
    """Open a collection in a store that has one connection: of its own, of a pool or of an engine."""
    with contextlib.ExitStack() as stack:
        options = {"pool_size": 1, "pool_timeout": 0.5}
        if given == "pool":
            options["pool"] = stack.enter_context(ConnectionPool(dsn, min_size=1, max_size=1, open=True))
        if given == "engine":
            target = dsn.replace("postgresql:", "postgresql+psycopg:")
            options["engine"] = create_engine(target, pool_size=1, max_overflow=0, pool_timeout=0.5)
            stack.callback(options["engine"].dispose)
        yield stack.enter_context(opened(dsn, **options))[1]


@pytest.mark.parametrize("given", EXHAUSTED)
def test_an_exhausted_pool(pg_dsn, given):
    with one_connection(pg_dsn, given) as collection:

        def more():
            for _ in range(2):
                with pytest.raises(errors.StoreUnreachableError, match=EXHAUSTED[given]):
                    collection.count()
            yield batch(2, 5)

        collection.put(batch(1, 5), under=b"settings", more=more())
        assert collection.count() == 10


@pytest.mark.parametrize("given", EXHAUSTED)
def test_a_replacement_needs_one_connection(pg_dsn, given):
    """Its batches are made of what is read meanwhile, and writers that wait for it may hold all the others."""
    with one_connection(pg_dsn, given) as collection:
        seen = []

        def batches():
            for first in (1, 3):
                seen.append((collection.count(), collection.rows(after=first - 1, limit=2).tolist()))
                yield again(batch(first, 2), first)

        collection.put(batch(1, 5), under=b"settings")
        collection.replace(batches(), b"new", under=b"settings")
        assert seen == [(5, [1, 2]), (5, [3, 4])]
        assert collection.count() == 4


def test_a_replacement_reads_the_tables_in_use(pg_dsn):
    with opened(pg_dsn) as (_, mine), opened(pg_dsn) as (_, theirs):
        mine.put(batch(1, 5), under=b"settings")
        theirs.replace([again(batch(2, 3), 1)], b"settings", under=b"settings")
        seen = []

        def batches():
            seen.append(mine.count())
            yield again(batch(3, 2), 1)

        mine.replace(batches(), b"settings", under=b"settings")
        assert seen == [3]
        assert mine.count() == theirs.count() == 2


def test_a_statement_timeout(pg_dsn):
    with opened(pg_dsn, statement_timeout=1) as (_, collection):
        collection.put(batch(1, 5), under=b"settings")
        with psycopg.connect(pg_dsn) as other:
            other.execute("LOCK TABLE encvec.records_1")
            with pytest.raises(errors.StoreUnreachableError, match=r"cancelled the statement.*timeout"):
                collection.rows()
        assert len(collection.rows()) == 5


def test_another_writer_holds_the_lock(pg_dsn):
    with opened(pg_dsn, lock_timeout=0.2) as (_, mine), opened(pg_dsn) as (_, theirs):

        def batches():
            for write in (
                lambda: mine.put(batch(1, 5), under=b"settings"),
                lambda: mine.remove(np.array([1])),
                lambda: mine.replace([], b"", under=b"settings"),
            ):
                with pytest.raises(errors.StoreLockedError, match="nothing was written, try again"):
                    write()
            yield again(batch(2, 5))

        theirs.put(batch(2, 5), under=b"settings")
        theirs.replace(batches(), b"settings", under=b"settings")
        mine.put(batch(1, 5), under=b"settings")
        assert mine.count() == 10


def test_a_reader_that_does_not_end_keeps_a_replacement_out(pg_dsn):
    """A backup, perhaps: the old tables cannot go, so nothing is replaced."""
    with opened(pg_dsn, lock_timeout=0.2) as (_, collection):
        expected = oracle()
        for store in (collection, expected):
            store.put(batch(1, 5), under=b"settings")
        with psycopg.connect(pg_dsn) as other:
            other.execute("SELECT * FROM encvec.records_1")
            with pytest.raises(errors.StoreLockedError):
                collection.replace([again(batch(2, 5))], b"new", under=b"settings")
        sound(collection, expected)


def test_statements_carry_no_values_into_errors_and_logs(pg_dsn, pg_server):
    """Not even ciphertext: what fails is told by SQL state."""
    with opened(pg_dsn) as (_, collection):
        wrong = batch(1, 1)
        wrong.vectors = wrong.vectors[:, 1:]
        with pytest.raises(errors.StoreError) as caught:
            collection.put(wrong, under=b"settings")
        assert wrong.tokens[0].tobytes().hex() not in str(caught.value)
        assert "CheckViolation, SQL state 23514" in str(caught.value)
