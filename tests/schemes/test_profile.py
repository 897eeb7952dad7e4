"""Profiles: what is fitted, the same every time, and samples that nothing good can be fitted on."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encvec_store.data import Centre
from encvec_store.errors import ProfileError
from encvec_store.schemes.profile import LEAST_DIMENSIONS, PER_DIMENSION, Profile, fit, least_records


def points(n, dim, seed=0, decay=0.9):
    """Points of the unit sphere whose variance decays from one direction to the next."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    rows = (rng.standard_normal((n, dim)) * decay ** np.arange(dim) + 0.3) @ turn
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_the_leading_directions():
    """As numpy's covariance and an independent decomposition have them."""
    sample = points(3000, 40)
    profile = fit(sample).profile(20)
    values, vectors = np.linalg.eigh(np.cov(sample.T.astype(np.float64), bias=True))
    np.testing.assert_allclose(profile.eigenvalues, values[::-1][:20], rtol=1e-5)
    overlap = np.abs(np.einsum("ij,ij->j", profile.basis, vectors[:, ::-1][:, :20]))
    np.testing.assert_allclose(overlap, 1, atol=1e-5)
    np.testing.assert_allclose(profile.mean, sample.mean(axis=0, dtype=np.float64), atol=1e-7)
    assert (profile.dim, profile.k, profile.records) == (40, 20, 3000)
    largest = profile.basis[np.abs(profile.basis).argmax(axis=0), np.arange(20)]
    assert (largest > 0).all(), "of an eigenvector's two directions always the same one"


@pytest.mark.parametrize("threads", [1, 4])
def test_the_same_every_time(threads):
    from threadpoolctl import threadpool_limits

    sample = points(5000, 64)
    with threadpool_limits(threads):
        again = fit(sample[::1].copy(order="F")).profile(32)
    assert again.digest == fit(sample).profile(32).digest


@settings(max_examples=30, deadline=None)
@given(
    dim=st.integers(LEAST_DIMENSIONS, 40),
    k=st.integers(LEAST_DIMENSIONS, 40),
    n=st.integers(2, 1200),
    seed=st.integers(0, 99),
)
def test_through_bytes(dim, k, n, seed):
    """Whatever is fitted is finite, and comes back as it was; what cannot be fitted is refused."""
    spectrum = fit(points(n, dim, seed))
    if k > min(dim, spectrum.rank) or n < PER_DIMENSION * k:
        with pytest.raises(ProfileError):
            spectrum.profile(k)
        return
    profile = spectrum.profile(k)
    back = Profile.from_bytes(profile.to_bytes())
    assert back.digest == profile.digest
    for name in ("mean", "basis", "eigenvalues"):
        np.testing.assert_array_equal(getattr(back, name), getattr(profile, name))
    assert (back.records, back.spread) == (n, spectrum.dimensions(0.99))
    assert (profile.eigenvalues > 0).all()
    assert np.isfinite(profile.basis / np.sqrt(profile.eigenvalues)).all()


def test_bytes_of_something_else():
    data = fit(points(500, 20)).profile(16).to_bytes()
    for wrong in (b"", data[:-1], data + b"\0", b"\x02" + data[1:], data[:20]):
        with pytest.raises(ProfileError):
            Profile.from_bytes(wrong)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (np.ones((6000, 32), np.float32), "are all the same"),
        (np.zeros((6000, 32), np.float32), "are all the same"),
        (np.full((6000, 32), np.nan, np.float32), "NaN"),
        (points(1, 32), "at least 2 vectors, got 1"),
        (np.repeat(points(5, 32), 2000, axis=0), "at least 16 directions, and they vary in 4"),
        (points(200, 32), "a profile of 16 dimensions needs at least|at least 16 directions"),
        (points(6000, 8), "at least 16 directions, and they vary in 8"),
        (np.pad(points(6000, 10), ((0, 0), (0, 30))), "at least 16 directions, and they vary in 10"),
    ],
)
def test_samples_without_directions(sample, message):
    with pytest.raises(ProfileError, match=message):
        fit(sample).profile()


def test_constant_columns_take_no_part():
    sample = np.concatenate([points(3000, 32), np.full((3000, 8), 0.25, np.float32)], axis=1)
    spectrum = fit(sample)
    assert spectrum.rank == 32
    np.testing.assert_allclose(spectrum.profile(24).basis[32:], 0, atol=1e-6)


def test_fewer_records_than_dimensions():
    spectrum = fit(points(600, 900, decay=0.999))
    assert spectrum.rank == 599
    assert spectrum.most == spectrum.choose() == 30
    with pytest.raises(ProfileError, match="needs at least 800 vectors, got 600"):
        spectrum.profile(40)


def test_directions_that_hardly_vary_are_floored():
    """Else rounding, or the one record that differs there, would drown all other coordinates."""
    sample = points(4000, 32, decay=0.95)
    sample[:, -1] = 1e-6 * np.arange(4000) % 7
    eigenvalues = fit(sample).profile(32).eigenvalues
    assert eigenvalues.min() >= 0.99e-3 * eigenvalues.mean()


@pytest.mark.parametrize("share", [0.001, 0.01])
def test_planted_outliers_turn_little(share):
    """Points of the sphere are bounded: a few planted ones add a direction, and leave the others where they are."""
    sample = points(8000, 64, decay=0.95)
    before = fit(sample).profile(32)
    planted = sample.copy()
    planted[: int(share * 8000)] = np.eye(1, 64, dtype=np.float32)
    after = fit(planted).profile(33)
    captured = np.linalg.norm(after.basis.T @ before.basis[:, :24], axis=0)
    assert captured.min() > 0.97
    assert after.eigenvalues[0] < before.eigenvalues[0] + 1.2 * share


def test_how_many_dimensions():
    """90% of the variance, but no fewer than 250, and no more than there are or the sample is good for."""
    broad, narrow = fit(points(6000, 384, decay=0.99)), fit(points(6000, 384, decay=0.95))
    assert (broad.broad, narrow.broad) == (True, False)
    assert broad.dimensions(0.9) < 250 == broad.least == broad.choose()
    assert narrow.dimensions(0.9) < narrow.rank < 250
    assert narrow.least == narrow.choose() == narrow.rank
    assert fit(points(2000, 384, decay=0.99)).choose() == 100
    assert fit(points(6000, 120, decay=1.0)).choose() == 120, "all there are, where there are fewer than 250"
    assert (least_records(None), least_records(100), least_records(500)) == (5000, 5000, 10_000)


def test_a_centre_comes_back():
    centre = Centre(np.arange(1, 39, dtype=np.float32), 2.5)
    profile = replace(fit(points(800, 40)).profile(20), centre=centre)
    back = Profile.from_bytes(profile.to_bytes())
    assert back.digest == profile.digest != replace(profile, centre=None).digest
    assert back.digest != replace(profile, centre=Centre(centre.point, 2.6)).digest
    np.testing.assert_array_equal(back.centre.point, centre.point)
    assert back.centre.radius == 2.5
    assert Profile.from_bytes(replace(profile, centre=None).to_bytes()).centre is None
    data = profile.to_bytes()
    for wrong in (data[:-1], data + b"x", data[: -8 - 4 * 38], b"\1" + data[1:]):
        with pytest.raises(ProfileError, match="wrong length"):
            Profile.from_bytes(wrong)
