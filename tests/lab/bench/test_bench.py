"""The bench core: recall against exact search, timing by turns, the three variants and their keys, memory apart."""

import json
import os
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from encvec_store import Keyset, connect
from encvec_store.cli.app import cli
from encvec_store.data import metric
from encvec_store.lab.bench import BenchJob, Data, Labels, Qrels, VectorSource, run
from encvec_store.lab.bench.timing import WARM_UP, interleave, interval, throughput
from encvec_store.lab.bench.truth import Truth, ndcg
from encvec_store.lab.leakage.data import text_like
from tests.kits.bench import KEYS, data, vectors


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
    rows = run(BenchJob(data(400, 20), store="memory:", schemes=[{"name": "sap", "beta": 1.0}]))
    assert [(row["scheme"], row["reranked"]) for row in rows] == [("plaintext", False), ("sap", False), ("sap", True)]
    assert all(row.keys() >= KEYS for row in rows)
    plain, first, whole = rows
    assert plain["recall@1"] == plain["recall@10"] == 1
    assert first["recall@10"] < whole["recall@10"], "noise costs recall, re-rank brings it back"
    assert whole["recall@10"] > 0.9
    assert (plain["n"], plain["d"], plain["index"]) == (400, 16, "flat")
    assert first["peak_rss_mb"] is None, "a memory: store cannot be opened by another process"


def test_a_scheme_without_index_has_no_first_stage():
    rows = run(BenchJob(data(50, 5), store="memory:", schemes=[{"name": "sealed"}], memory=False, rounds=0))
    assert [(row["scheme"], row["reranked"]) for row in rows] == [("plaintext", False), ("sealed", True)]
    assert (rows[1]["recall@10"], rows[1]["index"]) == (1, "flat")


@pytest.mark.parametrize("name", ["cosine", "l2"])
def test_faiss_with_memory_and_nothing_left_behind(tmp_path, name):
    url = f"faiss:{tmp_path / 'store'}"
    before = set(os.environ)
    options, scheme = {"index": "hnsw", "ef_search": 64}, {"name": "sap", "beta": 0.5}
    rows = run(BenchJob(data(300, 10, name), store=url, options=options, schemes=[scheme], rounds=1))
    assert [row["index"] for row in rows] == ["hnsw"] * 3
    assert rows[0]["storage"] == "float32"
    assert rows[2]["recall@10"] > 0.95
    if sys.platform == "linux":
        assert all(row["peak_rss_mb"] > row["library_rss_mb"] > 10 for row in rows)
    assert set(os.environ) == before
    with connect(url, keyset=Keyset.create("memory:")) as store:
        assert store.collections() == []


def test_efforts_schemes_and_oversamples_make_a_grid():
    job = BenchJob(
        data(400, 10),
        options={"index": "hnsw"},
        schemes=[{"name": "sap", "beta": 1.0}, {"name": "sealed"}],
        efforts=(10, 80),
        oversamples=(1, 10),
        rounds=0,
        memory=False,
    )
    rows = run(job)
    assert [(row["scheme"], row["effort"], row["oversample"]) for row in rows] == [
        ("plaintext", 10, None), ("plaintext", 80, None),
        ("sap", 10, None), ("sap", 10, 1), ("sap", 10, 10), ("sap", 80, None), ("sap", 80, 1), ("sap", 80, 10),
        ("sealed", None, None),
    ]  # fmt: skip
    recall = {(row["effort"], row["oversample"]): row["recall@10"] for row in rows if row["scheme"] == "sap"}
    assert recall[80, 1] < recall[80, 10], "more candidates find more"
    ours = {row["scheme"]: row["bytes"] for row in rows}
    assert ours["sealed"] < ours["sap"], "a side's bytes are its own, not those of its neighbours"


def test_ivf_probes():
    job = BenchJob(
        data(2000, 20), options={"index": "ivf"}, schemes=[{"name": "sap", "beta": 0.5}], efforts=(1, 60), rounds=0
    )
    rows = run(BenchJob(**{**vars(job), "memory": False}))
    few, many = (row for row in rows if row["scheme"] == "plaintext")
    assert (few["probes"], few["ef_search"]) == (1, None)
    assert few["recall@10"] < many["recall@10"]
    few, many = (row for row in rows if row["scheme"] == "sap" and not row["reranked"])
    assert few["recall@10"] < many["recall@10"]


def test_recall_at_100_and_distances():
    rows = run(
        BenchJob(data(400, 5), store="memory:", schemes=[{"name": "sap", "beta": 1.0}], k=100, memory=False, rounds=1)
    )
    plain, alone, whole = rows
    assert plain["recall@100"] == whole["recall@100"] == 1
    assert plain["distance_ratio"] == pytest.approx(1)
    assert alone["recall@100"] < 1 < alone["distance_ratio"]
    for row in rows:
        assert row["p50_low_ms"] <= row["p50_ms"] <= row["p50_high_ms"]
        assert min(row["qps_threads"], row["qps_batch"], row["cpu_ms"]) > 0


def test_interval_of_a_median():
    low, high = interval(list(range(101)))
    assert (low, high) == (39, 61), "ranks 40 and 62 of 101: Conover's approximation, rounded outwards"
    assert interval([3.0]) == (3, 3)


