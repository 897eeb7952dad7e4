"""A plain PostgreSQL, without pgvector: it keeps sealed collections for any role that owns a schema, and no others."""

import asyncio
from contextlib import closing

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import errors
from encvec_store.storage import CollectionSpec
from encvec_store.storage.postgres import PostgresStore, server
from tests.kits.postgres import role
from tests.kits.postgres_store import ask, spec
from tests.stores.contract import EVERYTHING, hasten

DIM, N = 8, 30
NAMES = [f"id-{i}" for i in range(N)]
VECTORS = np.random.default_rng(0).standard_normal((N, DIM)).astype(np.float32)
RANKED = pytest.mark.parametrize("scheme", ["sap", "sketch"])
"""A sketch has index vectors only once it is fitted, and is refused all the same when it is created."""


@pytest.fixture
def theirs(pg_plain):
    """The URL of the database for a role that may create nothing but tables in one schema."""
    with role(pg_plain, "CREATE SCHEMA encvec AUTHORIZATION {}") as url:
        yield url


@pytest.fixture
def keyset():
    return ev.Keyset.create("memory:")


def test_a_sealed_collection_needs_no_extension(theirs, keyset, pg_plain):
    for create in (True, False):
        with ev.connect(theirs, keyset=keyset, create=create) as store:
            things = store.collection("things", dim=DIM, fields={"n": "plain", "lang": "blind"})
            things.upsert(NAMES, VECTORS, [{"n": i, "lang": "de"} for i in range(N)])
            assert things.search(VECTORS[7], k=1, where={"n": {"gt": 3}, "lang": "de"})[0].id == "id-7"
            assert things.index_vectors(NAMES[:3]).shape == (3, 0)
            assert things.verify().ok
            things.flush()
            assert things.stats()["store"]["pgvector"] is None
    assert ask(pg_plain, "SELECT extname FROM pg_extension") == [("plpgsql",)]


@pytest.mark.parametrize("half", [False, True])
def test_async(theirs, keyset, half):
    async def main():
        async with ev.aio.connect(theirs, keyset=keyset, row_security=True) as store:
            precision = "half" if half else "single"
            things = await store.collection("things", dim=DIM, scheme="sealed", precision=precision)
            await things.upsert(NAMES, VECTORS)
            assert (await things.search(VECTORS[7], k=1))[0].id == "id-7"
            with pytest.raises(errors.StoreUnreachableError, match="needs the extension pgvector"):
                await store.collection("others", dim=DIM, scheme="sap")

    asyncio.run(main())


@RANKED
def test_a_server_that_shall_rank_needs_it(theirs, keyset, scheme):
    words = r"'things' needs the extension pgvector, which .* lacks.*CREATE EXTENSION vector .*scheme=\"sealed\""
    for create in (True, False):
        with ev.connect(theirs, keyset=keyset, create=create) as store:
            with pytest.raises(errors.StoreUnreachableError, match=words):
                store.collection("things", dim=DIM, scheme=scheme)
            assert store.collections() == []
    assert ask(theirs, "SELECT count(*) FROM pg_tables WHERE schemaname = 'encvec' AND tablename ~ '_[0-9]'") == [(0,)]


@RANKED
def test_one_that_is_installed_later(theirs, keyset, pg_plain, scheme):
    """It serves the stores that are open already, and is found outside the search path."""
    with ev.connect(theirs, keyset=keyset) as store, ev.connect(theirs, keyset=keyset) as other:
        quiet = store.collection("quiet", dim=DIM, scheme="sealed")
        quiet.upsert(NAMES, VECTORS)
        ask(pg_plain, "CREATE SCHEMA extensions")
        ask(pg_plain, "GRANT USAGE ON SCHEMA extensions TO public")
        ask(pg_plain, "CREATE EXTENSION vector SCHEMA extensions")
        for each in (store, other):
            things = each.collection("things", dim=DIM, scheme=scheme)
            things.upsert(NAMES, VECTORS)
            things.flush()
            assert things.search(VECTORS[7], k=1)[0].id == "id-7"
            assert things.verify().ok
        assert quiet.stats()["store"]["pgvector"] == things.stats()["store"]["pgvector"] is not None
        assert quiet.search(VECTORS[7], k=1)[0].id == "id-7"


