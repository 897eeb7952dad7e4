"""Stores whose names are sealed, of every kind, plain and async: like any other, but listed by key holders only."""

import asyncio
import contextlib
import json
import sqlite3

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import Store, errors
from encvec_store.cli.app import run
from encvec_store.indexes import open_connection
from encvec_store.lab.leakage import stolen, told
from tests.kits.postgres import role
from tests.kits.postgres_store import ask

DIM = 8
VECTORS = np.random.default_rng(0).standard_normal((30, DIM)).astype(np.float32)
IDS = [f"id-{n}" for n in range(30)]
PLACES = [("", "contracts"), ("acme", "contracts"), ("acme", "faces"), ("globex", "contracts")]


class Place:
    """Where a store lies, opened as another process would."""

    def __init__(self, url, **options):
        self.url, self.options = url, options
        self._connection = open_connection(url) if url == "memory:" else None

    @contextlib.contextmanager
    def open(self, keyset, **given):
        if self._connection is not None:  # it lives as long as its connection
            yield Store(self._connection, keyset, maintenance="manual", **given)
        else:
            with ev.connect(self.url, keyset=keyset, maintenance="manual", **self.options, **given) as store:
                yield store


@pytest.fixture(params=["memory", "faiss", "postgresql"])
def place(request, tmp_path):
    if request.param == "postgresql":
        found = request.getfixturevalue("pg_place")
        return Place(found.dsn, schema=found.schema)
    return Place("memory:" if request.param == "memory" else f"faiss:{tmp_path}/store")


@pytest.fixture
def keyset():
    return ev.Keyset.create("memory:")


def filled(store):
    for tenant, name in PLACES:
        things = store.collection(name, DIM, tenant=tenant, scheme="sap" if name == "faces" else None)
        things.upsert(IDS, VECTORS, documents=["text"] * 30)
    return store


def same(store):
    """Every collection is there, found and searched by its name."""
    assert store.collections() == PLACES
    for tenant, name in PLACES:
        things = store.collection(name, tenant=tenant)
        assert (things.tenant, things.name, things.count()) == (tenant, name, 30)
        assert things.search(VECTORS[3], k=1)[0].id == "id-3"


def test_a_store_is_used_as_any_other(place, keyset):
    with place.open(keyset, names="sealed") as store:
        same(filled(store))
        held = store.collection("faces", tenant="acme")
        assert (held.stats()["name"], held.stats()["tenant"]) == ("faces", "acme")
        assert held.verify().ok
        held.flush()
        tokens = store._connection.store.collections()
        assert len(tokens) == 4
        assert len({tenant for tenant, _ in tokens}) == 3, "the collections of a tenant are known by its token"
        assert len({name for _, name in tokens}) == 4, "and those of one name are not"
        with place.open(keyset) as other:  # it follows the store
            same(other)
            assert other.collections("acme") == PLACES[1:3]
            assert other.collections("nobody") == []
            assert other.drop("faces", tenant="acme") is True
            assert other.drop("faces", tenant="acme") is False
            with pytest.raises(errors.CollectionNotFoundError, match="collection 'faces' was dropped"):
                held.count()
            assert other.drop_tenant("acme") == 1
        with pytest.raises(errors.CollectionNotFoundError, match="no collection 'faces' of tenant 'acme'"):
            store.collection("faces", tenant="acme")
        assert store.collections() == [PLACES[0], PLACES[3]]
        for name in ("", "x" * 256, "a\0b", 7):
            with pytest.raises(errors.InputError, match="collection name must"):
                store.collection(name, DIM)


def test_what_is_refused(place, keyset):
    with place.open(keyset, names="sealed") as store:
        store.collection("things", DIM)
        for names, error, told in (
            ("clear", errors.ConfigMismatchError, "names in .* are sealed: leave out names="),
            ("hidden", errors.InputError, "names must be one of clear, sealed, got 'hidden'"),
            (True, errors.InputError, "names must be one of clear, sealed, got True"),
        ):
            with pytest.raises(error, match=told), place.open(keyset, names=names):
                pass
        with pytest.raises(errors.AuthenticationError, match=r"names could not be authenticated.*under other keys"):
            place.open(ev.Keyset.create("memory:")).__enter__()
        other = ev.Keyset.create("memory:")
        assert store._connection.store.keep_name_key(b"", store._connection.store.name_key()) is True
        with pytest.raises(errors.AuthenticationError):
            place.open(other).__enter__()