def test_throughput_takes_turns_and_counts_no_first_round():
    asked = {"a": 0, "b": 0}

    def counts(name):
        def search(query):
            asked[name] += 1

        return search

    rates = throughput({name: counts(name) for name in asked}, vectors(7), threads=2, rounds=2)
    assert asked == {"a": 21, "b": 21}
    assert [len(found) for found in rates.values()] == [2, 2]
    asked.update(a=0, b=0)
    throughput({name: counts(name) for name in asked}, vectors(7), threads=0, rounds=2)
    assert asked == {"a": 3, "b": 3}, "one call with all queries"


def test_ndcg_by_hand():
    judged = Qrels([{4: 3.0, 5: 1.0}, {}])
    perfect = ndcg(judged, [np.array([4, 5, 9]), np.array([1, 2, 3])], 3)
    assert perfect == 1, "a query without judgements does not count"
    swapped = (1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3))
    assert ndcg(judged, [np.array([5, 4, 9]), np.array([], np.int64)], 3) == pytest.approx(swapped)
    labels = Labels(np.array([0, 1, 0]), np.array([0]))
    assert ndcg(labels, [np.array([0, 1, 2])], 10) == pytest.approx((1 + 0.5) / (1 + 1 / np.log2(3)))


def test_postgres_beside_plain_pgvector(pg_dsn):
    rows = run(BenchJob(data(300, 10), store=pg_dsn, options={"index": "hnsw"}, schemes=[{"name": "sap", "beta": 0.5}],
                   efforts=(40,), rounds=1))  # fmt: skip
    assert [(row["store"], row["index"], row["effort"]) for row in rows] == [
        ("plain pgvector", "hnsw", 40), ("postgresql:", "hnsw", 40), ("postgresql:", "hnsw", 40)
    ]  # fmt: skip
    assert rows[0]["recall@10"] > 0.9
    assert rows[2]["recall@10"] > 0.9
    assert min(row["bytes"] for row in rows) > 300 * 16 * 4
    with connect(pg_dsn, keyset=Keyset.create("memory:")) as store:
        assert store.collections() == []


def test_command(tmp_path):
    np.save(tmp_path / "some.npy", vectors(200))
    done = CliRunner().invoke(
        cli, ["bench", "--data", str(tmp_path / "some.npy"), "--json", "--queries", "10", "--scheme", "sap"]
    )
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["scheme"] for row in rows] == ["plaintext", "sap", "sap"]
    assert all(row.keys() >= KEYS for row in rows)
    assert {row["dataset"] for row in rows} == {"some"}
    assert {row["n"] for row in rows} == {180}, "a tenth is held out as queries"


def test_command_prints_a_table(tmp_path):
    np.save(tmp_path / "some.npy", vectors(100))
    done = CliRunner().invoke(cli, ["bench", "--data", str(tmp_path / "some.npy"), "--store", "memory:", "--k", "5"])
    assert done.exit_code == 0, done.output
    assert "plain FAISS" in done.stdout
    assert "queries/s" in done.stdout


def test_command_needs_data_and_a_scheme_that_takes_noise():
    assert "--data" in CliRunner().invoke(cli, ["bench"]).output
    done = CliRunner().invoke(cli, ["bench", "--data", "iid:100x8", "--scheme", "sealed", "--beta", "2"])
    assert done.exit_code == 2
    assert "--beta" in done.output


def test_a_side_is_what_a_collection_is_by_default():
    """Scheme, noise and candidates are the collection's own choice; nothing in the bench has a number of its own."""
    stored, queries = text_like(5_400, 24, seed=1)[0], text_like(10, 24, seed=2)[0]
    rows = run(
        BenchJob(Data("texts", VectorSource(stored), queries, "cosine"), store="memory:", rounds=0, memory=False)
    )
    with connect("memory:", keyset=Keyset.create("memory:"), maintenance="inline") as store:
        things = store.collection("things", dim=24, scheme="sketch")
        for start in range(0, len(stored), 5_000):
            part = slice(start, start + 5_000)
            things.upsert([str(i) for i in range(len(stored))[part]], stored[part])
        stats = things.stats()
    assert [row["scheme"] for row in rows] == ["plaintext", "sealed", "sketch", "sketch"]
    assert (rows[1]["index"], rows[1]["reranked"], rows[1]["beta"]) == ("hnsw", True, None)
    assert rows[1]["recall@10"] > 0.98
    ours = [row for row in rows if row["scheme"] == "sketch"]
    assert [(row["reranked"], row["oversample"]) for row in ours] == [(False, None), (True, ours[1]["oversample"])]
    assert {(row["scheme"], row["beta"], row["scheme_parameters"]["k"]) for row in ours} == {
        (stats["scheme"]["name"], stats["scheme"]["beta"], stats["scheme"]["k"])
    }
    chosen = ours[1]["oversample"]
    assert 10 < stats["oversample"] / 2 <= chosen <= 2 * stats["oversample"], "simulated on records in random order"
    assert ours[1]["candidates"] == min(5_400, 10 * chosen)
