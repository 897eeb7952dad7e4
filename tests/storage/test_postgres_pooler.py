"""The PostgreSQL store through a real PgBouncer in transaction mode: two server sessions serve everybody in turn."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine

import encvec_store as ev
from encvec_store import aio
from encvec_store.data import Match, Term
from encvec_store.storage.postgres import PostgresStore
from encvec_store.storage.protocol import CollectionSpec
from tests.kits.postgres import role
from tests.kits.postgres_store import DIM, SIZE, again, ask, batch, both, oracle, sound
from tests.kits.threads import guarded

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed: apt-get install pgbouncer")
SESSIONS = 2
PORT = 6432


@pytest.fixture
def pooled(pg_dsn):
    """The URL of a database behind PgBouncer, for an unprivileged role."""
    ((database,),) = ask(pg_dsn, "SELECT quote_ident(current_database())")
    place = Path(tempfile.mkdtemp(prefix="encvec-pgbouncer-"))
    with role(pg_dsn, f"GRANT CREATE ON DATABASE {database} TO {{}}") as url:
        known = conninfo_to_dict(url)
        (place / "users.txt").write_text(f'"{known["user"]}" "encvec"\n')
        (place / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={known.get('host', '127.0.0.1')} port={known.get('port', 5432)}\n[pgbouncer]\n"
            f"pool_mode = transaction\ndefault_pool_size = {SESSIONS}\nmax_client_conn = 200\nauth_type = trust\n"
            f"auth_file = {place}/users.txt\nlisten_addr =\nlisten_port = {PORT}\nunix_socket_dir = {place}\n"
        )
        account = {}
        if os.geteuid() == 0:  # it refuses to run as root, and only their owner may use a local server's sockets
            host = Path(known.get("host", ""))
            account = {"user": host.owner() if host.is_absolute() else "nobody", "extra_groups": []}
            for path in (place, *place.iterdir()):
                shutil.chown(path, account["user"])
        process = subprocess.Popen(
            [PGBOUNCER, "-q", place / "pgbouncer.ini"], stderr=subprocess.PIPE, text=True, **account
        )
        try:
            behind = f"postgresql://{known['user']}@/{known['dbname']}?host={place}&port={PORT}"
            _wait(process, behind)
            yield behind
        finally:
            process.terminate()
            process.communicate(timeout=10)
            shutil.rmtree(place)


def _wait(process, url):
    for _ in range(100):
        with suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=2):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"pgbouncer does not answer: {process.communicate()[1]}")


@contextmanager
def opened(url, **options):
    backend = PostgresStore(url, **options)
    try:
        yield backend
    finally:
        backend.close()


def work(backend, tenant, rounds=8):
    """Write, search and replace one tenant's collection beside the oracle, often enough to prepare statements."""
    collection = both(backend.create(CollectionSpec(tenant, "things", DIM, SIZE), b"settings"))
    expected = oracle()
    seed = 1000 * int.from_bytes(tenant.encode(), "big")
    known = batch(seed, 40).tokens
    for step in range(rounds):
        chosen = np.random.default_rng(seed + step).choice(40, 10, replace=False)
        terms = [(i, "parity", Term("number", float(i % 2))) for i in range(10)]
        written = batch(seed + step, 10, tokens=known[chosen], terms=terms)
        kept = expected.rows()[:10]
        for store in (collection, expected):
            if step == rounds // 2:
                store.replace([again(written, kept)], b"settings", under=b"settings")
            else:
                store.put(written, under=b"settings")
        if step % 3 == 2:
            collection.flush()
        queries = batch(seed + 500 + step, 2).index_vectors
        for predicate in (None, Match("parity", (Term("number", 1.0),))):
            found = collection.candidates({1: queries}, 5, predicate)
            for mine, truth in zip(found, expected.candidates({1: queries}, 5, predicate), strict=True):
                np.testing.assert_array_equal(mine, truth)
        sound(collection, expected)


def own(url):
    return {}, lambda: None


def pool(url):
    # as a caller makes it who knows nothing of poolers: psycopg would prepare statements after the fifth time
    given = ConnectionPool(url, min_size=1, max_size=4, open=True)
    return {"pool": given}, given.close


def engine(url):
    given = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), hide_parameters=True)
    return {"engine": given}, given.dispose


@pytest.mark.parametrize(
    ("connections", "told"),
    [(own, {"pooler": True}), (own, {}), (own, {"pooler": False}), (pool, {}), (engine, {})],
)
def test_many_tenants_share_two_sessions(pg_dsn, pooled, connections, told):
    """Each sees its own records only, though the sessions are handed round between their transactions.

    Also if nobody told the store of the pooler: prepared statements would be answered by others of the same name.
    """
    given, dispose = connections(pooled)
    failed = []
    with opened(pooled, row_security=True, index="none" if told == {"pooler": False} else "hnsw", **given, **told) as (
        backend
    ):
        threads = [guarded(failed, work, backend, tenant) for tenant in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
    dispose()
    user = conninfo_to_dict(pooled)["user"]
    sessions = ask(pg_dsn, "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", user)
    assert 1 <= sessions[0][0] <= SESSIONS


def test_nothing_outlives_a_transaction(pooled):
    """The next client of a session finds it as new: no tenant, no timeout, no search setting, no statement, no lock."""
    state = (
        "SELECT coalesce(current_setting('encvec.tenant', true), ''), current_setting('lock_timeout'),"
        " current_setting('statement_timeout'), current_setting('maintenance_work_mem'),"
        " coalesce(current_setting('hnsw.ef_search', true), '40'),"
        " coalesce(current_setting('hnsw.iterative_scan', true), 'off'), (SELECT count(*) FROM pg_prepared_statements),"
        " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())"
    )
    with psycopg.connect(pooled, prepare_threshold=None, autocommit=True) as connection:
        before = connection.execute(state).fetchone()
        with opened(pooled, row_security=True, index="hnsw", statement_timeout=7) as backend:
            work(backend, "acme")
            work(backend, "globex")
            for _ in range(20):
                assert connection.execute(state).fetchone() == before
                assert connection.execute("SELECT count(*) FROM encvec.collections").fetchone() == (0,)


def test_a_callers_connections_come_back_as_they_were(pooled):
    with ConnectionPool(pooled, min_size=1, max_size=1, open=True) as given:
        with opened(pooled, pool=given) as backend:
            work(backend, "acme")
        with given.connection() as connection:
            assert connection.prepare_threshold == 5
            assert connection.autocommit is False
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_pooler_is_found(pg_dsn, pooled, caplog):
    caplog.set_level("INFO", "encvec_store")
    for url, told, found in ((pooled, {}, True), (pooled, {"pooler": False}, False), (pg_dsn, {}, False)):
        caplog.clear()
        with opened(url, **told) as backend:
            assert backend._source.options.pooler is found
        assert ("a connection pooler stands before" in caplog.text) is found


def test_async_calls_share_two_sessions(pooled):
    vectors = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)

    async def calls():
        async with aio.connect(pooled, keyset=ev.Keyset.create("memory:")) as store:
            things = await store.collection("things", dim=4)

            async def one(i):
                await things.upsert([str(i)], vectors[i : i + 1])
                return [hit.id for hit in await things.search(vectors[i], k=1)], await things.get([str(i)])

            return await asyncio.gather(*map(one, range(60)))

    for i, (hits, (record,)) in enumerate(asyncio.run(calls())):
        assert (hits, record.id) == ([str(i)], str(i))