def test_clear_names_stay_clear(place, keyset):
    with place.open(keyset) as store, place.open(keyset, names="clear") as late:
        store.collection("things", DIM)
        assert store._connection.store.collections() == [("", "things")]
        with pytest.raises(errors.ConfigMismatchError, match=r'export the collections.*names="sealed"'):
            place.open(keyset, names="sealed").__enter__()
        store.drop("things")
        with place.open(keyset, names="sealed") as sealed:  # there is nothing in clear any more
            sealed.collection("things", DIM)
            for old in (store, late):
                with pytest.raises(errors.ConfigMismatchError, match="sealed since it was opened here: open it again"):
                    old.collection("things", DIM)
            assert sealed.collections() == [("", "things")]


def damaged(store, how):
    """Fill a store, and damage the name of the collection `other` of tenant acme."""
    one, other = (store.collection(name, DIM, tenant="acme") for name in ("one", "other"))
    store.collection("other", DIM, tenant="globex").upsert(IDS, VECTORS)
    other.upsert(IDS, VECTORS)
    assert store.verify_names() == ([("acme", "one"), ("acme", "other"), ("globex", "other")], [])
    assert other.verify().ok
    records = other._session.records
    right = records.blob("name")
    wrong = {"another's": one._session.records.blob("name"), "altered": right[:-1] + bytes([right[-1] ^ 1]), "": b"\1"}
    if how == "missing":
        records.keep(drop=["name"])
    else:
        records.keep([("name", 0, ev.storage.Blob(0, wrong[how]))])
    return other


@pytest.mark.parametrize("how", ["another's", "altered", "", "missing"])
def test_a_damaged_name_is_refused_and_found(place, keyset, how):
    with place.open(keyset, names="sealed") as store:
        other = damaged(store, how)
        for tenant in (None, "acme"):
            with pytest.raises(errors.AuthenticationError, match=r"1 of [23] names could not be auth.*`encvec verify`"):
                store.collections(tenant)
        there, (line,) = store.verify_names()
        assert there == [("acme", "one"), ("globex", "other")]
        assert line.startswith(f"collection with the token {other._session.records.spec.name}: its sealed name")
        assert (len(store.verify_names("acme")[1]), store.verify_names("globex")) == (1, (there[1:], []))
        (said,) = (report := other.verify()).store
        assert "its sealed name could not be authenticated: it is missing, was altered" in said
        assert (report.ok, report.checked, report.damaged) == (False, 30, [])
        assert store.collection("one", tenant="acme").verify().ok
        with place.open(keyset) as late:  # by its name it is found, as ever, and so it is mended
            kept = list(late.collection("other", tenant="acme").scroll())
            assert late.drop("other", tenant="acme")
            again = late.collection("other", DIM, tenant="acme")
            again.upsert([each.id for each in kept], [each.vector for each in kept])
            assert again.verify().ok
        assert store.collections("acme") == [("acme", "one"), ("acme", "other")]


def test_a_damaged_name_keeps_no_tenant_from_being_dropped(place, keyset):
    with place.open(keyset, names="sealed") as store:
        other = damaged(store, "altered")
        assert store.drop_tenant("acme") == 2
        assert store.collections() == [("globex", "other")]
        with pytest.raises(errors.CollectionNotFoundError):
            other.count()
        assert store.collection("other", tenant="globex").verify().ok


