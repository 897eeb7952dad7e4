"""Sketch collections for contracts: one about to move from sealed to sketch, one that has moved."""

import numpy as np
import pytest

from encvec_store.schemes import profile as profiles
from tests.kits import oracle
from tests.kits.oracle import assert_hits
from tests.stores.contract import EVERYTHING, hasten

DIM = 16
LEAST = 40
QUERY = np.ones(DIM, np.float32)


def recall(things, stored, names, queries, k=10):
    found = 0
    for query, hits in zip(queries, things.search(queries, k=k), strict=True):
        order, _ = oracle.nearest("cosine", query, stored, k)
        found += len({names[i] for i in order} & {hit.id for hit in hits})
    return found / k / len(queries)


class SketchPlaces:
    """What contracts of sketch collections build on."""

    @pytest.fixture
    def early(self, monkeypatch):
        hasten(monkeypatch)
        monkeypatch.setattr(profiles, "LEAST_RECORDS", LEAST)

    @pytest.fixture
    def young(self, early, place, store):
        """A collection one record short of its move, open twice."""
        mine = store.collection("things", dim=DIM, scheme="sketch", fields={"n": "blind"}, oversample=EVERYTHING)
        mine.upsert(oracle.ids(LEAST - 1), oracle.vectors(LEAST - 1, DIM), [{"n": i % 2} for i in range(LEAST - 1)])
        return mine, place.connect().collection("things", oversample=EVERYTHING)

    @pytest.fixture
    def grown(self, early, place, store):
        """A collection that has moved, open twice: 300 records."""
        mine = store.collection("things", dim=DIM, scheme="sketch", fields={"n": "blind"}, oversample=EVERYTHING)
        mine.upsert(oracle.ids(300), oracle.vectors(300, DIM), [{"n": i % 2} for i in range(300)])
        assert mine.stats()["profile"]["state"] == "sketch"
        return mine, place.connect().collection("things", oversample=EVERYTHING)

    def check(self, things, n, stored=None):
        stored = oracle.vectors(n, DIM) if stored is None else stored
        assert things.count() == n
        assert_hits(things.search(QUERY, k=20), "cosine", QUERY, oracle.ids(n), stored, 20)
        report = things.verify()
        assert report.ok, report
