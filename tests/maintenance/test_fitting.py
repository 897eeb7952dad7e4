"""Fitting: where vectors lie does not matter under l2, and the settings that come of it are those that are read."""

import numpy as np
import pytest

from encvec_store.data import metric
from encvec_store.maintenance.fitting import fitted
from encvec_store.schemes import Sample
from encvec_store.sealing import CollectionConfig

N, DIM = 5_000, 32


def settings(name, max_norm):
    return CollectionConfig.build(
        dim=DIM, metric_name=name, scheme_spec="sketch", fields=None, max_norm=max_norm, oversample=None
    )


def recall(config, vectors, candidates=1_000):
    trial = config.scheme.trial(Sample(config.metric, config.max_norm, vectors, 0, config.centre), config.profile)
    return float(trial.recalls(config.scheme.noise, 10, [candidates]).mean())


def test_a_shift_costs_no_recall_under_l2():
    """Counted from 0, half of the ten nearest of such vectors were lost."""
    around = (0.1 * np.random.default_rng(0).standard_normal((N, DIM))).astype(np.float32)
    shifted = around + np.float32(1)
    here, there = (fitted(settings("l2", 10.0), vectors, N) for vectors in (around, shifted))
    assert there.oversample == here.oversample
    assert recall(there, shifted) == pytest.approx(recall(here, around), abs=0.03)
    assert recall(there, shifted) > 0.8


@pytest.mark.parametrize("name", ["cosine", "ip"])
def test_other_metrics_have_no_centre(name):
    vectors = np.random.default_rng(0).standard_normal((N, DIM)).astype(np.float32)
    assert fitted(settings(name, None if name == "cosine" else 20.0), vectors, N).centre is None


def test_a_centred_lift_ranks_as_l2_does():
    rng = np.random.default_rng(0)
    vectors = (5 + rng.standard_normal((300, DIM))).astype(np.float32)
    l2 = metric("l2")
    centre = l2.centre_of(vectors)
    points, queries = l2.lift(vectors, 1e9, centre), l2.lift_query(vectors[:20], 1e9, centre)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-6)
    for query, point in zip(vectors[:20], queries, strict=True):
        found = np.argsort(-(points.astype(np.float64) @ point))[:10]
        assert set(found) == set(np.argsort(l2.scores(query, vectors))[:10])
    far = l2.lift(vectors[:1] * 100, 1e9, centre)
    assert np.isfinite(far).all(), "a vector beyond the radius is lifted too"
    same = l2.centre_of(np.ones((3, DIM), np.float32))
    assert np.isfinite(l2.lift(np.ones((1, DIM), np.float32), 1e9, same)).all()
