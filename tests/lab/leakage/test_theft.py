"""What a thief reads in a copy of a store: everything in it, and nothing that is sealed."""

import json
import shutil

import numpy as np
import pytest

import encvec_store as ev
from encvec_store.cli.app import run
from encvec_store.errors import InputError, StoreUnreachableError
from encvec_store.lab.leakage import compared, stolen, told

N, DIM = 60, 16


@pytest.fixture(params=["files", "postgresql"])
def url(request, tmp_path):
    if request.param == "files":
        return f"faiss:{tmp_path}/store"
    return request.getfixturevalue("pg_place").url


@pytest.fixture
def store(url):
    keyset = ev.Keyset.create("memory:")
    with ev.connect(url, keyset=keyset, maintenance="manual") as store:
        yield store


def written(store, name="docs", **options):
    things = store.collection(name, DIM, **options)
    vectors = np.random.default_rng(1).normal(size=(N, DIM)).astype(np.float32)
    for start in (0, 40):
        chosen = range(start, min(start + 40, N))
        things.upsert(
            [f"secret-id-{i}" for i in chosen],
            vectors[chosen],
            metadata=[{"topic": f"secret-topic-{i % 3}"} for i in chosen],
            documents=["secret-text" * (1 + 100 * (i == 7)) for i in chosen],
        )
    return things


def lines_of(lines):
    return {line.what: line for line in lines if line.collection == "acme/docs" or line.collection == "docs"}


def test_a_sealed_collection(store, url):
    written(store)
    copy = stolen(url)
    lines = lines_of(told(copy))
    assert lines["records"].amount == f"{N}"
    assert lines["index vectors"].amount == "none"
    assert lines["sizes of documents with metadata"].amount == "2 sizes"
    assert "the rarest size is that of 1 record" in lines["sizes of documents with metadata"].tells
    assert lines["writes that are remembered"].amount == "2 of 20 to 40 records"
    assert not any(what.startswith("filter terms") for what in lines)
    held = repr(copy.tables)
    assert "secret" not in held, "ids, topics and texts are sealed"
    rows = copy.rows_of("records", next(iter(copy.collections)))
    assert len(set(rows["row"])) == len(set(map(bytes, rows["envelope"]))) == N


def test_what_a_ranked_collection_with_filters_in_the_store_tells(store, url):
    things = written(store, scheme="sap", fields={"topic": "blind"}, tenant="acme")
    lines = lines_of(told(stolen(url)))
    assert lines["index vectors"].amount == f"{N}"
    assert "geometry" in lines["index vectors"].tells
    (terms,) = (line for what, line in lines.items() if what.startswith("filter terms"))
    assert terms.amount == "3 different"
    assert "the most common is that of 20 records" in terms.tells
    copy = stolen(url)
    held = copy.rows_of("records", next(iter(copy.collections)))["vector"]
    assert len(held) == len(set(map(str, held))) == len(things.index_vectors([f"secret-id-{i}" for i in range(N)]))


def test_two_copies(store, url, tmp_path):
    things = written(store)
    before = stolen(url)
    things.delete(["secret-id-1", "secret-id-2"])
    things.upsert(["secret-id-3", "new"], np.ones((2, DIM), np.float32))
    lines = {line.what: line.amount for line in compared(before, stolen(url))}
    assert lines["records added"] == "2"
    assert lines["records gone"] == "3"
    assert lines["sealed anew in their place"] == "0"
    assert lines["ids in both"] == f"{N - 2}"
    store.keyset.rotate()
    things.rekey()
    lines = {line.what: line.amount for line in compared(before, stolen(url))}
    assert lines["sealed anew in their place"] == f"{N - 3}"
    written(store, "other")
    assert [line.what for line in compared(before, stolen(url)) if line.collection == "other"] == ["collection"]


def test_what_deleted_records_leave(tmp_path):
    url = f"faiss:{tmp_path}/store"
    with ev.connect(url, keyset=ev.Keyset.create("memory:"), maintenance="manual") as store:
        things = written(store)
        shutil.copytree(tmp_path / "store", tmp_path / "copy")
        assert "the log" in stolen(tmp_path / "copy").leftovers
        things.delete([f"secret-id-{i}" for i in range(N)])
    assert not stolen(url).rows_of("records", 1)["row"]
    assert stolen(url).leftovers.get("free pages of SQLite", 0) % 4096 == 0


def test_the_command(store, url, monkeypatch, capsys):
    written(store)
    monkeypatch.setenv("ENCVEC_STORE", url)
    assert run(["leakage", "--view", "--before", url, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"collection": "docs", "what": "records", "amount": f"{N}", "tells": "how many there are"} in lines
    assert any(line["what"] == "ids in both" and line["amount"] == f"{N}" for line in lines)
    if url.startswith("faiss:"):
        monkeypatch.delenv("ENCVEC_STORE")
        assert run(["leakage", "--store", url]) == 0
        assert "no attack on vectors has anything to start from" in capsys.readouterr().out


def test_a_folder_is_named_as_in_connect(tmp_path):
    with ev.connect(tmp_path / "a store", keyset=ev.Keyset.create("memory:")) as store:
        written(store)
    for place in (tmp_path / "a store", f"faiss:{tmp_path}/a%20store"):
        assert lines_of(told(stolen(place)))["records"].amount == f"{N}"


def test_what_cannot_be_stolen(tmp_path):
    with pytest.raises(InputError, match="is in a folder or on PostgreSQL, got memory:"):
        stolen("memory:")
    with pytest.raises(InputError, match=r"must be the folder of a store: it has no records\.sqlite3"):
        stolen(tmp_path)
    with pytest.raises(StoreUnreachableError) as caught:
        stolen("postgresql://app:hidden@127.0.0.1:1/x")
    assert "hidden" not in repr(caught.value)
