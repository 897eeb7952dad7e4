"""docs/formats.md lists every file, table and column of a sealed store, and each holds what the list says."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import psycopg
import pytest
from psycopg import sql

import encvec_store as ev
from encvec_store.sealed_index import BUDGET, builder
from tests.kits.sealed import apart

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
ROW = re.compile(r"\| `(\w+)\.(\w+)` \| ([\w, ]+) \| ([\w ]+) \|")


def listed(store):
    return {
        (table, column): what
        for table, column, stores, what in ROW.findall(PAGE.read_text(encoding="utf-8"))
        if store in stores.split(", ")
    }


def live(url, monkeypatch):
    """Let a sealed store write, update, index and delete."""
    monkeypatch.setattr(builder, "FIRST", 60)
    vectors, names = np.random.default_rng(0).normal(size=(200, 8)), [f"name-{i}" for i in range(200)]
    store = ev.connect(url, keyset=ev.Keyset.create("memory:"), maintenance="manual")
    things = store.collection("things", dim=8, metric="cosine", scheme="sealed")
    for _ in range(2):
        things.upsert(names, vectors, metadata=[{"secret": i} for i in range(200)], documents=names)
    things.delete(names[:9])
    things.maintain()
    assert things.verify().ok  # every record's envelopes open
    return store


def check(columns, wanted):
    """Compare the columns of a real store, with what is in them, with the list."""
    assert columns.keys() == wanted.keys()
    for column, values in columns.items():
        what = wanted[column]
        if what == "empty":
            assert not values, column
            continue
        assert values, column
        if what in ("counter", "random number"):
            assert all(isinstance(value, int) or (column[1] == "rows" and len(value) % 16 == 0) for value in values)
        elif what == "name in clear":
            known = r"|things|format|revision|next_row|index\.1(\.[0-9a-f]{16})?"
            assert all(re.fullmatch(known, value) for value in values), column
        else:  # half of the bits of random bytes are set, and no value comes twice
            assert what in ("envelope", "keyed token")
            assert len({bytes(value) for value in values}) == len(values), column
            if what == "keyed token":
                assert {len(value) for value in values} == {16}
            bits = np.unpackbits(np.frombuffer(b"".join(bytes(value)[-16:] for value in values), np.uint8))
            assert abs(bits.mean() - 0.5) < 4 / np.sqrt(len(bits)), column


def test_sqlite(tmp_path, monkeypatch):
    with live(f"faiss://{tmp_path}?index=hnsw", monkeypatch):
        files = {path.name for path in tmp_path.iterdir()}
        assert files == {f"records.sqlite3{end}" for end in ("", "-wal", "-shm")}
        columns = columns_of(tmp_path / "records.sqlite3")
    check(columns, listed("SQLite"))


def test_the_local_cache(tmp_path, monkeypatch):
    before = BUDGET.limit
    try:
        with live(f"faiss://{tmp_path}/store?index=hnsw", monkeypatch) as store:
            keyset = store.keyset
        apart()
        how = {"threat": "watching-server", "cache": tmp_path / "cache", "index_memory": 120_000}
        with ev.connect(f"faiss://{tmp_path}/store?index=hnsw", keyset=keyset, **how) as store:
            things = store.collection("things")
            for query in np.random.default_rng(0).normal(size=(4, 8)):
                things.search(query, k=9)
            assert "buckets" in things.stats()["server_sees"]
            things.upsert(["new"], np.ones((1, 8)))
            things.search(np.ones(8))
    finally:
        BUDGET.set(before)
    (file,) = (tmp_path / "cache").glob("*.cache")
    assert {path.suffix for path in file.parent.iterdir()} == {".cache", ".lock"}
    assert re.fullmatch("[0-9a-f]{32}", file.stem)
    assert file.with_suffix(".lock").read_bytes() == b""
    check(columns_of(file), listed("cache"))


def columns_of(file):
    """Return the values of each column of a SQLite file, by (table, column)."""
    columns = {}
    with closing(sqlite3.connect(file)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", [table]).fetchall():
                if not table.startswith("sqlite_"):
                    values = connection.execute(f'SELECT "{column}" FROM "{table}"').fetchall()
                    columns[table, column] = [value for (value,) in values]
    return columns


def test_postgresql(pg_place, monkeypatch):
    url = f"{pg_place.url}&index=hnsw"
    with live(url, monkeypatch), psycopg.connect(pg_place.dsn) as connection:
        query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = %s"
        columns = {}
        for table, column in connection.execute(query, [pg_place.schema]).fetchall():
            read = sql.SQL("SELECT {} FROM {}").format(sql.Identifier(column), sql.Identifier(pg_place.schema, table))
            place = re.sub(r"_\d+$", "", table), column  # the tables of a collection have the columns of their parent
            columns.setdefault(place, [])
            if place[0] == table and table in ("records", "terms"):
                continue  # reads those of its children too
            columns[place] += [value for (value,) in connection.execute(read).fetchall()]
    check(columns, listed("PostgreSQL"))


@pytest.mark.parametrize("column", [("records", "token"), ("records", "payload")])
def test_plain_text_is_no_token_and_no_envelope(column):
    with pytest.raises(AssertionError):
        check({column: [f"a plain {i:08}".encode() for i in range(300)]}, {column: "keyed token"})
