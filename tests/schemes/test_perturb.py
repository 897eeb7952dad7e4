"""Ball noise: uniform in length and direction, inside the ball, and the nonce's own."""

import numpy as np
import pytest

from encvec_store.crypto import Keystream, prf
from encvec_store.schemes.perturb import add_ball_noise, ball_noise
from tests.kits.stats import ks

STREAM = Keystream(bytes(range(32)))
DIMS = [1, 2, 3, 8, 64, 65, 385]


def nonces(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 16), np.uint8)


def lengths(noise):
    return np.linalg.norm(noise.astype(np.float64), axis=1)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("radius", [0.125, 0.5, 7.0])
def test_length_is_that_of_a_uniform_point(dim, radius):
    """(r / R)^dim is uniform in (0, 1), and no point lies outside."""
    r = lengths(ball_noise(STREAM, nonces(20_000), radius, dim)) / radius
    assert r.max() <= 1 + 1e-6
    assert ks(np.minimum(r, 1) ** dim) < 1.95


@pytest.mark.parametrize("dim", DIMS[1:])
def test_direction_is_uniform(dim):
    noise = ball_noise(STREAM, nonces(20_000, 1), 1.0, dim).astype(np.float64)
    unit = noise / lengths(noise)[:, None]
    n = len(unit)
    assert np.abs(unit.mean(axis=0)).max() < 4.5 / np.sqrt(n * dim)
    covariance = unit.T @ unit / n * dim
    assert np.abs(covariance - np.eye(dim)).max() < 6.5 / np.sqrt(n)
    along = np.random.default_rng(0).standard_normal(dim)  # a direction that no coordinate is special to
    cosines = unit @ along / np.linalg.norm(along)
    # the length and the direction of a uniform point are independent
    assert abs(np.corrcoef(lengths(noise), cosines)[0, 1]) < 4 / np.sqrt(n)
    # in 2 and 3 dimensions the projection's distribution is known in closed form (arcsine, Archimedes)
    if dim == 2:
        assert ks(np.arcsin(np.clip(cosines, -1, 1)) / np.pi + 0.5) < 1.95
    if dim == 3:
        assert ks((cosines + 1) / 2) < 1.95
    assert abs((cosines**4).mean() - 3 / (dim * (dim + 2))) < 5 * (cosines**4).std() / np.sqrt(n)


@pytest.mark.parametrize("dim", [64, 65])
def test_every_coordinate_is_alike(dim):
    """Cosines, sines and, for odd dim, the pair that gives one coordinate: same distribution."""
    noise = ball_noise(STREAM, nonces(40_000, 2), 1.0, dim).astype(np.float64)
    second, fourth = (noise**2).mean(axis=0), (noise**4).mean(axis=0)
    assert np.abs(second * (dim + 2) - 1).max() < 4.5 * np.sqrt(2 / len(noise))
    assert np.abs(fourth * (dim + 2) * (dim + 4) / 3 - 1).max() < 4.5 * np.sqrt(32 / 3 / len(noise))


def test_nonce_decides():
    drawn = nonces(50)
    first = ball_noise(STREAM, drawn, 1.0, 48)
    assert (ball_noise(STREAM, drawn, 1.0, 48) == first).all()
    order = np.random.default_rng(0).permutation(50)
    assert (ball_noise(STREAM, drawn[order], 1.0, 48) == first[order]).all()
    assert not (ball_noise(Keystream(bytes(32)), drawn, 1.0, 48) == first).any()


def test_nonces_are_uncorrelated():
    """Also those that differ in one bit, or by one in the counter's own bytes."""
    base = nonces(2000, 3)
    for byte, bit in ((0, 1), (7, 128), (8, 1), (13, 4)):
        near = base.copy()
        near[:, byte] ^= bit
        one, two = (ball_noise(STREAM, drawn, 1.0, 64).ravel() for drawn in (base, near))
        assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(one.size)


@pytest.mark.parametrize("dim", [1, 7, 64, 385])
def test_subtracting_undoes_adding(dim):
    points = np.random.default_rng(0).standard_normal((300, dim)).astype(np.float32)
    noisy = points.copy()
    add_ball_noise(STREAM, nonces(300), 0.5, noisy)
    assert not (noisy == points).all(axis=1).any()
    add_ball_noise(STREAM, nonces(300), 0.5, noisy, sign=-1)
    assert np.abs(noisy - points).max() < 1e-6


@pytest.mark.parametrize("dim", [5, 16])
def test_batches_do_not_show(monkeypatch, dim):
    whole = ball_noise(STREAM, nonces(100), 1.0, dim)
    for size in (1, 100, 1000):
        monkeypatch.setattr(prf, "_BATCH_BYTES", size)
        assert np.allclose(ball_noise(STREAM, nonces(100), 1.0, dim), whole, atol=1e-7)


def test_no_rows():
    assert ball_noise(STREAM, nonces(0), 1.0, 4).shape == (0, 4)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_extreme_keystreams_stay_finite(dim):
    """All-zero, all-one and half-way words are legal keystreams."""

    class Fixed(Keystream):
        def __init__(self, word):
            self.word = word

        def batches(self, drawn, n_words):
            yield slice(0, len(drawn)), np.full((len(drawn), n_words), self.word, np.uint32)

    for word in (0, 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1):
        noise = ball_noise(Fixed(word), nonces(1), 1.0, dim)
        assert np.isfinite(noise).all()
        assert lengths(noise)[0] <= 1 + 1e-6
