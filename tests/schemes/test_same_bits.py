"""One record, one ciphertext: the same bits alone and in every batch, beside whatever else, whichever sign zeros have.

The old code failed here: BLAS rounds a row by the shape of the product and by its place in it, a batch with one odd
length was normalised another way, and nonces were made of what came of that.
"""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from encvec_store.data import Precision, metric
from encvec_store.schemes.exact import Exact, grid
from encvec_store.schemes.noise import canonical
from encvec_store.schemes.profile import Profile
from encvec_store.schemes.sap import Sap
from encvec_store.schemes.sealed import Sealed
from encvec_store.schemes.sketch import Sketch
from tests.schemes.test_sap import CONTEXT, ROOT, tokens

DIMS = [2, 3, 8, 16, 63, 384, 768, 1100]
BATCHES = [1, 2, 3, 17, 200, 257]
KINDS = ["sap", "sketch", "sap in cells", "sketch in cells"]


def keyed(kind, dim):
    cells = 3 if kind.endswith("cells") else 1
    if kind.startswith("sap"):
        return Sap(2.0, cells=cells).keyed(ROOT, CONTEXT, dim)
    k = max(2, dim * 2 // 3)
    rng = np.random.default_rng(dim)
    basis = np.linalg.qr(rng.standard_normal((dim, k)))[0].astype(np.float32)
    spread = (0.9 ** np.arange(k)).clip(1e-3).astype(np.float32) / dim
    profile = Profile(rng.standard_normal(dim).astype(np.float32) * 0.01, basis, spread, 5000, k)
    return Sketch(beta=5.0, cells=cells).fitted(profile).keyed(ROOT, CONTEXT, dim, profile)


def signed(record, rng):
    """The record with zeros of random signs."""
    return np.where(record == 0, rng.choice([-0.0, 0.0], record.shape), record).astype(np.float32)


def batches(record, seed=0):
    """Yield (batch, place) of 200 and more writes of a record, alone, among others, beside the odd."""
    rng = np.random.default_rng(seed)
    for n in BATCHES:
        for _ in range(34):
            batch = rng.standard_normal((n, len(record))).astype(np.float32)
            place = int(rng.integers(n))
            for length in (1e-30, 1e30, 1e-44):
                batch[rng.integers(n)] = np.eye(1, len(record)) * np.float32(length)
            batch[place] = signed(record, rng)
            yield batch, place


def a_record(dim):
    record = np.random.default_rng(dim).standard_normal(dim).astype(np.float32)
    record[1::3] = 0
    return record


def written(cipher, measure, batch, place, names, precision=Precision.SINGLE, max_norm=None):
    kept = precision.kept(batch)
    points = measure.lift(kept.astype(np.float32, copy=False), max_norm)
    mine = names[: len(batch)].copy()
    mine[place] = names[-1]
    vectors, nonces = cipher.encrypt(points, mine, kept)
    return points[place].tobytes(), vectors[place].tobytes(), nonces[place].tobytes()


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_record_one_ciphertext(kind, dim):
    cipher, names = keyed(kind, dim), tokens(max(BATCHES) + 1)
    seen = {written(cipher, metric("cosine"), batch, place, names) for batch, place in batches(a_record(dim))}
    assert len(seen) == 1
    other = signed(a_record(dim), np.random.default_rng(1))
    other[0] = np.nextafter(other[0], np.float32(9))
    changed = written(cipher, metric("cosine"), other[None], 0, names)
    assert changed[2] != next(iter(seen))[2], "the test can tell"


@pytest.mark.parametrize("name", ["l2", "ip"])
@pytest.mark.parametrize("dim", [2, 63, 384])
def test_under_every_metric(name, dim):
    cipher, names = keyed("sap", dim + metric(name).extra), tokens(max(BATCHES) + 1)
    seen = {
        written(cipher, metric(name), batch, place, names, max_norm=1e31) for batch, place in batches(a_record(dim))
    }
    assert len(seen) == 1


@pytest.mark.parametrize("dim", [3, 63, 384])
def test_in_half_precision(dim):
    cipher, names, rng = keyed("sketch", dim), tokens(max(BATCHES) + 1), np.random.default_rng(0)
    seen = set()
    for n in BATCHES:
        batch = rng.standard_normal((n, dim)).astype(np.float32)
        batch[-1] = signed(a_record(dim), rng)
        seen.add(written(cipher, metric("cosine"), batch, n - 1, names, Precision.HALF))
    assert len(seen) == 1


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dim", [100, 250, 1000])
def test_whatever_the_threads(dim, threads):
    """BLAS splits a product otherwise on other numbers of threads; a background job may limit them any time."""
    points = metric("cosine").lift(np.random.default_rng(0).standard_normal((600, dim)).astype(np.float32))
    names = tokens(600)
    with threadpool_limits(threads, user_api="blas"):
        some = keyed("sap", dim).encrypt(points, names, points)[0]
    whole = keyed("sap", dim).encrypt(points, names, points)[0]
    np.testing.assert_array_equal(some, whole)


def test_exact_products_are_exact():
    """Sums in any order are the sum: of reversed coordinates, in integers, and near what float64 makes of them."""
    rng = np.random.default_rng(0)
    for dim, k in ((2, 2), (5, 3), (300, 40), (1024, 1024)):
        matrix = grid(np.linalg.qr(rng.standard_normal((dim, dim)))[0][:, :k] * rng.choice([1e-3, 1.0, 300.0]))
        points = metric("cosine").lift(rng.standard_normal((50, dim)).astype(np.float32))
        found = Exact(matrix)(points)
        np.testing.assert_array_equal(found, Exact(matrix[::-1])(points[:, ::-1]))
        np.testing.assert_array_equal(found, Exact(matrix, keep=False)(points))
        near = points.astype(np.float64) @ matrix.astype(np.float64)
        assert np.abs(found - near).max() < 3e-7 * np.linalg.norm(matrix, axis=0).max()
        np.testing.assert_array_equal(grid(matrix), matrix)
        np.testing.assert_array_equal(Exact(grid(0 * matrix))(points), np.zeros((50, k)))


def test_nonces_are_of_the_vector_as_kept():
    """Of its bytes, little-endian, whatever lies in memory."""
    row = np.array([[1.5, -0.0, 0.0, -2.0]])
    for kind, size in (("f4", 4), ("f2", 2)):
        expected = np.array([[1.5, 0, 0, -2]], f"<{kind}").tobytes()
        for layout in (row.astype(f"<{kind}"), row.astype(f">{kind}"), np.repeat(row, 2, axis=1).astype(kind)[:, ::2]):
            found = canonical(layout)
            assert (found.shape, found.dtype, found.tobytes()) == ((1, 4 * size), np.uint8, expected)
    assert row[0, 1].tobytes()[-1] == 0x80, "the caller's stays as it is"


def test_sealed_is_random_at_every_write():
    cipher, rows = Sealed().keyed(ROOT, CONTEXT, 4), np.ones((50, 4), np.float32)
    nonces = np.concatenate([cipher.encrypt(rows, tokens(50), rows)[1] for _ in range(2)])
    assert len(np.unique(nonces, axis=0)) == 100
