"""Searches and filters: exact answers, whatever the index and the noise do."""

import itertools

import numpy as np
import pytest

from encvec_store import errors
from tests.kits import oracle
from tests.kits.oracle import FILTERS, METRICS, assert_hits, exact, mixed_metadata
from tests.kits.strategies import accepts
from tests.stores.contract.opened import DIM, QUIET


class SearchContract:
    """What searches, counts and filters answer."""

    def test_empty(self, make):
        things = make()
        assert things.search(np.ones(DIM)) == []
        assert things.search(np.ones((3, DIM))) == [[], [], []]
        assert things.search(np.ones((2, DIM)), where={"a": 1}) == [[], []]
        assert things.count() == things.count({"a": 1}) == 0
        assert things.get(["x"]) == things.get([]) == []
        assert list(things.scroll()) == list(things.scroll({"a": 1})) == []
        assert things.delete(["x"]) == things.delete([]) == things.delete(where={"a": 1}) == 0
        assert things.index_vectors([]).shape == (
            0,
            things.stats()["dim"] if things.stats()["scheme"]["name"] == "sap" else 0,
        )
        report = things.verify()
        assert report.ok
        assert report.checked == 0

    def test_nothing_to_write_is_no_error(self, make):
        things = make()
        things.upsert([], [])
        things.upsert([], np.empty((0, DIM)), [], [])
        assert things.count() == 0
        with pytest.raises(errors.ShapeError):
            things.upsert([], np.empty((0, DIM + 1)))

    def test_no_queries_no_lists(self, make):
        things = make()
        things.upsert(["a"], [[1.0] * DIM])
        assert things.search(np.empty((0, DIM))) == []
        assert things.search(np.empty((0, DIM)), where={"a": 1}) == []
        for wrong in (np.empty((0, DIM + 1)), np.empty((2, 0)), [[]], []):
            with pytest.raises(errors.ShapeError):
                things.search(wrong)

    def test_one_record(self, make):
        things = make()
        things.upsert(["a"], [range(1, DIM + 1)], [{"x": 1}], ["text"])
        (hit,) = things.search(range(1, DIM + 1), include_vectors=True)
        assert (hit.id, hit.metadata, hit.document) == ("a", {"x": 1}, "text")
        assert hit.score == pytest.approx(1)
        np.testing.assert_array_equal(hit.vector, np.arange(1, DIM + 1))
        assert hit.vector.dtype == np.float32

    @pytest.mark.parametrize("metric", METRICS)
    def test_answers_are_exact(self, make, metric):
        names, stored, queries = oracle.ids(200), oracle.vectors(200), oracle.vectors(7, seed=1)
        things = make(metric=metric)
        metadata = [{"i": i} for i in range(200)]
        documents = [None if i % 3 else f"text {i}" for i in range(200)]
        things.upsert(names[:150], stored[:150], metadata[:150], documents[:150])
        things.upsert(names[150:], stored[150:], metadata[150:], documents[150:])
        for k in (1, 10, 200, 1000):
            lists = things.search(queries, k=k, include_vectors=k == 10)
            assert len(lists) == len(queries)
            for query, hits in zip(queries, lists, strict=True):
                assert_hits(hits, metric, query, names, stored, k)
                for hit in hits:
                    i = names.index(hit.id)
                    assert (hit.metadata, hit.document) == (metadata[i], documents[i])
                    assert (hit.vector is not None) is (k == 10)
                    if hit.vector is not None:
                        np.testing.assert_array_equal(hit.vector, stored[i])
        single = things.search(queries[0], k=10)
        assert [hit.id for hit in single] == [hit.id for hit in things.search(queries[:1], k=10)[0]]
        assert [hit.id for hit in things.search(list(map(float, queries[0])), k=np.int64(10))] == [h.id for h in single]

    def test_answers_are_exact_at_any_length(self, make, subtests):
        names = oracle.ids(30)
        for metric, scale in itertools.product(METRICS, np.float32([1e-30, 1e-15, 1e15, 1e30])):
            with subtests.test(metric=metric, scale=scale):
                stored, queries = oracle.vectors(30) * scale, oracle.vectors(3, seed=1) * scale
                things = make(f"{metric} {scale}", metric=metric)
                things.upsert(names, stored)
                for query, hits in zip(queries, things.search(queries, k=30), strict=True):
                    order, scores = oracle.nearest(metric, query, stored, 30)
                    assert [hit.id for hit in hits] == [names[i] for i in order]
                    np.testing.assert_allclose([hit.score for hit in hits], scores, rtol=1e-9)
                assert things.verify().ok

    def test_more_than_there_are(self, make):
        things = make()
        things.upsert(oracle.ids(5), oracle.vectors(5))
        for k in (5, 6, 10**6, 2**40):
            assert len(things.search(np.ones(DIM), k=k)) == 5
            assert len(things.search(np.ones(DIM), k=k, where={"a": {"exists": False}})) == 5

    @pytest.mark.parametrize("k", [10**6, 2**31, 2**63, 10**30], ids=["1e6", "2^31", "2^63", "1e30"])
    def test_k_of_any_size_gives_everything(self, make, k):
        things = make(fields={"n": "blind", "m": "sealed"})
        things.upsert(oracle.ids(40), oracle.vectors(40), [{"n": i % 2, "m": i % 4} for i in range(40)])
        for where, count in ((None, 40), ({"n": 1}, 20), ({"m": 1}, 10)):
            assert [len(hits) for hits in things.search(oracle.vectors(2), k, where)] == [count, count]
        assert things.explain(np.ones(DIM), k)

    def test_a_long_or_of_equalities_is_an_in(self, make):
        things = make(fields={"n": "blind", "m": "plain", "s": "sealed"})
        things.upsert(oracle.ids(40), oracle.vectors(40), [{"n": i, "m": i, "s": i} for i in range(40)])
        for name in ("n", "m", "s"):
            where = {"or": [{name: i} for i in range(-1500, 7)]}
            assert things.count(where) == len(things.search(np.ones(DIM), 40, where)) == 7

    @pytest.mark.parametrize("policy", [None, "sealed", "blind", "plain"])
    def test_filters_reach_into_nested_metadata(self, make, policy):
        things = make(fields=policy and {"a.b": policy})
        metadata = [{"a": {"b": 1}}, {"a.b": 1, "a": {"b": 2}}, {"a": {"b": 2}}, {"a": 1}, {}]
        things.upsert(oracle.ids(5), oracle.vectors(5), metadata)
        for where, found in (({"a.b": 1}, [0, 1]), ({"a.b": {"gt": 1}}, [2]), ({"a.b": {"exists": False}}, [3, 4])):
            names = [f"id-{i}" for i in found]
            assert sorted(hit.id for hit in things.search(np.ones(DIM), 5, where)) == names
            assert sorted(record.id for record in things.scroll(where)) == names
        assert things.verify().ok

    def test_equal_vectors_are_all_found(self, make):
        things = make()
        things.upsert(oracle.ids(40), np.repeat(oracle.vectors(4), 10, axis=0))
        hits = things.search(oracle.vectors(4)[1], k=10)
        assert sorted(hit.id for hit in hits) == sorted(oracle.ids(10, 10))

    def test_candidates_come_from_the_index(self, store):
        """With the default oversample on more records than candidates: no brute force, high recall."""
        things = store.collection("things", dim=32, scheme="sap")
        names, stored, queries = oracle.ids(3000), oracle.vectors(3000, 32), oracle.vectors(20, 32, seed=1)
        things.upsert(names, stored)
        found = 0
        for query, hits in zip(queries, things.search(queries, k=10), strict=True):
            order, _ = oracle.nearest("cosine", query, stored, 10)
            found += len({names[i] for i in order} & {hit.id for hit in hits})
            own = exact("cosine", query, stored)
            for hit in hits:
                assert hit.score == pytest.approx(own[names.index(hit.id)], rel=1e-9)
        assert found >= 0.8 * 200

    def test_explain(self, make, scheme):
        things = make(fields={"n": "blind", "s": "sealed"}, oversample=2)
        assert isinstance(things.explain(np.ones(DIM)), str)
        things.upsert(oracle.ids(30), oracle.vectors(30), [{"n": i % 3, "s": i} for i in range(30)])
        plain = things.explain(np.ones(DIM), k=5)
        assert ("10, of which the nearest 5" in plain) is (scheme == QUIET)
        assert ("3 cells" if "cells" in scheme else "30") in plain
        assert "filter" not in plain
        pushed = things.explain(np.ones(DIM), 5, {"n": 1, "s": {"lt": 9}})
        by_columns = not things.index_vectors(["id-0"]).size
        assert ("3 of 30 records pass" if by_columns else "the store checks blind and plain fields") in pushed
        assert by_columns or "10" in pushed
        how = "by columns in memory" if by_columns else "checked here, on opened records"
        assert how in things.explain(np.ones(DIM), 5, {"s": 1})
        for wrong in (
            lambda: things.explain(np.ones((2, DIM))),
            lambda: things.explain(np.ones(DIM + 1)),
            lambda: things.explain(np.zeros(DIM)),
            lambda: things.explain(np.ones(DIM), k=0),
            lambda: things.explain(np.ones(DIM), where={"unknown": 1}),
        ):
            with pytest.raises(errors.InputError):
                wrong()

    def test_hits_do_not_share_their_metadata(self, make):
        things = make()
        things.upsert(["a"], [[1.0] * DIM], [{"x": [1]}])
        lists = things.search(np.ones((2, DIM)), include_vectors=True)
        lists[0][0].metadata["mine"] = True
        lists[0][0].vector[:] = 0
        assert lists[1][0].metadata == {"x": [1]}
        assert things.get(["a"])[0].metadata == {"x": [1]}
        np.testing.assert_array_equal(lists[1][0].vector, np.ones(DIM))
        np.testing.assert_array_equal(things.search(np.ones(DIM), include_vectors=True)[0].vector, np.ones(DIM))

    def test_filters_agree_with_the_oracle(self, make, policies):
        """Whatever the policy, and by every method that takes a filter."""
        names, stored, metadata = oracle.ids(120), oracle.vectors(120), mixed_metadata(120)
        things = make(fields=policies)
        things.upsert(names, stored, metadata)
        things.upsert(names[:30], stored[:30], metadata[:30])
        query = np.ones(DIM, np.float32)
        chosen_by = {}
        for number, where in enumerate(FILTERS):
            expected = [name for name, item in zip(names, metadata, strict=True) if accepts(where, item)]
            places = [names.index(name) for name in expected]
            for k in (3, 120):
                hits = things.search(query, k=k, where=where)
                assert_hits(hits, "cosine", query, expected, stored[places], k)
            assert things.count(where) == len(expected), where
            chosen_by[number] = expected
        for number in (0, 11, 17, 33):
            found = [record.id for record in things.scroll(FILTERS[number])]
            assert sorted(found) == sorted(chosen_by[number])
        lists = things.search(oracle.vectors(3, seed=4), k=5, where={"n": {"gte": 8}})
        assert all({hit.metadata["n"] for hit in hits} <= {8, 9} and len(hits) == 5 for hits in lists)
        assert sum(map(len, chosen_by.values())) > 500
        assert things.delete(where=FILTERS[33]) == len(chosen_by[33])
        assert things.count() == 120 - len(chosen_by[33])
        assert things.verify().ok

    @pytest.mark.parametrize("policy", ["sealed", "blind", "plain"])
    def test_rare_matches_are_all_found(self, store, scheme, policy):
        """Three among two thousand, and far from the query: fewer than k come only where fewer exist."""
        things = store.collection("things", dim=DIM, scheme=scheme, fields={"tag": policy})
        stored = oracle.vectors(2000)
        query = np.ones(DIM, np.float32)
        far = np.argsort(exact("cosine", query, stored))[:3]
        things.upsert(oracle.ids(2000), stored, [{"tag": "rare" if i in far else "common"} for i in range(2000)])
        wanted = {f"id-{i}" for i in far}
        assert {hit.id for hit in things.search(query, k=3, where={"tag": "rare"})} == wanted
        assert {hit.id for hit in things.search(query, k=10, where={"tag": "rare"})} == wanted
        assert {hit.id for hit in things.search(query, k=10, where={"tag": {"ne": "common"}})} == wanted
        lists = things.search(np.stack([query, -query]), k=3, where={"tag": "rare"})
        assert [{hit.id for hit in hits} for hits in lists] == [wanted, wanted]
        assert things.count({"tag": "rare"}) == 3

    def test_undeclared_fields_are_refused_not_ignored(self, make):
        things = make(fields={"a": "sealed", "b": "blind"})
        things.upsert(["x"], oracle.vectors(1), [{"c": 1}])
        calls = (
            lambda: things.search(np.ones(DIM), where={"c": 1}),
            lambda: things.count({"c": 1}),
            lambda: list(things.scroll({"c": 1})),
            lambda: things.delete(where={"c": 1}),
        )
        for call in calls:
            with pytest.raises(errors.UnknownFieldError, match="unknown field 'c'; the collection declares: a, b"):
                call()
        assert things.get(["x"])[0].metadata == {"c": 1}, "stored all the same"

    def test_malformed_filters_are_refused_by_every_method(self, make):
        things = make()
        things.upsert(["x"], oracle.vectors(1))
        for where in ({"a": {"like": 1}}, [{"a": 1}], "a", [], 0):
            for call in (
                lambda where: things.search(np.ones(DIM), where=where),
                things.count,
                lambda where: list(things.scroll(where)),
                lambda where: things.delete(where=where),
            ):
                with pytest.raises(errors.InputError):
                    call(where)
        assert things.count() == 1
