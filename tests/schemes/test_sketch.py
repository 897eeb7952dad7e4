"""The scheme `sketch`: what is left of the data, noise that repeats only where it must, queries, parameters."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encvec_store.errors import ProfileError, SchemeError
from encvec_store.schemes import scheme
from encvec_store.schemes.perturb import ball_noise
from encvec_store.schemes.profile import fit
from encvec_store.schemes.sketch import FLOOR, NARROW_FLOOR, THREATS, Sketch
from tests.kits.stats import ks
from tests.schemes.test_profile import points
from tests.schemes.test_sap import CONTEXT, ROOT, correlation, encrypt, tokens

DIM, K = 48, 24
SAMPLE = points(4000, DIM, decay=0.95)
PROFILE = fit(SAMPLE).profile(K)


def keyed(beta=2.0, root=ROOT, context=CONTEXT, profile=PROFILE, **given):
    fitted = Sketch(beta=beta, **given).fitted(profile)
    return fitted.keyed(root, context, profile.dim, profile)


def whitened(rows, profile=PROFILE, gamma=-0.5):
    """The sketch by the book, in double precision and without a key."""
    w = (rows.astype(np.float64) - profile.mean) @ profile.basis * profile.eigenvalues.astype(np.float64) ** gamma
    return w / np.linalg.norm(w, axis=1, keepdims=True)


def test_a_rotation_of_the_whitened_sketch():
    """Without noise all inner products are those of the sketches, and nothing else is left."""
    encrypted = encrypt(keyed(0.0), SAMPLE[:300], tokens(300))[0]
    assert encrypted.shape == (300, K)
    expected = whitened(SAMPLE[:300])
    np.testing.assert_allclose(encrypted @ encrypted.T, expected @ expected.T, atol=2e-5)
    turn = np.linalg.lstsq(expected, encrypted, rcond=None)[0]
    np.testing.assert_allclose(turn @ turn.T, np.eye(K), atol=1e-4)
    assert np.abs(turn).max() < 0.95, "and it is no permutation"


@pytest.mark.parametrize("gamma", [-0.5, -0.25, 0.0, 0.5])
def test_queries_meet_records(gamma):
    """Query and record turn by the same rotation, whatever the exponent; records don't depend on it."""
    cipher = keyed(0.0, gamma=gamma)
    names = tokens(200)
    records, queries = encrypt(cipher, SAMPLE[:200], names)[0], cipher.encrypt_query(SAMPLE[200:240])
    expected = whitened(SAMPLE[200:240], gamma=gamma) @ whitened(SAMPLE[:200]).T
    np.testing.assert_allclose(queries @ records.T, expected, atol=2e-5)
    np.testing.assert_array_equal(encrypt(keyed(0.0), SAMPLE[:200], names)[0], records)


@pytest.mark.parametrize("beta", [0.0, 1.8, 2.5, 6.0])
def test_every_ciphertext_has_length_one(beta):
    """So inner product and L2 rank alike, and lengths tell nothing."""
    encrypted = encrypt(keyed(beta), SAMPLE, tokens(len(SAMPLE)))[0]
    np.testing.assert_allclose(np.linalg.norm(encrypted.astype(np.float64), axis=1), 1, atol=1e-6)
    queries = keyed(beta, query_beta=1.8).encrypt_query(SAMPLE[:100])
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)


def test_no_direction_stands_out():
    """What alignment feeds on: the mean, and variances that differ. The plaintext has both."""
    encrypted = encrypt(keyed(1.8), SAMPLE, tokens(len(SAMPLE)))[0].astype(np.float64)

    def largest(rows):
        return np.linalg.eigvalsh(np.cov(rows.T))[-1] / np.mean(np.var(rows, axis=0))

    # Marchenko and Pastur: chance alone makes (1 + sqrt(k / n))^2
    assert largest(encrypted) < 1.1 * (1 + math.sqrt(K / len(SAMPLE))) ** 2 < 1.3
    assert largest(SAMPLE) > 4
    assert np.linalg.norm(encrypted.mean(axis=0)) < 0.03 < 0.1 < np.linalg.norm(SAMPLE.mean(axis=0))


