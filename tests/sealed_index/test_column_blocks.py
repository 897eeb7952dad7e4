"""Columns of metadata at rest: they come back as they were, and their sizes hardly depend on what is in them."""

import datetime as dt
import uuid
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encvec_store.data import parse_filter
from encvec_store.sealed_index import arrays as containers
from encvec_store.sealed_index.column_blocks import arrays_of, block_of, width_of
from encvec_store.sealed_index.columns import FieldColumns
from tests.kits.strategies import FILTERS, METADATA, accepts


def stored(columns, rows):
    """Write the block of rows as bytes, and read it."""
    data = np.concatenate(containers.pieces(arrays_of(columns.block(rows))))
    return block_of(containers.read(data)), len(data)


def passing(held, where, rows):
    node = parse_filter(where)
    held.want(node)
    return held.passing(node).among(rows).tolist()


@settings(max_examples=150, deadline=None)
@given(st.lists(METADATA, min_size=1, max_size=12), st.lists(METADATA, max_size=6), st.lists(FILTERS, max_size=4))
def test_stored_columns_say_what_the_filter_says(first, more, filters):
    first, more = [dict(each) for each in first], [dict(each) for each in more]
    blocks = []
    for start, records in ((1, first), (100, more)):
        held = FieldColumns()
        for where in filters:  # named before: fields of any kind of value get a column
            held.want(parse_filter(where))
        held.add(np.arange(start, start + len(records)), records)
        blocks.append(stored(held, held.rows)[0])
    rows = np.array([*range(1, len(first) + 1), *range(100, 100 + len(more))])
    for order in (blocks, blocks[::-1]):
        again = FieldColumns()
        for block in order:
            again.adopt(block, rows)
        assert again.rows.tolist() == rows.tolist()
        for where in filters:
            assert passing(again, where, rows) == [accepts(where, each) for each in [*first, *more]]


def test_numbers_are_compared_exactly():
    values = [2**53 - 1, 2**53, 2**53 + 1, 2.0**53, 10**400, -(10**400), float("inf"), Decimal("0.1"), 0.1, -0.0, True]
    values += [dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 1, 1), dt.date(2020, 1, 1), uuid.UUID(int=7)]
    records = [{"v": value} for value in values]
    held, rows = FieldColumns(), np.arange(1, len(values) + 1)
    held.add(rows, records)
    block, _ = stored(held, rows)
    again = FieldColumns()
    again.adopt(block, rows)
    for operand in values:
        operators = ["eq", "ne", "gt", "gte", "lt", "lte"]
        for operator in operators[:2] if isinstance(operand, bool | uuid.UUID) else operators:
            where = {"v": {operator: operand}}
            wanted = [accepts(where, each) for each in records]
            assert passing(held, where, rows) == wanted, where
            assert passing(again, where, rows) == wanted, where


def test_sizes_tell_nothing_of_how_many_values_differ():
    n, sizes = 3_000, set()
    rng = np.random.default_rng(0)
    for distinct in (1, 30, n):
        records = [{"n": int(i), "s": f"{i:08}", "f": float(i)} for i in rng.integers(distinct, size=n)]
        held = FieldColumns()
        held.add(np.arange(1, n + 1), records)
        sizes.add(stored(held, held.rows)[1])
    held = FieldColumns()
    held.add(np.arange(1, n + 1), [{"an": "12345678", "other": 1, "kind": None}] * n)
    sizes.add(stored(held, held.rows)[1])
    (size,) = sizes
    assert size % 64 == 0
    assert width_of(size, n) == 64


def test_a_width_is_kept():
    """Once records have needed wider rows, later segments have them too."""
    held = FieldColumns()
    held.add(np.arange(1, 101), [{"a": "x" * 100}] * 100)
    arrays = arrays_of(held.block(held.rows))
    wide = width_of(sum(map(len, containers.pieces(arrays))), 100)
    assert wide == 128
    held = FieldColumns()
    held.add(np.arange(1, 101), [{}] * 100)
    arrays = arrays_of(held.block(held.rows), wide)
    assert width_of(sum(map(len, containers.pieces(arrays))), 100) == wide


@pytest.mark.parametrize("name", ["rows", "c0", "w0", "l0", "v0", "head"])
def test_what_does_not_fit_together_is_refused(name):
    held = FieldColumns()
    held.add(np.arange(1, 4), [{"a": 1}, {"a": "x"}, {"a": "y"}])
    arrays = arrays_of(held.block(held.rows))
    for wrong in (arrays[name][:-1], arrays[name][:0], np.full_like(arrays[name], 77), None):
        broken = {key: wrong if key == name else array for key, array in arrays.items()}
        if wrong is None:
            del broken[name]
        if name == "w0" and wrong is not None and len(wrong) == 3:
            continue  # other numbers, which fit
        with pytest.raises(ValueError, match=r"columns|delimiter|value"):
            block_of(broken)
