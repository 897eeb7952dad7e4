"""Rotations: orthogonal to float precision, Haar-distributed, full, and one's own key's."""

import numpy as np
import pytest

from encvec_store.crypto import Keystream, Purpose, derive, prf
from encvec_store.schemes.rotation import BLOCK, DENSE, haar, rotation
from tests.kits.stats import ks, normal_cdf

KEY = bytes(range(32))
DENSE_DIMS = [1, 2, 3, 64, 385]
CHAIN_DIMS = [DENSE + 1, 1536]


@pytest.fixture(scope="module")
def matrices():
    """Return a cache of the matrices of KEY: the images of the unit vectors."""
    cache = {}

    def of(dim, key=KEY):
        if (dim, key) not in cache:
            cache[dim, key] = rotation(key, dim).apply(np.eye(dim, dtype=np.float32)).astype(np.float64)
        return cache[dim, key]

    return of


@pytest.mark.parametrize("dim", DENSE_DIMS + CHAIN_DIMS)
def test_orthogonal_to_float_precision(matrices, dim):
    matrix = matrices(dim)
    assert np.abs(matrix @ matrix.T - np.eye(dim)).max() < 5e-7
    assert np.abs(matrix.T @ matrix - np.eye(dim)).max() < 5e-7


@pytest.mark.parametrize("dim", DENSE_DIMS + CHAIN_DIMS)
def test_invert_undoes_apply(dim):
    points = np.random.default_rng(dim).standard_normal((70, dim)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    turn = rotation(KEY, dim)
    before = points.copy()
    assert np.linalg.norm(turn.invert(turn.apply(points)) - points, axis=1).max() < 2e-6
    assert (points == before).all()


@pytest.mark.parametrize("dim", [64, *CHAIN_DIMS])
def test_batches_do_not_show(monkeypatch, dim):
    points = np.random.default_rng(0).standard_normal((20, dim)).astype(np.float32)
    whole = rotation(KEY, dim).apply(points)
    monkeypatch.setattr(prf, "_BATCH_BYTES", 12 * dim)
    assert np.allclose(rotation(KEY, dim).apply(points), whole, atol=1e-4)
    assert rotation(KEY, dim).apply(points[:0]).shape == (0, dim)


@pytest.mark.parametrize("dim", [385, *CHAIN_DIMS])
def test_every_output_depends_on_every_input(matrices, dim):
    """Not one entry is zero, and no row, column or block of a round stands out."""
    entries = matrices(dim) * np.sqrt(dim)
    assert np.abs(entries).max() < 6.5
    # of dim^2 standard normals the smallest is about 1.25 / dim^2: none is far below, none is 0
    assert np.abs(entries).min() > 0
    assert np.mean(np.abs(entries) < 1e-3) < 2 * 8e-4
    count = -(-dim // BLOCK)
    edges = [dim * i // count for i in range(count + 1)]
    energy = np.add.reduceat(np.add.reduceat(entries**2, edges[:-1], axis=0), edges[:-1], axis=1)
    energy /= np.outer(np.diff(edges), np.diff(edges))
    assert np.abs(energy - 1).max() < 0.15


@pytest.mark.parametrize("dim", [385, *CHAIN_DIMS])
def test_entries_are_like_gaussians(matrices, dim):
    entries = matrices(dim) * np.sqrt(dim)
    assert ks(normal_cdf(entries.ravel()[:: 1 + dim**2 // 20_000])) < 1.95
    # E[q^4] d^2 is 3 d / (d + 2) for Haar; blocks and permutations leave no more than noise on top
    assert abs((entries**4).mean() - 3 * dim / (dim + 2)) < 0.1


def test_haar_moments():
    """Over the orthogonal group E[trace] = 0, E[trace^2] = 1, E[trace^4] = 3, and det is a fair coin."""
    n = 1000
    draws = [haar(Keystream(KEY), 5, i) for i in range(n)]
    traces = np.array([np.trace(q) for q in draws])
    signs = np.array([np.linalg.det(q) for q in draws])
    assert np.allclose(np.abs(signs), 1)
    assert abs(signs.mean()) < 4 / np.sqrt(n)
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert abs((traces**power).mean() - moment) < 4 * (traces**power).std() / np.sqrt(n)


def test_haar_columns_are_alike():
    """Without the sign correction the diagonal has a bias: the test that fails on a bare QR."""
    n = 1500
    draws = np.array([haar(Keystream(KEY), 3, i) for i in range(n)])
    assert np.abs(draws.mean(axis=0)).max() < 4.5 / np.sqrt(3 * n)
    # on the sphere of 3 dimensions every coordinate is uniform in (-1, 1)
    for row in range(3):
        for column in range(3):
            assert ks((draws[:, row, column] + 1) / 2) < 2.2


@pytest.mark.parametrize("dim", [64, CHAIN_DIMS[0]])
def test_other_keys_are_unrelated(matrices, dim):
    """Root, tenant and collection each: trace(A^T B) is about standard normal for unrelated matrices."""
    root = bytes(32)
    keys = [
        derive(root, Purpose.ROTATION, "acme", "faces"),
        derive(root, Purpose.ROTATION, "acme", "texts"),
        derive(root, Purpose.ROTATION, "emca", "faces"),
        derive(bytes(31) + b"\x01", Purpose.ROTATION, "acme", "faces"),
    ]
    drawn = [matrices(dim, key) for key in keys]
    for i, one in enumerate(drawn):
        for two in drawn[:i]:
            assert abs(np.sum(one * two)) < 5
            assert np.abs(one - two).max() > 1 / np.sqrt(dim)


def test_same_key_same_matrix(matrices):
    for dim in (64, CHAIN_DIMS[0]):
        again = rotation(KEY, dim).apply(np.eye(dim, dtype=np.float32))
        assert (again == matrices(dim).astype(np.float32)).all()


def test_dims_are_unrelated(matrices):
    one, two = matrices(64), matrices(65)[:64, :64]
    assert abs(np.sum(one * two)) < 5
