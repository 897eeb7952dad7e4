"""`encvec db upgrade`, `downgrade`, `current`, `history`, `sql`: what they print, and with which exit code."""

import sqlite3

import pytest

from encvec_store import migrate
from encvec_store.storage import FORMAT, REVISION


@pytest.fixture
def old(home):
    """A store with two collections."""
    migrate.upgrade(f"faiss://{home}/store")
    connection = sqlite3.connect(home / "store" / "records.sqlite3")
    with connection:
        for name in ("a", "b"):
            connection.execute("INSERT INTO collections VALUES (NULL, 'acme', ?, 0, 40, x'00', 1, 1, 1, 1)", (name,))
    connection.close()
    return home


def test_current(home, encvec):
    empty = encvec("db", "current", "--json")
    assert (empty.code, empty.document["revision"], empty.document["usable"]) == (1, 0, False)
    assert encvec("db", "upgrade").code == 0
    there = encvec("db", "current", "--json")
    assert there.code == 0
    assert there.document == {
        "store": str(home / "store"),
        "revision": REVISION,
        "format": FORMAT,
        "head": REVISION,
        "usable": True,
    }
    shown = encvec("db", "current")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines()[1:] == [
        f"revision  {REVISION}",
        f"format    {FORMAT}",
        f"head      {REVISION}",
        "usable    yes",
    ]


def test_current_says_what_to_do(home, encvec):
    answer = encvec("db", "current")
    assert answer.code == 1
    assert "run `encvec db upgrade`" in answer.err
    assert encvec("db", "upgrade").code == 0
    connection = sqlite3.connect(home / "store" / "records.sqlite3")
    with connection:
        connection.execute("UPDATE meta SET value = 99 WHERE name = 'format'")
    connection.close()
    answer = encvec("db", "current")
    assert answer.code == 1
    assert "install a newer version of encvec" in answer.err


def test_upgrade(old, encvec):
    answer = encvec("db", "upgrade", "--json")
    assert answer.code == 0
    assert answer.document == {"store": str(old / "store"), "before": REVISION, "revision": REVISION}
    assert encvec("db", "upgrade").out.splitlines()[1:] == [f"before    {REVISION}", f"revision  {REVISION}"]
    unknown = encvec("db", "upgrade", "2000", "--json")
    assert unknown.code == 2
    assert unknown.error["type"] == "UriError"


def test_a_store_that_is_not_there(home, encvec):
    answer = encvec("db", "upgrade", "--store", "faiss:nowhere", "--json")
    assert answer.code == 2
    assert answer.error == {"type": "StoreUnreachableError", "message": "no store at nowhere"}
    assert not (home / "nowhere").exists()


def test_downgrade_asks_and_keeps_data(old, encvec, monkeypatch):
    assert encvec("db", "upgrade").code == 0
    nobody = encvec("db", "downgrade", "0")
    assert nobody.code == 2
    assert "add --yes if you mean it" in nobody.err
    questions = []
    monkeypatch.setattr("encvec_store.cli.migrate.confirmed", lambda question, yes: bool(questions.append(question)))
    assert encvec("db", "downgrade", "0").code == 1
    assert encvec("db", "downgrade", "0", "--accept-data-loss").code == 1
    assert "deleted" not in questions[0]
    assert questions[1].endswith("to revision 0? Data that it cannot hold will be deleted.")
    assert encvec("db", "current").code == 0


def test_downgrade(old, encvec):
    assert encvec("db", "upgrade").code == 0
    refused = encvec("db", "downgrade", "0", "--yes", "--json")
    assert refused.code == 2
    assert refused.error["type"] == "DataLossError"
    assert "2 collections" in refused.error["message"]
    assert encvec("db", "current").code == 0
    gone = encvec("db", "downgrade", "base", "--yes", "--accept-data-loss", "--json")
    assert gone.code == 0
    assert gone.document == {"store": str(old / "store"), "before": REVISION, "revision": 0}
    assert encvec("db", "current", "--json").document["revision"] == 0


def test_history(encvec):
    answer = encvec("db", "history", "--json")
    assert answer.code == 0
    assert answer.document["revisions"][0] == {"number": 1, "title": "The first tables", "format": 1}
    assert len(answer.document["revisions"]) == REVISION
    assert "The first tables" in encvec("db", "history").out


def test_sql(encvec):
    refused = encvec("db", "sql")
    assert refused.code == 2
    assert "sql needs a PostgreSQL store" in refused.err
    url = "postgresql:///vectors?schema=mine"
    printed = encvec("db", "sql", "--store", url, "--with-extension")
    assert printed.code == 0
    assert "CREATE EXTENSION IF NOT EXISTS vector;" in printed.out
    assert "CREATE TABLE mine.collections" in printed.out
    assert printed.out.startswith("BEGIN;")
    bare = encvec("db", "sql", "--store", url, "--json")
    assert bare.document["sql"] == printed.out.replace("CREATE EXTENSION IF NOT EXISTS vector;\n\n", "")
    assert encvec("db", "sql", "--store", url, "--from", "head").code == 2
    assert encvec("db", "sql", "--store", "postgresql://u:secret@host/db").code == 2


def test_on_postgresql(encvec, monkeypatch, pg_dsn):
    monkeypatch.setenv("ENCVEC_STORE", pg_dsn)
    assert encvec("db", "current").code == 1
    made = encvec("db", "upgrade", "--json")
    assert (made.code, made.document["before"], made.document["revision"]) == (0, 0, REVISION)
    assert "passfile" not in made.document["store"]
    assert encvec("db", "current").code == 0
    assert encvec("collections", "--json").document == {"collections": []}
    assert encvec("db", "downgrade", "0", "--yes", "--json").document["revision"] == 0
