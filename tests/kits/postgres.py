"""Fixtures for tests on a real PostgreSQL: one server a run, a database of its own with pgvector for each test.

`pg_dsn` is a database with nothing in it but pgvector. Making one takes .1 s or more, so one that a test has left as it
was, apart from schemas, is used again. `pg_place` is a fresh schema in a database that the tests of a process share.

The server is the one that ENCVEC_TEST_DSN names (its role must be able to create databases and the extension), else
one of our own, from the wheel or from what is installed here. Where there is none the tests fail; they are never
skipped. The processes of pytest-xdist share one server. Ours goes when the last of them has gone, also after Ctrl-C
or kill -9; on a server of yours, kill -9 leaves databases behind whose names begin with `encvec_test_`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import LiteralString
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from encvec_store.localpg import LocalServer

DSN_VARIABLE = "ENCVEC_TEST_DSN"
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or secrets.token_hex(8)


_CHEAP: LiteralString = "SELECT set_config(name, '1', false) FROM pg_settings WHERE name = 'scram_iterations'"
"""Makes each connection with a password that is set now 2 ms cheaper. PostgreSQL 15 has no such setting."""


@dataclass(frozen=True)
class Server:
    """A server to test on: `dsn(name)` names a database in it; `local` is None for one of the user's own."""

    dsn: Callable[[str], str]
    maintenance: str
    local: LocalServer | None

    def execute(self, statement: str, *names: str) -> None:
        """Run a statement outside any transaction, with quoted names for its {}."""
        with psycopg.connect(self.dsn(self.maintenance), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def copy(self, template: str) -> str:
        """Make a copy of a database, and return its name."""
        name = f"encvec_test_{secrets.token_hex(6)}"
        self.execute("CREATE DATABASE {} TEMPLATE {}", name, template)
        return name

    def drop(self, name: str) -> None:
        """Drop a database, whoever is connected."""
        self.execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


@dataclass(frozen=True)
class Place:
    """A database by its DSN, and a schema that is not there yet; so is every schema whose name begins with it."""

    dsn: str
    schema: str

    @property
    def url(self) -> str:
        """Return the URL of a store in the schema."""
        return f"{self.dsn}{'&' if '?' in self.dsn else '?'}schema={self.schema}"


def given_server(dsn: str) -> Server:
    """The server of a DSN, a URL or keywords. Its URL form is kept: a store is opened by URL."""
    known = conninfo_to_dict(dsn)

    def named(name: str) -> str:
        if "://" not in dsn:
            return make_conninfo(dsn, dbname=name)
        head, question, query = dsn.partition("?")
        scheme, _, rest = head.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}/{name}{question}{query}"

    return Server(named, str(known.get("dbname") or "postgres"), None)


@pytest.fixture(scope="session")
def pg_server() -> Iterator[Server]:
    """The server of this run."""
    given = os.environ.get(DSN_VARIABLE)
    if given:
        yield given_server(given)
        return
    with LocalServer(share=f"tests-{RUN}") as local:
        with psycopg.connect(local.dsn(), autocommit=True) as connection:
            known = sql.Literal(connection.info.password)
            connection.execute(_CHEAP)
            connection.execute(sql.SQL("ALTER ROLE CURRENT_USER PASSWORD {}").format(known))
        yield Server(local.dsn, "postgres", local)


@pytest.fixture(scope="session")
def pg_template(pg_server: Server) -> Iterator[str]:
    """The database that each test gets a copy of: empty, with pgvector. One for each process of pytest-xdist."""
    name = f"encvec_test_{secrets.token_hex(6)}_template"
    pg_server.execute("CREATE DATABASE {}", name)
    try:
        with psycopg.connect(pg_server.dsn(name), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        yield name
    finally:
        pg_server.drop(name)


@contextmanager
def copied(server: Server, template: str) -> Iterator[str]:
    """Yield the DSN of a copy of a database, and drop it."""
    name = server.copy(template)
    try:
        yield server.dsn(name)
    finally:
        server.drop(name)


_CUT_OFF = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)
_STATE = """
    SELECT (SELECT array_agg(format('%s %s %s', extname, extversion, extnamespace) ORDER BY extname) FROM pg_extension),
        (SELECT array_agg(format('%s %s %s', nspname, nspowner, nspacl) ORDER BY nspname)
            FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'),
        (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace),
        (SELECT count(*) FROM pg_type WHERE typnamespace = 'public'::regnamespace),
        (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace),
        (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_event_trigger),
        (SELECT count(*) FROM pg_foreign_server), (SELECT count(*) FROM pg_largeobject_metadata),
        (SELECT count(*) FROM pg_default_acl),
        (SELECT count(*) FROM pg_db_role_setting JOIN pg_database AS d ON setdatabase = d.oid
            WHERE datname = current_database()),
        (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()),
        (SELECT format('%s %s %s', coalesce(datacl, acldefault('d', datdba)), datallowconn, datconnlimit)
            FROM pg_database WHERE datname = current_database())
"""
"""All in a database that tests change, but for the content of schemas other than `public`."""


