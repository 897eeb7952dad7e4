"""Tenants kept apart by PostgreSQL itself: row-level security on every table, also for the role that owns them."""

import contextlib
import json
import logging
import time

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import encvec_store as ev
from encvec_store import errors
from encvec_store.cli.app import run
from encvec_store.data.fields import Term
from encvec_store.data.filters import Match
from encvec_store.storage.postgres import PostgresStore
from encvec_store.storage.protocol import Blob, CollectionSpec
from tests.kits.postgres import role
from tests.kits.postgres_store import DIM, SIZE, again, ask, batch, both, oracle, sound

TENANTS = ("acme", "globex", "")
OWNER = ("GRANT CREATE ON DATABASE {database} TO {{}}",)
VISIBLE = (
    "SELECT count(*) FROM encvec.collections",
    "SELECT count(*) FROM encvec.partitions",
    "SELECT count(*) FROM encvec.blobs",
    "SELECT count(*) FROM encvec.changes",
    "SELECT count(*) FROM encvec.records",
    "SELECT count(*) FROM encvec.terms",
)


def terms(n):
    return [(i, "country", Term("str", "de" if i % 2 else "fr")) for i in range(n)]


def make(backend, tenant, name="things"):
    return both(backend.create(CollectionSpec(tenant, name, DIM, SIZE), b"settings"))


@contextlib.contextmanager
def opened(url, **options):
    backend = PostgresStore(url, **options)
    try:
        yield backend
    finally:
        backend.close()


@pytest.fixture
def owner(pg_dsn):
    """The URL of an unprivileged role that may make the schema, and so owns all tables in it."""
    ((database,),) = ask(pg_dsn, "SELECT quote_ident(current_database())")
    with role(pg_dsn, *(right.format(database=database) for right in OWNER)) as url:
        yield url


@pytest.fixture
def filled(owner):
    """The owner's store with one collection each for three tenants, 30 records in each; yields {tenant: collection}."""
    with opened(owner, row_security=True) as backend:
        collections = {tenant: make(backend, tenant) for tenant in TENANTS}
        for seed, collection in enumerate(collections.values()):
            some = batch(seed, 30, terms=terms(30))
            collection.put(some, under=b"settings", blobs={"profile": Blob(1, b"sealed")})
        yield backend, collections


def tables(dsn):
    """Every table of the store: (name, enabled, forced)."""
    return ask(
        dsn,
        "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class"
        " WHERE relnamespace = 'encvec'::regnamespace AND relkind = 'r' AND relname <> 'meta' ORDER BY 1",
    )


def seen(connection, content=()):
    """Count what a connection sees in all tables."""
    statements = [
        *VISIBLE,
        *(f"SELECT count(*) FROM encvec.{kind}_{n}" for n in content for kind in ("records", "terms")),
    ]
    return [connection.execute(statement).fetchone()[0] for statement in statements]


def contents(dsn):
    return dict(ask(dsn, "SELECT tenant, content FROM encvec.collections"))


def test_every_table_is_closed(pg_dsn, filled):
    found = tables(pg_dsn)
    assert len(found) == 6 + 2 * len(TENANTS)
    assert all(enabled and forced for _, enabled, forced in found), found


