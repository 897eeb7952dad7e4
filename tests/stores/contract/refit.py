"""A sketch collection after its move, on every store: watched, fitted anew, calibrated, tampered with."""

import logging

import numpy as np
import pytest

from encvec_store import errors
from tests.kits import oracle
from tests.stores.contract import EVERYTHING
from tests.stores.contract.sketch import DIM, LEAST, QUERY, SketchPlaces, recall
from tests.stores.contract.tampering import flipped


class RefitContract(SketchPlaces):
    """Mixed into a `StoreContract`."""

    # ------------------------------------------------------------------------------------------ refit

    def test_refit(self, grown):
        mine, _ = grown
        before = mine.stats()
        shifted = oracle.vectors(300, DIM, seed=2) + 2
        mine.upsert(oracle.ids(300, 300), shifted)
        seen = []
        mine.refit(progress=lambda n, total: seen.append((n, total)))
        assert sum(n for n, _ in seen) == 600
        stored = np.concatenate([oracle.vectors(300, DIM), shifted])
        for things in grown:
            stats = things.stats()
            assert stats["scheme"]["profile"] != before["scheme"]["profile"]
            assert (stats["profile"]["sample"], stats["profile"]["fitted"]["records"]) == (600, 600)
            self.check(things, 600, stored)

    def test_refit_broken_off(self, grown):
        mine, _ = grown
        before, digest = mine.index_vectors(oracle.ids(300)), mine.stats()["scheme"]["profile"]
        mine.delete(["id-299"])

        def stop(done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            mine.refit(progress=stop)
        for things in grown:
            np.testing.assert_array_equal(things.index_vectors(oracle.ids(299)), before[:299])
            assert things.stats()["scheme"]["profile"] == digest
            self.check(things, 299, oracle.vectors(300, DIM)[:299])

    def test_refit_of_what_has_no_profile(self, early, store):
        for spec in ("sap", "sealed"):
            with pytest.raises(errors.CalibrationError, match="has no profile to fit"):
                store.collection(spec, dim=DIM, scheme=spec).refit()
        with pytest.raises(errors.ProfileError, match=f"needs at least {LEAST} readable records, got 0"):
            store.collection("things", dim=DIM, scheme="sketch").refit()

    def test_drift_is_noticed(self, early, store, caplog):
        """Recent records of another kind: shown, logged, and where it is cheap mended."""
        things = store.collection("things", dim=DIM, scheme={"name": "sketch", "k": 8})
        things.upsert(oracle.ids(300), oracle.vectors(300, DIM))
        things.upsert(oracle.ids(200, 300), oracle.vectors(200, DIM, seed=1))
        drift = things.stats()["profile"]["drift"]
        assert drift["stale"] is False
        assert drift["mean"] < drift["limits"]["mean"] < 0.5
        assert drift["largest"] < drift["limits"]["largest"] < 3.5
        assert drift["records"] == 200
        fitted = things.stats()["profile"]["fitted"]["records"]
        assert fitted == 300
        narrow = oracle.vectors(40, DIM, seed=2) * np.array([6.0] + [1.0] * (DIM - 1), np.float32) + 0.5
        with caplog.at_level(logging.WARNING, "encvec_store"):
            for start in range(500, 700, 40):
                things.upsert(oracle.ids(40, start), narrow)
        assert "no longer fits" in caplog.text
        assert things.stats()["profile"]["fitted"]["records"] > fitted, "it has doubled since, so it was fitted anew"
        assert things.stats()["profile"]["advice"] is None
        assert things.verify().ok

    def test_drift_is_only_shown_before_the_collection_has_doubled(self, early, store):
        things = store.collection("things", dim=DIM, scheme={"name": "sketch", "k": 8})
        things.upsert(oracle.ids(300), oracle.vectors(300, DIM))
        things.upsert(oracle.ids(200, 300), oracle.vectors(200, DIM, seed=1) + 3)
        profile = things.stats()["profile"]
        assert profile["drift"]["stale"] is True
        assert profile["drift"]["mean"] > 0.3
        assert profile["fitted"]["records"] == 300
        assert "refit" in profile["advice"]

    # ------------------------------------------------------------------------------------------- keys

    def test_the_profile_outlives_the_version_that_sealed_it(self, grown, keyset, place, store):
        mine, _ = grown
        keyset.rotate()
        mine.upsert(["new"], oracle.vectors(1, DIM))
        keyset.destroy(1)
        store = place.reopen(store)
        things = store.collection("things", oversample=EVERYTHING)
        assert [hit.id for hit in things.search(QUERY, k=5)] == ["new"]
        things.upsert(["newer"], oracle.vectors(1, DIM, seed=1))
        assert things.verify().ok
        store.close()

    def test_both_versions_answer(self, grown, keyset):
        """They share a profile, and no rotation."""
        mine, _ = grown
        before = mine.index_vectors(["id-0"])
        keyset.rotate()
        mine.upsert(oracle.ids(150), oracle.vectors(300, DIM)[:150])
        assert abs((mine.index_vectors(["id-0"]) @ before.T).item()) < 0.9
        for things in grown:
            self.check(things, 300)

    # -------------------------------------------------------------------------------------- tampering

    @pytest.mark.parametrize(
        "change", ["bit", "truncated", "empty", "removed", "older", "foreign", "tenant", "version"]
    )
    def test_a_profile_tampered_with(self, grown, place, store, keyset, change):
        mine, _ = grown
        burglar = place.burglar()
        whole = burglar.profile()
        mine.upsert(oracle.ids(200, 300), oracle.vectors(200, DIM, seed=4) + 1)
        mine.refit()
        now = burglar.profile()
        assert whole != now
        if change in ("foreign", "tenant"):
            name, tenant = ("others", "") if change == "foreign" else ("things", "acme")
            other = store.collection(name, dim=DIM, scheme="sketch", tenant=tenant)
            other.upsert(oracle.ids(300), oracle.vectors(300, DIM))
            whole = place.burglar(name, tenant).profile()
        burglar.set_profile(
            {
                "bit": lambda: flipped(now, len(now) // 2),
                "truncated": lambda: now[:-1],
                "empty": lambda: b"",
                "removed": lambda: None,
                "older": lambda: whole,
                "foreign": lambda: whole,
                "tenant": lambda: whole,
                "version": lambda: now[:1] + (9).to_bytes(4, "big") + now[5:],
            }[change]()
        )
        again = place.connect()
        assert any("could not be authenticated" in line or "profile" in line for line in mine.verify().store)
        with pytest.raises(errors.AuthenticationError) as caught:
            again.collection("things")
        assert "profile" in str(caught.value) or change in ("empty", "version")
        burglar.set_profile(now)
        self.check(again.collection("things", oversample=EVERYTHING), 500, oracle_of(200))

    def test_settings_rolled_back_without_the_profile(self, grown, place):
        mine, _ = grown
        burglar = place.burglar()
        older = burglar.config()
        mine.upsert(oracle.ids(200, 300), oracle.vectors(200, DIM, seed=4) + 1)
        mine.refit()
        now = burglar.config()
        burglar.set_config(older)
        with pytest.raises(errors.AuthenticationError, match="profile could not be authenticated"):
            place.connect().collection("things")
        burglar.set_config(now)

    # ------------------------------------------------------------------------------ calibration, recall

    def test_calibration_of_a_sketch(self, grown):
        mine, _ = grown
        given = {"k": 5, "target_recall": 0.8, "max_candidates": 60}
        attacked = []

        def attack(points, scheme):
            attacked.append((points.shape, scheme.k, scheme.profile))
            return {"identified": 0.25}

        dry = mine.calibrate(apply=False, **given)
        assert mine.stats()["calibration"] is None
        found = mine.calibrate(accept_less_noise=True, attack=attack, **given)
        assert found.to_dict() == {**dry.to_dict(), "attack": {"identified": 0.25}}
        assert attacked == [((300, DIM), found.dimensions, None)]
        assert (found.scheme, found.floor, found.oversample) == ("sketch", 3.6, 12)
        assert found.recall >= found.recall_low >= 0.8
        assert {row["gamma"] for row in found.choices} >= {-0.25, 0.0, 0.25}
        met = [row for row in found.choices if row["beta"] is not None]
        strong = [row for row in met if row["dimensions"] >= found.least_dimensions] or met
        assert max(row["beta"] for row in strong) <= found.beta + 0.05
        for things in grown:
            scheme = things.stats()["scheme"]
            assert {name: scheme[name] for name in ("k", "beta", "gamma")} == {
                "k": found.dimensions, "beta": found.beta, "gamma": found.gamma,
            }  # fmt: skip
            assert things.stats()["calibration"] == found.to_dict()
            assert things.verify().ok
        digest = scheme["profile"]
        mine.refit()
        assert mine.stats()["scheme"] == scheme | {"profile": digest}, "calibrated parameters stay"

    def test_below_the_floor_only_if_accepted(self, grown):
        mine, _ = grown
        given = {"k": 10, "target_recall": 0.97, "max_candidates": 20}
        assert mine.calibrate(apply=False, **given).weak
        before = mine.stats()
        with pytest.raises(errors.CalibrationError, match=r"below beta 3.6 .* own attacks succeed .*missed|beta \d"):
            mine.calibrate(**given)
        assert mine.stats() == before
        found = mine.calibrate(accept_less_noise=True, **given)
        assert mine.stats()["scheme"]["beta"] == found.beta < 3.6

    def test_calibrating_a_sketch_before_there_are_records(self, early, store):
        """The choice is kept; the profile is always of the collection's own vectors."""
        things = store.collection("things", dim=DIM, scheme="sketch")
        found = things.calibrate(oracle.vectors(400, DIM), k=5, target_recall=0.8, accept_less_noise=True)
        assert things.stats()["profile"]["state"] == "sealed"
        assert things.stats()["scheme"]["k"] == found.dimensions
        things.upsert(oracle.ids(300), oracle.vectors(300, DIM, seed=1))
        stats = things.stats()
        assert stats["profile"]["state"] == "sketch"
        assert (stats["profile"]["sample"], stats["scheme"]["beta"]) == (300, found.beta)
        assert stats["oversample"] == found.oversample
        assert things.verify().ok

    def test_recall_is_estimated(self, early, store):
        things = store.collection("things", dim=DIM, scheme={"name": "sketch", "k": 8, "beta": 2.0})
        names, stored = oracle.ids(400), oracle.vectors(400, DIM)
        things.upsert(names, stored)
        narrow = store.collection("things", oversample=2)
        assert narrow.stats()["recall"] is None
        queries = oracle.vectors(60, DIM, seed=1)
        for sample in (400, 200):
            narrow.watch_recall(1.0, sample)
            assert narrow.stats()["recall"]["recall"] is None
            true = recall(narrow, stored, names, queries)
            narrow.search(queries, where={"n": 1})
            seen = narrow.stats()["recall"]
            assert (seen["checked"], seen["sample"]) == (60, sample)
            assert seen["low"] <= seen["recall"] <= seen["high"]
            assert seen["low"] <= true, "an estimate from below"
            assert 0.2 < true < 0.97, "else there is nothing to estimate"
            assert seen["recall"] <= seen["high"] < 1
        things.watch_recall(1.0, 150)
        things.search(queries, k=10)
        assert things.stats()["recall"]["low"] <= recall(things, stored, names, queries)
        things.watch_recall(0)
        assert things.stats()["recall"] is None

    def test_recall_knows_what_was_deleted(self, grown):
        mine, theirs = grown
        mine.watch_recall(1.0, 300)
        mine.search(oracle.vectors(20, DIM, seed=1))
        assert mine.stats()["recall"]["recall"] == 1
        nearest = [hit.id for hit in mine.search(QUERY, k=15)]
        theirs.delete(nearest[:5])
        theirs.upsert(nearest[5:8], -np.ones((3, DIM)))
        mine.search(QUERY, k=5)
        assert mine.stats()["recall"]["recall"] == 1
        for share, sample in ((2, 5), (-1, 5), ("x", 5), (0.5, 0), (0.5, 1.5), (True, 5)):
            with pytest.raises(errors.InputError):
                mine.watch_recall(share, sample)


def oracle_of(more):
    """The vectors of `test_a_profile_tampered_with`."""
    return np.concatenate([oracle.vectors(300, DIM), oracle.vectors(more, DIM, seed=4) + 1])