def state_of(dsn: str) -> tuple[object, ...] | None:
    """Return what there is in a database."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(_STATE).fetchone()


def emptied(dsn: str, state: tuple[object, ...] | None) -> bool:
    """Drop all schemas but `public`, and return True if the database is in this state then."""
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(_CUT_OFF)
            _drop(connection, "nspname !~ '^(pg_|public$|information_schema$)'")
            return connection.execute(_STATE).fetchone() == state
    except psycopg.Error:  # whatever the test did to the server
        return False


def _drop(connection: psycopg.Connection[tuple[object, ...]], which: LiteralString, *values: str) -> None:
    """Drop schemas and all in them."""
    for (schema,) in connection.execute("SELECT nspname FROM pg_namespace WHERE " + which, values or None).fetchall():
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(str(schema))))


class Databases:
    """Copies of a template. One that a test leaves as it was is lent again."""

    def __init__(self, server: Server, template: str) -> None:
        self.server, self.template = server, template
        self.spare: list[str] = []
        self.state: tuple[object, ...] | None = None

    @contextmanager
    def lend(self) -> Iterator[str]:
        """Yield the DSN of one; afterwards it is emptied, or dropped if it is another."""
        name = self.spare.pop() if self.spare else self.server.copy(self.template)
        dsn = self.server.dsn(name)
        self.state = self.state or state_of(dsn)
        yield dsn
        if emptied(dsn, self.state):
            self.spare.append(name)
        else:
            self.server.drop(name)

    def drop(self) -> None:
        """Drop those that are left."""
        for name in self.spare:
            self.server.drop(name)


@pytest.fixture(scope="session")
def pg_databases(pg_server: Server, pg_template: str) -> Iterator[tuple[Databases, Databases]]:
    """Databases with pgvector, and without."""
    both = Databases(pg_server, pg_template), Databases(pg_server, "template0")
    yield both
    for each in both:
        each.drop()


@pytest.fixture
def pg_dsn(pg_databases: tuple[Databases, Databases]) -> Iterator[str]:
    """The DSN of a database with nothing but pgvector."""
    with pg_databases[0].lend() as dsn:
        yield dsn


@pytest.fixture
def pg_plain(pg_databases: tuple[Databases, Databases]) -> Iterator[str]:
    """The DSN of a database without pgvector."""
    with pg_databases[1].lend() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def pg_shared(pg_server: Server, pg_template: str) -> Iterator[str]:
    """The DSN of the database with pgvector that the tests of this process share."""
    with copied(pg_server, pg_template) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def pg_caretaker(pg_shared: str) -> Iterator[list[psycopg.Connection[tuple[object, ...]]]]:
    """A connection to that database, to clean up after each test: a new one would take longer than the cleaning."""
    kept = [psycopg.connect(pg_shared, autocommit=True)]
    yield kept
    kept[0].close()


@pytest.fixture
def pg_place(pg_shared: str, pg_caretaker: list[psycopg.Connection[tuple[object, ...]]]) -> Iterator[Place]:
    """A place for the schemas of one test; whoever is still connected after it is cut off, and they are dropped."""
    place = Place(pg_shared, f"test_{secrets.token_hex(6)}")
    yield place
    try:
        pg_caretaker[0].execute(_CUT_OFF)
    except psycopg.OperationalError:  # the server was restarted
        pg_caretaker[0] = psycopg.connect(pg_shared, autocommit=True)
        pg_caretaker[0].execute(_CUT_OFF)
    _drop(pg_caretaker[0], "starts_with(nspname, %s)", place.schema)


@pytest.fixture(scope="module")
def pg_alone(pg_server: Server) -> Iterator[str]:
    """The DSN of a database on a server that only this module uses and that vacuums nothing by itself.

    So nothing but the test decides where PostgreSQL puts rows: elsewhere, an open transaction of another test keeps
    dead rows in their place. On a server that `ENCVEC_TEST_DSN` names, this holds as far as that server is idle.
    """
    with ExitStack() as stack:
        server = pg_server
        if server.local is not None:
            own = stack.enter_context(LocalServer(settings={"autovacuum": "off"}))
            server = Server(own.dsn, "postgres", own)
        yield stack.enter_context(copied(server, "template0"))


@pytest.fixture
def pg_place_alone(pg_alone: str) -> Place:
    """A place for the schemas of one test on the server of `pg_alone`."""
    return Place(pg_alone, f"test_{secrets.token_hex(6)}")


@contextmanager
def role(dsn: str, *rights: str) -> Iterator[str]:
    """Yield the URL of a database for a new role that may only connect, and what statements with {} grant it.

    What it owns in that database goes with it.
    """
    name = f"encvec_role_{secrets.token_hex(6)}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_CHEAP)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'encvec'").format(sql.Identifier(name)))
        try:
            for right in rights:
                connection.execute(right.format(name))  # type: ignore[call-overload]
            parts = urlsplit(dsn)
            known = [item for item in parse_qsl(parts.query) if item[0] not in ("passfile", "password")]
            query = urlencode(known, quote_via=quote)
            yield f"postgresql://{name}:encvec@{parts.netloc.rpartition('@')[2]}{parts.path}?{query}"
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
