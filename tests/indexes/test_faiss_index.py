"""The index in memory: kinds, growth, deletions, filters, limits, threads, other processes."""

import io
import threading
from dataclasses import replace

import numpy as np
import pytest

from encvec_store.data import Match, Range, Term
from encvec_store.indexes.faiss.ann import AnnIndex
from encvec_store.indexes.faiss.options import FaissOptions
from tests.kits.faiss_store import CONFIG, DIM, agree, batch, connect, kept, named, oracle, tokens
from tests.kits.threads import guarded


def recall(got, want):
    return np.mean([len(set(a) & set(b)) / max(1, len(b)) for a, b in zip(got, want, strict=True)])


def filled(folder, n, *, terms=(), **options):
    store = connect(folder, **options)
    expected = oracle()
    for collection in (store, expected):
        collection.put(batch(range(n), terms=terms), under=CONFIG)
    return store, expected


def test_grows_from_flat_to_hnsw_to_ivf(tmp_path):
    store = connect(tmp_path, flat_limit=300, ivf_above=900)
    expected = oracle()
    asked = np.random.default_rng(0).standard_normal((20, DIM)).astype(np.float32)
    for start, kind in ((0, "flat"), (250, "hnsw"), (500, "hnsw"), (750, "ivf"), (1000, "ivf")):
        for collection in (store, expected):
            collection.put(batch(range(start, start + 250)), under=CONFIG)
        got = [named(store, rows) for rows in store.candidates({1: asked}, 10)]
        want = [named(expected, rows) for rows in expected.candidates({1: asked}, 10)]
        assert store.index.stats()["index"] == kind
        assert all(len(line) == 10 for line in got)
        assert recall(got, want) > (0.5 if kind == "ivf" else 0.85)
        assert store.candidates({2: asked}, 10)[0].tolist() == []
    store.close()


@pytest.mark.parametrize("storage", ["sq8", "float32"])
@pytest.mark.parametrize("index", ["flat", "hnsw", "ivf"])
def test_kinds_by_option(tmp_path, index, storage):
    store, expected = filled(tmp_path, 400, index=index, storage=storage)
    agree(store, expected, exact=False)
    assert store.index.stats()["index"] == index
    store.flush()
    store.close()
    store = connect(tmp_path, index=index, storage=storage)
    agree(store, expected, exact=False)
    assert store.index.stats()["partitions"][1]["index"] == index
    store.close()


