"""`encvec import` of a plaintext pgvector table in a real PostgreSQL: what is stored is what the table holds."""

import datetime as dt
import json
import re
import secrets
import uuid
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import errors, low_level
from encvec_store.transfer import compare, load, table
from encvec_store.transfer.table import TableSource
from tests.kits.transfer import DIM, N, ask, make_items, text, vectors


@pytest.fixture
def keyset():
    return ev.Keyset.create("memory:")


@pytest.fixture
def docs(keyset):
    with ev.connect("memory:", keyset=keyset) as store:
        yield store.collection("docs", dim=DIM)


@pytest.fixture
def source(items):
    source = TableSource(items, "items")
    yield source
    source.close()


def test_every_type_arrives_as_it_was(source, docs):
    done = load(source, docs, batch_size=64)
    assert (done.read, done.written, done.updated, done.unchanged, done.skipped) == (N, N, 0, 0, 0)
    (record,) = docs.get(["33"])
    assert record.vector.tobytes() == vectors()[11].tobytes()
    assert record.document == "text 11 größe"
    assert record.metadata == {
        "n": 11,
        "flag": False,
        "word": "fr",
        "at": dt.datetime(2024, 5, 3, 10, 0, 0, 250000, tzinfo=dt.UTC),
        "day": dt.date(2024, 5, 3),
        "clock": dt.datetime(2024, 5, 1, 10),
        "who": uuid.UUID(int=0x11),
        "price": Decimal("11.10"),
        "real8": 11 / 7,
        "raw": b"\x0b\x00\xff",
        "tags": ["a", None, "ü"],
        "numbers": [11, -11],
        "mood": "so so",
        "moods": ["fine"],
        "more": {"x": [1, 2.5, None, dt.date(2024, 5, 1)], "y": True},
        "We ird": "quoted",
    }
    assert docs.get(["0"])[0].document is None
    assert "We ird" not in docs.get(["9"])[0].metadata


def test_a_second_run_does_nothing_and_a_later_one_brings_what_changed(source, items, docs):
    load(source, docs)
    again = load(source, docs)
    assert (again.written, again.updated, again.unchanged) == (0, 0, N)
    ask(items, "UPDATE items SET embedding = %s::vector WHERE id = 3", text(np.ones(DIM)))
    ask(items, "UPDATE items SET flag = NOT flag WHERE id = 6")
    ask(items, "UPDATE items SET document = 'new' WHERE id = 9")
    ask(items, "INSERT INTO items (id, embedding) VALUES (1, %s::vector)", text(np.ones(DIM)))
    source.again()
    later = load(source, docs)
    assert (later.written, later.updated, later.unchanged) == (1, 3, N - 3)
    assert compare(source, docs).ok


def test_a_batch_ends_at_its_bytes(source, monkeypatch):
    """Documents may have megabytes, so that a number of rows alone does not bound a batch."""
    whole = {id for batch in source.batches(N) for id in batch.ids}
    monkeypatch.setattr(table, "_BYTES", 2_000)
    parts = [batch.ids for batch in source.batches(N)]
    assert max(map(len, parts)) < N / 4
    assert sorted(id for part in parts for id in part) == sorted(whole)
    assert len(whole) == N


def test_halfvec_is_widened_exactly(pg_dsn, docs):
    make_items(pg_dsn, kind="halfvec")
    source = TableSource(pg_dsn, "items", metadata=[])
    load(source, docs)
    assert docs.get(["33"])[0].vector.tobytes() == vectors()[11].astype(np.float16).astype(np.float32).tobytes()
    assert docs.get(["33"])[0].metadata == {}
    assert compare(source, docs).ok
    source.close()


def test_the_comparison_finds_what_was_changed_on_either_side(source, items, docs):
    load(source, docs)
    good = compare(source, docs)
    assert (good.ok, good.compared, good.recall, good.wrong_scores, good.queries) == (True, N, 1.0, 0, 100)
    (record,) = docs.get(["3"])
    docs.delete(["0"])
    docs.upsert(["3"], record.vector[None] + 1, [record.metadata], [record.document])
    (record,) = docs.get(["6"])
    docs.upsert(["6"], record.vector[None], [{**record.metadata, "n": 2.0}], [record.document])
    (record,) = docs.get(["9"])
    docs.upsert(["9"], record.vector[None], [record.metadata], ["other"])
    ask(items, "UPDATE items SET n = -1 WHERE id = 12")
    ask(items, "INSERT INTO items (id, embedding) VALUES (1, %s::vector)", text(np.ones(DIM)))
    source.again()
    report = compare(source, docs, queries=0)
    assert not report.ok
    assert {mismatch for mismatch in report.mismatches} == {
        ("0", "missing", False),
        ("3", "vector differs", False),
        ("6", "metadata differs", False),
        ("9", "document differs", False),
        ("12", "metadata differs", True),
        ("1", "missing", True),
    }
    assert (report.different, report.changed, report.source, report.collection) == (4, 2, N + 1, N - 1)


