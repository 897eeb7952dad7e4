"""The life of a sketch collection, on every store: sealed, moved by itself, never half."""

import json
import logging

import numpy as np
import pytest

from encvec_store import errors, low_level
from encvec_store.engine.candidates import sealed
from encvec_store.schemes import THREATS
from tests.kits import oracle
from tests.kits.oracle import assert_hits
from tests.stores.contract import EVERYTHING
from tests.stores.contract.sketch import DIM, LEAST, QUERY, SketchPlaces, recall


class MovingContract(SketchPlaces):
    """Mixed into a `StoreContract`."""

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
            assert {name for name, value in stats["profile"].items() if value is not None} == {"state", "until"}
            assert (stats["profile"]["state"], stats["profile"]["until"]) == ("sealed", LEAST)
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
        things = store.collection("things", dim=DIM, metric=metric, scheme="sketch", oversample=EVERYTHING)
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
        things = store.collection("things", dim=8, scheme="sketch")
        things.upsert(["a"], oracle.vectors(1))
        assert {name: value for name, value in things.stats()["profile"].items() if value} == {"state": "sealed"}

    # ----------------------------------------------------------------------------- it cannot move, yet

    def test_a_move_that_fails_never_fails_the_write(self, early, store, caplog):
        things = store.collection("things", dim=DIM, scheme="sketch", oversample=EVERYTHING)
        same = np.repeat(oracle.vectors(1, DIM), LEAST, axis=0)
        with caplog.at_level(logging.WARNING, "encvec_store"):
            things.upsert(oracle.ids(LEAST), same)
        assert "maintenance failed, the collection stays as it is: ProfileError: the vectors of the" in caplog.text
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

    @pytest.mark.parametrize("method", ["changes", "vectors", "payloads"])
    def test_the_move_in_the_middle_of_a_search(self, young, interrupt, method, monkeypatch):
        """It was begun on opened vectors."""
        monkeypatch.setattr(sealed, "_SHORT", 0)  # otherwise one read brings all that an answer needs
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
            config = low_level.session(theirs).refresh()
            scheme = type(config.scheme)(k=other_k, beta=0.5)
            low_level.lifecycle(theirs).fit(type(config)(**{**config.__dict__, "scheme": scheme, "fitted": None}))

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