@pytest.mark.parametrize("index", ["flat", "hnsw", "ivf"])
def test_limits(tmp_path, index):
    """Every answer has min(limit, matching rows) of them, however few the index would find."""
    n = 600
    terms = [(i, "n", Term("number", float(i))) for i in range(n)]
    store, _ = filled(tmp_path, n, terms=terms, index=index, nprobe=1, ef_search=1)
    asked = np.random.default_rng(0).standard_normal((3, DIM)).astype(np.float32)
    rows = store.find(tokens(range(n)))
    for gone in (0, 100, 400):
        store.remove(rows[:gone])
        for high in (None, 50.0, 150.0, 599.0):
            predicate = None if high is None else Range("n", "number", None, high)
            matching = n - gone if high is None else max(0, int(high) + 1 - gone)
            for limit in (0, 1, 10, n // 2, n, 10 * n):
                found = store.candidates({1: asked}, limit, predicate)
                assert [len(line) for line in found] == [min(limit, matching)] * 3
                for line in found:
                    assert set(line.tolist()) <= set(rows[gone:].tolist())
                    assert len(set(line.tolist())) == len(line)
    assert store.candidates({1: asked[:0]}, 5) == []
    store.close()


def test_a_filter_asked_again_sees_what_was_written(tmp_path):
    """The rows of a filter are remembered until rows come or go, in this process or another."""
    store, expected = filled(tmp_path, 40, terms=[(i, "f", Term("bool", float(i % 2))) for i in range(40)])
    other = connect(tmp_path)
    predicate = Match("f", (Term("bool", 1.0),))
    for turn in range(4):
        for collection in (other if turn % 2 else store, expected):
            collection.put(batch(range(turn, turn + 9), terms=[(0, "f", Term("bool", 1.0))], seed=turn), under=CONFIG)
            collection.remove(collection.find(tokens([30 + turn])))
        for collection in (store, other, store):
            agree(collection, expected, predicates=[predicate, None])
    store.close()
    other.close()


def test_rebuilt_when_much_is_dead(tmp_path):
    store, expected = filled(tmp_path, 300)
    store.flush()
    for low, dead in ((0, 80), (80, 0)):
        names = range(low, low + 80)
        for collection in (store, expected):
            collection.remove(collection.find(tokens(names)))
        agree(store, expected)
        assert store.index.stats()["dead"] == dead
    for collection in (store, expected):
        collection.remove(collection.rows())
    agree(store, expected)
    for collection in (store, expected):
        collection.put(batch(range(5)), under=CONFIG)
    agree(store, expected)
    store.close()


@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_other_processes_are_followed(tmp_path, index, monkeypatch):
    one = connect(tmp_path, index=index)
    two = connect(tmp_path, index=index)
    expected = oracle()
    for turn in range(6):
        writer = (one, two)[turn % 2]
        for collection in (writer, expected):
            collection.put(batch(range(turn * 5, turn * 10 + 20), seed=turn), under=CONFIG)
            collection.remove(collection.find(tokens(range(turn * 7, turn * 7 + 4))))
        if turn == 3:
            names = [n for n in range(40) if expected.find(tokens([n])).any()]
            for both in (writer, expected):
                both.replace([kept(both, names, seed=9)], CONFIG, under=CONFIG)
        if turn == 4:
            monkeypatch.setattr("encvec_store.storage.sqlite.changes.BYTES_MOST", 0)
            writer.records.flush()  # no changes are left: the other one has to list
        for collection in (one, two):
            agree(collection, expected, exact=index == "flat")
        (one, two)[turn // 2 % 2].flush()
    assert one.generation() == two.generation()
    one.close()
    two.close()


def test_generation_grows_with_every_write(tmp_path):
    store = connect(tmp_path)
    seen = [store.generation()]
    for write in (
        lambda: store.put(batch("ab"), under=CONFIG),
        lambda: store.remove(store.rows()[:1]),
        lambda: store.replace([], CONFIG, under=CONFIG),
    ):
        write()
        seen.append(store.generation())
    assert seen == sorted(set(seen))
    store.remove(np.array([2**62]))
    store.flush()
    assert store.generation() == seen[-1]
    store.close()


def test_threads(tmp_path):
    """Readers and writers at once: nothing fails, and nothing is returned that has been gone for long."""
    store = connect(tmp_path, flat_limit=200, lock_timeout=30)
    store.put(batch(range(100)), under=CONFIG)
    asked = np.random.default_rng(0).standard_normal((2, DIM)).astype(np.float32)
    failures, done = [], threading.Event()

    def write(base):
        for turn in range(8):
            names = range(base + turn * 30, base + turn * 30 + 60)
            store.put(batch(names, seed=turn, terms=[(0, "f", Term("bool", 1.0))]), under=CONFIG)
            store.remove(store.find(tokens(names[::3])))

    def search():
        while not done.is_set():
            before = set(store.rows().tolist())
            found = store.candidates({1: asked}, 20)
            assert all(len(line) == 20 for line in found)
            rows, envelopes = store.index.vectors(found[0])
            assert len(rows) == len(envelopes)
            store.candidates({1: asked}, 5, Match("f", (Term("bool", 1.0),)))
            gone = set(found[0].tolist()) - before - set(store.rows().tolist())
            assert len(gone) < 20

    def save():
        while not done.is_set():
            store.flush()
            store.index.forget()

    writers = [guarded(failures, write, base) for base in (1000, 2000)]
    others = [guarded(failures, work) for work in (search, search, save)]
    for thread in (*writers, *others):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in others:
        thread.join()
    assert failures == []
    assert store.check() == []
    rows = store.rows()
    assert set(store.candidates({1: asked}, 10**6)[0].tolist()) == set(rows.tolist())
    for row, envelope in zip(*store.index.vectors(rows), strict=True):
        assert bytes(envelope) == bytes(store.vectors(np.array([row]))[1][0])
    store.close()


def test_a_failed_extension_is_made_good(tmp_path, monkeypatch):
    store, expected = filled(tmp_path, 50)
    agree(store, expected)
    for collection in (store, expected):
        collection.put(batch(range(50, 90)), under=CONFIG)
    read, calls = store.records.index_vectors, []

    def interrupted(rows):
        calls.append(rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(store.records, "index_vectors", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.candidates({1: np.zeros((1, DIM), np.float32)}, 3)
    monkeypatch.setattr(store.records, "index_vectors", read)
    assert calls
    agree(store, expected)
    store.close()


def test_rows_that_were_committed_out_of_order(tmp_path, monkeypatch):
    """Where writers overlap, a lower number may appear after a higher one."""
    store, expected = filled(tmp_path, 50)
    ask, late, asked = store.records.changes, store.rows()[10:13], []

    def changes(since, content, *, stamp=None):
        told = ask(since, content, stamp=stamp)
        asked.append(since)
        if since < 0:  # at first they are not there yet
            return told if len(asked) > 1 else replace(told, added={1: np.setdiff1d(told.added[1], late)})
        return told if told is None else replace(told, added={1: np.append(late, told.added[1])})

    monkeypatch.setattr(store.records, "changes", changes)
    assert len(store.candidates({1: np.zeros((1, DIM), np.float32)}, 100)[0]) == 47
    for both in (store, expected):
        both.put(batch([99]), under=CONFIG)
    agree(store, expected)
    store.close()


def test_options_do_not_stick(tmp_path):
    """An index built with other options is built anew where they matter."""
    filled(tmp_path, 300, index="hnsw", m=8)[0].close()
    for options in ({"index": "hnsw", "m": 12}, {"index": "hnsw", "storage": "float32"}, {"index": "flat"}):
        store = connect(tmp_path, **options)
        store.candidates({1: np.zeros((1, DIM), np.float32)}, 3)
        assert store.index.stats()["partitions"][1]["index"] == options["index"]
        store.close()


@pytest.mark.parametrize("dim", [16, 20, 250])
@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_bytes_are_filled_up_to_sixteens(dim, kind):
    """Zeros change no product; without them FAISS compares one coordinate after the other."""
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((n, dim)).astype(np.float32) for n in (2_000, 20))
    options = FaissOptions(index=kind, ef_search=400, nprobe=1000)
    index = AnnIndex.build(kind, dim, options, vectors, len(vectors))
    index.add(vectors)
    assert index.dim == AnnIndex.width(dim, "sq8") == -(-dim // 16) * 16
    labels, products = index.search(queries, 10, options, None, len(vectors))
    truth = queries @ vectors.T
    best = np.argsort(-truth, axis=1)[:, :10]
    assert np.mean([len(set(a) & set(b)) for a, b in zip(labels, best, strict=True)]) > 8.5
    np.testing.assert_allclose(products, np.take_along_axis(truth, labels, axis=1), atol=0.02 * np.abs(truth).max())
    again = AnnIndex.read(io.BytesIO(b"".join(written(index))).read, kind, "sq8", options.m)
    np.testing.assert_array_equal(again.search(queries, 10, options, None, len(vectors))[0], labels)


@pytest.mark.parametrize("dim", [16, 17])
def test_product_quantisers(dim):
    """A byte for two coordinates; what a scan of codes finds first holds what is nearest."""
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((n, dim)).astype(np.float32) for n in (4_000, 20))
    options = FaissOptions(index="ivf", storage="pq", nprobe=1000)
    index = AnnIndex.build("ivf", dim, options, vectors, len(vectors))
    index.add(vectors)
    assert index.dim == AnnIndex.width(dim, "pq") == dim + dim % 2
    assert index.size() == 4_000 * (index.dim // 2 + 8)
    assert len(b"".join(written(index))) < 4_000 * (index.dim // 2 + 8) + 300_000, "codes, and the codebooks"
    labels, _ = index.search(queries, 100, options, None, len(vectors))
    best = np.argsort(-queries @ vectors.T, axis=1)[:, :10]
    assert np.mean([len(set(a) & set(b)) for a, b in zip(labels, best, strict=True)]) > 9.5
    again = AnnIndex.read(io.BytesIO(b"".join(written(index))).read, "ivf", "pq", options.m)
    np.testing.assert_array_equal(again.search(queries, 100, options, None, len(vectors))[0], labels)


def test_product_quantisers_are_for_ivf(tmp_path):
    """As a collection grows: exact, then HNSW over bytes, then IVF over codes; and back from the cache."""
    for again in range(2):
        store = connect(tmp_path, storage="pq", flat_limit=200, ivf_above=600)
        for n, storage in ((150, "float32"), (500, "sq8"), (700, "pq")):
            if not again:
                store.put(batch(range(n)), under=CONFIG)
            store.candidates({1: np.zeros((1, DIM), np.float32)}, 3)
            if not again or n == 700:
                assert store.index.stats()["partitions"][1]["storage"] == storage
        assert store.check() == []
        store.close()


def written(index):
    pieces = []
    index.write(pieces.append)
    return pieces


def test_partitions_searched_together_are_exact_where_they_are_scanned(tmp_path):
    """The nearest of all partitions, each compared with a query of its own."""
    store = connect(tmp_path)
    rng = np.random.default_rng(1)
    truth = []
    probes = {
        partition: rng.standard_normal((3, DIM)).astype(np.float32) for partition in (1, 1 << 32 | 1, 2 << 32 | 1, 7)
    }
    for partition in list(probes)[:3]:
        some = batch(range(100 * len(truth), 100 * len(truth) + 100), partition=partition)
        store.put(some, under=CONFIG)
        truth.append(probes[partition] @ some.index_vectors.T)
    numbers = store.find(tokens(range(300)))
    for limit in (1, 20, 200, 400):
        found = store.candidates(probes, limit)
        products = np.concatenate(truth, axis=1)
        for rows, line in zip(found, products, strict=True):
            assert len(rows) == min(limit, 300)
            wanted = numbers[np.argsort(-line, kind="stable")[:limit]]
            assert len(set(rows.tolist()) & set(wanted.tolist())) >= 0.95 * len(wanted)
    assert [len(rows) for rows in store.candidates({7: probes[7]}, 5)] == [0, 0, 0]
