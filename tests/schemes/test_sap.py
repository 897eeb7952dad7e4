"""The scheme `sap`: distance comparison, noise that repeats only where it must, parameters."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encvec_store.crypto import Pmac
from encvec_store.errors import SchemeError
from encvec_store.schemes import SCHEMES, scheme
from encvec_store.schemes.rotation import DENSE
from encvec_store.schemes.sap import Sap
from encvec_store.schemes.sealed import Sealed
from tests.kits.stats import ks

ROOT = bytes(range(32))
CONTEXT = ("acme", "faces", bytes(range(16)))


def keyed(dim, beta=2.0, query_beta=0.0, root=ROOT, context=CONTEXT):
    return Sap(beta, query_beta).keyed(root, context, dim)


def encrypt(cipher, points, names):
    """Encrypt records whose vectors are kept as the points they are lifted to."""
    return cipher.encrypt(points, names, points)


def tokens(n, first=0):
    return Pmac(bytes(32)).tags_of([str(first + i).encode() for i in range(n)])


def unit(n, dim, seed=0):
    points = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def noise(cipher, names, dim):
    """The noise alone: what the origin is encrypted to."""
    return encrypt(cipher, np.zeros((len(names), dim), np.float32), names)[0]


def chord(lengths, turn):
    """Points of the unit circle `lengths` away from the point at angle `turn`."""
    angle = turn + 2 * np.arcsin(lengths / 2)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def order_lost(beta, used, near, turn, n=500):
    """Share of triples, a hair beyond `beta` apart, whose order the noise of beta `used` turns round."""
    near = np.full(n, near * (2 - beta))
    sides = [np.zeros(n), near, -(near + beta * 1.001)]
    cipher = keyed(2, used)
    first, second, third = (
        encrypt(cipher, chord(np.clip(side, -2, 2), turn), tokens(n, i * n))[0].astype(np.float64)
        for i, side in enumerate(sides)
    )
    return np.mean(np.linalg.norm(first - second, axis=1) >= np.linalg.norm(first - third, axis=1))


@settings(max_examples=40)
@given(beta=st.floats(0.05, 1.5), near=st.floats(0.0, 0.99), turn=st.floats(0, 6.3))
def test_distance_comparison_is_preserved(beta, near, turn):
    """|m1 - m2| < |m1 - m3| - beta implies |c1 - c2| < |c1 - c3|, with noise on all three."""
    assert order_lost(beta, beta, near, turn) == 0


def test_distance_comparison_needs_its_beta():
    """The property above bites: with twice the noise of beta its cases do fail."""
    assert order_lost(0.5, 1.0, 0.3, 1.0) > 0.005


@pytest.mark.parametrize("dim", [3, 64, DENSE + 5])
def test_distance_comparison_in_more_dimensions(dim):
    points = unit(60, dim)
    points[1::2] = points[::2] + 0.2 * unit(30, dim, 1)  # pairs close to each other
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    encrypted = encrypt(keyed(dim, 0.6), points, tokens(60))[0]

    def distances(rows):
        return np.linalg.norm(rows[:, None].astype(np.float64) - rows[None], axis=2)

    plain, cipher = distances(points), distances(encrypted)
    must = plain[:, :, None] < plain[:, None, :] - 0.6  # i: j is nearer than k by more than beta
    assert must.mean() > 0.01
    assert (cipher[:, :, None] < cipher[:, None, :])[must].all()


@pytest.mark.parametrize("dim", [16, 65, DENSE + 1])
def test_same_upsert_same_ciphertext(dim):
    points, names = unit(40, dim), tokens(40)
    one, nonces = encrypt(keyed(dim), points, names)
    two, again = encrypt(keyed(dim), points, names)
    assert (one == two).all()
    assert (nonces == again).all()
    order = np.random.default_rng(0).permutation(40)[:7]  # alone or among others, whatever the place
    three, others = encrypt(keyed(dim), points[order], names[order])
    assert (others == nonces[order]).all()
    assert (three == one[order]).all()


def correlation(one, two):
    return np.corrcoef(one.ravel(), two.ravel())[0, 1]


def test_anything_else_gives_independent_noise():
    """Another id, vector (by one unit in the last place), beta, tenant, collection, incarnation, key."""
    dim, n = 64, 500
    points, names = unit(n, dim), tokens(n)
    limit = 4.5 / math.sqrt(n * dim)
    base = keyed(dim)
    rotated = keyed(dim)._rotation.apply(points) * np.float32(base._scale)
    drawn = encrypt(base, points, names)[0] - rotated
    nudged = points.copy()
    nudged[:, 5] = np.nextafter(nudged[:, 5], np.float32(2))
    assert abs(correlation(drawn, encrypt(base, nudged, names)[0] - rotated)) < limit
    assert abs(correlation(drawn, encrypt(base, points, tokens(n, n))[0] - rotated)) < limit
    pure = noise(base, names, dim)
    others = [
        keyed(dim, beta=2.5),
        keyed(dim, beta=math.nextafter(2.0, 3)),
        keyed(dim, context=("emca", *CONTEXT[1:])),
        keyed(dim, context=("acme", "texts", CONTEXT[2])),
        keyed(dim, context=("acme-faces", "", CONTEXT[2])),
        keyed(dim, context=(*CONTEXT[:2], bytes(16))),
        keyed(dim, root=bytes(32)),
    ]
    assert correlation(pure, noise(keyed(dim), names, dim)) == pytest.approx(1)
    for other in others:
        assert abs(correlation(pure, noise(other, names, dim))) < limit
        assert not (encrypt(base, points, names)[1] == encrypt(other, points, names)[1]).all(axis=1).any()


def test_noise_on_queries_leaves_what_is_stored_alone():
    """The threat preset may change without encrypting everything anew."""
    points, names = unit(20, 64), tokens(20)
    quiet, noisy = keyed(64), keyed(64, query_beta=1.0)
    assert (encrypt(quiet, points, names)[0] == encrypt(noisy, points, names)[0]).all()
    drawn = [
        cipher.encrypt_query(points) - quiet.encrypt_query(points) for cipher in (noisy, keyed(64, query_beta=2.0))
    ]
    assert abs(correlation(*drawn)) < 4.5 / math.sqrt(20 * 64)


def test_averaging_gains_nothing():
    """PEERS, defect 5: a hundred encryptions of one record are one ciphertext."""
    dim = 128
    point = unit(1, dim)
    cipher = keyed(dim)
    plain = cipher._rotation.apply(point)[0]

    def cosine_of_mean(names):
        mean = np.mean([encrypt(cipher, point, name[None])[0][0] for name in names], axis=0)
        return mean @ plain / np.linalg.norm(mean) / np.linalg.norm(plain)

    same = np.repeat(tokens(1), 100, axis=0)
    assert cosine_of_mean(same) == pytest.approx(cosine_of_mean(same[:1]), abs=1e-6)
    assert cosine_of_mean(same) < 0.95
    assert cosine_of_mean(tokens(100)) > 0.998  # what it would be with fresh noise: the test can tell


def test_averaging_queries_gains_nothing():
    point = unit(1, 64)
    cipher = keyed(64, query_beta=2.0)
    queries = np.concatenate([cipher.encrypt_query(point) for _ in range(10)])
    assert (queries == queries[0]).all()
    assert correlation(queries[0], keyed(64, query_beta=2.0)._rotation.apply(point)) < 0.97


@pytest.mark.parametrize("dim", [2, 7, 384, 385, 1536])
@pytest.mark.parametrize("beta", [0.0, 2.0, 16.0])
def test_decrypt(dim, beta):
    points, names = unit(30, dim), tokens(30)
    cipher = keyed(dim, beta)
    encrypted, nonces = encrypt(cipher, points, names)
    assert encrypted.dtype == np.float32
    before = encrypted.copy()
    opened = cipher.decrypt(encrypted, nonces)
    assert (encrypted == before).all()
    assert np.linalg.norm(opened - points, axis=1).max() < (1e-5 if beta == 16 else 3e-6)
    if beta:
        wrong = cipher.decrypt(encrypted, nonces[::-1].copy())
        assert np.linalg.norm(wrong - points, axis=1).min() > 0.1


@pytest.mark.parametrize("dim", [5, 64])
def test_noise_fills_its_ball(dim):
    cipher = keyed(dim, 2.0)
    radius = np.linalg.norm(noise(cipher, tokens(20_000), dim).astype(np.float64), axis=1) / (cipher._scale / 2)
    assert radius.max() <= 1 + 1e-6
    assert ks(np.minimum(radius, 1) ** dim) < 1.95


def test_queries_meet_records():
    """A query's inner products with records are those of the points, times the scale squared, less the noise."""
    cipher = keyed(64, 0.0)
    points = unit(50, 64)
    scores = cipher.encrypt_query(points[:5]) @ encrypt(cipher, points, tokens(50))[0].T / cipher._scale**2
    assert np.abs(scores - points[:5] @ points.T).max() < 1e-5


