"""Filters over sealed metadata, answered from columns in memory."""

import sqlite3

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import errors, low_level
from encvec_store.data import parse_filter
from tests.kits import sealed

DIM = 12
N = 300


@pytest.fixture(params=["memory", "hnsw", "ivf", "postgres"])
def things(request, monkeypatch, tmp_path):
    """A collection of N records with metadata, a third of them written after the graph was built."""
    sealed.small(monkeypatch)
    options = {"maintenance": "manual"}
    if request.param == "postgres":
        url, options["index"] = request.getfixturevalue("pg_dsn"), "hnsw"
    else:
        url = "memory:" if request.param == "memory" else f"faiss:{tmp_path}/s?index={request.param}"
    with ev.connect(url, keyset=ev.Keyset.create("memory:"), **options) as store:
        things = store.collection("things", dim=DIM, scheme="sealed")
        put(things, 0, 200)
        things.maintain()
        put(things, 200, N)
        yield things


def put(things, start, stop):
    names = [str(i) for i in range(start, stop)]
    things.upsert(names, sealed.vectors_of(N, 0)[start:stop], [fields(i) for i in range(start, stop)])


def fields(i):
    return {
        "n": i,
        "parity": "odd" if i % 2 else "even",
        "deep": {"tenth": i % 10},
        **({"rare": True} if i == 17 else {}),
    }


QUERIES = [
    {"parity": "odd"},
    {"n": {"lt": 30}},
    {"rare": True},
    {"rare": {"exists": False}, "n": {"gte": 250}},
    {"or": [{"n": 3}, {"n": {"in": [5, 299]}}]},
    {"deep.tenth": 4},
    {"n": {"gt": 10_000}},
]


@pytest.mark.parametrize("where", QUERIES, ids=str)
def test_k_hits_if_k_records_pass(things, where):
    vectors, query = sealed.vectors_of(N, 0), sealed.vectors_of(1, 5)[0]
    costs = sealed.costs_of("cosine", query, vectors)
    for gone in (set(), {str(i) for i in range(0, N, 3)}):
        if gone:
            things.delete(sorted(gone))
        right = [str(i) for i in np.argsort(costs).tolist() if parse_filter(where)(fields(i)) and str(i) not in gone]
        found = [hit.id for hit in things.search(query, k=5, where=where)]
        assert len(found) == min(5, len(right))
        assert len(set(found) & set(right[:5])) >= len(found) - 1  # codes are short
        assert things.count(where) == len(right)
    assert things.delete(where=where) == len(right)
    assert things.count(where) == len(things.search(query, k=5, where=where)) == 0


def test_updates_move_between_filters(things):
    query = sealed.vectors_of(1, 5)[0]
    assert things.count({"n": {"lt": 2}}) == 2
    things.search(query, where={"n": 0})
    things.upsert(["0"], sealed.vectors_of(1, 9), [{"n": 5_000}])
    assert [hit.id for hit in things.search(query, where={"n": 5_000})] == ["0"]
    assert things.search(query, where={"n": 0}) == []
    assert (things.count({"n": 0}), things.count({"n": 5_000})) == (0, 1)


def test_explain_says_how(things):
    told = things.explain(np.ones(DIM), 5, {"parity": "odd"})
    assert f"filter: {N // 2} of {N} records pass, by columns in memory, before the search" in told
    assert "filter" not in things.explain(np.ones(DIM), 5)


def test_payloads_are_opened_once(things, monkeypatch, request):
    stored = 0 if "[memory]" in request.node.name else 200  # columns of records in the graph
    query, opened, kind = sealed.vectors_of(1, 5)[0], [], type(sealed.index_of(things).columns)
    inner = kind.add

    def add(columns, rows, metadata):
        opened.append(len(rows))
        inner(columns, rows, metadata)

    monkeypatch.setattr(kind, "add", add)
    for where in ({"parity": "odd"}, {"n": 3}, {"n": {"lt": 100}}):
        things.search(query, where=where)
    assert sum(opened) == N - stored
    put(things, 0, 2)
    things.search(query, where={"n": 3})
    assert sum(opened) == N - stored + 2


def test_fields_that_the_store_checks_need_no_columns(tmp_path):
    with ev.connect(f"faiss:{tmp_path}", keyset=ev.Keyset.create("memory:")) as store:
        things = store.collection("things", dim=DIM, scheme="sealed", fields={"n": "plain", "parity": "sealed"})
        things.upsert(["a", "b"], sealed.vectors_of(2, 0), [{"n": 1, "parity": "odd"}, {"n": 2, "parity": "even"}])
        assert "as the store says" in things.explain(np.ones(DIM), 5, {"n": 1})
        assert [hit.id for hit in things.search(np.ones(DIM), where={"n": 1})] == ["a"]
        assert [hit.id for hit in things.search(np.ones(DIM), where={"parity": "even"})] == ["b"]
        assert "by columns in memory" in things.explain(np.ones(DIM), 5, {"n": 1})
        assert [hit.id for hit in things.search(np.ones(DIM), where={"n": 1})] == ["a"]


def test_a_record_that_does_not_open_is_not_missing(tmp_path):
    """Otherwise a filter would hide the damage."""
    with ev.connect(f"faiss:{tmp_path}", keyset=ev.Keyset.create("memory:")) as store:
        things = store.collection("things", dim=DIM, scheme="sealed")
        things.upsert(["a", "b"], sealed.vectors_of(2, 0), [{"n": 1}, {"n": 2}])
        with sqlite3.connect(tmp_path / "records.sqlite3") as database:
            database.execute(
                "UPDATE records SET payload = zeroblob(length(payload)) WHERE row = (SELECT max(row) FROM records)"
            )
        database.close()
        for _ in range(2):
            with pytest.raises(errors.AuthenticationError):
                things.search(np.ones(DIM), where={"n": 1})
            with pytest.raises(errors.AuthenticationError):
                things.count({"n": 1})


def test_key_versions(tmp_path):
    keyset = ev.Keyset.create("memory:")
    with ev.connect(f"faiss:{tmp_path}", keyset=keyset) as store:
        things = store.collection("things", dim=DIM, scheme="sealed")
        things.upsert(["old"], sealed.vectors_of(1, 0), [{"n": 1}])
        keyset.rotate()
        things.upsert(["new"], sealed.vectors_of(1, 1), [{"n": 1}])

        def found():
            hits = {hit.id for hit in things.search(np.ones(DIM), where={"n": 1})}
            assert things.count({"n": 1}) == len(hits)
            return hits

        assert found() == {"old", "new"}
        keyset.disable(1)
        assert found() == {"new"}
        assert low_level.session(things).keyring.dead == {1}
        keyset.enable(1)
        assert found() == {"old", "new"}
        keyset.disable(1)
        keyset.destroy(1)
        assert found() == {"new"}
