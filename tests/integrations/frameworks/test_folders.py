"""`encvec import` of the folders of Chroma, Qdrant and LanceDB, made by their own packages."""

import datetime as dt
import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

import chromadb
import lancedb
import numpy as np
import pyarrow as pa
import pytest
from chromadb.config import Settings
from qdrant_client import QdrantClient, models

import encvec_store as ev
from encvec_store import errors
from encvec_store.transfer import ChromaSource, LanceSource, QdrantSource, compare, load
from tests.cli.conftest import encvec, home  # noqa: F401
from tests.kits.transfer import DIM, N, vectors

ROOT = Path(__file__).resolve().parents[3]
SOURCES = {"chroma": ChromaSource, "qdrant": QdrantSource, "lancedb": LanceSource}
KINDS = pytest.mark.parametrize("kind", SOURCES)
NOON = dt.datetime(2024, 5, 1, 12, 0, 0, 250000, tzinfo=dt.UTC)


def chroma_client(path):
    return chromadb.PersistentClient(str(path), settings=Settings(anonymized_telemetry=False))


def make_chroma(path, space="l2"):
    """Three quarters of the vectors are in its index, the rest is in its log."""
    client = chroma_client(path)
    notes = client.create_collection(
        "notes", embedding_function=None, configuration={"hnsw": {"space": space, "sync_threshold": 100}}
    )
    notes.add(
        ids=[f"n{i}" for i in range(N)],
        embeddings=vectors(),
        metadatas=[{"n": i, "x": i / 7, "flag": i % 2 == 0, "tags": ["a", "ü"]} if i % 3 else None for i in range(N)],
        documents=[f"text {i} größe" if i % 5 else None for i in range(N)],
        uris=[f"file:{i}" if i % 7 == 0 else None for i in range(N)],
    )
    client.close()
    return {
        f"n{i}": (
            ({"n": i, "x": i / 7, "flag": i % 2 == 0, "tags": ["a", "ü"]} if i % 3 else {})
            | ({"uri": f"file:{i}"} if i % 7 == 0 else {}),
            f"text {i} größe" if i % 5 else None,
        )
        for i in range(N)
    }


def make_qdrant(path, distance=models.Distance.COSINE, n=N):
    """Half of the ids are numbers, half are UUIDs."""
    client = QdrantClient(path=str(path))
    client.create_collection("notes", models.VectorParams(size=DIM, distance=distance))
    keys = [i if i % 2 else str(uuid.UUID(int=i)) for i in range(n)]
    held = {"at": "2024-05-01T12:00:00Z", "nothing": None, "in": {"list": [1, 2.5, None, {"a": True}]}}
    points = [
        models.PointStruct(
            id=key, vector=row.tolist(), payload={"n": i, **held} | ({"document": f"text {i}"} if i % 5 else {})
        )
        for i, (key, row) in enumerate(zip(keys, vectors(n), strict=True))
    ]
    client.upsert("notes", points)
    client.close()
    return {str(key): ({"n": i, **held}, f"text {i}" if i % 5 else None) for i, key in enumerate(keys)}


def lance_rows(rows, **columns):
    """A table of LanceDB: id, vector, and what else is given."""
    flat = pa.array(np.ascontiguousarray(rows).ravel())
    ids = pa.array([f"n{i}" for i in range(len(rows))], pa.string())
    return pa.table({"id": ids, "vector": pa.FixedSizeListArray.from_arrays(flat, DIM), **columns})


def make_lance(path):
    database = lancedb.connect(str(path))
    columns = {
        "document": [f"text {i}" if i % 5 else None for i in range(N)],
        "n": pa.array(range(N), pa.int32()),
        "x": [i / 7 for i in range(N)],
        "at": pa.array([NOON] * N, pa.timestamp("ns", "UTC")),
        "day": [dt.date(2024, 5, 1)] * N,
        "raw": [b"\0\xff"] * N,
        "tags": [["a", "ü"] if i % 3 else None for i in range(N)],
        "in": [{"a": i, "b": "c"} for i in range(N)],
    }
    table = database.create_table("notes", lance_rows(vectors(), **columns))
    table.delete("id = 'n4'")  # numbers of rows move
    return {
        f"n{i}": (
            {name: column[i].as_py() if isinstance(column, pa.Array) else column[i] for name, column in columns.items()}
            | {"at": NOON},
            columns["document"][i],
        )
        for i in range(N)
        if i != 4
    }