def test_a_record_that_does_not_authenticate_is_a_mismatch(source, docs):
    load(source, docs)
    row = next(iter(low_level.session(docs).records._held.rows.values()))
    row.payload = row.payload[:-1] + bytes([row.payload[-1] ^ 1])
    report = compare(source, docs, queries=0)
    assert [mismatch.what for mismatch in report.mismatches] == ["unreadable"]


def test_a_search_that_answers_wrongly_is_noticed(source, docs, monkeypatch):
    load(source, docs)
    search = type(docs).search

    def worse(self, queries, k):
        answers = search(self, queries, k + 5)
        for hits in answers:
            hits[7].score += 0.01
        return [hits[5:] for hits in answers]

    monkeypatch.setattr(type(docs), "search", worse)
    report = compare(source, docs)
    assert (report.recall, report.wrong_scores, report.ok) == (0.4, 100, False)


def test_a_sample_compares_so_many(source, docs):
    load(source, docs)
    docs.delete([str(i * 3) for i in range(0, N, 2)])
    report = compare(source, docs, sample=40, queries=0, batch_size=64)
    assert report.compared == 40
    assert 5 < report.different < 35


@pytest.mark.parametrize(
    ("statement", "options", "said"),
    [
        ("", {"table": "nothing"}, "no table 'nothing' in the database"),
        ("", {"table": "a.b.c.d"}, "'a.b.c.d' is no name of a table"),
        ("", {"table": "other.public.items"}, "'other.public.items' is no name of a table"),
        ("", {"table": "items; DROP TABLE items"}, "no table|is no name of a table"),
        ("", {"id": "nope"}, "public.items has no column 'nope'; it has: id, embedding"),
        ("", {"id": "price"}, "column 'price' is numeric: an id must be text, uuid or an integer"),
        ("", {"vector": "n"}, "column 'n' is integer, not vector or halfvec"),
        ("", {"metadata": ["n", "nope"]}, "has no column 'nope'"),
        ("", {"document": "n"}, "column 'n' is integer: a document is text"),
        ("ALTER TABLE items ADD other vector(3)", {}, "has columns embedding, other: choose one with --vector-column"),
        ("ALTER TABLE items DROP embedding", {}, "has no column of the type vector or halfvec"),
        (
            "ALTER TABLE items ADD s sparsevec(3)",
            {"vector": "s"},
            "column 's' is sparsevec, not vector or halfvec: cast",
        ),
        (
            "ALTER TABLE items ADD span interval",
            {},
            "column 'span' is interval, which metadata cannot hold: leave it out",
        ),
        (
            "ALTER TABLE items ADD times time[]",
            {},
            "column 'times' is time without time zone\\[\\], which metadata cannot",
        ),
        ("", {"flatten": ["nope"]}, "has no column 'nope'"),
        ("", {"flatten": ["n"]}, "column 'n' is integer: only json and jsonb can be flattened"),
        ("", {"flatten": ["more"], "metadata": ["n"]}, "'more' is to be flattened, but it is not among the metadata"),
        ("UPDATE items SET n = 5 WHERE n < 9", {"id": "n"}, "ids repeat in column 'n': '5' \\(9 rows\\)"),
        ("UPDATE items SET n = NULL WHERE n < 9", {"id": "n"}, "9 rows have no id: 'n' is NULL"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_said_before_anything_is(items, statement, options, said):
    if statement:
        ask(items, statement)
    with pytest.raises(errors.InputError, match=said):
        TableSource(items, **{"table": "items", **options})


def test_a_role_without_rights(items, monkeypatch):
    role = f"encvec_test_{secrets.token_hex(6)}"
    ask(items, f"CREATE ROLE {role}")
    connect = TableSource._connect

    def limited(self):
        connection = connect(self)
        connection.execute(f"SET ROLE {role}")
        return connection

    monkeypatch.setattr(TableSource, "_connect", limited)
    try:
        with pytest.raises(errors.StoreUnreachableError, match="role lacks a right: permission denied for table items"):
            TableSource(items, "items")
    finally:
        ask(items, f"DROP ROLE {role}")


def test_a_server_that_is_not_there(encvec):
    answer = encvec("import", "postgresql://127.0.0.1:1/x", "docs", "--table", "items")
    assert answer.code == 2
    assert "cannot read postgresql://127.0.0.1:1/x" in answer.err


def test_bad_rows_stop_their_batch_or_are_skipped(items, docs):
    ask(items, "UPDATE items SET embedding = NULL WHERE id = 300")
    ask(items, "UPDATE items SET embedding = array_fill(0, ARRAY[8])::vector WHERE id IN (303, 450)")
    source = TableSource(items, "items")
    with pytest.raises(errors.InputError, match=r"a row cannot be stored.*id '300': the vector is NULL"):
        load(source, docs, batch_size=N)
    assert docs.count() == 0
    ask(items, "DELETE FROM items WHERE id = 300")
    source.again()
    with pytest.raises(
        errors.InputError, match=r"2 rows cannot be stored, and nothing of their batch was: id '303': .*zero"
    ):
        load(source, docs, batch_size=N)
    assert docs.count() == 0
    done = load(source, docs, batch_size=50, on_error="skip")
    assert (done.written, done.skipped, docs.count()) == (N - 3, 2, N - 3)
    assert {fault.id for fault in done.faults} == {"303", "450"}
    report = compare(source, docs)
    assert (report.ok, report.different) == (False, 2)
    assert all(m.what.startswith("cannot be stored: the vector is the zero vector") for m in report.mismatches)
    source.close()


def test_vectors_of_other_lengths_are_named(items, docs):
    ask(items, "ALTER TABLE items ALTER embedding TYPE vector")
    ask(items, "UPDATE items SET embedding = '[1,2]' WHERE id = 30")
    source = TableSource(items, "items")
    done = load(source, docs, on_error="skip")
    assert [(fault.id, fault.reason) for fault in done.faults] == [("30", "a vector of 2 numbers, not 8")]
    source.close()


def test_a_date_beyond_python_names_its_columns(items, docs):
    ask(items, "UPDATE items SET day = 'infinity' WHERE id = 30")
    source = TableSource(items, "items")
    with pytest.raises(errors.InputError, match=r"Python cannot hold, date too large .*; look in 'at', 'day', 'clock'"):
        load(source, docs)
    source.close()


def test_a_jsonb_column_metadata_gives_its_keys(pg_dsn, docs):
    ask(pg_dsn, 'CREATE TABLE "My.Table" (id uuid PRIMARY KEY, v vector(8), metadata jsonb, lang text)')
    key = uuid.uuid4()
    insert = 'INSERT INTO "My.Table" VALUES (%s, %s::vector, %s::jsonb, %s)'
    ask(pg_dsn, insert, key, text(np.ones(8)), json.dumps({"a": 1, "b": {"$uuid": str(key)}}), "de")
    ask(pg_dsn, insert, uuid.uuid4(), text(np.ones(8)), '{"lang": 1}', "de")
    ask(pg_dsn, insert, uuid.uuid4(), text(np.ones(8)), "[1]", "de")
    source = TableSource(pg_dsn, '"My.Table"')
    assert source.name == 'public."My.Table"'
    done = load(source, docs, on_error="skip")
    assert docs.get([str(key)])[0].metadata == {"a": 1, "b": key, "lang": "de"}
    assert sorted(fault.reason for fault in done.faults) == [
        "'lang' stands both in 'metadata' and in a column of its own, with different values: leave one of them out",
        "column 'metadata' must hold JSON objects, got list",
    ]
    source.close()


LANGCHAIN = "langchain_id varchar PRIMARY KEY, content text, embedding vector(8), cmetadata jsonb"
LLAMAINDEX = "node_id varchar PRIMARY KEY, content text, embedding vector(8), metadata_ json"
HAYSTACK = "id varchar PRIMARY KEY, content text, embedding vector(8), meta jsonb"


@pytest.mark.parametrize(("columns", "flat"), [(LANGCHAIN, "cmetadata"), (LLAMAINDEX, "metadata_"), (HAYSTACK, "meta")])
def test_json_columns_are_flattened(pg_dsn, docs, columns, flat):
    ask(pg_dsn, f"CREATE TABLE chunks ({columns}, lang text, n int)")
    insert = "INSERT INTO chunks VALUES (%s, 'text', %s::vector, %s::json, %s, %s)"
    objects = [{"source": "a.pdf", "lang": "de", "in": {"page": 2}}, None, {"lang": "fr"}, [1], {"n": 1.0}]
    for i, value in enumerate(objects):
        ask(pg_dsn, insert, f"k{i}", text(np.ones(8)), json.dumps(value) if value else None, "de", 1)
    source = TableSource(pg_dsn, "chunks", document="content", flatten=[flat])
    done = load(source, docs, on_error="skip")
    assert docs.get(["k0"])[0].metadata == {"source": "a.pdf", "lang": "de", "in": {"page": 2}, "n": 1}
    assert docs.get(["k1"])[0].metadata == {"lang": "de", "n": 1}
    assert [hit.id for hit in docs.search(np.ones(8), where={"source": "a.pdf"})] == ["k0"]
    clash = f"stands both in {flat!r} and in a column of its own, with different values: leave one of them out"
    assert sorted((fault.id, fault.reason) for fault in done.faults) == [
        ("k2", f"'lang' {clash}"),
        ("k3", f"column {flat!r} must hold JSON objects, got list"),
        ("k4", f"'n' {clash}"),
    ]
    assert compare(source, docs).different == 3
    source.close()


# as langchain-postgres 0.0.19, llama-index-vector-stores-postgres 0.9.0 (with its text search) and pgvector-haystack
# 8.1.2 make them
FRAMEWORKS = """
CREATE TABLE langchain_pg_collection (uuid uuid PRIMARY KEY, name varchar NOT NULL UNIQUE, cmetadata json);
CREATE TABLE langchain_pg_embedding (id varchar PRIMARY KEY, embedding vector, document varchar, cmetadata jsonb,
  collection_id uuid REFERENCES langchain_pg_collection);
CREATE INDEX ON langchain_pg_embedding USING gin (cmetadata jsonb_path_ops);
CREATE TABLE notes (langchain_id uuid PRIMARY KEY, content text NOT NULL, embedding vector(8) NOT NULL, lang text,
  langchain_metadata json);
CREATE TABLE data_notes (id bigserial PRIMARY KEY, text varchar NOT NULL, metadata_ json, node_id varchar,
  embedding vector(8), text_search_tsv tsvector GENERATED ALWAYS AS (to_tsvector('english', text)) STORED);
CREATE INDEX ON data_notes ((metadata_ ->> 'ref_doc_id'));
CREATE INDEX ON data_notes USING gin (text_search_tsv);
CREATE INDEX ON data_notes USING hnsw (embedding vector_cosine_ops);
CREATE TABLE haystack_documents (id varchar(128) PRIMARY KEY, embedding vector(8), content text, blob_data bytea,
  blob_meta jsonb, blob_mime_type varchar(255), meta jsonb);
CREATE INDEX ON haystack_documents USING hnsw (embedding vector_cosine_ops);
INSERT INTO langchain_pg_collection VALUES (gen_random_uuid(), 'notes', NULL);
INSERT INTO langchain_pg_embedding SELECT 'k', array_fill(0.5, '{8}')::vector, 'hello',
  '{"lang": "de", "page": {"n": 1}}', uuid FROM langchain_pg_collection;
INSERT INTO notes VALUES (gen_random_uuid(), 'hello', array_fill(0.5, '{8}')::vector, 'de', '{"page": {"n": 1}}');
INSERT INTO data_notes (text, metadata_, node_id, embedding) VALUES ('hello', '{"lang": "de", "page": {"n": 1},
  "_node_type": "TextNode", "doc_id": "None"}', 'k', array_fill(0.5, '{8}')::vector);
INSERT INTO haystack_documents (id, content, embedding, meta) VALUES ('k', 'hello', array_fill(0.5, '{8}')::vector,
  '{"lang": "de", "page": {"n": 1}}');
"""


def test_tables_of_frameworks_by_the_commands_of_the_page(home, encvec, pg_dsn):
    page = (Path(__file__).resolve().parents[2] / "docs/moving-in.md").read_text(encoding="utf-8")
    commands = re.findall(r'^encvec import "\$SHOP" docs (.*--flatten \w+)$', page, re.MULTILINE)
    for statement in FRAMEWORKS.split(";\n"):
        if statement.strip():
            ask(pg_dsn, statement)
    for number, command in enumerate(commands):
        done = encvec("import", pg_dsn, f"c{number}", *command.split(), "--json")
        assert (done.code, done.document["verification"]["ok"]) == (0, True), done.err
        (record,) = encvec("get", f"c{number}", "--all", "--json").lines
        assert (record["document"], record["metadata"]["lang"], record["metadata"]["page"]) == ("hello", "de", {"n": 1})
        assert record["id"] == "k" or "langchain_metadata" in command
    assert len(commands) == 4


@pytest.mark.parametrize(
    ("indexes", "metric"),
    [
        ([], None),
        (["hnsw (embedding vector_cosine_ops)"], "cosine"),
        (["hnsw (embedding vector_l2_ops)", "ivfflat (embedding vector_l2_ops)"], "l2"),
        (["hnsw ((embedding::halfvec(8)) halfvec_ip_ops)"], "ip"),
    ],
    ids=str,
)
def test_the_metric_is_that_of_the_index(items, indexes, metric):
    for index in indexes:
        ask(items, f"CREATE INDEX ON items USING {index}")
    source = TableSource(items, "items")
    assert source.metric == metric
    source.close()


@pytest.mark.parametrize(
    ("indexes", "said"),
    [
        (["hnsw (embedding vector_l1_ops)"], "names the metric 'l1', which is not supported"),
        (["hnsw (embedding vector_l2_ops)", "hnsw (embedding vector_ip_ops)"], "has indexes of several metrics"),
        (["hnsw ((binary_quantize(embedding)::bit(8)) bit_hamming_ops)"], "names the metric 'hamming'"),
    ],
    ids=str,
)
def test_an_index_of_another_metric_makes_no_cosine(home, encvec, items, indexes, said):
    for index in indexes:
        ask(items, f"CREATE INDEX ON items USING {index}")
    answer = encvec("import", items, "docs", "--table", "items", "--no-verify", "--json")
    assert (answer.code, answer.error["type"]) == (2, "MetricError")
    assert said in answer.error["message"]
    assert encvec("import", items, "docs", "--table", "items", "--metric", "L2", "--no-verify").code == 0


def test_writers_meanwhile_do_not_disturb_the_snapshot(source, items, docs):
    batches = source.batches(100)
    next(batches)
    ask(items, "DELETE FROM items WHERE id > 30")
    assert sum(len(batch.ids) for batch in batches) == N - 100


def test_a_connection_that_breaks_keeps_what_was_written_and_a_new_run_goes_on(items, docs):
    source = TableSource(items, "items")
    theirs = "application_name = 'encvec import' AND datname = current_database()"  # other tests import, too
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {theirs}"
    with pytest.raises(errors.StoreUnreachableError, match="cannot read postgresql://"):
        load(source, docs, batch_size=100, progress=lambda done, total: ask(items, end))
    source.close()
    assert docs.count() == 100
    source = TableSource(items, "items")
    done = load(source, docs, batch_size=100)
    assert (done.unchanged, done.written) == (100, N - 100)
    assert compare(source, docs).ok
    source.close()


# -------------------------------------------------------------------------------------- command line


def test_the_command_imports_compares_and_says_what_remains(home, encvec, items):
    args = ["import", items, "docs", "--table", "public.items"]
    answer = encvec(*args, "--field", "word=blind", "--metric", "l2", "--oversample", 30)
    assert answer.code == 0, answer.err
    assert "compared                         300\n" in answer.out
    assert "recall@10                        1.0000" in answer.out
    assert "The plaintext is still there: public.items." in answer.out
    assert "DROP TABLE public.items" in answer.out
    stats = encvec("stats", "docs", "--json").document
    assert (stats["metric"], stats["fields"], stats["count"]) == ("l2", {"word": "blind"}, N)
    assert stats["max_norm"] == pytest.approx(1.25 * np.linalg.norm(vectors(), axis=1).max())
    again = encvec(*args, "--json").document
    assert (again["ok"], again["unchanged"], again["written"], again["created"]) == (True, N, 0, False)
    only = encvec(
        "import", items, "docs", "--table", "public.items", "--verify-only", "--sample", 10, "--json"
    ).document
    assert (only["ok"], only["verification"]["compared"], "written" in only) == (True, 10, False)


def test_exit_codes_of_a_comparison(home, encvec, items):
    assert encvec("import", items, "docs", "--table", "items", "--no-verify").code == 0
    ask(items, "UPDATE items SET n = -1 WHERE id = 3")
    answer = encvec("import", items, "docs", "--table", "items", "--verify-only")
    assert answer.code == 1
    assert "metadata differs" in answer.out
    assert "still there" not in answer.out
    answer = encvec("import", items, "docs", "--table", "items", "--verify-only", "--json")
    assert (answer.code, answer.document["ok"]) == (1, False)
    assert answer.document["verification"]["mismatches"] == [{"id": "3", "what": "metadata differs", "changed": False}]
    assert encvec("import", items, "docs", "--table", "items", "--json").document["updated"] == 1


def test_a_recall_below_what_is_asked_is_told(home, encvec, items):
    args = ["import", items, "docs", "--table", "items", "--scheme", "sap", "--beta", 16, "--oversample", 1]
    answer = encvec(*args)
    assert answer.code == 1
    assert "recall@10 is below 0.95: see `encvec calibrate`" in answer.err
    assert encvec(*args[:5], "--verify-only", "--min-recall", 0).code == 0


def test_a_dry_run_writes_nothing(home, encvec, items):
    ask(items, "UPDATE items SET embedding = NULL WHERE id = 300")
    args = ("import", items, "docs", "--table", "items", "--dry-run", "--json")
    answer = encvec(*args)
    assert answer.code == 2
    assert "id '300': the vector is NULL" in answer.error["message"]
    answer = encvec(*args, "--on-error", "skip")
    assert (answer.code, answer.document["written"], answer.document["skipped"]) == (1, N - 1, 1)
    assert answer.document["faults"] == [{"id": "300", "reason": "the vector is NULL"}]
    assert encvec("collections", "--json").document == {"collections": []}
    assert encvec("import", items, "docs", "--table", "items", "--on-error", "skip").code == 1
    ask(items, "UPDATE items SET n = -1 WHERE id = 3")
    document = encvec(*args, "--on-error", "skip").document
    assert (document["updated"], document["unchanged"], document["count"]) == (1, N - 2, N - 1)
    assert encvec("count", "docs").out == f"{N - 1}\n"


def test_a_mistake_leaves_no_collection(home, encvec, items):
    ask(items, "UPDATE items SET embedding = NULL WHERE id = 300")
    answer = encvec("import", items, "docs", "--table", "items")
    assert answer.code == 2
    assert answer.err.endswith("nothing was written\n")
    assert encvec("import", items, "docs", "--table", "items", "--dim", 3).code == 2
    ask(items, "DELETE FROM items")
    assert "public.items holds no records" in encvec("import", items, "docs", "--table", "items").err
    assert encvec("collections", "--json").document == {"collections": []}


def test_wrong_dimension_of_an_existing_collection(home, encvec, items):
    np.save("a.npy", np.ones((3, DIM + 1)))
    encvec("ingest", "docs", "a.npy")
    answer = encvec("import", items, "docs", "--table", "items")
    assert (answer.code, "has vectors of dimension 8, collection 'docs' of 9" in answer.err) == (2, True)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["postgresql://u:secret@h/db", "docs", "--table", "t"], "a password on the command line"),
        (["postgresql://u@h/db?password=secret", "docs", "--table", "t"], "a password on the command line"),
        (["postgresql://u@h/db", "docs"], "which table?"),
        (["postgresql://u@h/db", "docs", "--table", "t", "--ids", "x.npy"], "--ids is for files"),
        (["x.faiss", "docs", "--table", "t"], "--table is for tables"),
        (["x.faiss", "docs", "--id-column", "t"], "name columns of the file of --metadata"),
        (["x.faiss", "docs", "--verify-only", "--dry-run"], "--verify-only does not go with"),
    ],
    ids=str,
)
def test_usage(home, encvec, args, said):
    answer = encvec("import", *args)
    assert answer.code == 2
    assert said in answer.err
    assert "secret" not in answer.err
