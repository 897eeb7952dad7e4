"""`get` by filter, in an order, in parts; searches with a threshold, groups, diversity, an offset; `recommend`."""

import numpy as np
import pytest

from encvec_store import errors
from encvec_store.engine import read
from tests.kits import oracle
from tests.stores.contract.opened import DIM

BAD_GETS = [
    ({"limit": 0}, "limit must be an integer >= 1, got 0"),
    ({"limit": True}, "limit must be an integer"),
    ({"offset": -1}, "offset must be an integer >= 0, got -1"),
    ({"order_by": ""}, "order_by must be a field"),
    ({"order_by": [1]}, "order_by must be a field"),
    ({"order_by": "-x"}, "order_by unknown field 'x'; the collection declares: n, tag"),
    ({"where": {"x": 1}}, "filter on unknown field 'x'"),
]
BAD_SEARCHES = [
    ({"offset": 1.5}, "offset must be an integer >= 0, got 1.5"),
    ({"threshold": "far"}, "threshold must be a number, got 'far'"),
    ({"threshold": float("nan")}, "threshold must be a number, got nan"),
    ({"group_by": ["n"]}, "group_by must be the name of a field"),
    ({"group_by": "x"}, "group_by unknown field 'x'; the collection declares: n, tag"),
    ({"group_size": 2}, "group_size is for group_by"),
    ({"group_by": "n", "group_size": 0}, "group_size must be an integer >= 1, got 0"),
    ({"diversity": 1.1}, "diversity must be a number from 0 to 1, got 1.1"),
    ({"diversity": 0.5, "pool": 0}, "pool must be an integer >= 1, got 0"),
    ({"pool": 3}, "pool is for diversity"),
]


class PickingContract:
    """What is picked from records and hits. The machine of random histories compares all of it with an oracle."""

    def test_get_some(self, make, monkeypatch):
        monkeypatch.setattr(read, "_CHUNK", 7)
        things = make(fields={"n": "blind", "tag": "sealed"})
        names, stored = oracle.ids(30), oracle.vectors(30)
        for part in range(3):
            at = slice(part * 10, part * 10 + 10)
            things.upsert(names[at], stored[at], [{"n": i % 4, "tag": i} for i in range(30)][at])
        assert [r.id for r in things.get(order_by="tag")] == names
        assert [r.id for r in things.get(order_by=["-n", "tag"], limit=3, offset=1)] == ["id-7", "id-11", "id-15"]
        (record,) = things.get(where={"n": 1}, order_by="-tag", limit=1)
        np.testing.assert_array_equal(record.vector, stored[29])
        assert {r.id for r in things.get(offset=10, limit=10, include_vectors=False)} == set(names[10:20])
        assert {r.id for r in things.get(where={"tag": {"lt": 12}}, offset=10)} == {"id-10", "id-11"}
        assert [r.id for r in things.get(["id-5", "id-2", "x"], {"n": {"lt": 3}}, order_by="tag")] == ["id-2", "id-5"]
        assert things.get(where={"n": 9}) == things.get(offset=30) == []
        for given, message in BAD_GETS:
            with pytest.raises(errors.InputError, match=message):
                things.get(**given)

    def test_refined_searches(self, make):
        things = make(fields={"n": "plain", "tag": "sealed"})
        stored, query = oracle.vectors(300), np.ones(DIM, np.float32)
        order, scores = oracle.nearest("cosine", query, stored, 300)
        # the nearest 250 are one group, and the others are all different
        rank = np.argsort(order)
        things.upsert(oracle.ids(300), stored, [{"tag": int(max(0, rank[i] - 249)), "n": i % 2} for i in range(300)])
        hits = things.search(query, 5, group_by="tag", offset=1)
        assert [hit.id for hit in hits] == [f"id-{i}" for i in order[250:255]]
        assert [hit.metadata["tag"] for hit in things.search(query, 4, group_by="tag", group_size=2)] == [0, 0, 1, 2]
        lists = things.search(np.stack([query, -query]), 3, threshold=float(scores[1]) - 1e-9, include_vectors=True)
        assert [hit.id for hit in lists[0]] == [f"id-{i}" for i in order[:2]]
        assert lists[0][0].vector is not None
        assert things.search(query, 3, {"n": 1}, threshold=2, group_by="tag", diversity=0.5) == []
        nearest = things.search(query, 300, offset=298)
        assert [hit.id for hit in nearest] == [f"id-{i}" for i in order[298:]]
        for given, message in BAD_SEARCHES:
            for call in (lambda **how: things.search(query, **how), lambda **how: things.recommend(["id-1"], **how)):
                with pytest.raises(errors.InputError, match=message):
                    call(**given)
        hits = things.recommend(["id-1", "id-2"], ["id-3"], k=4)
        wanted = oracle.target("cosine", stored[1:3], stored[3:4])
        expected = [i for i in oracle.nearest("cosine", wanted, stored, 7)[0] if i not in (1, 2, 3)][:4]
        assert [hit.id for hit in hits] == [f"id-{i}" for i in expected]
        for ids, message in (((["nobody"],), "no record 'nobody'"), (([],), "at least one positive id")):
            with pytest.raises(errors.InputError, match=message):
                things.recommend(*ids)
