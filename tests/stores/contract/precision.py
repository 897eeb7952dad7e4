"""Half precision, on every store: what comes back is rounded, answers are exact for it, and nothing else changes."""

import json

import numpy as np
import pytest

from encvec_store import errors
from tests.kits import oracle
from tests.kits.oracle import METRICS, assert_hits
from tests.stores.contract import EVERYTHING

DIM = 8
N = 60


def rounded(vectors):
    return np.asarray(vectors, np.float32).astype(np.float16).astype(np.float32)


class PrecisionContract:
    """Mixed into a `StoreContract`."""

    @pytest.fixture
    def half(self, make):
        return lambda **given: make("half", precision="half", **given)

    @pytest.mark.parametrize("metric", METRICS)
    def test_answers_are_exact_for_what_is_kept(self, half, metric):
        names, stored, queries = oracle.ids(N), oracle.vectors(N), oracle.vectors(3, seed=1)
        things = half(metric=metric)
        things.upsert(names[:40], stored[:40])
        things.upsert(names[40:], stored[40:])
        assert things.stats()["precision"] == "half"
        assert not np.array_equal(rounded(stored), stored)
        for query, hits in zip(queries, things.search(queries, k=20, include_vectors=True), strict=True):
            assert_hits(hits, metric, query, names, rounded(stored), 20)
            for hit in hits:
                np.testing.assert_array_equal(hit.vector, rounded(stored)[names.index(hit.id)])
                assert hit.vector.dtype == np.float32
        report = things.verify()
        assert (report.ok, report.checked) == (True, N)

    def test_the_same_again_is_the_same_ciphertext(self, half):
        """From what is kept, not from what was given: or who writes back what he read would change the noise."""
        names, stored = oracle.ids(N), oracle.vectors(N)
        things = half()
        things.upsert(names, stored)
        first = things.index_vectors(names)
        np.testing.assert_array_equal(first, rounded(first))
        things.upsert(names, [record.vector for record in things.get(names)])
        np.testing.assert_array_equal(things.index_vectors(names), first)

    def test_it_is_said_once(self, half, place, store):
        half()
        with pytest.raises(errors.ConfigMismatchError, match="precision is half, not single"):
            store.collection("half", precision="single")
        with pytest.raises(errors.InputError, match="precision must be one of single, half, got 'double'"):
            store.collection("other", DIM, precision="double")
        again = place.connect().collection("half", oversample=EVERYTHING)
        again.upsert(["a"], [[0.1] * DIM])
        np.testing.assert_array_equal(again.get(["a"])[0].vector, rounded([0.1] * DIM))
        assert json.loads(json.dumps(again.stats())) == again.stats()
        assert store.collection("single", DIM).stats()["precision"] == "single"

    def test_what_rounding_would_spoil_is_refused(self, half):
        things = half(metric="ip", max_norm=1e6)
        with pytest.raises(
            errors.NormError, match=r"vectors\[1\] has a coordinate of size 70000: precision half holds at most 65504"
        ):
            things.upsert(["a", "b"], [[1] * DIM, [1, -70_000] * 4])
        assert things.count() == 0
        things.upsert(["a", "b"], [[65_504] * DIM, [0] * DIM])
        np.testing.assert_array_equal(things.get(["a"])[0].vector, [65_504] * DIM)

    def test_a_direction_is_not_rounded_away(self, half):
        things = half()
        tiny = [[1] * DIM, [1e-5, -2e-5] * 4]
        with pytest.raises(errors.NormError, match=r"vectors\[1\] has norm 4.47e-05: below"):
            things.upsert(["a", "b"], tiny)
        assert things.count() == 0

    @pytest.mark.parametrize("metric", ["ip", "l2"])
    def test_a_length_at_the_bound_passes_whatever_its_rounding(self, half, metric):
        stored = oracle.vectors(N)
        stored /= np.linalg.norm(stored, axis=1, keepdims=True)
        assert np.linalg.norm(rounded(stored), axis=1).max() > 1 + 1e-5
        things = half(metric=metric, max_norm=1.0)
        things.upsert(oracle.ids(N), stored)
        assert_hits(things.search(stored[0], k=5), metric, stored[0], oracle.ids(N), rounded(stored), 5)
        assert things.verify().ok

    def test_it_stays_through_calibration_and_a_new_key(self, half, keyset):
        names, stored = oracle.ids(N), oracle.vectors(N)
        things = half(fields={"n": "blind"})
        things.upsert(names, stored, [{"n": i % 3} for i in range(N)])
        keyset.rotate()
        things.upsert(names[:30], stored[:30], [{"n": i % 3} for i in range(30)])
        if things.stats()["scheme"]["name"] == "sap":
            things.calibrate(oracle.vectors(200, seed=2), k=5, target_recall=0.5)
        elif things.stats()["scheme"]["name"] == "sketch":
            things.refit()
        kept = rounded(stored)
        assert_hits(things.search(stored[0], k=20), "cosine", stored[0], names, kept, 20)
        some = [i for i in range(N) if i % 3 == 1]
        hits = things.search(stored[0], k=5, where={"n": 1})
        assert_hits(hits, "cosine", stored[0], [names[i] for i in some], kept[some], 5)
        assert [hit.id for hit in things.search(stored[:2], k=1)[1]] == [names[1]]
        report = things.verify()
        assert (report.ok, report.checked) == (True, N)

    def test_swapped_index_vectors_are_found(self, half, place):
        names, stored = oracle.ids(N), oracle.vectors(N)
        things = half()
        things.upsert(names, stored)
        if not things.index_vectors(names).shape[1]:
            return
        burglar = place.burglar("half")
        a, b = burglar.rows()[:2]
        assert len(burglar.read(a, "index_vector")) == 2 * things.index_vectors(names).shape[1]
        burglar.swap(a, b, "index_vector")
        assert [item.part for item in things.verify().damaged] == ["index vector", "index vector"]

    def test_the_format_is_authenticated(self, half, place):
        """A record that claims the other precision opens nowhere, though its size may fit."""
        things = half()
        things.upsert(["a"], oracle.vectors(1))
        burglar = place.burglar("half")
        (row,) = burglar.rows()
        for part in ("vector", "payload"):
            sealed = burglar.read(row, part)
            assert sealed[16] == 2
            burglar.write(row, {part: sealed[:16] + b"\x01" + sealed[17:]})
            with pytest.raises(errors.AuthenticationError):
                things.search(oracle.vectors(1)[0])
            assert [item.part for item in things.verify().damaged] == [part]
            burglar.write(row, {part: sealed})
        assert things.search(oracle.vectors(1)[0])[0].id == "a"
