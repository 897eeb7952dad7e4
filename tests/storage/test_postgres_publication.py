"""Logical replication of all tables: the server refuses to change a table without a key, and ours have one."""

import time

import psycopg
import pytest

from encvec_store.localpg import LocalServer
from encvec_store.storage.postgres import PostgresStore
from encvec_store.storage.protocol import Blob
from tests.kits.postgres_store import again, ask, batch, both, spec

KEYLESS = (
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'encvec'"
    " AND relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)"
)


@pytest.fixture(scope="module")
def published():
    """The DSN of a database whose every table is published, on a server that writes a logical log."""
    with LocalServer(settings={"wal_level": "logical", "max_wal_senders": "4"}) as server:
        server.ensure_database("published")
        dsn = server.dsn("published")
        ask(dsn, "CREATE PUBLICATION everything FOR ALL TABLES")
        ask(dsn, "SELECT pg_create_logical_replication_slot('followed', 'pgoutput')")
        yield dsn


@pytest.mark.parametrize("row_security", [False, True])
def test_every_write_goes_through(published, row_security):
    store = PostgresStore(published, index="hnsw", index_above=0, row_security=row_security)
    collection = both(store.create(spec(), b"settings"))
    first = batch(1, 40)
    for _ in range(2):  # the second time updates
        collection.put(first, under=b"settings", blobs={"profile": Blob(1, b"sealed")})
    collection.flush()
    collection.remove(collection.rows()[:3])
    rows = collection.rows()[:20]
    collection.replace([again(batch(2, 20), rows)], b"settings 2", under=b"settings", blobs={"profile": None})
    collection.put(batch(3, 4), under=b"settings 2", config=b"settings 3")
    assert collection.count() == 24
    assert ask(published, KEYLESS) == []
    assert store.drop("tenant", "things")
    store.close()


def test_changes_reach_the_log(published):
    store = PostgresStore(published)
    store.create(spec("logged"), b"settings").put(batch(1, 40), under=b"settings")
    store.close()
    read = "SELECT count(*) FROM pg_logical_slot_get_binary_changes('followed', NULL, NULL, 'proto_version', '1',"
    found, until = 0, time.monotonic() + 20
    with psycopg.connect(published, autocommit=True) as connection:
        while found < 40 and time.monotonic() < until:  # the server writes its log out a little later
            found += connection.execute(f"{read} 'publication_names', 'everything')").fetchone()[0]
    assert found >= 40