MAKE = {"chroma": make_chroma, "qdrant": make_qdrant, "lancedb": make_lance}


def contents(path):
    return {file: hashlib.sha256(file.read_bytes()).digest() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.fixture
def docs():
    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        yield store.collection("docs", dim=DIM)


@KINDS
def test_everything_arrives_as_it_was(home, encvec, kind):  # noqa: F811
    expected = MAKE[kind](home / "folder")
    before = contents(home / "folder")
    args = ("import", f"{kind}:folder", "docs", "--batch-size", 64, "--json")
    done = encvec(*args)
    assert done.code == 0, done.err
    assert (done.document["written"], done.document["verification"]["compared"]) == (len(expected), len(expected))
    found = {record["id"]: record for record in encvec("get", "docs", "--all", "--vectors", "--json").lines}
    assert found.keys() == expected.keys()
    place_of = {id: int(found[id]["metadata"].get("n", id.strip("n") if kind == "chroma" else 0)) for id in found}
    for id, (metadata, document) in expected.items():
        kept = found[id]
        assert np.array(kept["vector"], np.float32).tobytes() == vectors()[place_of[id]].tobytes()
        assert kept["document"] == document
        held = {name: value for name, value in metadata.items() if name != "document"}
        held = {name: value for name, value in held.items() if value is not None or kind != "lancedb"}
        told = {"at": {"$datetime": NOON.isoformat()}, "day": {"$date": "2024-05-01"}, "raw": {"$bytes": "AP8="}}
        assert kept["metadata"] == (held | told if kind == "lancedb" else held)
    again = encvec(*args).document
    assert (again["written"], again["updated"], again["unchanged"]) == (0, 0, len(expected))
    changed = {file.name for file, digest in contents(home / "folder").items() if before[file] != digest}
    assert changed == ({"chroma.sqlite3"} if kind == "chroma" else set()), "only Chroma writes, as the page says"


@KINDS
def test_the_comparison_finds_what_differs(tmp_path, docs, kind):
    MAKE[kind](tmp_path / "folder")
    source = SOURCES[kind](tmp_path / "folder")
    load(source, docs)
    first, second, third = [record.id for record in docs.get(limit=3)]
    docs.delete([first])
    docs.update([second], documents=["other"])
    docs.update([third], vectors=vectors()[:1] + 1)
    report = compare(source, docs)
    assert {(m.id, m.what) for m in report.mismatches} == {
        (first, "missing"),
        (second, "document differs"),
        (third, "vector differs"),
    }
    assert load(source, docs).to_dict().items() >= {"written": 1, "updated": 2}.items()
    assert compare(source, docs).ok
    source.close()


def test_lancedb_is_read_as_of_one_version(tmp_path, docs):
    make_lance(tmp_path)
    source = LanceSource(tmp_path)
    table = lancedb.connect(str(tmp_path)).open_table("notes")
    table.update("id = 'n1'", {"n": -1})
    table.delete("id = 'n2'")
    load(source, docs)
    assert docs.get(["n1", "n2"])[0].metadata["n"] == 1
    source.again()
    report = compare(source, docs)
    assert (report.mismatches, report.source) == ([("n1", "metadata differs", True)], N - 2)
    assert (load(source, docs).updated, docs.get(["n1"])[0].metadata["n"]) == (1, -1)


# Qdrant leaves its lock open where it is locked out
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_others_that_write_to_chroma_or_qdrant_are_noticed(tmp_path):
    make_chroma(tmp_path / "chroma")
    source = ChromaSource(tmp_path / "chroma")
    assert not list(source._rows([f"z{i}" for i in range(40_000)], bare=True)), "more than SQLite takes at once"
    source.again()
    with sqlite3.connect(tmp_path / "chroma/chroma.sqlite3") as other:
        other.execute("UPDATE embeddings SET created_at = 0 WHERE id = 1")
    other.close()
    with pytest.raises(errors.InputError, match="was changed after it was read: stop its writers"):
        source.again()
    source.close()
    make_qdrant(tmp_path / "qdrant", n=3)
    source = QdrantSource(tmp_path / "qdrant")
    with pytest.raises(errors.InputError, match=r"cannot be read: RuntimeError: .* is already accessed"):
        QdrantSource(tmp_path / "qdrant")
    source.close()


def test_an_older_layout_of_chroma_is_not_changed(tmp_path):
    make_chroma(tmp_path)
    with sqlite3.connect(tmp_path / "chroma.sqlite3") as other:
        (last,) = other.execute("SELECT max(version) FROM migrations WHERE dir = 'metadb'").fetchone()
        other.execute("DELETE FROM migrations WHERE dir = 'metadb' AND version = ?", [last])
    other.close()
    with pytest.raises(errors.InputError, match=r"cannot be read: .*[Mm]igration"):
        ChromaSource(tmp_path)
    with sqlite3.connect(tmp_path / "chroma.sqlite3") as other:
        assert other.execute("SELECT max(version) FROM migrations WHERE dir = 'metadb'").fetchone() == (last - 1,)
    other.close()


@KINDS
def test_one_of_several(home, encvec, kind):  # noqa: F811
    MAKE[kind](home / "folder")
    match kind:
        case "chroma":
            client = chroma_client(home / "folder")
            client.create_collection("other", embedding_function=None)
            client.close()
        case "qdrant":
            client = QdrantClient(path=str(home / "folder"))
            client.create_collection("other", models.VectorParams(size=DIM, distance=models.Distance.DOT))
            client.close()
        case "lancedb":
            rows = lance_rows(vectors()[:0])
            lancedb.connect(str(home / "folder")).create_table("other", rows)
    what = "table" if kind == "lancedb" else "collection"
    said = encvec("import", f"{kind}:folder", "docs")
    assert (said.code, f"has 2 {what}s: choose one with --table: notes, other" in said.err) == (2, True)
    said = encvec("import", f"{kind}:folder", "docs", "--table", "nope")
    assert f"has no {what} 'nope'; it has: notes, other" in said.err
    assert "'other' holds no records" in encvec("import", f"{kind}:folder", "docs", "--table", "other").err
    assert encvec("import", f"{kind}:folder", "docs", "--table", "notes", "--dry-run").code == 0
    assert encvec("import", f"{kind}:folder", "docs", "--ids", "x.txt").code == 2
    assert encvec("collections", "--json").document == {"collections": []}


def test_the_metric_is_the_folder_s(tmp_path):
    for space in ("cosine", "l2", "ip"):
        make_chroma(tmp_path / space, space)
        source = ChromaSource(tmp_path / space)
        assert source.metric == space
        assert bool(source.lossy) == (space == "cosine")
        batch = source.as_read(["n1", "n299"])
        assert np.allclose(batch.vectors, vectors()[[1, 299]], rtol=1e-6, atol=0 if space != "cosine" else 1e-6)
        source.close()
    for distance, metric in (("COSINE", "cosine"), ("EUCLID", "l2"), ("DOT", "ip"), ("MANHATTAN", None)):
        make_qdrant(tmp_path / distance, models.Distance[distance], 3)
        source = QdrantSource(tmp_path / distance)
        if metric is None:
            with pytest.raises(errors.MetricError, match="names the metric 'Manhattan', which is not supported"):
                _ = source.metric
        else:
            assert source.metric == metric
        source.close()
    make_lance(tmp_path / "lance")
    assert LanceSource(tmp_path / "lance").metric is None
    table = lancedb.connect(str(tmp_path / "lance")).open_table("notes")
    table.create_index("vector", config=lancedb.index.IvfFlat(distance_type="dot", num_partitions=2))
    assert LanceSource(tmp_path / "lance").metric == "ip"


def test_named_vectors_of_qdrant(tmp_path, docs):
    client = QdrantClient(path=str(tmp_path))
    dot = models.Distance.DOT
    client.create_collection(
        "notes",
        {
            "text": models.VectorParams(size=DIM, distance=models.Distance.COSINE),
            "image": models.VectorParams(size=4, distance=dot),
            "words": models.VectorParams(
                size=4, distance=dot, multivector_config=models.MultiVectorConfig(comparator="max_sim")
            ),
        },
        sparse_vectors_config={"terms": models.SparseVectorParams()},
    )
    # as LangChain lays it out, and more
    payload = {"page_content": "hello", "metadata": {"lang": "de", "page": {"n": 1}}, "more": 1}
    terms = models.SparseVector(indices=[1], values=[0.5])
    client.upsert(
        "notes",
        [
            models.PointStruct(id=1, vector={"text": [0.5] * DIM, "terms": terms}, payload=payload),
            models.PointStruct(id=2, vector={"image": [1, 2, 3, 4]}, payload={"page_content": 7}),
            models.PointStruct(id=3, vector={"text": [0.25] * DIM}, payload={"page_content": 7}),
        ],
    )
    client.close()
    for vector, said in (
        (None, r"has the vectors text, image, words, terms \(sparse\): choose one with --vector-column"),
        ("nope", "the vector 'nope' is not there; it has: text"),
        ("terms", "'terms' is sparse, and a vector here has all its numbers"),
        ("words", "several vectors in one"),
    ):
        with pytest.raises(errors.InputError, match=said):
            QdrantSource(tmp_path, vector=vector)
    source = QdrantSource(tmp_path, vector="text", document="page_content", metadata=["metadata"])
    done = load(source, docs, on_error="skip")
    (record,) = docs.get()
    assert (record.id, record.document, record.metadata) == ("1", "hello", {"lang": "de", "page": {"n": 1}})
    assert sorted(done.faults) == [("2", "it has no vector"), ("3", "'page_content' is int: a document is text")]
    source.close()


def test_columns_of_lancedb(tmp_path, docs):
    rows = pa.table(
        {
            "key": pa.array([7, 8]),
            "embedding": pa.array([[0.5] * DIM, [0.1] * DIM], pa.list_(pa.float64(), DIM)),
            "text": ["one", "two"],
            "metadata": [{"lang": "de", "in": {"n": 1}}, {"lang": "fr", "in": {"n": 2}}],
            "more": ['{"a": 1}', None],
            "lag": pa.array([1, 2], pa.duration("s")),
        }
    )
    lancedb.connect(str(tmp_path)).create_table("notes", rows)
    with pytest.raises(errors.InputError, match=r"no column 'id'; it has: key, .*Name it with --id-column"):
        LanceSource(tmp_path)
    chosen = {"id": "key", "vector": "embedding", "document": "text", "flatten": ["more"]}
    with pytest.raises(errors.InputError, match=r"'lag' is duration\[s\], which metadata cannot hold: leave it out by"):
        LanceSource(tmp_path, **chosen)
    with pytest.raises(errors.InputError, match="'more' is to be flattened, but it is not among the metadata columns"):
        LanceSource(tmp_path, **chosen, metadata=["metadata"])
    source = LanceSource(tmp_path, **chosen, metadata=["metadata", "more"])
    assert source.lossy == "float64 is kept as float32"
    load(source, docs)
    found = {record.id: (record.document, record.metadata) for record in docs.scroll()}
    assert found == {
        "7": ("one", {"lang": "de", "in": {"n": 1}, "a": 1}),
        "8": ("two", {"lang": "fr", "in": {"n": 2}}),
    }
    assert docs.get(["8"])[0].vector.tobytes() == np.full(DIM, 0.1, np.float32).tobytes()
    assert compare(source, docs).ok


@pytest.mark.parametrize(
    ("columns", "chosen", "said"),
    [
        ({"id": ["a", "a"]}, {}, r"ids repeat in column 'id': 'a' \(2 rows\)"),
        ({"id": ["a", None]}, {}, "1 rows have no id: 'id' is null"),
        ({"id": [1.5, 2.5]}, {}, "column 'id' is double: an id must be text or an integer"),
        ({"n": [1, 2]}, {"vector": "n"}, "column 'n' is int64, not a list of numbers"),
        ({"at": pa.array([1, 2], pa.timestamp("ns"))}, {}, "column 'at' has nanoseconds"),
        ({"n": [1, 2]}, {"metadata": ["m"]}, "has no column 'm'; it has: id, vector, n"),
        ({"n": [1, 2]}, {"document": "n"}, "'n' is int: a document is text"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_tables_that_do_not_fit(tmp_path, docs, columns, chosen, said):
    rows = lance_rows(vectors()[:2])
    rows = pa.table({name: columns.get(name, rows[name]) for name in rows.schema.names} | columns)
    lancedb.connect(str(tmp_path)).create_table("notes", rows)
    with pytest.raises(errors.InputError, match=said):
        load(LanceSource(tmp_path, **chosen), docs)


def test_rows_without_a_sound_vector_are_all_named(tmp_path, docs):
    rows = [[1.0] * DIM, None, [float("nan")] * DIM, [1.0] * (DIM - 1), [0.0] * DIM]
    ids = [f"n{i}" for i in range(len(rows))]
    lancedb.connect(str(tmp_path)).create_table(
        "notes", pa.table({"id": ids, "v": pa.array(rows, pa.list_(pa.float32()))})
    )
    done = load(LanceSource(tmp_path, vector="v"), docs, on_error="skip")
    assert (done.written, done.skipped) == (1, 4)
    said = dict(done.faults)
    assert (said["n1"], said["n3"]) == ("it has no vector", f"a vector of {DIM - 1} numbers, not {DIM}")
    assert "NaN" in said["n2"]


def test_what_cannot_be_chosen_is_refused(home, encvec):  # noqa: F811
    make_chroma(home / "chroma")
    make_qdrant(home / "qdrant", n=3)
    for kind, option in (("chroma", "id"), ("chroma", "vector"), ("chroma", "document"), ("qdrant", "id")):
        said = encvec("import", f"{kind}:{kind}", "docs", f"--{option}-column", "x")
        assert (said.code, f"--{option}-column is not for {kind}" in said.err) == (2, True)


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_killed_and_taken_up_again(home, monkeypatch):  # noqa: F811
    """The lock of Qdrant's folder does not stay behind."""
    make_qdrant(home / "folder")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    url = f"faiss://{home}/store"
    args = ["import", "qdrant:folder", "docs", "--store", url, "--batch-size", "2", "--json"]
    command = [sys.executable, "-m", "encvec_store.cli", *args]

    def stored():
        with ev.connect(url, keyset=ev.Keyset.open("env:ENCVEC_TEST_KEYSET")) as store:
            return store.collection("docs").count() if ("", "docs") in store.collections() else 0

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as job:
        while stored() < 20:
            assert job.poll() is None, job.stderr.read()
            time.sleep(0.05)
        os.kill(job.pid, signal.SIGKILL)
        assert job.wait(20) == -signal.SIGKILL, "it ended before it was killed"
    there = stored()
    assert 20 <= there < N
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["unchanged"], answer["written"], answer["updated"]) == (there, N - there, 0)


def test_the_commands_of_the_page(home, encvec):  # noqa: F811
    """Word for word, on folders of these names, the last two as LangChain lays them out."""
    page = (ROOT / "docs/moving-in.md").read_text(encoding="utf-8")
    commands = re.findall(r"^encvec (import (?:chroma|qdrant|lancedb):.*?)(?:  +#.*)?$", page, re.MULTILINE)
    assert Counter(command.split()[1].partition(":")[0] for command in commands).keys() == SOURCES.keys()
    make_chroma(home / "chroma")
    client = QdrantClient(path=str(home / "qdrant"))
    client.create_collection("notes", models.VectorParams(size=DIM, distance=models.Distance.COSINE))
    payload = {"page_content": "hello", "metadata": {"lang": "de"}}
    client.upsert("notes", [models.PointStruct(id=1, vector=[0.5] * DIM, payload=payload)])
    client.close()
    columns = {"text": ["hello"], "metadata": [{"lang": "de"}]}
    lancedb.connect(str(home / "lancedb")).create_table("notes", lance_rows(vectors()[:1], **columns))
    for command in commands:
        done = encvec(*command.split(), "--json")
        assert done.code == 0, done.err
        if "chroma:" not in command:
            (record,) = encvec("get", command.split()[2], "--all", "--json").lines
            assert (record["document"], record["metadata"]) == ("hello", {"lang": "de"})