def test_scale_is_keyed_and_between_half_and_two():
    scales = [keyed(2, 0.0, root=i.to_bytes(32, "big")) for i in range(1500)]
    lengths = np.array([np.linalg.norm(encrypt(c, unit(1, 2), tokens(1))[0]) for c in scales])
    assert 0.5 * (1 - 1e-6) <= lengths.min() < 0.51
    assert 1.98 < lengths.max() <= 2 * (1 + 1e-6)
    assert ks((np.log2(lengths) + 1) / 2) < 1.95


def test_rows_that_are_not_contiguous():
    points, names = unit(20, 64), tokens(20)
    expected = encrypt(keyed(64), points, names)
    for layout in (np.asfortranarray(points), np.repeat(points, 2, axis=0)[::2]):
        encrypted, nonces = encrypt(keyed(64), layout, names)
        assert (nonces == expected[1]).all()
        assert (encrypted == expected[0]).all()


def test_no_rows():
    encrypted, nonces = encrypt(keyed(8), unit(3, 8)[:0], tokens(0))
    assert (encrypted.shape, nonces.shape) == ((0, 8), (0, 16))
    assert keyed(8).decrypt(encrypted, nonces).shape == (0, 8)
    assert keyed(8, query_beta=1.0).encrypt_query(unit(3, 8)[:0]).shape == (0, 8)


