"""Random histories of a sealed collection, in two stores at once, against a comparison of every vector."""

from __future__ import annotations

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import low_level
from encvec_store.sealed_index import builder, index

DIM, CROWD = 12, 40


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Make graphs of a few records, so that a short history has everything that a long one has."""
    monkeypatch.setattr(builder, "FIRST", 60)
    monkeypatch.setattr(builder, "LAST", 10)
    monkeypatch.setattr(index, "COARSE", 150)


def nearest(metric, query, stored, k):
    names = list(stored)
    vectors = np.array([stored[name] for name in names], np.float64)
    query = query.astype(np.float64)
    if metric == "l2":
        costs = ((vectors - query) ** 2).sum(1)
    else:
        costs = -(vectors @ query)
        if metric == "cosine":
            costs /= np.linalg.norm(vectors, axis=1)
    return [names[i] for i in np.argsort(costs)[:k]]


def check(things, stored, metric, rng, k=10):
    """Search, and count what is missing. There must be no hit that is not stored as it is."""
    missed = asked = 0
    for _ in range(4):
        query = rng.normal(size=DIM).astype(np.float32)
        hits = things.search(query, k=k, include_vectors=True)
        assert len(hits) == min(k, len(stored))
        for hit in hits:
            np.testing.assert_array_equal(hit.vector, stored[hit.id])
        wanted = set(nearest(metric, query, stored, k))
        missed, asked = missed + len(wanted - {hit.id for hit in hits}), asked + len(wanted)
    return missed, asked


@pytest.mark.parametrize("kind", ["hnsw", "ivf", "flat"])
@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_a_history(tmp_path, metric, kind):
    rng = np.random.default_rng(0)
    keyset = ev.Keyset.create("memory:")
    url = f"faiss://{tmp_path}?index={kind}"
    missed = asked = 0
    stored = {}

    def open_one(**how):
        store = ev.connect(url, keyset=keyset, **how)
        return store, store.collection("things", dim=DIM, metric=metric, scheme="sealed")

    (first, mine), (second, theirs) = open_one(maintenance="inline"), open_one(maintenance="manual")
    low_level.session(theirs)  # both share one index: a third one, below, does not
    for step in range(45):
        things = (mine, theirs)[int(rng.integers(2))]
        match rng.choice(["write", "write", "write", "update", "delete", "maintain", "reopen", "rotate"]):
            case "write":
                n = int(rng.integers(1, 5 * CROWD if step == 10 else CROWD))
                names = [f"{step}-{i}" for i in range(n)]
            case "update" if stored:
                names = rng.choice(list(stored), size=max(1, len(stored) // 2), replace=False).tolist()
            case "delete" if stored:
                gone = rng.choice(list(stored), size=max(1, len(stored) // 3), replace=False).tolist()
                assert things.delete(gone) == len(gone)
                for name in gone:
                    del stored[name]
                names = []
            case "maintain":
                things.maintain(purge=bool(rng.integers(2)))
                names = []
            case "reopen":
                second.close()
                first.close()
                (first, mine), (second, theirs) = open_one(maintenance="inline"), open_one(maintenance="manual")
                names = []
            case "rotate":
                keyset.rotate()
                names = []
            case _:
                names = []
        if names:
            vectors = rng.normal(size=(len(names), DIM)).astype(np.float32)
            things.upsert(names, vectors)
            stored.update(zip(names, vectors, strict=True))
        if stored:
            for each in (mine, theirs):
                more = check(each, stored, metric, rng)
                missed, asked = missed + more[0], asked + more[1]
    assert mine.verify().ok
    second.close()
    first.close()
    assert missed <= 0.01 * asked
