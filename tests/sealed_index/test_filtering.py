"""Columns of metadata say which rows pass a filter."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from encvec_store.data import METRICS, parse_filter
from encvec_store.sealed_index import columns
from encvec_store.sealed_index.columns import FieldColumns
from encvec_store.sealed_index.state import Snapshot
from encvec_store.sealed_index.tail import Tail
from tests.kits.strategies import FILTERS, METADATA, accepts


def passing(held, where, rows):
    node = parse_filter(where)
    held.want(node)
    return held.passing(node).among(rows).tolist()


@settings(max_examples=150, deadline=None)
@given(st.lists(METADATA, min_size=1, max_size=12), st.lists(METADATA, max_size=6), st.lists(FILTERS, max_size=4))
def test_columns_say_what_the_filter_says(first, more, filters):
    held = FieldColumns()
    first, more = [dict(each) for each in first], [dict(each) for each in more]
    for where in filters:  # named before: fields of any kind of value get a column
        held.want(parse_filter(where))
    held.add(np.arange(1, len(first) + 1), first)
    for where in filters:
        assert passing(held, where, np.arange(1, len(first) + 1)) == [accepts(where, each) for each in first]
    held.add(np.arange(100, 100 + len(more)), more)
    rows = np.array([*range(1, len(first) + 1), *range(100, 100 + len(more))])
    for where in filters:
        assert passing(held, where, rows) == [accepts(where, each) for each in [*first, *more]]


def test_rows_in_any_order():
    held = FieldColumns()
    held.add(np.array([5, 9]), [{"n": 5}, {"n": 9}])
    held.add(np.array([2, 9, 7]), [{"n": 2}, {"n": 9}, {"n": 7}])
    assert held.count == 4
    assert passing(held, {"n": {"gte": 7}}, np.array([9, 2, 7, 5])) == [True, False, True, False]
    assert passing(held, {"n": 2}, np.array([2, 3])) == [True, True], "what nobody knows passes"


def test_more_values_than_a_byte_holds():
    held = FieldColumns()
    for start in range(0, 70_000, 35_000):
        held.add(
            np.arange(start + 1, start + 35_001), [{"n": i, "s": f"{i % 300}"} for i in range(start, start + 35_000)]
        )
    rows = np.arange(1, 70_001)
    assert sum(passing(held, {"n": {"lt": 1_000}}, rows)) == 1_000
    assert sum(passing(held, {"s": {"gt": "299"}}, rows)) == sum(f"{i % 300}" > "299" for i in range(70_000))
    assert np.flatnonzero(passing(held, {"n": 69_999}, rows)).tolist() == [69_999]


def test_a_field_that_appears_late():
    held = FieldColumns()
    held.add(np.arange(1, 5_001), [{"n": i % 7} for i in range(5_000)])
    assert passing(held, {"late": {"exists": False}}, np.array([3])) == [True]
    held.add(np.array([6_000, 6_001]), [{"late": "a"}, {"late": "b", "n": 1}])
    assert passing(held, {"late": {"gte": "b"}}, np.array([3, 5_000, 6_000, 6_001])) == [False, False, False, True]
    assert passing(held, {"n": {"exists": True}}, np.array([3, 5_000, 6_000, 6_001])) == [True, True, False, True]


def test_which_fields_become_columns(monkeypatch):
    monkeypatch.setattr(columns, "MOST", 2)
    held, row = FieldColumns(), np.array([1])
    held.add(row, [{"a": 1, "long": "x" * 300, "list": [1], "b": 2, "c": 3}])
    for where in ({"a": 1}, {"b": 2}, {"nowhere": {"exists": False}}):
        assert passing(held, where, row) == [True]
        assert held.count == 1
    for where in ({"c": 3}, {"long": "x" * 300}, {"list": [1]}, {"x.y": 1}):
        held.want(parse_filter(where))
        assert held.count == 0, "the records have to be opened for it"
        held.add(row, [{"a": 1, "long": "x" * 300, "list": [1], "b": 2, "c": 3, "x": {"y": 1}}])
        assert passing(held, where, row) == [True]


def test_a_dead_key_version_leaves_nothing():
    held = FieldColumns()
    state = Snapshot(1, 1, 1, frozenset(), (), Tail.empty(METRICS["cosine"], 4))
    assert not len(held.missing(state))
    held.add(np.array([1]), [{"a": "secret"}])
    held.missing(Snapshot(2, 1, 2, frozenset({1}), (), Tail.empty(METRICS["cosine"], 4)))
    assert held.count == held.bytes == 0