def test_collections_that_changed_places(tmp_path, keyset):
    """Tokens and sealed names that fit each other, at the records of another: the records do not open under them."""
    url = f"faiss:{tmp_path}/store"
    with ev.connect(url, keyset=keyset, names="sealed") as store:
        one, other = (store.collection(name, DIM)._session.records for name in ("one", "other"))
        names = one.blob("name"), other.blob("name")
        one.keep([("name", 0, ev.storage.Blob(0, names[1]))])
        other.keep([("name", 0, ev.storage.Blob(0, names[0]))])
        tokens = one.spec.name, other.spec.name
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "records.sqlite3")) as database, database:
        for old, new in ((tokens[0], "between"), (tokens[1], tokens[0]), ("between", tokens[1])):
            assert database.execute("UPDATE collections SET name = ? WHERE name = ?", (new, old)).rowcount == 1
    with ev.connect(url, keyset=keyset) as store:
        assert store.verify_names() == ([("", "one"), ("", "other")], [])
        for name in ("one", "other"):
            with pytest.raises(errors.AuthenticationError):
                store.collection(name)


@pytest.mark.parametrize("ending", ["store", "collection", "nothing", "disabled", "at once"])
def test_rotation(place, keyset, ending):
    """Names stay findable, whatever is done to the version they began under, once any process opened the store."""
    with place.open(keyset, names="sealed") as store, place.open(keyset) as reader:
        filled(store)
        held = store.collection("faces", tenant="acme")
        first = store._connection.store.name_key()
        tokens = store._connection.store.collections()
        keyset.rotate()
        if ending == "store":
            assert {(each.tenant, each.collection) for each in store.rekey()} == set(PLACES)
        elif ending == "collection":
            assert held.rekey().done
        elif ending == "disabled":
            keyset.disable(1)
            with place.open(keyset) as late:
                assert late.collections() == PLACES
            keyset.enable(1)
        elif ending == "at once":  # whoever has the name key in memory carries it over
            keyset.destroy(1)
            assert store.collections() == PLACES
        if ending == "nothing":
            assert store._connection.store.name_key() == first
            assert reader.collections() == PLACES
        assert store._connection.store.name_key()[:5] == bytes([1, 0, 0, 0, 2])
        assert store._connection.store.collections() == tokens
        if ending == "store":
            keyset.destroy(1)
            same(reader)
            with place.open(keyset) as late:
                same(late)
            reader.collection("new", DIM)
            assert store.collections() == sorted([*PLACES, ("", "new")])


def test_a_version_that_nobody_can_open(place, keyset):
    with place.open(keyset, names="sealed") as store:
        store.collection("things", DIM)
        stale = ev.Keyset.restore("memory:", keyset.export(unsafe_cleartext=True))
        with place.open(stale) as behind:
            keyset.rotate()
            store.collections()
            with pytest.raises(errors.KeyUnavailableError, match=r"names .* version 2 is not in this keyset"):
                place.open(stale).__enter__()
            assert behind.collections() == [("", "things")], "it has the name key"
            behind.collection("more", DIM)  # found by all, under one token
            assert store.collection("more").count() == 0
            stale.forget()
        before = store._connection.store.name_key()
        keyset.rotate()
        keyset.destroy(2)
        assert store._connection.store.name_key() == before
        with pytest.raises(errors.KeyUnavailableError, match="key version 2 is destroyed"):
            place.open(keyset).__enter__()


def test_names_are_dropped_from_memory_with_the_keys(place, keyset):
    with place.open(keyset, names="sealed") as store:
        store.collection("things", DIM)
        names = store._records
        keyset.forget()
        assert names._held is None
        assert store.collections() == [("", "things")]
        assert names._held is not None
        assert "things" not in repr(names) + repr(vars(names._held))


@pytest.mark.parametrize("kind", ["memory", "faiss", "postgresql"])
def test_async(request, tmp_path, keyset, kind):
    options = {}
    if kind == "postgresql":
        found = request.getfixturevalue("pg_place")
        url, options = found.dsn, {"schema": found.schema}
    else:
        url = "memory:" if kind == "memory" else f"faiss:{tmp_path}/store"

    async def main():
        async with ev.aio.connect(url, keyset=keyset, names="sealed", **options) as store:
            tasks = [store.collection("things", DIM, tenant=tenant) for tenant in ("a", "b") for _ in range(3)]
            made = await asyncio.gather(*tasks)
            await made[0].upsert(IDS, VECTORS)
            assert await store.collections() == [("a", "things"), ("b", "things")]
            keyset.rotate()
            assert [each.done for each in await store.rekey()] == [True, True]
            keyset.destroy(1)
            assert (await made[0].search(VECTORS[0], k=1))[0].id == "id-0"
            assert await store.drop_tenant("b") == 1
            assert await store.collections() == [("a", "things")]
        if kind != "memory":
            with pytest.raises(errors.ConfigMismatchError):
                await ev.aio.connect(url, keyset=keyset, names="clear", **options)

    asyncio.run(main())


