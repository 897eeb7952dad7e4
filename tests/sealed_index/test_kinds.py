"""Every kind of graph finds near neighbours, with and without masks, and comes back from its arrays as it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encvec_store.sealed_index import hnsw, kinds
from encvec_store.sealed_index.graph import Kept
from encvec_store.sealed_index.hnsw import Hnsw

DATA = Path(__file__).parents[2] / "benchmarks" / "data" / "banking77-minilm.npz"
METRICS = ("cosine", "l2", "ip")


@pytest.fixture(scope="module")
def text():
    """Sentence embeddings, (4000, 384), and those of other sentences, (77, 384)."""
    with np.load(DATA) as data:
        vectors, test = data["vectors"].astype(np.float32), data["test"]
    return vectors[~test][:4000], vectors[test][::40]


@pytest.fixture(scope="module")
def graphs(text):
    """One graph of each kind and metric."""
    return {(kind, metric): kinds.build(kind, metric, text[0]) for kind in kinds.KINDS for metric in METRICS}


def costs(metric, queries, vectors):
    if metric == "cosine":
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    products = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    if metric != "l2":
        return -products
    return (queries**2).sum(axis=1)[:, None] - 2 * products + (vectors**2).sum(axis=1)


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


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_long_vectors_do_not_spoil_inner_products(text, kind):
    vectors, queries = text
    base = vectors * np.exp(np.random.default_rng(1).standard_normal((len(vectors), 1)) / 2).astype(np.float32)
    assert recall(kinds.build(kind, "ip", base), "ip", base, queries) >= 0.98


def clusters(n, dim, seed, spread=0.6):
    rng, centres = np.random.default_rng(seed), np.random.default_rng(99).standard_normal((200, dim))
    return (centres[rng.integers(200, size=n)] + spread * rng.standard_normal((n, dim))).astype(np.float32)


def test_links_that_miss_neighbours_are_found_out():
    """Then searches keep longer lists, or compare everything."""
    queries = clusters(50, 64, 4)
    lengths = np.exp(np.random.default_rng(5).standard_normal((20_000, 1)) * 0.3).astype(np.float32)
    even, uneven = clusters(20_000, 64, 1), clusters(20_000, 64, 1) * lengths
    ball = np.concatenate([clusters(8_000, 64, 1), clusters(8_000, 64, 3) / 10])
    for metric, base, k in (("l2", even, 10), ("ip", uneven, 100), ("l2", ball, 10)):
        graph = kinds.build("hnsw", metric, base)
        assert (graph.structure()["boosts"] == 1).all() == (base is even)
        assert recall(graph, metric, base, queries, k) >= 0.98
        assert recall(graph.extended(base[:100]), metric, np.concatenate([base, base[:100]]), queries, k) >= 0.98


def test_a_vector_that_is_stored_many_times_hides_nothing(monkeypatch):
    monkeypatch.setattr("encvec_store.sealed_index.hnsw._NODE", 0)
    same = np.repeat(clusters(40, 16, 1), 50, axis=0)
    assert kinds.build("hnsw", "l2", same).structure()["boosts"][0]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", kinds.KINDS)
def test_costs_are_close_to_exact_ones(graphs, text, kind, metric):
    exact = costs(metric, text[1], text[0])
    for row, (positions, near) in zip(exact, graphs[kind, metric].search(text[1], 30), strict=True):
        assert (np.diff(near) >= 0).all()
        np.testing.assert_allclose(near, row[positions], atol=0.06 if kind == "ivf" else 0.01)


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_query_finds_the_same_alone_and_in_a_batch(graphs, text, kind):
    graph = graphs[kind, "cosine"]
    for query, (positions, _) in zip(text[1][:5], graph.search(text[1][:5], 20), strict=True):
        np.testing.assert_array_equal(graph.search(query[None], 20)[0][0], positions)


@given(share=st.floats(0, 1), limit=st.integers(0, 5_000), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_mask_leaves_out_the_others_and_loses_no_place(graphs, text, kind, share, limit, seed):
    graph = graphs[kind, "l2"]
    allowed = np.random.default_rng(seed).random(graph.count) < share
    queries = text[1][seed % 70 :][:2]
    near = costs("l2", queries, text[0])
    near[:, ~allowed] = np.inf
    found = graph.search(queries, limit, bits(allowed), int(allowed.sum()))
    for (positions, _), row in zip(found, near, strict=True):
        assert len(positions) == len(set(positions.tolist())) == min(limit, allowed.sum())
        assert allowed[positions].all()
        best = np.argsort(row)[: min(10, allowed.sum())]
        if limit >= 30 and allowed.any():
            assert np.isin(best, positions).mean() >= (1 if kind == "flat" else 0.7)


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_every_position_can_be_reached(graphs, text, kind):
    graph = graphs[kind, "ip"]
    ((positions, _),) = graph.search(text[1][:1], graph.count + 5)
    assert sorted(positions.tolist()) == list(range(graph.count))


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_extending_makes_a_new_graph_while_others_search_the_old(text, kind):
    vectors, queries = text
    old = kinds.build(kind, "cosine", vectors[:2500])
    before = old.search(queries, 20)
    with ThreadPoolExecutor(3) as pool:
        searches = [pool.submit(old.search, queries, 20) for _ in range(20)]
        new = pool.submit(old.extended, vectors[2500:]).result()
        for search in searches:
            for (positions, _), (expected, _) in zip(search.result(), before, strict=True):
                np.testing.assert_array_equal(positions, expected)
    assert (old.count, new.count) == (2500, 4000)
    assert recall(new, "cosine", vectors, queries) >= 0.98
    stored = {name: array[:2500] for name, array in new.codes(0, 4000).items()}
    for name, array in old.codes(0, 2500).items():
        np.testing.assert_array_equal(stored[name], array)


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_keeps_some_of_its_vectors(graphs, text, kind):
    positions = np.arange(1, 4000, 2)
    graph = graphs[kind, "l2"].kept(positions)
    assert graph.count == 2000
    assert recall(graph, "l2", text[0][positions], text[1]) >= 0.98
    name = "vectors" if kind == "flat" else "codes"
    whole = graphs[kind, "l2"].codes(0, 4000)[name]
    np.testing.assert_array_equal(graph.codes(0, 2000)[name], whole[positions])


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_shapes_depend_on_counts_only(kind):
    def shapes(vectors, *, stored):
        graph = kinds.build(kind, "l2", vectors[:500])
        if stored:
            graph = kinds.restored(kind, "l2", 20, [graph.codes(0, 500)], graph.structure())
        graph = graph.extended(vectors[500:])
        arrays = graph.codes(0, 800) | graph.structure()
        levels = arrays.get("levels", np.empty(0)).tobytes()
        return levels, {name: array.shape for name, array in arrays.items()}

    rng = np.random.default_rng(2)
    one, other = rng.standard_normal((800, 20)).astype(np.float32), np.ones((800, 20), np.float32)
    assert shapes(one, stored=False) == shapes(other, stored=True)


@pytest.mark.parametrize("kind", kinds.KINDS)
@pytest.mark.parametrize("n", [1, 2, 40])
def test_few_vectors(kind, n):
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((n, 5)).astype(np.float32)
    graph = kinds.build(kind, "l2", vectors)
    more = graph.extended(rng.standard_normal((3, 5)).astype(np.float32))
    assert [len(positions) for positions, _ in more.search(vectors, 10)] == [min(10, n + 3)] * n
    assert graph.search(vectors[:1], 1, np.zeros((n + 7) // 8, np.uint8))[0][0].size == 0


def damaged():
    def put(name, at, value):
        def change(arrays):
            arrays[name] = arrays[name].copy()
            arrays[name].flat[at] = value

        return change

    def cut(name):
        return lambda arrays: arrays.update({name: arrays[name][:-1]})

    return {
        "a link past the end": put("neighbors", 0, 4000),
        "a link below none": put("neighbors", 0, -2),
        "a level too high": put("levels", 0, 99),
        "level zero": put("levels", 0, 0),
        "another level": put("levels", 0, 3),
        "an entry past the end": put("entry", 0, 4000),
        "another top": put("entry", 1, 0),
        "links cut off": cut("neighbors"),
        "levels cut off": cut("levels"),
        "ranges cut off": cut("ranges"),
        "an impossible boost": put("boosts", 1, 3),
        "a missing array": lambda arrays: arrays.pop("entry"),
        "another type": lambda arrays: arrays.update(levels=arrays["levels"].astype(np.int64)),
    }


@pytest.mark.parametrize("damage", damaged())
def test_damaged_links_are_refused(graphs, damage):
    graph = graphs["hnsw", "l2"]
    structure = dict(graph.structure())
    damaged()[damage](structure)
    with pytest.raises(ValueError, match=r"must|out of range"):
        kinds.restored("hnsw", "l2", 384, [graph.codes(0, 4000)], structure)


def test_links_of_a_level_lead_to_nodes_of_that_level(graphs):
    graph = graphs["hnsw", "l2"]
    structure = dict(graph.structure())
    levels, links = structure["levels"], structure["neighbors"].copy()
    node = int(np.flatnonzero(levels > 1)[0])
    links[64 * node + 32 * int((levels[:node] - 1).sum()) + 64] = int(np.flatnonzero(levels == 1)[0])
    with pytest.raises(ValueError, match="of this level"):
        kinds.restored("hnsw", "l2", 384, [graph.codes(0, 4000)], structure | {"neighbors": links})


def test_a_code_in_no_list_is_refused(graphs):
    graph = graphs["ivf", "l2"]
    codes = graph.codes(0, 4000)
    codes["lists"][7] = len(graph.structure()["centroids"])
    with pytest.raises(ValueError, match="in a list"):
        kinds.restored("ivf", "l2", 384, [codes], graph.structure())


def test_the_kind_follows_from_size_and_memory():
    assert kinds.chosen(5_000, 384, 0) == "flat"
    assert kinds.chosen(5_001, 384, 1 << 30) == "hnsw"
    assert kinds.chosen(1_000_000, 384, 1 << 29) == "ivf"
    assert kinds.chosen(1_000_000, 384, 1 << 29, "flat") == "flat"


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_memory_is_foretold(graphs, kind):
    graph = graphs[kind, "l2"]
    assert kinds.memory_of(kind, graph.count, 384) == pytest.approx(graph.bytes, rel=0.02)


@pytest.fixture
def steps(monkeypatch):
    """Let walks pay off for few vectors, and list how hard each search looked; 0 is a scan."""
    steps = []
    walk, scan = Hnsw._passing, Hnsw._scan

    def walked(graph, points, limit, mask, passing, effort, trusted):
        steps.append(effort)
        return walk(graph, points, limit, mask, passing, effort, trusted)

    def scanned(graph, *given):
        steps.append(0)
        return scan(graph, *given)

    monkeypatch.setattr(hnsw, "_NODE", 4)
    monkeypatch.setattr(Hnsw, "_passing", walked)
    monkeypatch.setattr(Hnsw, "_scan", scanned)
    return steps


def test_a_filter_that_passes_what_is_far_from_a_query(steps):
    """Where too little of a walk passes, a longer one follows; then a scan; and then scans for that filter at once."""
    vectors = np.random.default_rng(3).standard_normal((8_000, 16)).astype(np.float32)
    graph, query, kept = kinds.build("hnsw", "l2", vectors), vectors[:1], Kept()
    order = np.argsort(((vectors - query) ** 2).sum(axis=1))

    def searched(passing):
        steps.clear()
        mask = np.zeros(8_000, np.bool_)
        mask[passing] = True
        ((found, _),) = graph.search(query, 16, np.packbits(mask, bitorder="little"), len(passing), kept=kept)
        assert mask[found].all()
        near, exact = (np.sort(((vectors[each] - query) ** 2).sum(axis=1))[:10] for each in (found, passing))
        assert near.sum() < 1.01 * exact.sum()
        return list(steps)

    assert searched(order[::2]) == [96]
    assert searched(order[150:]) == [96, 384]
    assert searched(order[4_000:]) == [96, 384, 0]
    assert not kept.scans, "one of three"
    assert searched(order[4_000:]) == [96, 384, 0]
    kept.walks = kept.vain = 1
    assert searched(order[4_000:]) == [0]
