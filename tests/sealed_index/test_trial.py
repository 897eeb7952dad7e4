"""How many lists a search reads is found out with all vectors, however few of them the lists come from."""

import faiss
import numpy as np
import pytest

from encvec_store.sealed_index.clustering import NearestCentroid
from encvec_store.sealed_index.lists import FEW, Layout
from encvec_store.sealed_index.trial import ListTrial, asking

COUNT, SAMPLE, DIM = 40_000, 3_000, 32


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("seen", [1.0, 0.5])
def test_as_many_lists_as_hold_the_neighbours(metric, seen):
    rng = np.random.default_rng(5)
    centers = rng.standard_normal((500, DIM))
    data = (centers[rng.integers(500, size=COUNT)] + 0.8 * rng.standard_normal((COUNT, DIM))).astype(np.float32)
    data /= np.linalg.norm(data, axis=1, keepdims=True)
    asked = asking(np.arange(SAMPLE))
    assert len(asked) == SAMPLE // 10
    sample = np.delete(data[:SAMPLE], asked, axis=0)
    layout = Layout.of(metric, DIM, sample, COUNT)
    assert layout.probes.tolist() == [layout.lists] * 2
    nearest, trial = NearestCentroid(layout.centroids), ListTrial(layout, data[asked], COUNT)
    lists = np.concatenate([nearest(data[start : start + 4_000]) for start in range(0, COUNT, 4_000)])
    for start in range(0, int(seen * COUNT), 4_000):
        trial.add(data[start : start + 4_000], lists[start : start + 4_000])
    few, many = map(int, trial.probes())
    asked = data[SAMPLE : SAMPLE + 300]
    found = faiss.knn(asked, data, FEW + 1, faiss.METRIC_INNER_PRODUCT if metric == "ip" else faiss.METRIC_L2)[1]
    order = layout.nearest(asked, layout.lists)

    def held(probes):
        """Return the share of neighbours in so many lists."""
        return np.mean([np.isin(lists[row[1:]], own[:probes]).mean() for row, own in zip(found, order, strict=True)])

    assert held(few) > 0.985
    assert held(few // 2) < 0.99, f"{few} lists are far more than needed"
    assert few <= many <= layout.lists


def test_a_single_vector():
    one = np.ones((1, DIM), np.float32)
    assert asking(np.arange(1)).tolist() == [0]
    layout = Layout.of("l2", DIM, one, 1)
    trial = ListTrial(layout, one, 1)
    assert trial.probes().tolist() == [1, 1]
    trial.add(one, np.zeros(1, np.int32))
    assert trial.probes().tolist() == [1, 1]
