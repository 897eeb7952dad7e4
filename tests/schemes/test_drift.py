"""Drift: what shows of it in ciphertexts, and that chance alone raises no alarm."""

import numpy as np
import pytest

from encvec_store.schemes.drift import LARGEST, MEAN, PER_DIMENSION, Drift
from encvec_store.schemes.profile import Profile
from encvec_store.schemes.sap import Sap
from encvec_store.schemes.simulation import ball, sketched
from encvec_store.schemes.sketch import Sketch

K, N = 24, 5000
UNDRIFTED = {"largest": 1.6, "mean": 0.05}
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


def judged(rows, beta=1.8, batch=100, profile=PROFILE, seen=UNDRIFTED):
    drift = Drift()
    scheme = Sketch(beta=beta).fitted(profile)
    for start in range(0, len(rows), batch):
        drift.add(scheme, profile, 1, rows[start : start + batch], seen)
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


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


SPECTRUM = (1 + np.arange(K)) ** -0.6
CENTRES = np.random.default_rng(5).standard_normal((200, K))
POPULAR = 1 / (1 + np.arange(200))


def normal(n, rng):
    return unit(rng.standard_normal((n, K)) * SPECTRUM)


def tight_clusters(n, rng):
    return unit(CENTRES[rng.choice(200, n, p=POPULAR / POPULAR.sum())] + 0.02 * rng.standard_normal((n, K)))


def heavy_tails(n, rng):
    return unit(rng.standard_t(2, (n, K)) * SPECTRUM + 0.2)


def verdicts(of, rng, times, then=None, beta=3.6):
    """Fit a profile on points of one distribution; judge further ones, as the index vectors show them."""
    sample = of(N, rng)
    found = Sketch(k=K, beta=beta).fit(sample, N)
    for _ in range(times):
        rows = sketched((then or of)(PER_DIMENSION * K, rng), found.profile)
        rows = unit(rows + np.float32(beta / 4) * ball(rng, *rows.shape))
        yield judged(rows, beta, len(rows), found.profile, found.undrifted)


@pytest.mark.parametrize("of", [normal, tight_clusters, heavy_tails])
def test_exchangeable_data_raises_no_alarm(of):
    """Data of one distribution, whatever it is: in clusters no profile makes it white, and noise adds chance."""
    alarms = [v for seed in range(10) for v in verdicts(of, np.random.default_rng(seed), 40) if v.stale]
    assert len(alarms) <= 1, alarms  # of 400


@pytest.mark.parametrize(("of", "share"), [(normal, 0.25), (heavy_tails, 0.25), (tight_clusters, 1.0)])
def test_real_drift_raises_it(of, share):
    """All of the new records are of another kind, or a quarter of them."""
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((K, K)))[0]

    def others(n, rng):
        rows, new = of(n, rng), rng.random(n) < share
        rows[new] = unit(rows[new] @ turn + 0.5 * turn[0])
        return rows

    for seed in range(3):
        (verdict,) = verdicts(of, np.random.default_rng(seed), 1, others)
        assert verdict.stale, verdict


def test_little_noise_makes_the_limits_tight():
    """Chance errors grow with the noise, and so do the limits."""
    (little,) = verdicts(normal, np.random.default_rng(0), 1, beta=0.5)
    (much,) = verdicts(normal, np.random.default_rng(0), 1, beta=5.0)
    assert LARGEST <= little.largest_limit < 2.4 < much.largest_limit
    assert MEAN <= little.mean_limit < 0.13


def test_it_is_told_once_a_profile(caplog):
    """Data written in an order of its own would fill the log: every few thousand records are unlike those fitted on."""
    rows, drift = ciphertexts(PER_DIMENSION * K, np.ones(K), mean=0.5), Drift()
    another = Profile(PROFILE.mean + 1, PROFILE.basis, PROFILE.eigenvalues, N, K)
    for profile, times in ((PROFILE, 1), (another, 2), (PROFILE, 3)):
        for _ in range(3):
            drift.add(Sketch().fitted(profile), profile, 1, rows, UNDRIFTED)
            assert drift.verdict.stale
        assert [record.message.count("no longer fits") for record in caplog.records] == [1] * times


def test_only_sketches_are_watched_and_only_enough_of_one_key():
    rows, drift = ciphertexts(PER_DIMENSION * K, np.ones(K)), Drift()
    scheme = Sketch().fitted(PROFILE)
    drift.add(Sap(), None, 1, rows, UNDRIFTED)
    drift.add(Sketch(), None, 1, rows[:, :0], UNDRIFTED)
    drift.add(scheme, PROFILE, 1, rows[:-1], UNDRIFTED)
    assert drift.verdict is None
    drift.add(scheme, PROFILE, 2, rows[:-1], UNDRIFTED)
    drift.add(scheme, PROFILE, 1, rows[:-1], UNDRIFTED)
    assert drift.verdict is None, "another key version has another rotation"
    drift.add(scheme, PROFILE, 1, rows[-1:], UNDRIFTED)
    assert drift.verdict.records == len(rows)
