"""What tenants do under row-level security: all of the store, its commands, and many tenants."""

import json
import time

import numpy as np
import psycopg
import pytest

import encvec_store as ev
from encvec_store import errors
from encvec_store.cli.app import run
from encvec_store.data import Match, Term
from encvec_store.storage.protocol import CollectionSpec
from tests.kits.postgres_store import DIM, SIZE, again, ask, batch, both, oracle, sound
from tests.kits.tenants import TENANTS, make, opened, terms


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


def pages(dsn, url, work, rounds=10):
    """Count the pages that the server reads and writes for some rounds of work on a fresh connection.

    One connection counts, and has told what it cost itself: the first after new tables reads the catalogue anew.
    """
    with psycopg.connect(dsn, autocommit=True) as counting:

        def told(statement):
            return counting.execute(statement).fetchone()[0]

        counted = "SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database()"
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name <> ''"
        told("SELECT pg_stat_force_next_flush()")
        before = told(counted)
        with opened(url, row_security=True) as store:
            for _ in range(rounds):
                work(store)
        while told(others):  # a session adds its numbers when it ends
            time.sleep(0.01)
        return told(counted) - before


@pytest.mark.slow
def test_many_tenants_cost_a_search_nothing(pg_dsn, owner):
    """Opening, listing, searching and writing read as many pages beside 100 tenants as beside one."""
    query = batch(3, 1).index_vectors
    predicate = Match("country", (Term("str", "de"),))
    works = {
        "search": lambda store: both(store.open("acme", "things")).candidates({1: query}, 5),
        "filtered search": lambda store: both(store.open("acme", "things")).candidates({1: query}, 5, predicate),
        "write": lambda store: store.open("acme", "things").put(batch(2, 3), under=b"settings"),
        "list": lambda store: store.collections("acme"),
    }
    with opened(owner, row_security=True) as store:
        make(store, "acme").put(batch(1, 30, terms=terms(30)), under=b"settings")
    alone = {name: pages(pg_dsn, owner, work) for name, work in works.items()}
    with opened(owner, row_security=True) as store:
        for n in range(100):
            make(store, f"tenant {n}")
    crowded = {name: pages(pg_dsn, owner, work) for name, work in works.items()}
    for name in works:
        # a page a tenant in each round would be 1,000 more
        assert crowded[name] < alone[name] + 500, (name, alone, crowded)
    with opened(pg_dsn) as administrator:
        assert len(administrator.tenants()) == 101
    with opened(owner, row_security=True) as store:
        assert store.drop("tenant 7", "things")
        assert store.collections("tenant 7") == []
