"""The way to a server on another machine: it is asked for SCRAM, and one that nothing verifies is told of once."""

import logging

import psycopg
import pytest

from encvec_store import errors
from encvec_store.storage.postgres import PostgresStore, transport
from encvec_store.storage.postgres.transport import parameters_for

SCRAM = {"require_auth": "scram-sha-256"}


@pytest.fixture(autouse=True)
def nobody_was_told(monkeypatch):
    monkeypatch.setattr(transport, "_told", set())
    for name in ("PGHOST", "PGHOSTADDR", "PGSSLMODE", "PGREQUIREAUTH", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "added", "told"),
    [
        ("postgresql://", {}, False),
        ("postgresql:///db?host=/run/postgresql", {}, False),
        ("postgresql://localhost,127.0.0.1,[::1]/db", {}, False),
        ("postgresql://db.example/db", SCRAM, True),
        ("postgresql://localhost,db.example/db", SCRAM, True),
        ("postgresql://localhost/db?hostaddr=10.0.0.1", SCRAM, True),
        ("postgresql://db.example/db?sslmode=require", SCRAM, True),
        ("postgresql://db.example/db?sslmode=verify-ca", SCRAM, False),
        ("postgresql://db.example/db?sslmode=verify-full", SCRAM, False),
        ("postgresql://db.example/db?sslrootcert=system", SCRAM, False),
        ("postgresql://db.example/db?sslmode=verify-full&require_auth=password", {}, False),
        ("postgresql://db.example/db?sslmode=verify-full&sslcert=client.crt", {}, False),
    ],
)
def test_what_is_asked_and_told(caplog, url, added, told):
    for _ in range(2):
        parameters = parameters_for(url, "its place")
        assert parameters == {**psycopg.conninfo.conninfo_to_dict(url), **added}
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * told
    assert not told or "sslmode=verify-full" in caplog.text


def test_the_environment_counts(monkeypatch, caplog):
    monkeypatch.setenv("PGHOST", "db.example")
    assert parameters_for("postgresql:///db", "its place") == {"dbname": "db", **SCRAM}
    assert "its place" in caplog.text
    monkeypatch.setenv("PGREQUIREAUTH", "md5")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    caplog.clear()
    assert parameters_for("postgresql:///db", "another place") == {"dbname": "db"}
    assert caplog.text == ""


def test_an_old_libpq_is_not_asked(monkeypatch):
    monkeypatch.setattr(psycopg.pq, "version", lambda: 150_004)
    assert "require_auth" not in parameters_for("postgresql://db.example/db", "its place")


def test_a_server_that_asks_for_something_else(pg_place, monkeypatch):
    """Ours uses SCRAM: it is taken as a remote server that does, and then refused by one who wants something else."""
    monkeypatch.setattr(transport, "_LOCAL", transport.re.compile("nowhere"))
    PostgresStore(pg_place.dsn, schema=pg_place.schema).close()
    with pytest.raises(errors.StoreUnreachableError, match="name its method in the URL, as in require_auth=password"):
        PostgresStore(f"{pg_place.dsn}&require_auth=md5", schema=pg_place.schema)
