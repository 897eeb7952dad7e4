"""Vectors that are read where they lie or made as they are read: the same whatever way they are asked for."""

import numpy as np
import pytest

from encvec_store.data import metric
from encvec_store.errors import InputError, ShapeError
from encvec_store.lab.bench.files import open_data
from encvec_store.lab.bench.source import VectorSource, held_out
from encvec_store.lab.bench.synthetic import clustered, iid, named
from encvec_store.lab.bench.truth import Truth
from tests.kits.bench import vectors


@pytest.mark.parametrize("make", [clustered, iid])
def test_a_position_holds_the_same_vector_however_it_is_asked_for(make):
    made = make(20_000, 8, queries=50)
    whole = made.vectors.whole()
    assert whole.shape == (20_000, 8)
    np.testing.assert_array_equal(np.concatenate([part for _, part in made.vectors.slices(3_001)]), whole)
    order = np.array([19_999, 3, 8_192, 3, 8_191])
    np.testing.assert_array_equal(made.vectors.rows(order), whole[order])
    np.testing.assert_array_equal(make(20_000, 8, queries=50).queries, made.queries)
    assert not np.array_equal(make(20_000, 8, queries=50, seed=1).vectors.rows([0]), whole[:1])
    assert len(made.queries) == 50
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)


def test_clustered_queries_have_near_neighbours_that_iid_ones_lack():
    near = {}
    for make in (clustered, iid):
        made = make(10_000, 64, queries=200)
        near[make] = float(np.median((made.queries @ made.vectors.whole().T).max(axis=1)))
    assert near[clustered] > 0.85 > 0.7 > near[iid]


def test_names():
    assert named("banking77") is None
    assert named("iid:500x4:3").name == "iid:500x4:3"
    for wrong in ("iid:5", "clustered:0x4", "iid:axb", "iid:5x4:x"):
        with pytest.raises(InputError):
            named(wrong)


def test_rows_of_a_source():
    array = vectors(50)
    some = VectorSource(array).take(20)
    assert len(some) == 20
    np.testing.assert_array_equal(some.rows([3, 3, 0]), some.whole()[[3, 3, 0]])
    np.testing.assert_array_equal(np.concatenate([part for _, part in some.slices(7)]), some.whole())
    assert VectorSource(array).rows(np.empty(0, np.int64)).shape == (0, 16)
    with pytest.raises(ShapeError):
        VectorSource(array[0])
    kept, asked = held_out(array)
    together = np.concatenate([kept.whole(), asked])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(array, axis=0))
    with pytest.raises(InputError):
        held_out(array[:1])


def test_bvecs_and_their_queries(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (30, 8), np.uint8)
    for name, some in (("tiny_base", rows[:20]), ("tiny_query", rows[20:])):
        heads = np.full((len(some), 1), 8, "<i4").view(np.uint8)
        np.hstack([heads, some]).tofile(tmp_path / f"{name}.bvecs")
    found = open_data(tmp_path / "tiny_base.bvecs")
    assert found.metric == "l2"
    np.testing.assert_array_equal(found.vectors.whole(), rows[:20])
    np.testing.assert_array_equal(found.queries, rows[20:])
    (tmp_path / "bad.bvecs").write_bytes(b"\x09\0\0\0short")
    with pytest.raises(InputError, match="not an bvecs file"):
        open_data(tmp_path / "bad.bvecs")


def test_a_mapped_file_is_not_read_whole(tmp_path):
    np.save(tmp_path / "some.npy", vectors(300).astype(np.float64))
    found = open_data(tmp_path / "some.npy")
    assert isinstance(found.vectors._array, np.memmap)
    assert found.vectors.rows([0]).dtype == np.float32


@pytest.mark.parametrize("name", ["cosine", "l2", "ip"])
def test_truth_over_slices_is_that_of_the_whole(name, monkeypatch):
    stored, queries = vectors(300), vectors(9, seed=1)
    whole = Truth(metric(name), stored, queries, 5)
    monkeypatch.setattr("encvec_store.lab.bench.truth._CHUNK", 17)
    source = VectorSource(stored)
    parts = source.slices
    monkeypatch.setattr(source, "slices", lambda: parts(7))
    sliced = Truth(metric(name), source, queries, 5)
    np.testing.assert_array_equal(sliced.positions, whole.positions)
    np.testing.assert_allclose(sliced.scores, whole.scores, rtol=1e-12)
    assert sliced.found(list(whole.positions)).ratio(5) == (None if name == "ip" else 1)
