"""Every kind of graph finds near neighbours, with and without masks, and comes back from its arrays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encvec_store.sealed_index import kinds

DATA = Path(__file__).parents[2] / "benchmarks" / "data" / "banking77-minilm.npz"
METRICS = ("cosine", "l2", "ip")


@pytest.fixture(scope="module")
def text():
    """Sentence embeddings, (6000, 384), and those of other sentences, (100, 384)."""
    with np.load(DATA) as data:
        vectors, test = data["vectors"].astype(np.float32), data["test"]
    return vectors[~test][:6000], vectors[test][::30][:100]


@pytest.fixture(scope="module")
def graphs(text):
    """One graph of each kind and metric."""
    return {(kind, metric): kinds.build(kind, metric, text[0]) for kind in kinds.KINDS for metric in METRICS}


def costs(metric, queries, vectors):
    if metric == "l2":
        return ((queries[:, None].astype(np.float64) - vectors[None]) ** 2).sum(axis=2)
    if metric == "cosine":
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return -(queries.astype(np.float64) @ vectors.T.astype(np.float64))


def bits(allowed):
    return np.packbits(allowed, bitorder="little")


def recall(graph, metric, base, queries, k=10):
    nearest = np.argsort(costs(metric, queries, base), axis=1)[:, :k]
    found = graph.search(queries, graph.needs(k))
    return np.mean([np.isin(near, positions).mean() for near, (positions, _) in zip(nearest, found, strict=True)])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", kinds.KINDS)
def test_finds_the_nearest_of_real_text(graphs, text, kind, metric):
    assert recall(graphs[kind, metric], metric, *text) >= (1 if kind == "flat" else 0.99)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", kinds.KINDS)
def test_comes_back_from_its_arrays_as_it_was(graphs, text, kind, metric):
    graph = graphs[kind, metric]
    codes = [graph.codes(0, 1000), graph.codes(1000, 1000), graph.codes(1000, graph.count)]
    again = kinds.restored(kind, metric, 384, codes, graph.structure())
    for (found, near), (refound, renear) in zip(graph.search(text[1], 30), again.search(text[1], 30), strict=True):
        np.testing.assert_array_equal(found, refound)
        np.testing.assert_array_equal(near, renear)
