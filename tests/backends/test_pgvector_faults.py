"""What goes wrong around a PostgreSQL store: each time a clear error, no half batch, and a retry that succeeds."""

import threading
import time

import numpy as np
import psycopg
import pytest
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine

from encvec_store import errors
from encvec_store.backends.pgvector import PgvectorBackend, schema
from encvec_store.localpg import LocalServer
from tests.backends.pgvector_kit import ask, batch, opened, oracle, sound, spec
from tests.postgres import role

OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def end_connections(dsn):
    assert ask(dsn, OTHERS)
    time.sleep(0.05)


# ------------------------------------------------------------------------------------------------ opening


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:secret@127.0.0.1:1/db", "127.0.0.1.*(refused|failed)"),
        ("postgresql://u:secret@/db?host=/nowhere", "/nowhere"),
        ("postgresql://u:secret@no-such-host.invalid/db", "no-such-host"),
    ],
)
def test_no_server(url, words):
    with pytest.raises(errors.StoreUnreachableError, match=words) as caught:
        PgvectorBackend(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_no_database(pg_dsn, pg_server):
    with pytest.raises(errors.StoreUnreachableError, match=r"nowhere.* does not exist"):
        PgvectorBackend(pg_server.dsn("nowhere"))


def test_a_wrong_password(pg_dsn):
    with pytest.raises(errors.StoreUnreachableError, match=r"authentication failed|does not exist") as caught:
        PgvectorBackend(pg_dsn.replace("passfile=", "password=wrong-secret&application_name="))
    assert "wrong-secret" not in str(caught.value)


def test_no_extension_and_no_right_to_create_it(pg_dsn):
    ask(pg_dsn, "DROP EXTENSION vector")
    with role(pg_dsn) as theirs:
        with pytest.raises(errors.StoreUnreachableError, match="superuser run CREATE EXTENSION vector"):
            PgvectorBackend(theirs)
        with pytest.raises(errors.StoreUnreachableError, match="lacks the extension pgvector"):
            PgvectorBackend(theirs, create=False)
    with opened(pg_dsn) as (_, collection):  # we may
        assert collection.count() == 0


def test_an_extension_in_a_schema_of_its_own(pg_dsn):
    ask(pg_dsn, "DROP EXTENSION vector")
    ask(pg_dsn, 'CREATE SCHEMA "Their ""own"""')
    ask(pg_dsn, 'CREATE EXTENSION vector SCHEMA "Their ""own"""')
    with opened(pg_dsn, index="hnsw", schema='My "own"') as (_, collection):
        expected = oracle()
        for store in (collection, expected):
            store.put(batch(1, 300), under=b"settings")
        sound(collection, expected)
        collection.flush()
        assert collection.candidates(1, batch(1, 300).index_vectors[7:8], 1)[0].tolist() == [8]
        assert collection.stats()["index"] == "hnsw"


def test_an_extension_that_is_too_old(pg_dsn, monkeypatch):
    monkeypatch.setattr(schema, "_version", lambda text: (0, 7, 4))
    with pytest.raises(errors.StoreUnreachableError, match=r"0\.8\.0 or later.*ALTER EXTENSION"):
        PgvectorBackend(pg_dsn)
    monkeypatch.setattr(schema, "_version", lambda text: (0, 8, 1))
    with pytest.warns(RuntimeWarning, match=r"0\.8\.4"):
        backend = PgvectorBackend(pg_dsn)
    assert not backend._server.parallel
    backend.close()


def test_a_role_without_rights(pg_dsn):
    with role(pg_dsn) as theirs:
        with pytest.raises(errors.StoreUnreachableError, match=r"role lacks a right.*permission denied for database"):
            PgvectorBackend(theirs)
        with opened(pg_dsn) as (_, collection):
            collection.put(batch(1, 3), under=b"settings")
        with pytest.raises(errors.StoreUnreachableError, match=r"role lacks a right.*permission denied for schema"):
            PgvectorBackend(theirs)
    reading = (
        "GRANT USAGE ON SCHEMA encvec TO {}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA encvec TO {}",
    )
    with role(pg_dsn, *reading) as theirs:
        backend = PgvectorBackend(theirs)
        collection = backend.open("tenant", "things")
        assert len(collection.rows()) == 3
        with pytest.raises(errors.StoreUnreachableError, match="role lacks a right"):
            collection.put(batch(2, 3), under=b"settings")
        backend.close()


def test_a_database_without_our_tables(pg_dsn):
    with pytest.raises(errors.StoreUnreachableError, match="no tables of encvec_store in schema 'encvec'"):
        PgvectorBackend(pg_dsn, create=False)


def test_tables_from_the_future(pg_dsn):
    with opened(pg_dsn):
        pass
    ask(pg_dsn, "UPDATE encvec.meta SET value = 99 WHERE name = 'format'")
    with pytest.raises(errors.StoreUnreachableError, match=r"format 99.*upgrade it"):
        PgvectorBackend(pg_dsn)


# -------------------------------------------------------------------------------------------- connections


def sources(dsn):
    """The three ways to connections: our pool, a caller's pool, a caller's engine."""
    yield {}, lambda: None
    for autocommit in (False, True):
        pool = ConnectionPool(dsn, min_size=2, kwargs={"autocommit": autocommit}, open=True)
        yield {"pool": pool}, pool.close
    engine = create_engine(dsn.replace("postgresql:", "postgresql+psycopg:"), hide_parameters=True)
    yield {"engine": engine}, engine.dispose


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
            yield batch(2, 5)
            end_connections(pg_dsn)
            yield batch(3, 5)

        with pytest.raises(errors.StoreUnreachableError):
            collection.replace(batches(), b"new", under=b"settings")
        sound(collection, expected)
        for store in (collection, expected):
            store.replace([batch(2, 5), batch(3, 5)], b"new", under=b"settings")
        sound(collection, expected)


def test_an_exhausted_pool(pg_dsn):
    with opened(pg_dsn, pool_size=1, pool_timeout=0.5) as (_, collection):

        def batches():
            with pytest.raises(
                errors.StoreUnreachableError, match=r"all 1 connections of the pool were in use for 0\.5 s"
            ):
                collection.count()
            yield batch(1, 5)

        collection.replace(batches(), b"new", under=b"settings")
        assert collection.count() == 5


def test_a_statement_timeout(pg_dsn):
    with opened(pg_dsn, statement_timeout=0.2) as (_, collection):
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
            yield batch(2, 5)

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
                collection.replace([batch(2, 5)], b"new", under=b"settings")
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


# ---------------------------------------------------------------------------------------- many, and crashes


@pytest.mark.slow
def test_eight_writers_and_readers(pg_dsn):
    """Nothing is lost, and every record found is whole, while 4 write and delete and 4 read."""
    seconds, failed, last = 15.0, [], {}
    with opened(pg_dsn, index="hnsw") as (_, first):
        first.put(batch(0, 200), under=b"settings")
        first.flush()
    end = time.monotonic() + seconds

    def guarded(work):
        def run(number):
            try:
                with opened(pg_dsn, index="hnsw") as (_, collection):
                    work(number, collection)
            except Exception as error:
                failed.append(error)

        return run

    @guarded
    def write(number, collection):
        step, kept = 0, {}
        while time.monotonic() < end:
            step += 1
            some = batch(number * 10_000 + step % 20, 20)
            some.vectors[:] = some.tokens.repeat(3, axis=1)[:, :40]  # an envelope tells whose it is
            collection.put(some, under=b"settings")
            for token in some.tokens:
                kept[token.tobytes()] = True
            if step % 3 == 0:
                rows = collection.find(some.tokens[:5])
                assert rows.all()
                assert collection.remove(rows) == 5
                for token in some.tokens[:5]:
                    del kept[token.tobytes()]
        last[number] = kept

    @guarded
    def read(number, collection):
        query = batch(number, 3).index_vectors
        while time.monotonic() < end:
            for rows in collection.candidates(1, query, 20):
                assert len(rows) == 20
                found, envelopes = collection.vectors(rows)
                whole = {row: (space, token) for row, space, token, _ in collection.audit(found)}
                for row, envelope in zip(found.tolist(), envelopes, strict=True):
                    if row > 200 and row in whole:
                        assert envelope.tobytes() == np.frombuffer(whole[row][1], np.uint8).repeat(3)[:40].tobytes()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4) for work in (write, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with opened(pg_dsn) as (_, collection):
        tokens = {token for _, _, token, _ in collection.audit(collection.rows())}
        wanted = {token.tobytes() for token in batch(0, 200).tokens}.union(*last.values())
        assert tokens == wanted
        assert collection.count() == len(wanted)
        assert collection.check() == []


@pytest.mark.faults
def test_the_server_is_killed_while_writing(tmp_path):
    """SIGKILL in the middle of puts, replacements and index builds: what was acknowledged is there, nothing by half."""
    safe = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
    with LocalServer(settings=safe) as server:
        server.ensure_database("killed")
        dsn = server.dsn("killed")
        acknowledged: list[int] = []
        with opened(dsn, index="hnsw") as (_, collection):
            for round_ in range(4):
                lost = []

                def write(base=round_ * 1000, lost=lost):
                    try:
                        for seed in range(base, base + 1000):
                            collection.put(batch(seed, 50), under=b"settings")
                            acknowledged.append(seed)
                            if seed % 10 == 9:
                                collection.flush()
                    except errors.StoreUnreachableError as error:
                        lost.append((seed, str(error)))

                thread = threading.Thread(target=write)
                thread.start()
                time.sleep(0.4 + 0.2 * round_)
                server.kill()
                thread.join()
                assert lost, "the write noticed"
                with pytest.raises(errors.StoreUnreachableError):
                    collection.count()
                server.restart()
                present = {token for _, _, token, _ in collection.audit(collection.rows())}
                counted = 0
                for seed in acknowledged:
                    assert {token.tobytes() for token in batch(seed, 50).tokens} <= present
                    counted += 50
                # of the batch in flight, all or nothing
                interrupted = {token.tobytes() for token in batch(lost[0][0], 50).tokens}
                if lost[0][0] not in acknowledged:
                    assert len(interrupted & present) in (0, 50)
                    counted += len(interrupted & present)
                    collection.put(batch(lost[0][0], 50), under=b"settings")  # the retry
                    acknowledged.append(lost[0][0])
                assert len(present) == counted
                assert collection.check() == []


def test_repr_and_url_hide_the_password(pg_dsn):
    with role(
        pg_dsn, "GRANT ALL ON DATABASE " + ask(pg_dsn, "SELECT quote_ident(current_database())")[0][0] + " TO {}"
    ) as theirs:
        backend = PgvectorBackend(theirs)
        assert ":encvec@" in theirs
        assert ":encvec@" not in backend.url
        backend.create(spec(), b"settings")
        backend.close()
        ask(pg_dsn, "DROP SCHEMA encvec CASCADE")
