"""Random histories of a sealed collection, in two stores at once, against a comparison of every vector.

Every kind meets each metric or place in one history or another, not in all of them: the histories differ by their seeds
as well. `test_kinds.py` has every kind by every metric.
"""

from __future__ import annotations

import pytest

import encvec_store as ev
from encvec_store.engine.hidden import buckets
from encvec_store.sealed_index import BUDGET, kinds
from tests.kits import sealed
from tests.kits.sealed import History


@pytest.fixture(autouse=True)
def small(monkeypatch):
    sealed.small(monkeypatch)


@pytest.mark.parametrize(
    ("kind", "metric", "reads", "seed"),
    [
        ("hnsw", "cosine", "candidates", 0),
        ("hnsw", "l2", "candidates", 1),
        ("ivf", "ip", "candidates", 2),
        ("lists", "cosine", "candidates", 3),
        ("lists", "l2", "candidates", 4),
        ("flat", "ip", "candidates", 5),
        ("hnsw", "ip", "hits", 6),
        ("ivf", "l2", "hits", 7),
        ("lists", "ip", "hits", 8),
    ],
)
def test_in_files(tmp_path, kind, metric, reads, seed):
    keyset = ev.Keyset.create("memory:")

    def connect(**how):
        return ev.connect(f"faiss://{tmp_path}?index={kind}", keyset=keyset, reads=reads, **how)

    History(connect, keyset, metric, seed).live(40)


@pytest.mark.parametrize("metric", ["cosine", "ip"])
def test_under_memory_pressure(tmp_path, metric, monkeypatch):
    """The codes do not fit in memory, and hardly any block of them does."""
    monkeypatch.setattr(kinds, "_FLAT_MOST", 10)
    monkeypatch.setattr(BUDGET, "_limit", 3_000)
    keyset = ev.Keyset.create("memory:")

    def connect(**how):
        return ev.connect(f"faiss://{tmp_path}", keyset=keyset, **how)

    History(connect, keyset, metric, 2).live(40)


@pytest.mark.parametrize(("stored", "metric", "limit"), [("files", "cosine", None), ("postgresql", "ip", 150_000)])
def test_a_server_that_watches(request, tmp_path, stored, metric, limit, monkeypatch):
    """Everything sealed is in memory, or, where it does not fit, in a local file of buckets."""
    keyset, how = ev.Keyset.create("memory:"), {"threat": "watching-server"}
    if limit is not None:
        monkeypatch.setattr(BUDGET, "_limit", limit)
        monkeypatch.setattr(buckets, "LEAST", 4)
        how["cache"] = tmp_path / "cache"
    url, more = f"faiss://{tmp_path}/store", {}
    if stored == "postgresql":
        place = request.getfixturevalue("pg_place")
        url, more = place.dsn, {"schema": place.schema}

    def connect(**given):
        return ev.connect(url, keyset=keyset, index="hnsw", **how, **more, **given)

    History(connect, keyset, metric, 5).live(40)
    assert limit is None or sum(file.stat().st_size for file in (tmp_path / "cache").iterdir()) > 50_000


@pytest.mark.parametrize(
    ("kind", "metric", "reads"),
    [
        ("hnsw", "ip", "candidates"),
        ("ivfflat", "cosine", "candidates"),
        ("lists", "l2", "candidates"),
        ("none", "l2", "candidates"),
        ("hnsw", "l2", "hits"),
    ],
)
def test_on_postgresql(pg_place, metric, kind, reads):
    keyset = ev.Keyset.create("memory:")

    def connect(**how):
        return ev.connect(pg_place.dsn, keyset=keyset, schema=pg_place.schema, index=kind, reads=reads, **how)

    History(connect, keyset, metric, 0).live(40)
