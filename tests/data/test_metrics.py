"""Metrics: exact scores, and a lift whose inner products rank as the metric does, at every length of a float32."""

import numpy as np
import pytest
from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from encvec_store.data.metrics import METRICS, as_array, as_vectors, metric, norms
from encvec_store.errors import MetricError, NonFiniteError, NormError, ShapeError, ZeroVectorError
from tests.kits.foreign import Series

NAMES = sorted(METRICS)
EXTREMES = [1e-43, 1e-40, 1e-38, 1e-30, 1e-19, 1e-10, 1.0, 1e10, 1e18, 1e20, 1e30, 1e38]


def plain_scores(name, query, vectors):
    """The definitions, in double precision."""
    q, x = query.astype(np.float64), vectors.astype(np.float64)
    if name == "l2":
        return np.linalg.norm(x - q, axis=1)
    if name == "ip":
        return x @ q
    return (x @ q) / (np.linalg.norm(x, axis=1) * np.linalg.norm(q))


@st.composite
def problems(draw):
    dim, n = draw(st.integers(1, 6)), draw(st.integers(2, 8))
    floats = st.floats(-1, 1, width=32)
    vectors = draw(hnp.arrays(np.float32, (n, dim), elements=floats))
    query = draw(hnp.arrays(np.float32, dim, elements=floats))
    scale = draw(st.sampled_from([1e-30, 1e-10, 1.0, 1e10, 1e30]))
    spread = draw(st.sampled_from([1.0, 1e-3]))
    room = draw(st.sampled_from([1.0, 1.25, 10.0]))
    vectors = (vectors * np.where(np.arange(n) % 2, spread, 1)[:, None] * scale).astype(np.float32)
    return vectors, (query * scale).astype(np.float32), room


@pytest.mark.parametrize("name", NAMES)
@given(problem=problems())
@settings(max_examples=200)
def test_inner_products_of_lifted_points_rank_as_the_metric(name, problem):
    vectors, query, room = problem
    measure = metric(name)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    assume(name != "cosine" or (lengths.min() > 0 and np.any(query)))
    bound = None if name == "cosine" else float(lengths.max() * room) or 1.0
    measure.check(vectors, bound)
    points, q = measure.lift(vectors, bound), measure.lift_query(query[None], bound)
    assert points.shape == (len(vectors), vectors.shape[1] + measure.extra)
    assert points.dtype == q.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(points.astype(np.float64), axis=1), 1, atol=1e-6)
    assert np.isclose(np.linalg.norm(q.astype(np.float64)), 1, atol=1e-6) or (name == "ip" and not query.any())
    products = points.astype(np.float64) @ q[0].astype(np.float64)
    nearness = measure.order(plain_scores(name, query, vectors))
    # what the products should be, up to one positive factor and a constant
    if name == "l2":
        nearness = nearness**2
    tolerance = 1e-6 * (nearness.max() - nearness.min()) + 4e-6 * _unit_of(name, query, bound)
    event(f"spread: {bool(nearness.max() > nearness.min() + tolerance)}")
    for i in range(len(vectors)):
        for j in range(len(vectors)):
            if nearness[i] < nearness[j] - 4 * tolerance:
                assert products[i] > products[j], (i, j)