def test_the_owner_without_a_tenant_sees_and_writes_nothing(pg_dsn, owner, filled):
    numbers = contents(pg_dsn)
    with psycopg.connect(owner, autocommit=True) as connection:
        assert set(seen(connection, numbers.values())) == {0}
        n = numbers["acme"]
        for statement in (
            f"DELETE FROM encvec.records_{n}",
            f"UPDATE encvec.records_{n} SET partition = 9",
            f"DELETE FROM encvec.terms_{n}",
            "DELETE FROM encvec.records",
            "UPDATE encvec.collections SET tenant = 'x'",
            "DELETE FROM encvec.partitions",
            "UPDATE encvec.blobs SET content = ''",
            "DELETE FROM encvec.changes",
        ):
            assert connection.execute(statement).rowcount == 0, statement
        for statement in (
            f"INSERT INTO encvec.terms_{n} (row, n, field, kind, key) VALUES (1, 9, 'f', 'k', 'v')",
            f"INSERT INTO encvec.records_{n} SELECT 99, 1, 'tttttttttttttttt', decode(repeat('00', {SIZE}), 'hex'), '',"
            f" array_fill(0, ARRAY[{DIM}])::vector",
            "INSERT INTO encvec.collections (tenant, name, index_dim, envelope_size, config, generation, next_row,"
            " content, stamp, purged) VALUES ('acme', 'mine', 8, 40, '', 1, 1, 77, 1, 1)",
            "INSERT INTO encvec.partitions SELECT 1, 5, 5",
            "INSERT INTO encvec.blobs SELECT 1, 'mine', 0, 1, ''",
            "INSERT INTO encvec.changes SELECT 1, 9, 1, ''",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                connection.execute(statement)
    _, collections = filled
    assert [collection.count() for collection in collections.values()] == [30, 30, 30]


@pytest.mark.parametrize("tenant", TENANTS)
def test_a_session_sees_the_tenant_it_names(pg_dsn, owner, filled, tenant):
    numbers = contents(pg_dsn)
    with psycopg.connect(owner) as connection:
        connection.execute("SELECT set_config('encvec.tenant', %s, true)", (f"={tenant}",))
        assert seen(connection) == [1, 1, 1, 1, 0, 0], "and nothing through the parents"
        for other, content in numbers.items():
            assert set(seen(connection, [content])[len(VISIBLE) :]) == ({30} if other == tenant else {0})
        connection.rollback()
        # a setting that was local to a transaction is an empty one afterwards, and that is no tenant's
        assert connection.execute("SELECT current_setting('encvec.tenant', true)").fetchone() == ("",)
        assert set(seen(connection, numbers.values())) == {0}


def test_a_tenant_cannot_lay_hands_on_another_ones_tables(pg_dsn, owner, filled):
    """Tables are open where a visible row of `collections` names them: no row can be made to name another's."""
    theirs = contents(pg_dsn)["globex"]
    with psycopg.connect(owner) as connection:
        connection.execute("SELECT set_config('encvec.tenant', '=acme', true)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("UPDATE encvec.collections SET content = %s", (theirs,))
        connection.rollback()
        connection.execute("SELECT set_config('encvec.tenant', '=acme', true)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            connection.execute("UPDATE encvec.collections SET tenant = 'globex', name = 'more'")


def test_no_tenant_shows_in_the_catalog(pg_dsn, owner, filled):
    with psycopg.connect(owner) as connection:
        told = connection.execute(
            "SELECT (SELECT string_agg(qual, ' ') FROM pg_policies) || (SELECT string_agg(relname, ' ') FROM pg_class)"
        ).fetchone()[0]
        assert "records_1" in told
        assert "acme" not in told


def test_two_roles_bound_to_a_tenant_each(pg_dsn, owner, filled):
    """An administrator's policy on `collections` alone says which role may be whom; all tables follow."""
    maker = conninfo_to_dict(owner)["user"]
    rights = (
        "GRANT USAGE ON SCHEMA encvec TO {}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA encvec TO {}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {maker} IN SCHEMA encvec GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES"
        " TO {}",
    )
    bound = "CREATE POLICY {{0}}_is ON encvec.collections AS RESTRICTIVE TO {{0}} USING (tenant = '{0}')"
    with (
        role(pg_dsn, *rights, bound.format("acme")) as acme,
        role(pg_dsn, *rights, bound.format("globex")) as globex,
        opened(acme) as first,
        opened(globex) as second,
    ):
        mine, theirs = both(first.open("acme", "things")), both(second.open("globex", "things"))
        assert first._server.row_security == second._server.row_security == "on", "the tables say so, not the options"
        assert (first.open("globex", "things"), second.open("acme", "things")) == (None, None)
        assert first.collections("globex") == []
        assert {tenant for tenant, _ in first.collections("acme")} == {"acme"}
        expected = oracle()
        for store in (mine, expected):
            store.put(batch(7, 5, terms=terms(5)), under=b"settings")
        assert mine.count() == 35
        assert theirs.count() == 30
        with psycopg.connect(acme) as connection:
            connection.execute("SELECT set_config('encvec.tenant', '=globex', true)")
            assert set(seen(connection, contents(pg_dsn).values())) == {0}
        _, collections = filled
        collections["acme"].replace([again(batch(3, 9))], b"new", under=b"settings")
        assert (len(mine.rows()), mine.config()) == (9, b"new"), "new tables are open to the same roles"


def test_collections_are_listed_by_tenant(pg_dsn, filled):
    backend, _ = filled
    make(backend, "acme", "more")
    assert backend.collections("acme") == [("acme", "more"), ("acme", "things")]
    assert backend.collections("globex") == [("globex", "things")]
    assert backend.collections("nobody") == []
    assert backend.collections("") == [("", "things")]
    with pytest.raises(errors.InputError, match="one tenant at a time: name it"):
        backend.collections()
    with opened(pg_dsn) as administrator:
        assert len(administrator.collections()) == 4


def test_all_of_the_backend_under_row_security(owner):
    """Puts, removals, replacements, drops: the same records as without it, and no other tenant's."""
    with opened(owner, row_security=True, index="hnsw") as backend:
        other = make(backend, "globex")
        other.put(batch(99, 12, terms=terms(12)), under=b"settings")
        collection, expected = make(backend, "acme"), oracle()
        known = batch(0, 40).tokens
        for step in range(12):
            some = np.random.default_rng(step).choice(40, 12, replace=False)
            written = batch(step, 10, tokens=known[some[:10]], terms=terms(10), retired=[known[some[11]].tobytes()])
            kept = expected.rows()
            for store in (collection, expected):
                if step % 5 == 4:
                    parts = [again(written, kept[:10]), again(batch(step + 50, 3), kept[10:13])]
                    store.replace(parts, b"settings", under=b"settings")
                else:
                    store.put(written, under=b"settings")
            gone = expected.rows()[:2]
            assert collection.remove(gone) == expected.remove(gone)
            sound(collection, expected)
            collection.flush()
            queries = batch(step + 7, 3).index_vectors
            for predicate in (None, Match("country", (Term("str", "de"),))):
                found = collection.candidates({1: queries}, 5, predicate)
                for mine, truth in zip(found, expected.candidates({1: queries}, 5, predicate), strict=True):
                    np.testing.assert_array_equal(mine, truth)
        assert backend.drop("acme", "things") is True
        assert backend.drop("acme", "things") is False
        assert (other.count(), other.check()) == (12, [])


def test_a_replacement_is_closed_before_it_is_seen(pg_dsn, owner, filled):
    _, collections = filled
    before = contents(pg_dsn)["acme"]
    collections["acme"].replace([again(batch(5, 9, terms=terms(9)))], b"new", under=b"settings")
    after = contents(pg_dsn)["acme"]
    assert after != before
    assert all(enabled and forced for _, enabled, forced in tables(pg_dsn))
    with psycopg.connect(owner) as connection:
        connection.execute("SELECT set_config('encvec.tenant', '=globex', true)")
        assert set(seen(connection, [after])[len(VISIBLE) :]) == {0}
    assert collections["acme"].count() == 9


def test_values_of_every_size(owner):
    """What COPY took, INSERT takes: empty payloads, large ones, several statements, texts longer than their key."""
    with opened(owner, row_security=True) as backend:
        collection, expected = (
            both(backend.create(CollectionSpec("tenant", "things", 700, 3000), b"settings")),
            oracle(700, 3000),
        )
        big = batch(1, 4000, dim=700, size=3000)
        big.payloads[:3] = [b"", bytes(5_000_000), b"x" * 9_000]
        for value in ("", "\0", "x" * 2_000, "y" * 512, -1.5, "\U0001f600"):
            big.terms.append((len(big.terms), "\0 'f'", Term("str" if isinstance(value, str) else "number", value)))
        big.terms.append(big.terms[0])
        for store in (collection, expected):
            store.put(big, under=b"settings")
        sound(collection, expected)
        empty = both(backend.create(CollectionSpec("tenant", "sealed", 0, SIZE), b"settings"))
        empty.put(batch(1, 5, dim=0), under=b"settings")
        sound(empty, _filled(oracle(dim=0), batch(1, 5, dim=0)))


def _filled(collection, some):
    collection.put(some, under=b"settings")
    return collection


def test_indexes_are_used_under_row_security(owner):
    with opened(owner, row_security=True, index="hnsw") as backend:
        collection = make(backend, "acme")
        collection.put(
            batch(1, 3000, terms=[(i, "n", Term("number", float(i % 2))) for i in range(3000)]), under=b"settings"
        )
        collection.flush()
        query = batch(2, 1).index_vectors[0]
        plan = collection.explain(1, query, 10)
        assert "Index Scan using records_1_s1_hnsw" in plan
        assert "InitPlan" in plan, "the policy is asked once a statement,"
        assert "SubPlan" not in plan, "not once a row"
        few = collection.explain(1, query, 10, Match("n", (Term("number", 7.0),)))
        assert "filter first" in few
        assert "terms_1_field_kind_key_row_idx" in few


def test_turning_it_on_later(pg_dsn, owner):
    """Tables made without it are closed, old processes see nothing from then on, and a second call changes nothing."""
    with opened(owner) as before:
        collections = [make(before, tenant, name) for tenant in TENANTS for name in ("a", "b")]
        for collection in collections:
            collection.put(batch(1, 5), under=b"settings")
        assert not any(forced for *_, forced in tables(pg_dsn))
        with opened(owner, row_security=True) as after, opened(owner, row_security=True) as again:
            assert all(enabled and forced for _, enabled, forced in tables(pg_dsn))
            assert len(tables(pg_dsn)) == 6 + 2 * len(collections)
            assert after.open("acme", "a").count() == again.open("", "b").count() == 5
            assert before.open("acme", "a") is None
            with pytest.raises(errors.CollectionNotFoundError):
                collections[0].put(batch(2, 1), under=b"settings")
            with pytest.raises(errors.StoreUnreachableError, match="row-level security"):
                make(before, "acme", "c")
    with opened(owner) as backend:
        assert backend.open("acme", "a").count() == 5, "who connects now finds that it is on"


def test_turning_it_on_takes_the_owner(pg_dsn, owner):
    with opened(owner) as backend:
        make(backend, "acme")
    rights = ("GRANT USAGE ON SCHEMA encvec TO {}", "GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA encvec TO {}")
    with role(pg_dsn, *rights) as user, pytest.raises(errors.StoreUnreachableError, match="must be owner"):
        PostgresStore(user, row_security=True)


def test_a_role_that_nothing_binds_is_told(pg_dsn, filled, caplog):
    with caplog.at_level(logging.WARNING, "encvec_store"), opened(pg_dsn) as backend:
        (told,) = [record.getMessage() for record in caplog.records]
        assert "does not bind this role: it is a superuser or has BYPASSRLS" in told
        assert backend.open("acme", "things").stats()["row_security"] == "bypassed"
    _, collections = filled
    assert collections["acme"].stats()["row_security"] == "on"


def test_without_it_nothing_changes(pg_dsn):
    with opened(pg_dsn) as backend:
        assert make(backend, "acme").stats()["row_security"] == "off"
        assert not any(enabled or forced for _, enabled, forced in tables(pg_dsn))
        assert backend.collections() == [("acme", "things")]


def test_tenants_and_their_sizes(pg_dsn, filled):
    backend, _ = filled
    make(backend, "acme", "empty")
    make(backend, "globex", "large").put(batch(9, 3000), under=b"settings")
    with opened(pg_dsn) as administrator:
        found = administrator.tenants()
    assert [(entry["tenant"], entry["collections"], entry["records"]) for entry in found] == [
        ("globex", 2, 3030),
        ("acme", 2, 30),
        ("", 1, 30),
    ]
    numbers = ask(pg_dsn, "SELECT content FROM encvec.collections WHERE tenant = 'globex'")
    sizes = [
        ask(pg_dsn, f"SELECT pg_total_relation_size('encvec.{kind}_{n}')")[0][0]
        for (n,) in numbers
        for kind in ("records", "terms")
    ]
    assert found[0]["bytes"] == sum(sizes)
    with pytest.raises(errors.InputError, match="one tenant at a time: name it, or connect as a superuser"):
        backend.tenants()


def test_the_command_that_lists_tenants(pg_dsn, owner, filled, capfd, monkeypatch):
    monkeypatch.delenv("ENCVEC_KEYS", raising=False)
    for name, url in (("administrator", pg_dsn), ("owner", owner), ("folder", "faiss:///nowhere")):
        monkeypatch.setenv("ENCVEC_STORE", url)
        capfd.readouterr()
        code = run(["db", "tenants", "--json"])
        out, err = capfd.readouterr()
        if name == "administrator":
            assert code == 0
            found = json.loads(out)["tenants"]
            assert {entry["tenant"]: entry["records"] for entry in found} == dict.fromkeys(TENANTS, 30)
            assert run(["db", "tenants"]) == 0
            assert "acme" in capfd.readouterr().out
        else:
            assert (code, out) == (2, "")
            assert ("one tenant at a time" if name == "owner" else "of a PostgreSQL store") in err
            assert ":encvec@" not in err


def test_commands_under_row_security(owner, capfd, monkeypatch):
    """None takes the tenant it sees for the whole store."""
    monkeypatch.setenv("ENCVEC_STORE", owner)
    monkeypatch.setenv("ENCVEC_KEYS", "env:ENCVEC_TEST_KEYSET")
    monkeypatch.setenv("ENCVEC_TEST_KEYSET", "")
    keyset = ev.Keyset.create("env:ENCVEC_TEST_KEYSET")
    with ev.connect(owner, keyset=keyset, row_security=True) as store:
        for tenant in TENANTS:
            store.collection("docs", dim=DIM, tenant=tenant).upsert(["a"], np.ones((1, DIM)))

    def encvec(*args):
        capfd.readouterr()
        return run([*args, "--json"]), *capfd.readouterr()

    for command in ("collections", "verify"):
        code, _, err = encvec(command)
        assert code == 2
        assert "one tenant at a time: name it" in err
        code, out, _ = encvec(command, "--tenant", "acme")
        assert code == 0
        assert [entry["tenant"] for entry in json.loads(out)["collections"]] == ["acme"]
    code, _, err = encvec("count", "dcos", "--tenant", "acme")
    assert code == 2
    assert "there are: 'docs' of tenant 'acme'" in err
    assert encvec("drop", "docs", "--tenant", "acme", "--yes")[0] == 0
    with ev.connect(owner, keyset=keyset) as store:
        assert [store.collections(tenant) for tenant in ("acme", "globex")] == [[], [("globex", "docs")]]


def fastest(work, rounds=15):
    """Seconds of the quickest of several calls: the machine has other work, too."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.slow
def test_a_thousand_tenants_cost_a_search_nothing(pg_dsn, owner):
    """Opening, listing, searching and writing take as long beside 1,000 tenants as beside one."""
    query = batch(3, 1).index_vectors
    predicate = Match("country", (Term("str", "de"),))

    def open_and_search():
        with opened(owner, row_security=True) as fresh:
            assert len(both(fresh.open("acme", "things")).candidates({1: query}, 5)[0]) == 5

    try:
        with opened(owner, row_security=True) as backend:
            collection = make(backend, "acme")
            collection.put(batch(1, 30, terms=terms(30)), under=b"settings")
            works = {
                "search": lambda: collection.candidates({1: query}, 5),
                "filtered search": lambda: collection.candidates({1: query}, 5, predicate),
                "write": lambda: collection.put(batch(2, 3), under=b"settings"),
                "list": lambda: backend.collections("acme"),
                "open and search": open_and_search,
            }
            alone = {name: fastest(work) for name, work in works.items()}
            for n in range(1_000):
                make(backend, f"tenant {n}").put(batch(n, 3), under=b"settings")
            for name, work in works.items():
                # anything done once a tenant would take a thousand times something
                bound = 3 * alone[name] + 0.01
                # a busy machine needs more tries; what takes longer by itself is never faster
                crowded = next((took for took in (fastest(work) for _ in range(20)) if took < bound), None)
                assert crowded is not None, (name, alone[name])
            with opened(pg_dsn) as administrator:
                assert len(administrator.tenants()) == 1_001
            assert backend.drop("tenant 7", "things")
            assert backend.collections("tenant 7") == []
    finally:
        # some at a time: the locks for all tables are more than this server has
        left = [f"encvec.{name}" for name, *_ in tables(pg_dsn) if name.rpartition("_")[2].isdigit()]
        for start in range(0, len(left), 200):
            ask(pg_dsn, f"DROP TABLE {', '.join(left[start : start + 200])}")
