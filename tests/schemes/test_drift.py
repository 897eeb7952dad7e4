"""Drift: what shows of it in ciphertexts, and that chance alone raises no alarm."""

import numpy as np
import pytest

from encvec_store.schemes.drift import PER_DIMENSION, Drift
from encvec_store.schemes.profile import Profile
from encvec_store.schemes.sap import Sap
from encvec_store.schemes.sketch import Sketch

K, N = 24, 5000
PROFILE = Profile(np.zeros(K, np.float32), np.eye(K, dtype=np.float32), np.ones(K, np.float32), N, K)


def ciphertexts(n, variances, mean=0.0, beta=1.8, seed=0):
    """As `sketch` makes them of whitened data whose variances are no longer all 1."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, K)) * np.sqrt(variances)
    z[:, 1] += mean * np.sqrt(K)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    ball = rng.standard_normal((n, K))
    ball *= (rng.random(n) ** (1 / K) / np.linalg.norm(ball, axis=1))[:, None]
    c = z + beta / 4 * ball
    return (c / np.linalg.norm(c, axis=1, keepdims=True)).astype(np.float32)


def judged(rows, beta=1.8, batch=100, profile=PROFILE):
    drift = Drift()
    scheme = Sketch(beta=beta).fitted(profile)
    for start in range(0, len(rows), batch):
        drift.add(scheme, profile, 1, rows[start : start + batch])
    return drift.verdict


@pytest.mark.parametrize("beta", [0.0, 1.8, 3.6])
@pytest.mark.parametrize("largest", [1.0, 3.0, 6.0])
def test_the_eigenvalue_shows_through_the_noise(beta, largest):
    variances = np.ones(K)
    variances[3] = largest
    verdict = judged(ciphertexts(40_000, variances, beta=beta), beta, batch=40_000)
    assert verdict.records == 40_000
    clear = ciphertexts(40_000, variances, beta=0.0)
    expected = K * np.linalg.eigvalsh(np.cov(clear.T))[-1]
    assert expected == pytest.approx(largest, rel=0.4), "the sphere evens out a little"
    assert verdict.largest == pytest.approx(expected, rel=0.05)
    assert verdict.stale is (largest > 2)


@pytest.mark.parametrize("mean", [0.0, 0.05, 0.3])
def test_the_mean_shows(mean):
    verdict = judged(ciphertexts(40_000, np.ones(K), mean), batch=40_000)
    assert verdict.mean == pytest.approx(mean, abs=0.02)
    assert verdict.stale is (mean > 0.1)


@pytest.mark.parametrize("fitted", [PER_DIMENSION * K, 5000])
def test_chance_raises_no_alarm(fitted):
    """A profile of few records errs by itself, and so does a covariance of few."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        errors = np.linalg.eigvalsh(np.cov(rng.standard_normal((fitted, K)).T))
        few = Profile(PROFILE.mean, PROFILE.basis, PROFILE.eigenvalues, fitted, K)
        verdict = judged(ciphertexts(PER_DIMENSION * K, 1 / errors, seed=seed), profile=few)
        assert not verdict.stale, verdict


def test_a_mean_of_few_raises_no_alarm():
    """Nor does the mean: of 160 vectors of 8 dimensions and of a profile of 300 records it is often above .1."""
    k, lengths = 8, []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        sample, rows = rng.standard_normal((300, k)), rng.standard_normal((PER_DIMENSION * k, k))
        rows -= sample.mean(axis=0)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        few = Profile(np.zeros(k, np.float32), np.eye(k, dtype=np.float32), np.ones(k, np.float32), 300, k)
        verdict = judged(rows.astype(np.float32), beta=0.0, profile=few)
        lengths.append(verdict.mean)
        assert not verdict.stale, verdict
    assert sum(length > 0.1 for length in lengths) > 20
    assert verdict.mean_limit < 0.2, "a limit that says something"


def test_it_is_told_once_a_profile(caplog):
    """Data written in an order of its own would fill the log: every few thousand records are unlike those fitted on."""
    rows, drift = ciphertexts(PER_DIMENSION * K, np.ones(K), mean=0.5), Drift()
    another = Profile(PROFILE.mean + 1, PROFILE.basis, PROFILE.eigenvalues, N, K)
    for profile, times in ((PROFILE, 1), (another, 2), (PROFILE, 3)):
        for _ in range(3):
            drift.add(Sketch().fitted(profile), profile, 1, rows)
            assert drift.verdict.stale
        assert [record.message.count("no longer fits") for record in caplog.records] == [1] * times


def test_only_sketches_are_watched_and_only_enough_of_one_key():
    rows, drift = ciphertexts(PER_DIMENSION * K, np.ones(K)), Drift()
    scheme = Sketch().fitted(PROFILE)
    drift.add(Sap(), None, 1, rows)
    drift.add(Sketch(), None, 1, rows[:, :0])
    drift.add(scheme, PROFILE, 1, rows[:-1])
    assert drift.verdict is None
    drift.add(scheme, PROFILE, 2, rows[:-1])
    drift.add(scheme, PROFILE, 1, rows[:-1])
    assert drift.verdict is None, "another key version has another rotation"
    drift.add(scheme, PROFILE, 1, rows[-1:])
    assert drift.verdict.records == len(rows)
