"""Stores of either dialect, empty or filled, and scripts with one more revision."""

import sqlite3
from contextlib import closing

import psycopg
import pytest

import encvec_store as ev
from encvec_store import migrate
from encvec_store.storage import REVISION
from tests.kits.migrations import DATA, KEYS_VARIABLE, add_revision, catalog, fill, keyset


class Place:
    """The place of a store, which may not exist yet."""

    def __init__(self, dialect, where):
        self.dialect = dialect
        self.where = where
        self.url = f"faiss://{where}" if dialect == "sqlite" else where

    def connect(self, **options):
        return ev.connect(self.url, keyset=keyset(), **options)

    def ask(self, statement):
        """Run SQL directly; `{at}` stands for the schema."""
        if self.dialect == "sqlite":
            with closing(sqlite3.connect(self.where / "records.sqlite3")) as connection, connection:
                return connection.execute(statement.format(at="")).fetchall()
        with psycopg.connect(self.where, autocommit=True) as connection:
            cursor = connection.execute(statement.format(at="encvec."))
            return cursor.fetchall() if cursor.description else []

    def using(self):
        """Return a connection in a transaction that uses the tables, as a writer does."""
        if self.dialect == "sqlite":
            connection = sqlite3.connect(self.where / "records.sqlite3", isolation_level=None)
            connection.execute("BEGIN IMMEDIATE")
            return connection
        connection = psycopg.connect(self.where)
        connection.execute("SELECT FROM encvec.records")
        return connection

    def load(self, revision):
        """Load the dump of a store of that revision."""
        script = (DATA / f"{revision:04d}.{self.dialect}.sql").read_text(encoding="utf-8")
        if self.dialect == "sqlite":
            with closing(sqlite3.connect(self.where / "records.sqlite3")) as connection:
                connection.executescript("PRAGMA page_size = 8192; PRAGMA journal_mode = WAL;" + script)
        else:
            with psycopg.connect(self.where) as connection:
                connection.execute(script)
        return self

    def loaded(self):
        """Create a store of this code by the scripts, and fill it."""
        migrate.upgrade(self.url, REVISION)
        with self.connect() as store:
            fill(store)
        return self

    def catalog(self):
        return catalog(self.where)


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request):
    return request.param


@pytest.fixture
def place(dialect, request, tmp_path, monkeypatch):
    monkeypatch.setenv(KEYS_VARIABLE, (DATA / "keyset.txt").read_text(encoding="ascii").strip())
    if dialect == "postgresql":
        return Place(dialect, request.getfixturevalue("pg_dsn"))
    (tmp_path / "store").mkdir()
    return Place(dialect, tmp_path / "store")


@pytest.fixture
def further(tmp_path, monkeypatch):
    """Add a script with one more revision, which only adds. Returns its number."""
    number = add_revision(tmp_path / "further")
    monkeypatch.setattr(migrate, "_folder", lambda: tmp_path / "further")
    return number