@RANKED
@pytest.mark.parametrize("precision", ["single", "half"])
def test_a_change_of_the_scheme(theirs, keyset, pg_plain, scheme, precision, monkeypatch):
    """Refused before anything is written; once the extension is there, stores that were open before go on."""
    hasten(monkeypatch)
    with ev.connect(theirs, keyset=keyset) as store, ev.connect(theirs, keyset=keyset) as other:
        things = store.collection("things", dim=DIM, scheme="sealed", precision=precision, oversample=EVERYTHING)
        things.upsert(NAMES, VECTORS)
        everywhere = [other.collection("things", oversample=EVERYTHING), things]
        for create in (True, False):
            with ev.connect(theirs, keyset=keyset, create=create) as plain:
                mine = plain.collection("things")
                with pytest.raises(errors.StoreUnreachableError, match="'things' needs the extension pgvector, which"):
                    mine.change(scheme=scheme)
        assert things.stats()["scheme"]["name"] == "sealed"
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'encvec' AND tablename ~ '_[0-9]'"
        assert ask(theirs, tables) == [(2,)]
        ask(pg_plain, "CREATE SCHEMA extensions")
        ask(pg_plain, "GRANT USAGE ON SCHEMA extensions TO public")
        ask(pg_plain, "CREATE EXTENSION vector SCHEMA extensions")
        things.change(scheme=scheme)
        columns = "SELECT attname::text FROM pg_attribute WHERE attrelid = (SELECT format('encvec.records_%s', content)"
        columns += "::regclass FROM encvec.collections) AND attname LIKE 'index%'"
        assert ask(pg_plain, columns) == [("index_half" if precision == "half" else "index_vector",)]
        for each in everywhere:
            for queries in (VECTORS[7:8], VECTORS[7:9]):
                assert each.search(queries, k=1)[0][0].id == "id-7"
            assert each.index_vectors(NAMES[:3]).any()
            each.upsert(NAMES[:1], VECTORS[:1])
            assert each.verify().ok
        things.change(scheme="sealed")
        assert ask(pg_plain, columns) == []
        ask(pg_plain, "DROP EXTENSION vector")
        for each in everywhere:
            assert each.search(VECTORS[7], k=1)[0].id == "id-7"
            assert each.verify().ok


def test_whoever_may_creates_it_for_the_first_that_needs_it(pg_plain, keyset):
    with ev.connect(pg_plain, keyset=keyset) as store:
        store.collection("quiet", dim=DIM, scheme="sealed")
        assert ask(pg_plain, "SELECT FROM pg_extension WHERE extname = 'vector'") == []
        things = store.collection("things", dim=DIM, scheme="sap")
        things.upsert(NAMES, VECTORS)
        assert things.search(VECTORS[7], k=1)[0].id == "id-7"


def test_a_server_without_its_files(pg_plain, monkeypatch):
    monkeypatch.setattr(server, "_CREATE", b"CREATE EXTENSION no_such_extension")
    store = PostgresStore(pg_plain)
    with pytest.raises(errors.StoreUnreachableError, match=r"not installed on the server; .*postgresql-17-pgvector"):
        store.create(spec(), b"settings")
    store.close()


def test_an_old_one(pg_dsn):
    """Sealed collections work beside it; what the catalogue says is all that we can ask."""
    with closing(PostgresStore(pg_dsn)) as store:
        store.create(spec(), b"settings")
    ask(pg_dsn, "UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    with closing(PostgresStore(pg_dsn)) as store:
        for use in (lambda: store.open("tenant", "things"), lambda: store.create(spec("more"), b"settings")):
            with pytest.raises(errors.StoreUnreachableError, match=r"0\.8\.0 or later.*0\.7\.4.*ALTER EXTENSION"):
                use()
        assert store.create(CollectionSpec("tenant", "quiet", 0, 40, ranked=False), b"settings").count() == 0


def test_one_that_was_dropped_with_its_columns(pg_dsn, keyset):
    """The sealed records are whole, and can be copied into a new collection."""
    with ev.connect(pg_dsn, keyset=keyset) as store:
        store.collection("things", dim=DIM, scheme="sap").upsert(NAMES, VECTORS)
    ask(pg_dsn, "DROP EXTENSION vector CASCADE")
    with ev.connect(pg_dsn, keyset=keyset) as store:
        things = store.collection("things")
        with pytest.raises(errors.StoreUnreachableError, match=r"extension pgvector was .* dropped"):
            things.search(VECTORS[7], k=1)
        fresh = store.collection("fresh", dim=DIM, scheme="sap")
        with pytest.raises(errors.StoreUnreachableError, match="the index vectors are missing"):
            things.search(VECTORS[7], k=1)
        kept = things.get(NAMES)
        fresh.upsert([record.id for record in kept], np.array([record.vector for record in kept]))
        assert fresh.search(VECTORS[7], k=1)[0].id == "id-7"
