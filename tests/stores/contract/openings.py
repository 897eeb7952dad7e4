"""Several openings and threads on one collection."""

import threading

import numpy as np
import pytest

from encvec_store import errors, low_level
from tests.kits import oracle
from tests.kits.oracle import assert_hits
from tests.kits.threads import guarded
from tests.stores.contract.opened import EVERYTHING


class OpeningsContract:
    """What others see."""

    def test_two_openings_see_each_others_writes(self, place, store, make):
        mine = make(fields={"n": "blind"})
        other = place.connect()
        theirs = other.collection("things", oversample=EVERYTHING)
        stored = oracle.vectors(30)
        mine.upsert(oracle.ids(10), stored[:10], [{"n": 1}] * 10)
        assert theirs.count() == theirs.count({"n": 1}) == 10
        theirs.upsert(oracle.ids(20, 10), stored[10:], [{"n": 2}] * 20)
        mine.delete(["id-3"])
        for things in (mine, theirs):
            hits = things.search(stored[0], k=30)
            kept = [i for i in range(30) if i != 3]
            assert_hits(hits, "cosine", stored[0], [f"id-{i}" for i in kept], stored[kept], 30)
            assert [record.id for record in things.get(["id-3", "id-29"])] == ["id-29"]
        other.close()

    def test_opened_twice_a_collection_is_one(self, place, store, make):
        """Keys, settings and index are shared; what an opening asks for is its own."""
        mine = make()
        mine.upsert(oracle.ids(20), oracle.vectors(20))
        again = store.collection("things", oversample=2)
        assert again is not mine
        assert low_level.session(again) is low_level.session(mine)
        assert again._oversample == 2 != mine._oversample  # noqa: SLF001
        mine.upsert(["new"], oracle.vectors(1, seed=9))
        assert again.get(["new"])[0].id == "new"
        assert low_level.session(store.collection("things")) is low_level.session(mine)
        theirs = place.connect()
        assert low_level.session(theirs.collection("things")) is not low_level.session(mine)
        assert theirs.drop("things")
        with pytest.raises(errors.CollectionNotFoundError):
            store.collection("things")
        anew = make()
        assert low_level.session(anew) is not low_level.session(mine)
        assert anew.count() == 0
        assert anew.search(oracle.vectors(1)[0]) == []
        vector = oracle.vectors(1)
        for use in (mine.count, lambda: mine.search(vector[0]), lambda: mine.upsert(["a"], vector)):
            with pytest.raises(errors.CollectionNotFoundError):
                use()

    def test_one_calibrates_while_the_other_works(self, place, store):
        stored = oracle.vectors(300, 16)
        mine = store.collection("things", dim=16, oversample=30, metric="l2", scheme="sap")
        mine.upsert(oracle.ids(200), stored[:200])
        other = place.connect()
        theirs = other.collection("things", oversample=30)
        assert theirs.search(stored[7], k=10)[0].id == "id-7"
        mine.calibrate(target_recall=0.8, max_candidates=300)
        for query, hits in zip(stored[:9], theirs.search(stored[:9], k=10), strict=True):
            assert_hits(hits, "l2", query, oracle.ids(200), stored[:200], 10)
        mine.calibrate(target_recall=0.9, max_candidates=300)
        theirs.upsert(oracle.ids(100, 200), stored[200:], [{"a": 1}] * 100)
        assert mine.verify().ok
        assert mine.count() == 300
        mine.calibrate(target_recall=0.8, max_candidates=300)
        assert theirs.get(["id-250"])[0].metadata == {"a": 1}
        assert theirs.delete(["id-250"]) == 1
        assert theirs.verify().ok
        other.close()

    def test_threads_lose_nothing(self, make, keyset):
        """Writers of their own records and of shared ones, readers, deleters, a rotation: on one collection."""
        things = make(fields={"n": "blind"}, metric="l2", max_norm=100.0)
        base = oracle.vectors(400)
        problems: list[BaseException] = []
        stop = threading.Event()

        def write(number):
            for batch in range(10):
                start = number * 100 + batch * 10
                things.upsert(oracle.ids(10, start), base[start : start + 10], [{"n": number}] * 10)
                things.upsert(["shared", f"shared-{number}"], base[start : start + 2], [{"n": -1, "by": start}] * 2)
                if batch % 3 == 2:
                    assert things.delete([f"id-{start}"]) == 1

        def read():
            while not stop.is_set():
                for hits in things.search(base[:3], k=20):
                    scores = [hit.score for hit in hits]
                    assert scores == sorted(scores)
                    for hit in hits:
                        if hit.id.startswith("id-"):
                            i = int(hit.id[3:])
                            assert hit.metadata == {"n": i // 100}
                hits = things.search(base[0], k=5, where={"n": 1})
                assert {hit.metadata["n"] for hit in hits} <= {1}
                for record in things.get(["shared", "id-7"]):
                    assert record.id in ("shared", "id-7")
                things.count({"n": 2})

        readers = [guarded(problems, read) for _ in range(2)]
        writers = [guarded(problems, write, number) for number in range(4)]
        for thread in readers + writers:
            thread.start()
        keyset.rotate()
        for thread in writers:
            thread.join(60)
        stop.set()
        for thread in readers:
            thread.join(60)
        assert not problems, problems
        assert not any(thread.is_alive() for thread in readers + writers)
        expected = [n * 100 + i for n in range(4) for i in range(100) if not (i % 10 == 0 and i // 10 % 3 == 2)]
        found = {record.id: record for record in things.scroll()}
        assert set(found) == {f"id-{i}" for i in expected} | {"shared"} | {f"shared-{n}" for n in range(4)}
        assert things.count() == len(found)
        for i in expected:
            np.testing.assert_array_equal(found[f"id-{i}"].vector, base[i])
        by = found["shared"].metadata["by"]
        np.testing.assert_array_equal(found["shared"].vector, base[by])
        assert things.verify().ok