def _unit_of(name, query, bound):
    """How much of the metric one unit of inner product is: the rounding of a float32 point counts in it."""
    length = float(np.linalg.norm(query.astype(np.float64)))
    if name == "cosine":
        return 1.0
    if name == "ip":
        return length * bound
    return bound**2 * float(np.hypot(2 * length / bound, 1)) * np.sqrt(2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", EXTREMES)
def test_every_length_of_float32_is_lifted(name, scale):
    rng = np.random.default_rng(0)
    vectors = (rng.uniform(0.25, 1, (20, 5)) * rng.choice([-1, 1], (20, 5)) * scale).astype(np.float32)
    assert np.isfinite(vectors).all()
    measure = metric(name)
    assert (norms(vectors) > 0).all(), "subnormal lengths are lengths"
    bound = float(norms(vectors).max()) if measure.bounded else None
    measure.check(vectors, bound)
    for points in (measure.lift(vectors, bound), measure.lift_query(vectors, bound)):
        np.testing.assert_allclose(np.linalg.norm(points.astype(np.float64), axis=1), 1, atol=1e-6)
    wide = vectors.astype(np.float64)
    np.testing.assert_allclose(norms(vectors), np.sqrt((wide**2).sum(axis=1)), rtol=1e-6)
    np.testing.assert_allclose(measure.scores(vectors[0], vectors), plain_scores(name, vectors[0], vectors), rtol=1e-12)


def test_lengths_of_one_batch_may_differ_by_70_decimal_places():
    vectors = np.diag(np.array([1e-44, 1e-30, 1e-15, 1, 1e15, 1e30, 3e38], np.float32))
    np.testing.assert_allclose(metric("cosine").lift(vectors), np.eye(7), atol=1e-6)
    np.testing.assert_allclose(norms(vectors), np.diagonal(vectors), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@given(problem=problems())
def test_scores_are_the_definitions(name, problem):
    vectors, query, _ = problem
    assume(name != "cosine" or (np.any(query) and (norms(vectors) > 0).all()))
    found = metric(name).scores(query, vectors)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, plain_scores(name, query, vectors), rtol=1e-9, atol=0 if name == "l2" else 1e-70)


def test_scores_leave_the_vectors_alone():
    vectors = np.ones((3, 2), np.float32)
    for name in NAMES:
        metric(name).scores(np.ones(2, np.float32), vectors)
        metric(name).scores(np.ones(2, np.float32), vectors.astype(np.float64))
    assert (vectors == 1).all()


def test_scores_of_doubles_leave_them_alone():
    vectors = np.ones((3, 2))
    metric("l2").scores(np.ones(2, np.float32), vectors)
    assert (vectors == 1).all()


def test_zero_vectors_have_no_cosine():
    vectors = np.array([[1, 0], [0, 0]], np.float32)
    with pytest.raises(ZeroVectorError, match=r"queries\[1\] is the zero vector"):
        metric("cosine").check(vectors, None, "queries")
    for lift in (metric("cosine").lift, metric("cosine").lift_query):
        with pytest.raises(ZeroVectorError, match=r"\[1\] is the zero vector"):
            lift(vectors)


@pytest.mark.parametrize("name", ["l2", "ip"])
def test_zero_vectors_have_a_place_under_the_other_metrics(name):
    vectors = np.array([[1, 0], [0, 0]], np.float32)
    metric(name).check(vectors, 1.0)
    np.testing.assert_allclose(np.linalg.norm(metric(name).lift(vectors, 1.0), axis=1), 1, rtol=1e-6)
    assert np.isfinite(metric(name).lift_query(vectors, 1.0)).all()
    assert np.isfinite(metric(name).scores(vectors[1], vectors)).all()


@pytest.mark.parametrize("name", ["l2", "ip"])
def test_longer_than_max_norm(name):
    vectors = np.array([[1, 0], [0, 7], [3, 4]], np.float32)
    with pytest.raises(NormError, match=r"vectors\[1\] has norm 7, above the collection's max_norm 5. Scale"):
        metric(name).check(vectors, 5.0)
    metric(name).check(vectors, 7.0)
    metric(name).check(vectors, None)
    with pytest.raises(NormError, match="needs max_norm"):
        metric(name).lift(vectors, None)
    with pytest.raises(NormError, match="above the collection's max_norm"):
        metric(name).check(np.full((1, 2), 1e38, np.float32), 1e30)


@pytest.mark.parametrize("name", ["l2", "ip"])
@pytest.mark.parametrize("dim", [3, 384, 2048])
def test_unit_vectors_fit_a_max_norm_of_one(name, dim):
    """Normalised in float32, half of them are longer than 1 by a rounding error."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((500, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    metric(name).check(vectors, 1.0)
    np.testing.assert_allclose(np.linalg.norm(metric(name).lift(vectors, 1.0), axis=1), 1, rtol=1e-6)
    with pytest.raises(NormError):
        metric(name).check(vectors * np.float32(1.001), 1.0)


@pytest.mark.parametrize("name", ["euclid", "", None, 1, "COSINE", ["cosine"], {}])
def test_unknown_metrics(name):
    with pytest.raises(MetricError, match="metric must be one of cosine, l2, ip, got "):
        metric(name)


def test_a_column_of_vectors_is_a_matrix():
    rows = [np.array([1, 2], np.float32), np.array([3, 4], np.float32)]
    for column in (rows, tuple(rows), Series(rows), np.ma.array(rows), Series([[1, 2], [3, 4]])):
        np.testing.assert_array_equal(as_vectors(column, 2), [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("vectors", "error", "message"),
    [
        ([[1, 2], [3]], ShapeError, "rows of equal length"),
        ([["a", "b"]], ShapeError, "expected numbers, got dtype <U1"),
        ([[None, 1]], ShapeError, "expected numbers, got dtype object"),
        ([[1j, 1]], ShapeError, "expected numbers, got dtype complex128"),
        ([[True, False]], ShapeError, "expected numbers, got dtype bool"),
        ([[10**30, 1]], ShapeError, "expected numbers, got dtype object"),
        ([1, 2], ShapeError, r"expected shape \(n, 2\), got \(2,\)"),
        (1, ShapeError, r"expected shape \(n, 2\), got \(\)"),
        (None, ShapeError, "vectors must be an array or a list, got NoneType"),
        (({1.0, 2.0}), ShapeError, "vectors must be an array or a list, got set: give a list"),
        ((row for row in [[1, 2]]), ShapeError, "vectors must be an array or a list, got generator: give a list"),
        (np.ma.array([[1, 2]], mask=[[0, 1]]), ShapeError, "vectors must not have masked values"),
        ([np.ma.array([1, 2], mask=[0, 1])], ShapeError, "vectors must not have masked values"),
        (Series([np.ma.array([1, 2], mask=[0, 1])]), ShapeError, "vectors must not have masked values"),
        (Series([[1, 2], [3]]), ShapeError, "vectors must have rows of equal length"),
        (Series([[1, 2], None]), ShapeError, "vectors must have rows of equal length"),
        ("ab", ShapeError, "expected numbers, got dtype"),
        ([[1, 2, 3]], ShapeError, r"expected shape \(n, 2\), got \(1, 3\)"),
        ([[[1, 2]]], ShapeError, r"expected shape \(n, 2\), got \(1, 1, 2\)"),
        ([[]], ShapeError, r"got \(1, 0\)"),
        (np.empty((0, 3)), ShapeError, r"got \(0, 3\)"),
        ([[1, 2], [np.nan, 1]], NonFiniteError, r"vectors\[1\] holds NaN or infinity"),
        ([[1, 2], [np.inf, -np.inf]], NonFiniteError, r"vectors\[1\] holds"),
        ([[1, 2], [3, -np.inf]], NonFiniteError, r"vectors\[1\] holds"),
        ([[1, 2], [3, 1e39]], NonFiniteError, r"vectors\[1\] .*overflows float32"),
    ],
)
def test_what_is_no_matrix_of_numbers(vectors, error, message):
    with pytest.raises(error, match=message):
        as_vectors(vectors, 2)


@pytest.mark.parametrize(
    "vectors",
    [
        [[1, 2], [3, 4]],
        ((1, 2), (3, 4)),
        np.array([[1, 2], [3, 4]], np.float16),
        np.array([[1, 2], [3, 4]], ">f8"),
        np.array([[1, 3], [2, 4]], np.uint8).T,
        np.array([[1, 0, 2], [3, 0, 4]], np.float32)[:, ::2],
        [np.array([1, 2]), np.array([3.0, 4.0])],
    ],
    ids=lambda v: type(v).__name__,
)
def test_matrices_of_every_kind(vectors):
    array = as_vectors(vectors, 2)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, [[1, 2], [3, 4]])


@pytest.mark.parametrize("empty", [[], (), np.empty((0, 2)), np.empty(0)])
def test_no_vectors_are_a_matrix_of_none(empty):
    assert as_vectors(empty, 2).shape == (0, 2)


@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(width=32)))
@example(np.full((3, 4), 3e38, np.float32))
@example(np.array([[3e38, 3e38, -3e38, -3e38]] * 3, np.float32))
def test_finite_means_every_coordinate(vectors):
    """The check sums rows first: neither an overflowing sum nor cancelling infinities may fool it."""
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        with pytest.raises(NonFiniteError, match=rf"vectors\[{bad[0]}\]"):
            as_vectors(vectors, 4)
    else:
        np.testing.assert_array_equal(as_vectors(vectors, 4), vectors)


def rescaled(vectors, exponents):
    """Vectors at very different lengths, some of whose products leave float32's range."""
    return vectors * (10.0 ** np.asarray(exponents, np.float64)[:, None]).astype(np.float32)


@pytest.mark.parametrize("name", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("exponents", [(0, 0), (-3, 3), (-17, -14), (14, 17), (-22, -18)])
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(1, 300), dim=st.sampled_from([1, 2, 48, 768]), k=st.integers(1, 20)
)
def test_contenders_hold_the_nearest(name, exponents, seed, n, dim, k):
    """The k nearest by exact scores are among them, near ties and exact ones too, and few others are."""
    rng = np.random.default_rng(seed)
    query = rng.standard_normal(dim).astype(np.float32)
    near = query + rng.standard_normal((n, dim)).astype(np.float32) * 10.0 ** rng.integers(-7, 1)
    vectors = rescaled(near.astype(np.float32), rng.uniform(*exponents, n))
    vectors[rng.integers(0, n, n // 3)] = vectors[0]
    (query,) = rescaled(query[None], [exponents[0]])
    vectors, measure = vectors.astype(np.float32), metric(name)
    found = measure.contenders(query, vectors, k)
    assert (np.diff(found) > 0).all()
    with np.errstate(all="ignore"):
        order = measure.order(plain_scores(name, query, vectors))
    kth = np.sort(order)[min(k, n) - 1]
    assert set(np.flatnonzero(order < kth)) <= set(found)
    assert (order[found] <= kth).sum() >= min(k, n)


def test_contenders_are_few():
    vectors = np.random.default_rng(0).standard_normal((500, 384)).astype(np.float32)
    for name in ("cosine", "ip", "l2"):
        assert 10 <= len(metric(name).contenders(vectors[3] + vectors[4], vectors, 10)) <= 12


class Loud:
    """An array whose own conversion names a value."""

    def __array__(self, *_args, **_more):
        raise ValueError("cannot convert .71828 of 'a secret'")


@pytest.mark.parametrize("given", [Loud(), [Loud()], Series([Loud()])])
def test_an_error_shows_no_value(given):
    with pytest.raises(ShapeError) as caught:
        as_array(given, "vectors")
    assert str(caught.value) == "vectors must have rows of equal length"
