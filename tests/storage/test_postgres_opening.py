"""Opening a PostgreSQL store: no server, no rights, no extension, none of our tables; each told apart."""

import psycopg
import pytest

from encvec_store import errors
from encvec_store.storage.postgres import PostgresStore
from tests.kits.postgres import role
from tests.kits.postgres_store import again, ask, batch, opened, oracle, sound, spec


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
        PostgresStore(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_no_database(pg_dsn, pg_server):
    with pytest.raises(errors.StoreUnreachableError, match=r"nowhere.* does not exist"):
        PostgresStore(pg_server.dsn("nowhere"))


def test_a_wrong_password(pg_dsn):
    with pytest.raises(errors.StoreUnreachableError, match=r"authentication failed|does not exist") as caught:
        PostgresStore(pg_dsn.replace("passfile=", "password=wrong-secret&application_name="))
    assert "wrong-secret" not in str(caught.value)


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
        assert collection.candidates({1: batch(1, 300).index_vectors[7:8]}, 1)[0].tolist() == [8]
        assert collection.stats()["index"] == "hnsw"


def test_an_unsound_extension(pg_dsn):
    """Warned of and not built in parallel; what the catalogue says is all that we can ask."""
    ask(pg_dsn, "UPDATE pg_extension SET extversion = '0.8.1' WHERE extname = 'vector'")
    with pytest.warns(RuntimeWarning, match=r"0\.8\.1 has defects.*0\.8\.4"):
        backend = PostgresStore(pg_dsn)
    assert not backend._server.parallel
    backend.close()


def test_an_old_server(pg_dsn, monkeypatch):
    monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", property(lambda self: 140_012))
    with pytest.raises(errors.StoreUnreachableError, match="PostgreSQL 14; 15 or later is needed"):
        PostgresStore(pg_dsn)


def test_a_role_without_rights(pg_dsn):
    with role(pg_dsn) as theirs:
        with pytest.raises(errors.StoreUnreachableError, match=r"role lacks a right.*permission denied for database"):
            PostgresStore(theirs)
        with opened(pg_dsn) as (_, collection):
            collection.put(batch(1, 3), under=b"settings")
        with pytest.raises(errors.StoreUnreachableError, match=r"role lacks a right.*permission denied for schema"):
            PostgresStore(theirs)
    reading = (
        "GRANT USAGE ON SCHEMA encvec TO {}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA encvec TO {}",
    )
    with role(pg_dsn, *reading) as theirs:
        backend = PostgresStore(theirs)
        collection = backend.open("tenant", "things")
        assert len(collection.rows()) == 3
        with pytest.raises(errors.StoreUnreachableError, match="role lacks a right"):
            collection.put(batch(2, 3), under=b"settings")
        backend.close()


def test_a_database_without_our_tables(pg_dsn):
    with pytest.raises(errors.StoreUnreachableError, match="no tables of encvec_store in schema 'encvec'"):
        PostgresStore(pg_dsn, create=False)


def test_tables_from_the_future(pg_dsn):
    with opened(pg_dsn):
        pass
    ask(pg_dsn, "UPDATE encvec.meta SET value = 99 WHERE name = 'format'")
    with pytest.raises(errors.StoreUnreachableError, match=r"format 99.*upgrade it"):
        PostgresStore(pg_dsn)


def test_repr_and_url_hide_the_password(pg_dsn):
    with role(
        pg_dsn, "GRANT ALL ON DATABASE " + ask(pg_dsn, "SELECT quote_ident(current_database())")[0][0] + " TO {}"
    ) as theirs:
        backend = PostgresStore(theirs)
        assert ":encvec@" in theirs
        assert ":encvec@" not in backend.url
        backend.create(spec(), b"settings")
        backend.close()
        ask(pg_dsn, "DROP SCHEMA encvec CASCADE")


@pytest.mark.parametrize("options", [{"index": "hnsw"}, {"index": "none"}, {"row_security": True}], ids=str)
def test_an_extension_that_moves_while_the_store_is_open(pg_dsn, options):
    """Reads, searches and writes find it again by themselves, also those whose statements are prepared."""
    schemas = iter(("extensions", "elsewhere", "public") * 3)
    expected = oracle()

    def move():
        schema = next(schemas)
        ask(pg_dsn, f"CREATE SCHEMA IF NOT EXISTS {schema}")
        ask(pg_dsn, f"ALTER EXTENSION vector SET SCHEMA {schema}")

    with opened(pg_dsn, **options) as (store, collection):
        for _ in range(7):
            for each in (collection, expected):
                each.put(batch(1, 30), under=b"settings")
            collection.flush()
            sound(collection, expected)
        query = batch(1, 30).index_vectors[7:8]
        found = collection.candidates({1: query}, 1)[0].tolist()
        uses = [
            lambda: sound(collection, expected),
            lambda: collection.nearest({1: query}, 3, None),
            lambda: [each.put(batch(1, 30), under=b"settings") for each in (collection, expected)],
            lambda: store.create(spec("another"), b"settings").put(batch(2, 3), under=b"settings"),
            collection.flush,
            lambda: [
                each.replace([again(batch(1, 30), each.rows())], b"settings", under=b"settings")
                for each in (collection, expected)
            ],
            collection.stats,
        ]
        for use in uses:
            move()
            use()
        assert len(found) == 1
        sound(collection, expected)
