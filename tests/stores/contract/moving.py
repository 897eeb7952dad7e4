"""The life of a sketch collection, on every store: sealed, moved by itself, watched, fitted anew, never half."""

import json
import logging

import numpy as np
import pytest

from encvec_store import errors
from encvec_store.schemes import profile as profiles
from encvec_store.schemes.sketch import THREATS
from tests.kits import oracle
from tests.kits.oracle import assert_hits
from tests.stores.contract import EVERYTHING, hasten
from tests.stores.contract.tampering import flipped

DIM = 16
LEAST = 40
QUERY = np.ones(DIM, np.float32)


def recall(things, stored, names, queries, k=10):
    found = 0
    for query, hits in zip(queries, things.search(queries, k=k), strict=True):
        order, _ = oracle.nearest("cosine", query, stored, k)
        found += len({names[i] for i in order} & {hit.id for hit in hits})
    return found / k / len(queries)


class MovingContract:
    """Mixed into a `StoreContract`."""

    @pytest.fixture
    def early(self, monkeypatch):
        hasten(monkeypatch)
        monkeypatch.setattr(profiles, "LEAST_RECORDS", LEAST)

    @pytest.fixture
    def young(self, early, place, store):
        """A collection one record short of its move, open twice."""
        mine = store.collection("things", dim=DIM, fields={"n": "blind"}, oversample=EVERYTHING)
        mine.upsert(oracle.ids(LEAST - 1), oracle.vectors(LEAST - 1, DIM), [{"n": i % 2} for i in range(LEAST - 1)])
        return mine, place.connect().collection("things", oversample=EVERYTHING)

    @pytest.fixture
    def grown(self, early, place, store):
        """A collection that has moved, open twice: 300 records."""
        mine = store.collection("things", dim=DIM, fields={"n": "blind"}, oversample=EVERYTHING)
        mine.upsert(oracle.ids(300), oracle.vectors(300, DIM), [{"n": i % 2} for i in range(300)])
        assert mine.stats()["profile"]["state"] == "sketch"
        return mine, place.connect().collection("things", oversample=EVERYTHING)

    def check(self, things, n, stored=None):
        stored = oracle.vectors(n, DIM) if stored is None else stored
        assert things.count() == n
        assert_hits(things.search(QUERY, k=20), "cosine", QUERY, oracle.ids(n), stored, 20)
        report = things.verify()
        assert report.ok, report

    # ------------------------------------------------------------------------------------- it moves

    def test_sealed_at_first(self, young):
        for things in young:
            stats = things.stats()
            assert json.loads(json.dumps(stats)) == stats
            assert stats["scheme"] == {
                "name": "sketch",
                "k": None,
                "beta": None,
                **THREATS["stolen-data"],
                "profile": None,
            }
            assert stats["profile"] == {"state": "sealed", "until": LEAST, "failed": None}
            assert things.index_vectors(["id-0"]).shape == (1, 0)
            self.check(things, LEAST - 1, oracle.vectors(LEAST - 1, DIM))

    def test_moves_by_itself(self, young, place, store):
        mine, theirs = young
        stored = np.concatenate([oracle.vectors(LEAST - 1, DIM), oracle.vectors(1, DIM, seed=9)])
        theirs.search(QUERY)
        mine.upsert([f"id-{LEAST - 1}"], stored[-1:], [{"n": 1}])
        for things in young:
            stats = things.stats()
            k = stats["scheme"]["k"]
            assert stats["profile"]["state"] == "sketch"
            assert (stats["profile"]["fitted"]["records"], stats["profile"]["sample"]) == (LEAST, LEAST)
            assert (stats["scheme"]["beta"], stats["profile"]["drift"], stats["profile"]["advice"]) == (3.6, None, None)
            assert things.index_vectors(oracle.ids(LEAST)).shape == (LEAST, k)
            assert 2 <= k <= DIM
            self.check(things, LEAST, stored)
            order = [record.id for record in things.scroll()]
            assert sorted(order) == sorted(oracle.ids(LEAST))
            assert order[-1] == f"id-{LEAST - 1}", "in the order of their writes: rows keep their numbers"
            assert things.count({"n": 1}) == LEAST // 2
        np.testing.assert_allclose(np.linalg.norm(mine.index_vectors(oracle.ids(LEAST)), axis=1), 1, atol=1e-5)
        theirs.upsert(["new"], oracle.vectors(1, DIM, seed=3))
        theirs.flush()
        assert mine.get(["new"])[0].id == "new"
        store = place.reopen(store)
        again = store.collection("things", scheme="sketch", oversample=EVERYTHING)
        assert again.stats()["profile"]["fitted"] == stats["profile"]["fitted"]
        assert again.count() == LEAST + 1
        assert again.search(stored[3], k=1)[0].id == "id-3"
        assert again.verify().ok
        store.close()

    @pytest.mark.parametrize("metric", ["ip", "l2"])
    def test_moves_under_every_metric(self, early, store, metric):
        things = store.collection("things", dim=DIM, metric=metric, oversample=EVERYTHING)
        names, stored = oracle.ids(100), oracle.vectors(100, DIM)
        for start in range(0, 100, 20):
            things.upsert(names[start : start + 20], stored[start : start + 20])
        assert things.stats()["profile"]["state"] == "sketch"
        assert_hits(things.search(QUERY, k=30), metric, QUERY, names, stored, 30)
        assert things.verify().ok

    def test_candidates_come_from_the_sketch(self, early, store):
        """Half the dimensions and noise: the index alone loses some, re-ranking most of that comes back."""
        things = store.collection("things", dim=32, scheme={"name": "sketch", "k": 16, "beta": 1.0}, oversample=10)
        names, stored = oracle.ids(1500), oracle.vectors(1500, 32)
        stored *= 0.85 ** np.arange(32, dtype=np.float32)
        for start in range(0, 1500, 500):
            things.upsert(names[start : start + 500], stored[start : start + 500])
        queries = oracle.vectors(30, 32, seed=1) * 0.85 ** np.arange(32, dtype=np.float32)
        assert things.stats()["oversample"] >= 20, "enough for .99 of what is to come"
        assert recall(things, stored, names, queries) > 0.95

    def test_more_records_take_more_candidates(self, early, store, place):
        """Chosen anew at every doubling, in the settings alone: what is stored of the records stays as it is."""
        things = store.collection("things", dim=16, scheme={"name": "sketch", "beta": 8.0}, oversample=1)
        theirs = place.connect().collection("things")
        names, stored = oracle.ids(1600), oracle.vectors(1600, 16)
        things.upsert(names[:100], stored[:100])
        first, before = things.stats(), things.index_vectors(names[:100])
        assert first["profile"]["fitted"]["sized"] == 200
        things.upsert(names[100:200], stored[100:200])
        assert things.stats()["profile"]["fitted"] == first["profile"]["fitted"]
        for end in (201, 700, 1600):
            things.upsert(names[:end], stored[:end])
        for each in (things, theirs):
            stats = each.stats()
            assert stats["profile"]["fitted"] == first["profile"]["fitted"] | {"sized": 3200}
            assert stats["oversample"] > first["oversample"]
            assert stats["scheme"] == first["scheme"]
            np.testing.assert_array_equal(each.index_vectors(names[:100]), before)
            assert each.verify().ok

    def test_threats(self, early, store):
        things = store.collection("things", dim=DIM, scheme={"name": "sketch", "threat": "watching-server"})
        things.upsert(oracle.ids(100), oracle.vectors(100, DIM))
        scheme = things.stats()["scheme"]
        assert {name: scheme[name] for name in ("gamma", "query_beta")} == THREATS["watching-server"]
        with pytest.raises(errors.ConfigMismatchError, match=r"gamma=-0\.5"):
            store.collection("things", scheme={"name": "sketch", "threat": "stolen-data"})

    def test_too_narrow_to_move(self, store):
        """A point of so few coordinates has nothing to hide in."""
        things = store.collection("things", dim=8)
        things.upsert(["a"], oracle.vectors(1))
        assert things.stats()["profile"] == {"state": "sealed", "until": None, "failed": None}

    # ----------------------------------------------------------------------------- it cannot move, yet

    def test_a_move_that_fails_never_fails_the_write(self, early, store, caplog):
        things = store.collection("things", dim=DIM, oversample=EVERYTHING)
        same = np.repeat(oracle.vectors(1, DIM), LEAST, axis=0)
        with caplog.at_level(logging.WARNING, "encvec_store"):
            things.upsert(oracle.ids(LEAST), same)
        assert "could not be fitted: ProfileError: the vectors of the sample are all the same" in caplog.text
        assert things.count() == LEAST
        stats = things.stats()["profile"]
        assert (stats["state"], stats["failed"].split(":")[0]) == ("sealed", "ProfileError")
        caplog.clear()
        things.upsert(["one"], oracle.vectors(1, DIM, seed=5))
        assert not caplog.text, "not at every write"
        things.upsert(oracle.ids(200, LEAST), oracle.vectors(200, DIM, seed=6))
        assert things.stats()["profile"]["state"] == "sketch"
        assert things.stats()["profile"]["failed"] is None
        assert things.verify().ok

    @pytest.mark.parametrize("method", ["rows", "vectors", "replace"])
    def test_a_store_that_fails_during_the_move(self, young, interrupt, method):
        mine, theirs = young

        def fail():
            raise errors.StoreUnreachableError("the disk is on fire")

        interrupt(mine, method, fail)
        mine.upsert(oracle.ids(1, LEAST - 1), oracle.vectors(1, DIM, seed=9))
        stats = mine.stats()["profile"]
        assert (stats["state"], stats["failed"]) == ("sealed", "StoreUnreachableError: the disk is on fire")
        assert theirs.count() == LEAST
        assert theirs.verify().ok
        mine.upsert(oracle.ids(LEAST, LEAST), oracle.vectors(LEAST, DIM, seed=4))
        assert theirs.stats()["profile"]["state"] == "sketch"

    # ------------------------------------------------------------------------------------------ races

    @pytest.mark.parametrize("method", ["put", "rows", "vectors", "replace"])
    def test_both_cross_at_once(self, young, interrupt, method):
        """One moves; the other sees that, and goes on: nothing is lost, and nobody gets an error."""
        mine, theirs = young
        interrupt(mine, method, lambda: theirs.upsert(["theirs"], oracle.vectors(1, DIM, seed=8)))
        mine.upsert(["mine"], oracle.vectors(1, DIM, seed=7))
        digests = {things.stats()["scheme"]["profile"] for things in young}
        assert len(digests) == 1
        assert digests != {None}
        for things in young:
            assert things.count() == LEAST + 1
            assert {record.id for record in things.get(["mine", "theirs"])} == {"mine", "theirs"}
            assert things.search(oracle.vectors(1, DIM, seed=8)[0], k=1)[0].id == "theirs"
            assert things.verify().ok

    @pytest.mark.parametrize("method", ["rows", "vectors", "payloads"])
    def test_the_move_in_the_middle_of_a_search(self, young, interrupt, method):
        """It was begun on opened vectors."""
        mine, theirs = young
        interrupt(mine, method, lambda: theirs.upsert(oracle.ids(1, LEAST - 1), oracle.vectors(1, DIM, seed=9)))
        hits = mine.search(QUERY, k=10)
        order, _ = oracle.nearest("cosine", QUERY, oracle.vectors(LEAST - 1, DIM), 10)
        assert len(hits) == 10
        assert len({f"id-{i}" for i in order} & {hit.id for hit in hits}) >= 9

    @pytest.mark.parametrize("other_k", [5, 12])
    @pytest.mark.parametrize("method", ["nearest", "candidates", "vectors", "payloads"])
    def test_a_refit_in_the_middle_of_a_search(self, early, place, store, interrupt, method, other_k):
        """A query for one sketch never meets the index vectors of another, of whatever dimension."""
        mine = store.collection("things", dim=DIM, scheme={"name": "sketch", "k": 7, "beta": 0.5}, oversample=30)
        stored = oracle.vectors(300, DIM)
        mine.upsert(oracle.ids(300), stored, [{"n": 1}] * 300, ["long " * 100] * 300)
        mine.search(QUERY)
        theirs = place.connect().collection("things")

        def refit():
            config = theirs._session.refresh()
            scheme = type(config.scheme)(k=other_k, beta=0.5)
            theirs._lifecycle.fit(type(config)(**{**config.__dict__, "scheme": scheme, "fitted": None}))

        interrupt(mine, method, refit)
        where = {"n": {"gte": 0}} if method in ("candidates", "vectors") else None  # which a search asks for one by one
        assert_hits(mine.search(QUERY, k=10, where=where), "cosine", QUERY, oracle.ids(300), stored, 10)
        assert mine.index_vectors(["id-0"]).shape == (1, other_k)
        assert mine.verify().ok

    def test_the_move_in_the_middle_of_the_opening(self, young, place, interrupt, monkeypatch):
        """Settings and profile are two reads."""
        mine, theirs = young
        mine.upsert(oracle.ids(1, LEAST - 1), oracle.vectors(1, DIM, seed=9))
        interrupt(theirs, "blob", mine.refit)
        before = mine.stats()["scheme"]["profile"]
        assert theirs.search(QUERY, k=3)
        after = mine.stats()["scheme"]["profile"]
        assert before == after == theirs.stats()["scheme"]["profile"], "the same vectors give the same profile"
        assert theirs.verify().ok

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
        with pytest.raises(errors.ProfileError, match=f"takes {LEAST} records that can be read, and there are 0"):
            store.collection("things", dim=DIM).refit()

    def test_drift_is_noticed(self, early, store, caplog):
        """Recent records of another kind: shown, logged, and where it is cheap mended."""
        things = store.collection("things", dim=DIM, scheme={"name": "sketch", "k": 8})
        things.upsert(oracle.ids(300), oracle.vectors(300, DIM))
        things.upsert(oracle.ids(200, 300), oracle.vectors(200, DIM, seed=1))
        drift = things.stats()["profile"]["drift"]
        assert drift["stale"] is False
        assert drift["mean"] < drift["limits"]["mean"] < 0.25
        assert drift["largest"] < drift["limits"]["largest"] < 2.5
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
            other = store.collection(name, dim=DIM, tenant=tenant)
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
        things = store.collection("things", dim=DIM)
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
