"""The bench core: recall against exact search, timing by turns, the three variants and their keys, memory apart."""

import json
import os
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from encvec_store import Keyset, connect
from encvec_store.bench import Job, run
from encvec_store.bench.timing import WARM_UP, interleave
from encvec_store.bench.truth import Truth
from encvec_store.cli.bench import bench
from encvec_store.metrics import metric

KEYS = {
    "dataset", "store", "index", "scheme", "reranked", "n", "d", "recall@1", "recall@10", "p50_ms", "p95_ms", "qps",
    "build_s", "ingest_per_s", "bytes", "peak_rss_mb",
}  # fmt: skip


def vectors(n, dim=16, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


@pytest.mark.parametrize("name", ["cosine", "l2", "ip"])
def test_truth_is_exact(name):
    stored, queries = vectors(300), vectors(7, seed=1)
    measure = metric(name)
    truth = Truth(measure, stored, queries, 5)
    exact = [np.argsort(measure.order(measure.scores(query, stored)), kind="stable")[:5] for query in queries]
    assert truth.recall(exact, 5) == truth.recall(exact, 1) == 1
    for scores, query, order in zip(truth.scores, queries, exact, strict=True):
        np.testing.assert_allclose(scores, measure.scores(query, stored[order]))


def test_recall_counts_what_is_near_enough_once():
    stored = np.eye(8, dtype=np.float32)
    stored[1] = stored[0]  # twins: either is the nearest
    truth = Truth(metric("cosine"), stored, stored[:1], 2)
    assert truth.recall([np.array([1, 0])], 1) == 1
    assert truth.recall([np.array([1, 1])], 2) == 0.5
    assert truth.recall([np.array([5, 0])], 2) == 0.5
    assert truth.recall([np.array([], np.int64)], 2) == 0
    assert truth.part(slice(0, 0)).scores.shape == (0, 2)


def test_variants_take_turns():
    queries = vectors(WARM_UP + 6)
    called = []
    timed = interleave(
        {"a": lambda query: called.append("a"), "b": lambda query: called.append("b")}, queries, passes=2
    )
    assert called.count("a") == called.count("b") == WARM_UP + 2 * len(queries)
    after = called[2 * WARM_UP :]
    assert after[:4] == ["a", "b", "b", "a"]
    assert [len(item.seconds) for item in timed.values()] == [2 * len(queries)] * 2
    assert len(timed["a"].answers) == len(queries)
    assert timed["a"].row()["p50_ms"] <= timed["a"].row()["p95_ms"]


def test_three_variants_in_memory():
    rows = run(Job("random", vectors(400), vectors(20, seed=1), store="memory:", scheme={"name": "sap", "beta": 1.0}))
    assert [(row["scheme"], row["reranked"]) for row in rows] == [("plaintext", False), ("sap", False), ("sap", True)]
    assert all(row.keys() >= KEYS for row in rows)
    plain, first, whole = rows
    assert plain["recall@1"] == plain["recall@10"] == 1
    assert first["recall@10"] < whole["recall@10"], "noise costs recall, re-rank brings it back"
    assert whole["recall@10"] > 0.9
    assert (plain["n"], plain["d"], plain["index"]) == (400, 16, "flat")
    assert first["peak_rss_mb"] is None, "a memory: store cannot be opened by another process"


def test_a_scheme_without_index_has_no_first_stage():
    rows = run(Job("random", vectors(50), vectors(5, seed=1), store="memory:", scheme={"name": "sealed"}, memory=False))
    assert [(row["scheme"], row["reranked"]) for row in rows] == [("plaintext", False), ("sealed", True)]
    assert rows[1]["recall@10"] == 1


@pytest.mark.parametrize("name", ["cosine", "l2"])
def test_faiss_with_memory_and_nothing_left_behind(tmp_path, name):
    url = f"faiss:{tmp_path / 'store'}"
    before = set(os.environ)
    options = {"index": "hnsw", "ef_search": 64}
    scheme = {"name": "sap", "beta": 0.5}
    rows = run(Job("random", vectors(300), vectors(10, seed=1), name, store=url, options=options, scheme=scheme))
    assert [row["index"] for row in rows] == ["hnsw"] * 3
    assert rows[0]["storage"] == "float32"
    assert rows[2]["recall@10"] > 0.95
    if sys.platform == "linux":
        assert all(row["peak_rss_mb"] > row["library_rss_mb"] > 10 for row in rows)
    assert set(os.environ) == before
    with connect(url, keyset=Keyset.create("memory:")) as store:
        assert store.collections() == []


def test_command(tmp_path):
    np.save(tmp_path / "some.npy", vectors(200))
    done = CliRunner().invoke(
        bench, ["--data", str(tmp_path / "some.npy"), "--json", "--queries", "10", "--scheme", "sap"]
    )
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["dataset"] for row in rows] == ["some"] * 3
    assert {row["n"] for row in rows} == {180}, "a tenth is held out as queries"


def test_command_prints_a_table(tmp_path):
    np.save(tmp_path / "some.npy", vectors(100))
    done = CliRunner().invoke(bench, ["--data", str(tmp_path / "some.npy"), "--store", "memory:", "--k", "5"])
    assert done.exit_code == 0, done.output
    assert "plain FAISS" in done.stdout
    assert "queries/s" in done.stdout
