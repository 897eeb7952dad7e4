"""Row-level security on every table of PostgreSQL, also for the role that owns them: who sees and writes what."""

import logging

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from encvec_store import errors
from encvec_store.storage.postgres import PostgresStore
from tests.kits.postgres import role
from tests.kits.postgres_store import DIM, SIZE, again, ask, batch, both, oracle
from tests.kits.tenants import TENANTS, make, opened, tables, terms

VISIBLE = (
    "SELECT count(*) FROM encvec.collections",
    "SELECT count(*) FROM encvec.partitions",
    "SELECT count(*) FROM encvec.blobs",
    "SELECT count(*) FROM encvec.changes",
    "SELECT count(*) FROM encvec.records",
    "SELECT count(*) FROM encvec.terms",
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