@pytest.mark.parametrize("name", ["beta", "query_beta"])
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, -0.1, 16.1, 1e300, 10**400, True, False, "2", None, b"2", 2j, [2.0]]
)
def test_parameters_refused(name, value):
    with pytest.raises(SchemeError, match=f"{name} must be a number from 0 to 16"):
        Sap(**{name: value})


@pytest.mark.parametrize(("one", "two"), [(2, 2.0), (0, 0.0), (-0.0, 0.0), (np.float64(2), 2.0)])
def test_equal_parameters_equal_keys(one, two):
    assert Sap(one) == Sap(two)
    assert repr(Sap(one).parameters()) == repr(Sap(two).parameters())
    names = tokens(3)
    assert (encrypt(keyed(4, one), unit(3, 4), names)[0] == encrypt(keyed(4, two), unit(3, 4), names)[0]).all()


@pytest.mark.parametrize(
    "spec",
    ["nope", {"name": "nope"}, {}, {"beta": 2.0}, 5, None, {"name": "sap", "gamma": 1}, {"name": "sealed", "x": 1}],
)
def test_unknown_schemes_refused(spec):
    with pytest.raises(SchemeError):
        scheme(spec)


def test_registry():
    assert scheme("sap") == scheme({"name": "sap"}) == scheme(Sap()) == Sap(2.0, 0.0)
    assert scheme({"name": "sap", "beta": 3}) == Sap(3.0)
    assert {name: cls.number for name, cls in SCHEMES.items()} == {
        "sap": 1,
        "sealed": 2,
        "sketch": 3,
    }  # written in records
    assert all(cls.name == name and cls.leakage for name, cls in SCHEMES.items())


def test_sealed_has_no_index_vectors_but_tells_writes_apart():
    cipher = Sealed().keyed(ROOT, CONTEXT, 8)
    points, names = unit(50, 8), tokens(50)
    vectors, nonces = encrypt(cipher, points, names)
    again = encrypt(cipher, points, names)[1]
    assert vectors.shape == cipher.encrypt_query(points).shape == cipher.decrypt(vectors, nonces).shape == (50, 0)
    assert len({row.tobytes() for row in (*nonces, *again)}) == 100
    assert Sealed().index_dim(8) == 0
    assert Sap().index_dim(8) == 8
