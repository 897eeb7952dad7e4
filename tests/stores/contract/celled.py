"""Cells, on every store: spread by id, searched together, taken by itself as a collection grows, never half."""

import json
import logging

import numpy as np
import pytest

from encvec_store import errors, low_level
from encvec_store.data import version_of
from encvec_store.engine import places
from encvec_store.schemes import growth
from encvec_store.schemes import profile as profiles
from tests.kits import oracle
from tests.kits.oracle import assert_hits
from tests.stores.contract import EVERYTHING, hasten
from tests.stores.contract.moving import recall

DIM = 16
N = 300
QUERY = np.ones(DIM, np.float32)
SPECS = {"sap": {"name": "sap", "beta": 1.0, "cells": 5}, "sketch": {"name": "sketch", "beta": 1.0, "cells": 5}}


def metadata(n, start=0):
    return [{"n": i % 7, "few": "yes" if i == 123 else "no"} for i in range(start, start + n)]


class CelledContract:
    """Mixed into a `StoreContract`."""

    @pytest.fixture
    def small(self, monkeypatch):
        hasten(monkeypatch)
        monkeypatch.setattr(profiles, "LEAST_RECORDS", 40)

    @pytest.fixture(params=list(SPECS))
    def celled(self, request, small, store):
        things = store.collection("things", dim=DIM, scheme=SPECS[request.param], fields={"n": "blind", "few": "plain"})
        things.upsert(oracle.ids(N), oracle.vectors(N, DIM), metadata(N))
        return things

    @pytest.fixture
    def crowded(self, small, monkeypatch, place, store):
        """A collection at its budget of 100 records a rotation, open twice."""
        monkeypatch.setattr(growth, "BUDGET", 100)
        mine = store.collection(
            "things", DIM, scheme="sketch", fields={"n": "blind", "few": "plain"}, oversample=EVERYTHING
        )
        mine.upsert(oracle.ids(100), oracle.vectors(N, DIM)[:100], metadata(100), ["long " * 100] * 100)
        assert mine.stats()["cells"] == {
            "count": 1, "records": {"least": 100, "most": 100}, "budget": 100, "moves_above": 100
        }  # fmt: skip
        return mine, place.connect().collection("things", oversample=EVERYTHING)

    def check_cells(self, things, n):
        """The store's groups are the cells of the stats, and every record is in its own."""
        stats = things.stats()["cells"]
        partitions = low_level.session(things).records.partitions()
        assert len(partitions) == stats["count"]
        assert sum(partitions.values()) == things.count() == n
        assert stats["records"] == {"least": min(partitions.values()), "most": max(partitions.values())}
        report = things.verify()
        assert report.ok, report

    # -------------------------------------------------------------------------------------- as asked for

    def test_spread_and_searched_together(self, celled):
        stored = oracle.vectors(N, DIM)
        stats = celled.stats()
        assert json.loads(json.dumps(stats)) == stats
        assert stats["cells"]["count"] == stats["scheme"]["cells"] == 5
        assert 20 < stats["cells"]["records"]["least"] <= N / 5 <= stats["cells"]["records"]["most"] < 110
        assert stats["key_versions"] == {"1": N}
        self.check_cells(celled, N)
        queries = oracle.vectors(12, DIM, seed=3)
        low_level.set_search_options(celled, oversample=EVERYTHING)
        for query, hits in zip(queries, celled.search(queries, k=20), strict=True):
            assert_hits(hits, "cosine", query, oracle.ids(N), stored, 20)
        assert_hits(celled.search(QUERY, k=N), "cosine", QUERY, oracle.ids(N), stored, N)
        assert celled.index_vectors(oracle.ids(N)).shape == (N, stats["scheme"].get("k", DIM))

    @pytest.mark.parametrize("oversample", [1, 5, 20])
    def test_filters_find_all_there_is(self, celled, oversample):
        """However few of each cell are asked for: a store that has as many as it was asked for gives them."""
        low_level.set_search_options(celled, oversample=oversample)
        assert [hit.id for hit in celled.search(QUERY, k=5, where={"few": "yes"})] == ["id-123"]
        for where, wanted in (({"n": 3}, 43), ({"n": {"in": [1, 2]}, "few": "no"}, 86)):
            assert len(celled.search(QUERY, k=200, where=where)) == wanted == celled.count(where)
            many = celled.search(np.stack([QUERY, -QUERY]), k=200, where=where)
            assert [len(hits) for hits in many] == [wanted, wanted]
            assert len(celled.search(QUERY, k=7, where=where)) == 7

    def test_candidates_are_the_best_of_all_cells(self, small, store):
        """As many candidates as without cells find as much."""
        stored, names = oracle.vectors(1500, DIM), oracle.ids(1500)
        queries, found = oracle.vectors(60, DIM, seed=1), {}
        for cells in (1, 9):
            scheme = {"name": "sketch", "k": DIM, "beta": 2.0, "cells": cells}
            things = store.collection(f"in {cells}", dim=DIM, scheme=scheme)
            things.upsert(names, stored)
            low_level.set_search_options(things, oversample=4)
            found[cells] = recall(things, stored, names, queries)
        assert 0.4 < found[1] < 0.98, "else there is nothing to compare"
        assert abs(found[9] - found[1]) < 0.06

    def test_written_again_a_record_stays_in_its_cell(self, celled):
        rows = places(low_level.session(celled), oracle.ids(N))
        before = [partition for _, partition, _, _ in low_level.session(celled).records.audit(rows)]
        fresh = oracle.vectors(N, DIM, seed=8)
        celled.upsert(oracle.ids(N), fresh, metadata(N))
        rows = places(low_level.session(celled), oracle.ids(N))
        assert [partition for _, partition, _, _ in low_level.session(celled).records.audit(rows)] == before
        self.check_cells(celled, N)
        assert celled.delete(oracle.ids(100)) == 100
        assert celled.delete(where={"n": 3}) > 20
        assert {record.id for record in celled.scroll()}.isdisjoint(oracle.ids(100))
        assert celled.verify().ok

    def test_cells_opened_again(self, celled, place, store):
        spec = celled.stats()["scheme"]["name"]
        celled.search(QUERY)
        celled.flush()
        store = place.reopen(store)
        with pytest.raises(errors.ConfigMismatchError, match="cells=5"):
            store.collection("things", scheme=SPECS[spec] | {"cells": 6})
        again = store.collection("things", scheme=SPECS[spec], oversample=EVERYTHING)
        assert_hits(again.search(QUERY, k=20), "cosine", QUERY, oracle.ids(N), oracle.vectors(N, DIM), 20)
        self.check_cells(again, N)
        store.close()

    def test_both_key_versions_answer_from_cells(self, celled, keyset):
        keyset.rotate()
        low_level.set_search_options(celled, oversample=EVERYTHING)
        fresh = oracle.vectors(N, DIM, seed=8)
        celled.upsert(oracle.ids(150), fresh[:150], metadata(150))
        stored = np.concatenate([fresh[:150], oracle.vectors(N, DIM)[150:]])
        assert celled.stats()["key_versions"] == {"1": 150, "2": 150}
        assert {version_of(partition) for partition in low_level.session(celled).records.partitions()} == {1, 2}
        assert_hits(celled.search(QUERY, k=40), "cosine", QUERY, oracle.ids(N), stored, 40)
        assert celled.verify().ok
        keyset.disable(1)
        assert {hit.id for hit in celled.search(QUERY, k=N)} == set(oracle.ids(150))
        assert celled.verify().unreadable == 150

    def test_cells_explained(self, celled):
        told = celled.explain(QUERY, k=10)
        assert "key version 1, 5 cells, of each" in told

    def test_sealed_until_there_is_a_profile(self, small, store):
        things = store.collection("things", dim=DIM, scheme={"name": "sketch", "cells": 3}, oversample=EVERYTHING)
        things.upsert(oracle.ids(30), oracle.vectors(30, DIM))
        assert things.stats()["cells"] is None
        assert set(low_level.session(things).records.partitions()) == {1}
        things.upsert(oracle.ids(30, 30), oracle.vectors(60, DIM)[30:])
        assert things.stats()["cells"]["moves_above"] is None
        self.check_cells(things, 60)

    def test_calibrated_and_fitted_anew(self, celled):
        celled.calibrate(k=5, target_recall=0.6, max_candidates=60, accept_less_noise=True)
        self.check_cells(celled, N)
        if celled.stats()["scheme"]["name"] == "sketch":
            celled.refit()
        assert celled.stats()["cells"]["count"] == 5
        self.check_cells(celled, N)

    def test_drift_is_noticed_across_cells(self, small, store):
        """Each rotation alone sees too few records: turned back, they add up."""
        things = store.collection("things", dim=DIM, scheme={"name": "sketch", "k": 8, "cells": 5})
        things.upsert(oracle.ids(300), oracle.vectors(300, DIM))
        things.upsert(oracle.ids(200, 300), oracle.vectors(200, DIM, seed=1))
        assert things.stats()["profile"]["drift"]["stale"] is False
        narrow = oracle.vectors(200, DIM, seed=2) * np.array([6.0] + [1.0] * (DIM - 1), np.float32) + 0.5
        things.upsert(oracle.ids(200, 500), narrow)
        fitted = things.stats()["profile"]["fitted"]["records"]
        assert fitted == 700, "so it was fitted anew, as it had doubled"

    @pytest.mark.parametrize("change", ["another cell", "no cell"])
    def test_a_record_put_into_another_cell(self, celled, place, change):
        burglar = place.burglar()
        row = burglar.rows()[0]
        partition = burglar.read(row, "partition")
        others = [other for other in low_level.session(celled).records.partitions() if other != partition]
        burglar.write(row, {"partition": others[0] if change == "another cell" else 99 << 32 | 1})
        assert [item.part for item in celled.verify().damaged] == ["cell"]

    # -------------------------------------------------------------------------------------- by itself

    def test_taken_when_the_budget_is_outgrown(self, crowded):
        mine, theirs = crowded
        before = mine.index_vectors(oracle.ids(100))
        theirs.search(QUERY)
        stored = oracle.vectors(N, DIM)
        mine.upsert(oracle.ids(1, 100), stored[100:101], metadata(1, 100))
        after = mine.index_vectors(oracle.ids(100))
        assert abs(np.sum(before * after, axis=1).mean()) < 0.35, "another rotation for every record"
        for things in crowded:
            assert (things.stats()["cells"]["count"], things.stats()["cells"]["moves_above"]) == (2, 200)
            assert "cells" in things.stats()["profile"]["fitted"]["chosen"]
            assert_hits(things.search(QUERY, k=30), "cosine", QUERY, oracle.ids(101), stored[:101], 30)
            self.check_cells(things, 101)
        counts = []
        for start in range(101, N, 20):
            end = min(N, start + 20)
            theirs.upsert(oracle.ids(end - start, start), stored[start:end], metadata(end - start, start))
            counts.append(theirs.stats()["cells"]["count"])
            assert theirs.stats()["cells"]["records"]["most"] <= 100
        assert counts == sorted(counts)
        assert counts[-1] in (4, 5), "once more, when the count had doubled"
        for things in crowded:
            assert_hits(things.search(QUERY, k=30), "cosine", QUERY, oracle.ids(N), stored, 30)
            assert len(things.search(QUERY, k=50, where={"n": 3})) == 43
            self.check_cells(things, N)

    def test_taken_at_once_by_a_large_write(self, small, monkeypatch, store):
        monkeypatch.setattr(growth, "BUDGET", 50)
        things = store.collection("things", dim=DIM, scheme="sketch", oversample=EVERYTHING)
        things.upsert(oracle.ids(N), oracle.vectors(N, DIM))
        assert things.stats()["cells"]["count"] == 12
        assert things.stats()["profile"]["advice"] is None
        self.check_cells(things, N)
        things.refit()
        assert things.stats()["cells"]["count"] == 12
        things.calibrate(k=5, target_recall=0.6, max_candidates=60, accept_less_noise=True)
        assert things.stats()["cells"]["moves_above"] == 600, "still by itself"
        self.check_cells(things, N)

    def test_a_move_to_cells_that_fails(self, crowded, interrupt, caplog):
        mine, theirs = crowded

        def fail():
            raise errors.StoreUnreachableError("the disk is on fire")

        interrupt(mine, "replace", fail)
        stored = oracle.vectors(N, DIM)
        with caplog.at_level(logging.WARNING, "encvec_store"):
            mine.upsert(oracle.ids(1, 100), stored[100:101], metadata(1, 100))
        assert "the disk is on fire" in caplog.text
        assert mine.stats()["profile"]["failed"] == "StoreUnreachableError: the disk is on fire"
        for things in crowded:
            assert things.stats()["cells"]["count"] == 1
            self.check_cells(things, 101)
        caplog.clear()
        mine.upsert(oracle.ids(1, 101), stored[101:102], metadata(1, 101))
        assert not caplog.text, "not at every write"
        mine.upsert(oracle.ids(60, 102), stored[102:162], metadata(60, 102))
        assert mine.stats()["cells"]["count"] == 3
        self.check_cells(theirs, 162)

    @pytest.mark.parametrize("method", ["put", "rows", "vectors", "replace"])
    def test_both_outgrow_it_at_once(self, crowded, interrupt, method):
        mine, theirs = crowded
        interrupt(mine, method, lambda: theirs.upsert(["theirs"], oracle.vectors(1, DIM, seed=8)))
        mine.upsert(["mine"], oracle.vectors(1, DIM, seed=7))
        for things in crowded:
            assert things.stats()["cells"]["count"] == 2
            assert {record.id for record in things.get(["mine", "theirs"])} == {"mine", "theirs"}
            assert things.search(oracle.vectors(1, DIM, seed=8)[0], k=1)[0].id == "theirs"
            self.check_cells(things, 102)

    @pytest.mark.parametrize("method", ["nearest", "candidates", "vectors", "payloads"])
    def test_the_move_to_cells_in_the_middle_of_a_search(self, crowded, interrupt, method):
        mine, theirs = crowded
        mine.search(QUERY)
        interrupt(mine, method, lambda: theirs.upsert(["new"], -oracle.vectors(1, DIM, seed=8)))
        where = {"n": {"gte": 0}} if method in ("candidates", "vectors") else None
        stored = oracle.vectors(N, DIM)[:100]
        hits = [hit for hit in mine.search(QUERY, k=11, where=where) if hit.id != "new"][:10]
        assert_hits(hits, "cosine", QUERY, oracle.ids(100), stored, 10)
        self.check_cells(mine, 101)

    def test_a_number_that_was_asked_for_stays(self, small, monkeypatch, store):
        monkeypatch.setattr(growth, "BUDGET", 100)
        for cells in (1, 2):
            things = store.collection(f"in {cells}", dim=DIM, scheme={"name": "sketch", "cells": cells})
            things.upsert(oracle.ids(N), oracle.vectors(N, DIM))
            things.upsert(oracle.ids(10, N), oracle.vectors(10, DIM, seed=1))
            stats = things.stats()
            assert (stats["cells"]["count"], stats["cells"]["moves_above"]) == (cells, None)
            assert stats["profile"]["advice"].startswith("more than 100 records under one rotation")