def test_noise_is_uniform_in_the_ball():
    """At the centre of the data, where the direction is the nonce's, and around a point."""
    n, beta = 20_000, 2.0
    cipher = keyed(beta)
    one = np.repeat(SAMPLE[:1], n, axis=0)
    encrypted = encrypt(cipher, one, tokens(n))[0].astype(np.float64)
    centre = keyed(0.0, profile=PROFILE)
    assert centre is not cipher
    along = encrypted.mean(axis=0)
    along /= np.linalg.norm(along)
    drawn = ball_noise(cipher.noise.stream, cipher.noise.nonces.tags(tokens(n), one.view(np.uint8)), beta / 4, K)
    undone = (encrypted * np.linalg.norm(along + drawn, axis=1)[:, None] - drawn)[:, :].mean(axis=0)
    np.testing.assert_allclose(undone, along, atol=5e-3)
    # the angle to the true point is that of a uniform point of the ball around it
    cosines = encrypted @ along
    model = np.eye(1, K) + ball_noise(cipher.noise.stream, tokens(n, n), beta / 4, K)
    expected = model[:, 0] / np.linalg.norm(model, axis=1)
    assert abs(cosines.mean() - expected.mean()) < 5 * expected.std() * math.sqrt(2 / n)
    assert cosines.std() == pytest.approx(expected.std(), rel=0.03)
    ranks = np.searchsorted(np.sort(expected), cosines) / n
    assert ks(np.clip(ranks, 1e-9, 1 - 1e-9)) < 1.95 * math.sqrt(2)


def test_same_upsert_same_ciphertext():
    names = tokens(40)
    one, nonces = encrypt(keyed(), SAMPLE[:40], names)
    two, again = encrypt(keyed(), SAMPLE[:40].copy(), names)
    assert (one == two).all()
    assert (nonces == again).all()
    order = np.random.default_rng(0).permutation(40)[:7]
    three, others = encrypt(keyed(), SAMPLE[order], names[order])
    assert (others == nonces[order]).all()
    assert (three == one[order]).all()


def test_anything_else_gives_independent_noise():
    """Another id, vector, beta, tenant, collection, incarnation, key, profile: rotation and noise share nothing."""
    n = 400
    names, rows = tokens(n), SAMPLE[:n]
    limit = 4.5 / math.sqrt(n * K)
    base = keyed()
    clean = encrypt(keyed(0.0), rows, names)[0]
    drawn = ball_noise(base.noise.stream, encrypt(base, rows, names)[1], 0.5, K)
    nudged = rows.copy()
    nudged[:, 5] = np.nextafter(nudged[:, 5], np.float32(2))
    for other, who, what in (
        (base, tokens(n, n), rows),
        (base, names, nudged),
        (keyed(2.5), names, rows),
        (keyed(context=("emca", *CONTEXT[1:])), names, rows),
        (keyed(context=("acme", "texts", CONTEXT[2])), names, rows),
        (keyed(context=(*CONTEXT[:2], bytes(16))), names, rows),
        (keyed(root=bytes(32)), names, rows),
        (keyed(profile=fit(SAMPLE[:3999]).profile(K)), names, rows),
        (keyed(profile=fit(SAMPLE).profile(K - 1)), names, rows),
    ):
        width = min(K, encrypt(other, what, who)[0].shape[1])
        noise = ball_noise(other.noise.stream, encrypt(other, what, who)[1], 0.5, K)
        assert abs(correlation(drawn, noise)) < limit
        if other is not base:
            turned = encrypt(other, what, who)[0][:, :width]
            assert abs(correlation(clean[:, :width], turned)) < 0.2


def test_queries_are_noisy_only_if_asked_and_repeat():
    rows = SAMPLE[:500]
    quiet, noisy = keyed(), keyed(query_beta=1.8)
    assert (noisy.encrypt_query(rows) == keyed(query_beta=1.8).encrypt_query(rows)).all()
    assert not np.allclose(quiet.encrypt_query(rows), noisy.encrypt_query(rows), atol=0.05)
    np.testing.assert_array_equal(encrypt(quiet, rows, tokens(500))[0], encrypt(noisy, rows, tokens(500))[0])
    others = [cipher.encrypt_query(rows) - quiet.encrypt_query(rows) for cipher in (noisy, keyed(query_beta=2.0))]
    assert abs(correlation(*others)) < 0.1


