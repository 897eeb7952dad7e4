"""Recall of the graphs on real text: at least .99 of the true neighbours, for few hits and many, with filters too."""

from __future__ import annotations

import numpy as np
import pytest

import encvec_store as ev
from benchmarks.corpora import find
from tests.kits.sealed import costs_of

HITS = (1, 50, 100)
SHARES = {"half": 2, "tenth": 10, "hundredth": 100}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_of_real_text(tmp_path, kind):
    data = find("banking77")
    vectors, queries = data.vectors.whole(), np.asarray(data.queries)[:80]
    numbers = np.random.default_rng(0).permutation(len(vectors))
    url = f"faiss://{tmp_path}?index={kind}"
    with ev.connect(url, keyset=ev.Keyset.create("memory:"), maintenance="manual") as store:
        fields = dict.fromkeys(SHARES, "plain")
        things = store.collection("things", dim=vectors.shape[1], scheme="sealed", fields=fields)
        things.upsert(
            range(len(vectors)),
            vectors,
            [{name: int(number) % share for name, share in SHARES.items()} for number in numbers],
        )
        things.maintain()
        index = things.stats()["sealed_index"]
        assert (index["kind"], index["rows"]) == (kind, len(vectors))
        for name, share in {"": 1, **SHARES}.items():
            passing = np.flatnonzero(numbers % share == 0)
            costs = np.array([costs_of("cosine", query, vectors[passing]) for query in queries])
            order = passing[np.argsort(costs, axis=1)]
            for k in HITS:
                answers = things.search(queries, k=k, where={name: 0} if name else None)
                found = [
                    len({hit.id for hit in hits} & set(best[:k].tolist()))
                    for hits, best in zip(answers, order, strict=True)
                ]
                assert sum(found) >= 0.99 * len(queries) * min(k, len(passing)), (name, k, sum(found))