def test_row_level_security(pg_dsn, keyset):
    """Each tenant sees its own collections, by its token; the store needs to see no others to begin."""
    ((database,),) = ask(pg_dsn, "SELECT quote_ident(current_database())")
    with role(pg_dsn, f"GRANT CREATE ON DATABASE {database} TO {{}}") as owner:
        with ev.connect(owner, keyset=keyset, row_security=True, names="sealed") as store:
            for tenant in ("acme", "globex"):
                store.collection("things", DIM, tenant=tenant).upsert(IDS, VECTORS)
            with pytest.raises(errors.InputError, match="one tenant at a time: name it"):
                store.collections()
            assert store.collections("acme") == [("acme", "things")]
            assert store.collection("things", tenant="globex").count() == 30
        with ev.connect(pg_dsn, keyset=keyset) as store:
            assert store.collections() == [("acme", "things"), ("globex", "things")]
            assert store.drop_tenant("acme") == 1
        with ev.connect(owner, keyset=keyset, row_security=True) as store:
            store.collection("other", DIM, tenant="new")
        ask(pg_dsn, "DROP TABLE encvec.name_key")
        with pytest.raises(errors.ConfigMismatchError, match="has collections"):  # none that this role sees
            ev.connect(owner, keyset=keyset, names="sealed")


def test_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ENCVEC_PASSPHRASE", "correct horse")
    monkeypatch.chdir(tmp_path)
    assert run(["init", "--names", "sealed"]) == 0
    np.save("vectors.npy", VECTORS)
    assert run(["ingest", "contracts", "vectors.npy", "--tenant", "acme"]) == 0
    capsys.readouterr()
    assert run(["collections"]) == 0
    assert "acme" in (listed := capsys.readouterr().out)
    assert "contracts" in listed
    lines = {line.what: line for line in told(stolen("./store"))}
    assert lines["name of collection and tenant"].amount == "a token"
    assert "acme" not in repr(stolen("./store").tables)
    url = f"faiss://{tmp_path}/store?names=clear"
    assert run(["collections", "--store", url]) == 2
    assert "are sealed: leave out names=" in capsys.readouterr().err
    with ev.connect(url.replace("clear", "sealed"), keyset=ev.Keyset.open("file:keys.json")) as store:
        assert store.collections() == [("acme", "contracts")]
        things = store.collection("contracts", tenant="acme")
        things._session.records.keep(drop=["name"])
        store.collection("other", DIM)
    capsys.readouterr()
    assert run(["verify", "--json"]) == 1
    other, unknown = json.loads(capsys.readouterr().out)["collections"]
    assert (other["collection"], other["ok"], unknown["collection"], unknown["ok"]) == ("other", True, None, False)
    assert "its sealed name could not be authenticated" in unknown["store"][0]
    assert run(["verify", "other"]) == 0
    assert run(["verify", "none"]) == 2
    capsys.readouterr()
    for given in ([], ["contracts", "--tenant", "acme"]):
        assert run(["verify", *given]) == 1
        assert "its sealed name could not be authenticated" in (shown := capsys.readouterr().out)
        assert ("acme/contracts" in shown) is bool(given)
    for command in ("collections", "maintain", "rekey"):
        assert run([command]) == 2
        assert "`encvec verify`" in capsys.readouterr().err
    for command in ("stats", "maintain", "rekey", "export"):
        out = ["saved.npy", "--plaintext"] if command == "export" else []
        assert run([command, "contracts", "--tenant", "acme", *out]) == 0, command
    assert run(["drop", "contracts", "--tenant", "acme", "--yes"]) == 0
    assert run(["drop", "contracts", "--tenant", "acme", "--yes"]) == 2
    assert run(["verify"]) == 0