def test_the_centre_of_the_data():
    """A record at the mean has no direction: it gets one from its nonce, and never NaN."""
    rows = np.repeat(PROFILE.mean[None], 50, axis=0)
    for beta in (0.0, 2.0):
        encrypted = encrypt(keyed(beta), rows, tokens(50))[0]
        np.testing.assert_allclose(np.linalg.norm(encrypted, axis=1), 1, atol=1e-5)
        assert np.abs(encrypted @ encrypted.T - np.eye(50)).max() < 0.95, "all of them different ones"
        np.testing.assert_array_equal(encrypted, encrypt(keyed(beta), rows, tokens(50))[0])
    queries = keyed().encrypt_query(rows[:1])
    assert np.linalg.norm(queries) == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(
    beta=st.floats(0, 16),
    gamma=st.floats(-0.5, 0.5),
    query_beta=st.floats(0, 16),
    scale=st.sampled_from([1e-30, 1e-6, 1.0, 1e6]),
    seed=st.integers(0, 1000),
)
def test_always_finite_and_of_length_one(beta, gamma, query_beta, scale, seed):
    rows = np.random.default_rng(seed).standard_normal((5, DIM)).astype(np.float32) * np.float32(scale)
    cipher = keyed(beta, gamma=gamma, query_beta=query_beta)
    for out in (encrypt(cipher, rows, tokens(5))[0], cipher.encrypt_query(rows)):
        np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-4)


def test_nothing_is_nothing():
    cipher = keyed(query_beta=1.0)
    assert encrypt(cipher, SAMPLE[:0], tokens(0))[0].shape == cipher.encrypt_query(SAMPLE[:0]).shape == (0, K)


def test_cannot_be_turned_back():
    with pytest.raises(SchemeError, match="cannot be decrypted"):
        keyed().decrypt(np.zeros((1, K), np.float32), tokens(1))


def test_before_a_profile_nothing_is_indexed():
    cipher = Sketch().keyed(ROOT, CONTEXT, DIM)
    vectors, nonces = encrypt(cipher, SAMPLE[:50], tokens(50))
    assert vectors.shape == cipher.encrypt_query(SAMPLE[:50]).shape == (50, 0)
    assert len({nonce.tobytes() for nonce in nonces}) == 50
    assert (Sketch().index_dim(DIM), Sketch(k=8).index_dim(DIM), Sketch().fitted(PROFILE).index_dim(DIM)) == (0, 0, K)


def test_another_profile_is_refused():
    fitted = Sketch().fitted(PROFILE)
    for wrong in (None, fit(SAMPLE).profile(K - 1), fit(SAMPLE[:3000]).profile(K)):
        with pytest.raises(ProfileError, match="not the one that its settings name"):
            fitted.keyed(ROOT, CONTEXT, DIM, wrong)
    with pytest.raises(ProfileError):
        fitted.keyed(ROOT, CONTEXT, DIM + 1, PROFILE)


def test_parameters():
    assert scheme("sketch") == scheme({"name": "sketch"}) == Sketch() == Sketch(gamma=0.0, query_beta=-0.0)
    assert scheme({"name": "sketch", "threat": "watching-server"}) == Sketch(**THREATS["watching-server"])
    assert Sketch(threat="watching-server", gamma=0.1).query_beta == 1.8
    fitted = Sketch(threat="watching-server").fitted(PROFILE)
    assert (fitted.k, fitted.beta, fitted.gamma, fitted.query_beta) == (K, NARROW_FLOOR, -0.5, 1.8)
    assert scheme({"name": "sketch", **fitted.parameters()}) == fitted
    assert fitted.unfitted() == replace(fitted, profile=None, threat=None)
    assert Sketch().fitted(fit(points(6000, 200, decay=0.995)).profile(100)).beta == FLOOR == 5.0
    assert Sketch().fitted(fit(points(6000, 200, decay=0.95)).profile(100)).beta == NARROW_FLOOR == 3.6


@pytest.mark.parametrize(
    "spec",
    [{"k": 0}, {"k": 2.0}, {"beta": -1}, {"beta": "2"}, {"gamma": -0.51}, {"query_beta": 17}, {"threat": 1}, {"x": 1}],
)
def test_bad_parameters(spec):
    with pytest.raises(SchemeError):
        scheme({"name": "sketch", **spec})
