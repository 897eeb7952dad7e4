"""Sources of candidates: several behind one search, and a source that nobody here knows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import encvec_store as ev
from encvec_store import low_level
from encvec_store.engine.candidates import Found, Fused, Sources, fused
from encvec_store.engine.candidates.fusion import interleaved
from tests.kits import oracle

LISTS = st.lists(st.lists(st.integers(1, 30), unique=True, max_size=8), min_size=1, max_size=4)


class Asked:
    """Gives rows of a list, with or without what is behind them."""

    covers, parts = True, None

    def __init__(self, lists, *, opens=True, factor=1):
        self.lists, self.opens, self.factor = [np.array(rows, np.int64) for rows in lists], opens, factor

    def wanted(self, k, oversample):
        return self.factor * k * oversample

    def candidates(self, limit, positions=None):
        chosen = range(len(self.lists)) if positions is None else positions
        return [self.lists[i][:limit] for i in chosen]

    def opened(self, limit):
        if not self.opens:
            return None
        lists = self.candidates(limit)
        rows = np.unique(np.concatenate(lists))
        heads = np.tile(rows.astype(np.uint8)[:, None], (1, 4))
        payloads = {int(row): bytes([row]) for row in rows}
        return Found(lists, rows, np.stack([rows, -rows], 1).astype(np.float32), heads, payloads)

    def explain(self, k, oversample):
        return [f"{len(self.lists)} lists"]


@given(LISTS)
def test_merging_goes_by_rank(lists):
    merged = interleaved([np.array(rows, np.int64) for rows in lists]).tolist()
    assert len(set(merged)) == len(merged)
    assert set(merged) == {row for rows in lists for row in rows}
    best = {row: min(rows.index(row) for rows in lists if row in rows) for row in merged}
    assert [best[row] for row in merged] == sorted(best[row] for row in merged)


def test_one_source_is_itself():
    only = Asked([[3, 1]])
    assert fused([only]) is only


def test_several_sources_are_taken_together():
    both = fused([Asked([[5, 1, 9], [2]]), Asked([[1, 7], [8, 2]], factor=3)])
    assert isinstance(both, Fused)
    assert both.wanted(2, 5) == 30
    assert [rows.tolist() for rows in both.candidates(2)] == [[5, 1, 7], [2, 8]]
    assert [rows.tolist() for rows in both.candidates(9, [1])] == [[2, 8]]
    assert both.explain(1, 1) == ["2 lists", "2 lists"]
    found = both.opened(3)
    assert found.rows.tolist() == [1, 2, 5, 7, 8, 9]
    np.testing.assert_array_equal(found.vectors[:, 0], found.rows)
    np.testing.assert_array_equal(found.heads[:, 0], found.rows)
    assert found.payloads == {row: bytes([row]) for row in found.rows.tolist()}
    assert fused([Asked([[1]]), Asked([[2]], opens=False)]).opened(3) is None


def test_a_search_knows_no_kind_of_source(monkeypatch):
    """A source of a kind of its own: it names the five records written last, and searches answer from these."""

    class Newest:
        def __init__(self, session):
            self.session = session

        def ask(self, config, queries, node, predicate):
            rows = self.session.records.rows(predicate)[-5:]
            return Asked([rows] * len(queries), opens=False)

    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        things = store.collection("things", 8, scheme="sap", fields={"n": "blind"})
        for i in range(20):
            things.upsert([f"id-{i}"], oracle.vectors(1, seed=i), [{"n": i % 2}])
        monkeypatch.setattr(Sources, "source_of", lambda self, index_dim: Newest(low_level.session(things)))
        query = oracle.vectors(1, seed=3)[0]
        assert {hit.id for hit in things.search(query, k=10)} == {f"id-{i}" for i in range(15, 20)}
        assert {hit.id for hit in things.search(query, k=10, where={"n": 1})} == {f"id-{i}" for i in range(11, 20, 2)}
        stored = np.concatenate([oracle.vectors(1, seed=i) for i in range(15, 20)])
        names = [f"id-{i}" for i in range(15, 20)]
        oracle.assert_hits(things.search(query, k=3), "cosine", query, names, stored, 3)
        told = "candidates: 100, of which the nearest 10 by their exact vectors are returned"
        assert things.explain(query) == f"{told}\n1 lists"
