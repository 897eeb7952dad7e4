"""The fixtures for tests on PostgreSQL: each test has a database of its own, as new; left otherwise, it goes."""

import psycopg
import pytest

from tests.kits.postgres import copied, emptied, given_server, state_of

seen = []


@pytest.mark.parametrize("turn", [1, 2])
def test_database_is_fresh(pg_dsn, turn):
    with psycopg.connect(pg_dsn) as connection:
        assert connection.execute("SELECT '[1]'::vector").fetchone() == ("[1]",)
        assert connection.execute("SELECT to_regclass('mine')").fetchone() == (None,)
        connection.execute("CREATE TABLE mine (v vector(3))")
        seen.append(connection.info.dbname)
    assert len(set(seen)) == len(seen)


def test_databases_are_dropped(pg_server, pg_template):
    with psycopg.connect(pg_server.dsn("postgres")) as connection:
        names = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
    assert pg_template in names
    assert not names & set(seen)


@pytest.mark.parametrize(
    ("work", "again"),
    [
        ("CREATE SCHEMA one CREATE TABLE mine (v int)", True),
        ("CREATE TABLE mine (v int)", False),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", False),
        ("CREATE DOMAIN d AS int", False),
        ("DROP EXTENSION vector", False),
        ("REVOKE USAGE ON SCHEMA public FROM public", False),
        ("REVOKE CONNECT ON DATABASE {} FROM public", False),
        ("ALTER DATABASE {} SET work_mem = '1MB'", False),
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO public", False),
        ("CREATE PUBLICATION p", False),
    ],
)
def test_only_a_database_that_is_as_new_is_used_again(pg_server, pg_template, work, again):
    with copied(pg_server, pg_template) as dsn:
        before = state_of(dsn)
        with psycopg.connect(dsn) as connection:
            connection.execute(work.format(connection.info.dbname))
        assert emptied(dsn, before) == again
        if again:
            with psycopg.connect(dsn) as connection:
                assert connection.execute("SELECT to_regnamespace('one')").fetchone() == (None,)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("postgresql://me@host:5433/db?sslmode=require", "postgresql://me@host:5433/new?sslmode=require"),
        ("postgresql://me@/db?host=/run/pg", "postgresql://me@/new?host=/run/pg"),
        ("postgres://host", "postgres://host/new"),
        ("user=me dbname=db host=/run/pg", "user=me dbname=new host=/run/pg"),
    ],
)
def test_given_dsn_keeps_its_form(given, named):
    assert sorted(given_server(given).dsn("new").split()) == sorted(named.split())
