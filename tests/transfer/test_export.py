"""`encvec export`: what is written is what the collection holds, whole or not at all, and comes back by import."""

import datetime as dt
import json
import math
import os
import stat
import uuid
from decimal import Decimal

import faiss
import numpy as np
import psycopg
import pyarrow.parquet as pq
import pytest

import encvec_store as ev
from encvec_store import errors
from encvec_store.transfer import compare, load, unload
from encvec_store.transfer.table import TableSource
from encvec_store.transfer.to_files import to_file
from encvec_store.transfer.to_table import to_table
from tests.kits.transfer import DIM, N, ask, vectors

ODD = {
    "huge": 1e22,
    "zero": -0.0,
    "nan": math.nan,
    "one": 1.0,
    "int": 10**30,
    "day": dt.date(2024, 5, 1),
    "at": dt.datetime(2024, 5, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    "who": uuid.UUID(int=7),
    "price": Decimal("1.10"),
    "raw": b"\0\1",
    "pair": (1, [2, {"$date": "no date"}]),
    "none": None,
    "$set": {"a": True},
    'quote"s': "\t\n\\größe",
}


@pytest.fixture
def store():
    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        yield store


@pytest.fixture
def docs(store):
    docs = store.collection("docs", dim=DIM)
    metadata = [ODD if i % 3 == 0 else {"n": i} if i % 3 == 1 else {} for i in range(N)]
    docs.upsert([f"r/{i}" for i in range(N)], vectors(), metadata, [None if i % 2 else f"text {i}" for i in range(N)])
    return docs


@pytest.fixture
def plain(store):
    """A collection whose metadata fits Parquet."""
    plain = store.collection("plain", dim=DIM)
    metadata = [
        {"n": i, "f": i / 7, "s": "x", "ok": True, "tags": ["a"], "at": dt.datetime(2024, 5, 1, tzinfo=dt.UTC)}
        for i in range(N - 1)
    ] + [{}]
    plain.upsert([str(i) for i in range(N)], vectors(), metadata, [None] * N)
    return plain


def test_a_table_comes_back_bit_for_bit(docs, store, pg_dsn):
    assert to_table(docs, pg_dsn, "items") == N
    columns = ask(
        pg_dsn,
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'items'::regclass"
        " AND attnum > 0 ORDER BY attnum",
    )
    assert columns == [("id", "text"), ("embedding", "vector(8)"), ("metadata", "jsonb"), ("document", "text")]
    source = TableSource(pg_dsn, "items")
    assert compare(source, docs).ok
    copy = store.collection("copy", dim=DIM)
    load(source, copy)
    source.close()
    assert copy.count() == N
    (record,) = copy.get(["r/0"])
    for name, value in ODD.items():
        assert (repr(record.metadata[name]), type(record.metadata[name])) == (repr(value), type(value))


def test_an_extension_in_a_schema_of_its_own(docs, store, pg_dsn):
    """Off the search path: out into a table, and back from one that fixes no dimension."""
    ask(pg_dsn, "CREATE SCHEMA extensions")
    ask(pg_dsn, "ALTER EXTENSION vector SET SCHEMA extensions")
    assert to_table(docs, pg_dsn, "items") == N
    ask(pg_dsn, "ALTER TABLE items ALTER embedding TYPE extensions.vector")
    source = TableSource(pg_dsn, "items")
    assert compare(source, docs).ok
    source.close()


def test_a_table_that_exists_is_left_alone_unless_replaced(docs, pg_dsn):
    ask(pg_dsn, "CREATE TABLE items (x int)")
    with pytest.raises(errors.InputError, match="items exists already"):
        to_table(docs, pg_dsn, "items")
    assert ask(pg_dsn, "SELECT count(*) FROM items") == [(0,)]
    to_table(docs, pg_dsn, "public.items", replace=True)
    to_table(docs, pg_dsn, '"Odd; DROP TABLE items --"')
    assert ask(pg_dsn, "SELECT count(*) FROM items") == [(N,)]
    assert ask(pg_dsn, 'SELECT count(*) FROM "Odd; DROP TABLE items --"') == [(N,)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        ask(pg_dsn, "INSERT INTO items SELECT * FROM items LIMIT 1")


def test_a_failed_export_to_a_table_leaves_what_was_there(docs, pg_dsn):
    ask(pg_dsn, "CREATE TABLE items (x int)")
    docs.upsert(["bad"], np.ones((1, DIM)), [{"a": "x\0y"}])
    with pytest.raises(errors.InputError, match="record 'bad' holds a NUL character"):
        to_table(docs, pg_dsn, "items", replace=True)
    assert ask(
        pg_dsn, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    ) == [("items",)]
    with pytest.raises(errors.InputError, match="no name of a table"):
        to_table(docs, pg_dsn, "a.b.c")
    with pytest.raises(errors.StoreUnreachableError, match="tables of the store are missing"):
        to_table(docs, pg_dsn, "nowhere.items")


@pytest.mark.parametrize("name", ["out.npy", "out.faiss"])
def test_files_come_back_by_import(home, encvec, vectors_stored, name):
    assert encvec("export", "docs", name, "--plaintext").code == 0
    for file in (name, "out.jsonl"):
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    answer = encvec("import", name, "copy", "--metadata", "out.jsonl", "--metric", "cosine", "--json")
    assert answer.code == 0, answer.err
    assert encvec("import", name, "docs", "--metadata", "out.jsonl", "--verify-only").code == 0
    stored = [
        sorted(encvec("get", which, "--all", "--vectors", "--json").out.splitlines()) for which in ("docs", "copy")
    ]
    assert stored[0] == stored[1]


@pytest.mark.parametrize("order", [1, -1])
def test_ids_of_one_text_are_not_mixed_up_where_ids_are_text(store, tmp_path, order):
    docs = store.collection("typed", dim=DIM, scheme="sealed")
    for id, row in zip([1, "1", 2, "3"][::order], vectors(), strict=False):
        docs.upsert([id], row[None])
    with pytest.raises(errors.InputError, match="two records have ids with the text '1'"):
        to_file(docs, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == []
    docs.delete(["1"])
    assert to_file(docs, tmp_path / "out.parquet") == 3
    assert set(pq.read_table(tmp_path / "out.parquet")["id"].to_pylist()) == {"1", "2", "3"}


@pytest.mark.parametrize("name", ["out.npy", "out.faiss"])
def test_ids_keep_their_types_in_files(home, encvec, name):
    text = "00000000-0000-0000-0000-000000000001"
    ids = ["17", {"$int": "11"}, text, {"$uuid": text}]  # 0x11 is 17
    lines = [json.dumps({"id": id, "vector": row.tolist()}) for id, row in zip(ids, vectors(), strict=False)]
    (home / "in.jsonl").write_text("\n".join(lines))
    assert encvec("ingest", "docs", "in.jsonl", "--scheme", "sealed").code == 0
    assert encvec("export", "docs", name, "--plaintext").code == 0
    answer = encvec("import", name, "copy", "--metadata", "out.jsonl", "--metric", "cosine", "--json")
    assert answer.code == 0, answer.err
    for which in ("docs", "copy"):
        assert {json.dumps(line["id"]) for line in encvec("get", which, "--all", "--json").lines} == set(
            map(json.dumps, ids)
        )


def test_a_text_names_the_string_and_else_the_integer_or_the_uuid(home, encvec):
    text = "00000000-0000-0000-0000-000000000001"
    ids = ["17", {"$int": "11"}, {"$int": "-1"}, {"$uuid": text}]
    lines = [json.dumps({"id": id, "vector": row.tolist()}) for id, row in zip(ids, vectors(), strict=False)]
    (home / "in.jsonl").write_text("\n".join(lines))
    assert encvec("ingest", "docs", "in.jsonl", "--scheme", "sealed").code == 0
    found = encvec("get", "docs", "17", text, "--json", "--", "-1")
    assert [line["id"] for line in found.lines] == ["17", {"$uuid": text}, {"$int": "-1"}]
    assert encvec("delete", "docs", "17", "017", "--json").document["deleted"] == 1
    assert [line["id"] for line in encvec("get", "docs", "17", "--json").lines] == [{"$int": "11"}]
    assert encvec("search", "docs", "--id", "17", "-k", 1, "--json").document["hits"][0]["id"] == {"$int": "11"}


@pytest.fixture
def vectors_stored(home, encvec):
    lines = [
        json.dumps({"id": f"r{i}", "vector": row.tolist(), "metadata": {"n": i}, "document": f"text {i}"})
        for i, row in enumerate(vectors())
    ]
    (home / "in.jsonl").write_text("\n".join(lines))
    assert encvec("ingest", "docs", "in.jsonl").code == 0


def test_an_array_is_numpy_s(docs, tmp_path):
    assert to_file(docs, tmp_path / "a.npy") == N
    ids = [
        int(json.loads(line)["id"].removeprefix("r/"))
        for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()
    ]
    assert sorted(ids) == list(range(N)), "rows of one upsert have no order"
    assert np.load(tmp_path / "a.npy").tobytes() == vectors()[ids].tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.npy"]


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_an_index_is_faiss_s_with_whole_numbers_as_its_ids(docs, plain, tmp_path, kind):
    to_file(plain, tmp_path / "a.faiss", index=kind)
    index = faiss.read_index(str(tmp_path / "a.faiss"))
    found = index.search(vectors(), 10)[1]
    nearest = np.argmax(vectors() @ vectors().T, axis=1)
    assert np.mean(found == nearest[:, None]) * 10 > (0.99 if kind == "flat" else 0.8)
    assert sorted(faiss.vector_to_array(index.id_map).tolist()) == list(range(N))
    to_file(docs, tmp_path / "b.faiss", index=kind)
    index = faiss.read_index(str(tmp_path / "b.faiss"))
    assert (index.ntotal, hasattr(index, "id_map")) == (N, False)


def test_parquet_is_typed_and_ingest_reads_it(home, encvec, plain):
    to_file(plain, home / "a.parquet")
    assert stat.S_IMODE(os.stat("a.parquet").st_mode) == 0o600
    assert encvec("ingest", "docs", "a.parquet").code == 0
    records = [json.loads(line) for line in encvec("get", "docs", "--all", "--vectors", "--json").out.splitlines()]
    by_id = {record["id"]: record for record in records}
    for record in plain.scroll():
        assert np.float32(by_id[record.id]["vector"]).tobytes() == record.vector.tobytes()
        assert by_id[record.id]["metadata"].get("n") == record.metadata.get("n")
    assert by_id["0"]["metadata"]["at"] == {"$datetime": "2024-05-01T00:00:00+00:00"}
    assert pq.read_schema("a.parquet").names == ["id", "vector", "document", "at", "f", "n", "ok", "s", "tags"]


def test_metadata_that_no_column_holds_is_refused_and_nothing_is_left(docs, tmp_path):
    with pytest.raises(errors.InputError, match="has no one column type"):
        to_file(docs, tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_no_column_holds_is_not_shown(store, tmp_path):
    large = store.collection("large", dim=DIM)
    large.upsert(["a"], vectors()[:1], [{"n": 2**70 + 1}])
    with pytest.raises(errors.InputError, match="metadata 'n' has a value that does not fit into") as caught:
        to_file(large, tmp_path / "a.parquet")
    assert str(2**70 + 1) not in str(caught.value)


def test_files_are_not_replaced_unasked(home, encvec, vectors_stored):
    assert encvec("export", "docs", "a.npy", "--plaintext").code == 0
    before = (home / "a.npy").read_bytes()
    answer = encvec("export", "docs", "a.npy", "--plaintext")
    assert (answer.code, "a.npy exists already" in answer.err) == (2, True)
    encvec("delete", "docs", "r0")
    assert encvec("export", "docs", "a.npy", "--plaintext", "--replace").code == 0
    assert len((home / "a.npy").read_bytes()) == len(before) - 4 * DIM


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["a.npy"], "add --plaintext if you mean it"),
        (["a.doc", "--plaintext"], "its suffix is none of .npy"),
        (["a.npy", "--plaintext", "--table", "t"], "--table is for a database"),
        (["postgresql://h/db", "--plaintext"], "which table?"),
        (["postgresql://u:secret@h/db", "--plaintext", "--table", "t"], "a password on the command line"),
        (["postgresql://h/db", "--plaintext", "--table", "t", "--index", "flat"], "--index is for a FAISS index"),
    ],
    ids=str,
)
def test_usage(home, encvec, vectors_stored, args, said):
    answer = encvec("export", "docs", *args)
    assert answer.code == 2
    assert said in answer.err
    assert "secret" not in answer.err
    assert sorted(path.name for path in home.iterdir()) == ["in.jsonl", "store"]


def test_the_command_to_a_table(home, encvec, vectors_stored, pg_dsn):
    answer = encvec("export", "docs", pg_dsn, "--table", "items", "--plaintext", "--json")
    assert (answer.code, answer.document["exported"], answer.document["destination"]) == (0, N, "items")
    assert encvec("import", pg_dsn, "docs", "--table", "items", "--verify-only").code == 0


def test_long_documents_are_exported_a_few_at_a_time(store, monkeypatch):
    things = store.collection("long", dim=DIM)
    things.upsert([str(i) for i in range(20)], vectors(20), None, ["x" * 10_000] * 20)
    monkeypatch.setattr(unload, "_BYTES", 35_000)
    with unload.moment(things) as now:
        assert [len(chunk) for chunk in now.chunks()] == [4] * 5
