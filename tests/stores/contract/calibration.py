"""Calibration through a store."""

import numpy as np
import pytest

from encvec_store import errors
from tests.kits import oracle
from tests.kits.oracle import METRICS, assert_hits
from tests.stores.contract.opened import DIM

BAD_CALIBRATIONS = [
    ({"k": 0}, errors.InputError, "k must be"),
    ({"k": 1.5}, errors.InputError, "k must be"),
    ({"k": "10"}, errors.InputError, "k must be"),
    ({"k": 10, "max_candidates": 9}, errors.InputError, "k must be from 1 to max_candidates"),
    ({"max_candidates": 20.5}, errors.InputError, "max_candidates must be"),
    ({"planned_size": "many"}, errors.InputError, "planned_size must be"),
    ({"planned_size": -1}, errors.InputError, "planned_size must be"),
    ({"target_recall": 1}, errors.InputError, "target_recall must be between 0 and 1"),
    ({"target_recall": "all"}, errors.InputError, "target_recall must be between 0 and 1"),
    ({"target_recall": float("nan")}, errors.InputError, "target_recall must be between 0 and 1"),
    ({"seed": -1}, errors.InputError, "seed must be"),
    ({"sample": np.ones((200, DIM + 1))}, errors.ShapeError, "expected shape"),
    ({"sample": np.zeros((200, DIM))}, errors.ZeroVectorError, r"sample\[0\] is the zero vector"),
    ({"sample": np.ones((5, DIM))}, errors.CalibrationError, "the sample must have at least 100 vectors, got 5"),
    ({}, errors.CalibrationError, "the sample must have at least 100 vectors, got 10"),
    (
        {"sample": oracle.vectors(500), "planned_size": 10**9, "target_recall": 0.999, "max_candidates": 10},
        errors.CalibrationError,
        "cannot be reached with 10 candidates",
    ),
]


class CalibrationContract:
    """What calibration changes."""

    def test_calibration(self, place, store):
        names, stored = oracle.ids(600), oracle.vectors(600, 16)
        things = store.collection(
            "things", dim=16, scheme={"name": "sap", "beta": 0.0}, fields={"n": "blind"}, oversample=5
        )
        things.upsert(names, stored, [{"n": i % 3} for i in range(600)], ["text"] * 600)
        before = things.index_vectors(names)
        dry = things.calibrate(k=10, max_candidates=200, target_recall=0.9, apply=False)
        np.testing.assert_array_equal(things.index_vectors(names), before)
        assert things.stats()["scheme"]["beta"] == 0
        seen = []
        order = [record.id for record in things.scroll(include_vectors=False)]
        found = things.calibrate(
            k=10, max_candidates=200, target_recall=0.9, progress=lambda n, total: seen.append((n, total))
        )
        assert found == dry
        assert found.beta > 0.5
        assert found.gamma is None
        assert (found.weak, found.weakness().count("gamma")) == (False, 0)
        assert 0.9 <= found.recall_low <= found.recall <= 1
        assert sum(n for n, _ in seen) == 600
        stats = things.stats()
        assert stats["scheme"]["beta"] == found.beta
        assert stats["oversample"] == found.oversample == 20, "in this opening too"
        assert stats["calibration"] == found.to_dict()
        assert things.count() == 600
        assert [record.id for record in things.scroll(include_vectors=False)] == order, "rows keep their numbers"
        assert things.verify().ok
        assert things.count({"n": 1}) == 200
        queries = oracle.vectors(30, 16, seed=1)
        recalls = []
        for query, hits in zip(queries, things.search(queries, k=10), strict=True):
            order, _ = oracle.nearest("cosine", query, stored, 10)
            recalls.append(len({names[i] for i in order} & {hit.id for hit in hits}) / 10)
        assert np.mean(recalls) > 0.75
        store = place.reopen(store)
        things = store.collection("things", scheme="sap")
        assert things.stats()["scheme"]["beta"] == found.beta
        assert things.stats()["oversample"] == 20
        assert things.get(["id-3"])[0].document == "text"
        with pytest.raises(errors.ConfigMismatchError, match="scheme is sap"):
            store.collection("things", scheme={"name": "sap", "beta": 0.0})
        narrow = store.collection("things", oversample=2)
        assert (narrow.stats()["oversample"], things.stats()["oversample"]) == (2, 20), "for that opening only"
        narrow.calibrate(k=10, max_candidates=150, target_recall=0.9)
        assert narrow.stats()["oversample"] == 15, "the noise now asks for more candidates than were asked for before"
        store.close()

    def test_bad_calibrations_change_nothing(self, store, subtests):
        things = store.collection("things", dim=DIM, scheme={"name": "sap", "beta": 1.0, "query_beta": 1.0})
        things.upsert(oracle.ids(10), oracle.vectors(10))
        before = things.index_vectors(oracle.ids(10))
        for given, error, message in BAD_CALIBRATIONS:
            with subtests.test(given=given):
                with pytest.raises(error, match=message):
                    things.calibrate(**given)
                np.testing.assert_array_equal(things.index_vectors(oracle.ids(10)), before)
                assert things.stats()["calibration"] is None

    def test_sealed_has_no_noise_to_calibrate(self, store):
        things = store.collection("things", dim=DIM, scheme="sealed")
        with pytest.raises(errors.CalibrationError, match="'sealed' has no noise"):
            things.calibrate(oracle.vectors(200))

    @pytest.mark.parametrize("metric", METRICS)
    def test_calibrating_before_the_first_write(self, store, metric):
        things = store.collection("things", dim=DIM, metric=metric, scheme="sap")
        found = things.calibrate(oracle.vectors(400), k=5, target_recall=0.8, planned_size=1000)
        things.upsert(oracle.ids(20), oracle.vectors(20))
        assert things.stats()["scheme"]["beta"] == found.beta
        assert found.planned_size == 1000
        query = oracle.vectors(20)[3]
        assert_hits(things.search(query, k=5), metric, query, oracle.ids(20), oracle.vectors(20), 5)
        assert things.verify().ok

    def test_calibration_keeps_records_of_destroyed_versions_out(self, store, keyset):
        """What nobody can read any more does not stop the rest from being encrypted anew."""
        things = store.collection("things", dim=DIM, scheme="sap")
        things.upsert(oracle.ids(50), oracle.vectors(50))
        keyset.rotate()
        things.upsert(oracle.ids(150, 50), oracle.vectors(150, seed=1))
        keyset.disable(1)
        with pytest.raises(errors.KeyUnavailableError, match="version 1 is disabled"):
            things.calibrate(target_recall=0.8)
        assert things.count() == 200, "what can be enabled again is not thrown away"
        keyset.destroy(1)
        things.calibrate(target_recall=0.8)
        assert things.count() == 150
        assert things.verify().ok
