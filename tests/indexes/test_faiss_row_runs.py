"""Rows kept as runs, against the plain array of them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from encvec_store.indexes.faiss import row_runs
from encvec_store.indexes.faiss.row_runs import RowRuns

# (rows skipped before it, its length): long runs, short ones, and gaps as another process leaves them
RUNS = st.lists(
    st.tuples(st.one_of(st.integers(0, 3), st.integers(1, 1 << 36)), st.one_of(st.integers(1, 3), st.integers(20, 90))),
    max_size=12,
)


def rows_of(runs, last=0):
    parts = [np.empty(0, np.int64)]
    for skipped, length in runs:
        parts.append(last + 1 + skipped + np.arange(length))
        last = int(parts[-1][-1])
    return np.concatenate(parts)


def agree(kept, rows):
    """Everything it says is what the array says."""
    assert len(kept) == len(rows)
    np.testing.assert_array_equal(kept.array(), rows)
    assert kept.last == (rows[-1] if len(rows) else 0)
    assert kept.same(RowRuns(rows), len(rows))
    assert RowRuns(rows).same(kept, len(rows))
    assert not kept.same(kept, len(rows) + 1)
    ordinals = np.arange(len(rows))[::-1].copy()
    np.testing.assert_array_equal(kept[ordinals], rows[::-1])
    pairs = ordinals[: len(rows) // 2 * 2].reshape(-1, 2)
    np.testing.assert_array_equal(kept[pairs], rows[pairs] if len(rows) else np.empty((0, 2)))
    asked = np.concatenate([rows[::-3], rows[:5] - 1, rows[-5:] + 1, [0, 1, 1 << 50]])
    found, positions = kept.find(asked)
    here = np.isin(asked, rows)
    np.testing.assert_array_equal(positions, np.flatnonzero(here))
    np.testing.assert_array_equal(rows[found], asked[here])


@given(st.lists(RUNS, max_size=4), st.data())
def test_it_is_the_array(parts, data):
    rows, kept = np.empty(0, np.int64), RowRuns(np.empty(0, np.int64))
    for runs in parts:
        more = rows_of(runs, int(rows[-1]) if len(rows) else 0)
        before, kept, rows = kept, kept.extended(more), np.concatenate([rows, more])
        agree(kept, rows)
        n = data.draw(st.integers(0, len(rows)))
        agree(RowRuns(rows[:n]), rows[:n])
        assert kept.same(RowRuns(rows[:n]), n)
        assert RowRuns(rows[:n]).same(kept, n)
        np.testing.assert_array_equal(kept.array(n), rows[n:])
        np.testing.assert_array_equal(kept.array(n // 2, n), rows[n // 2 : n])
        assert before.same(kept, len(before)), "it is as it was"
        if len(rows):
            another = RowRuns(np.append(rows[:-1], rows[-1] + 1))
            assert not kept.same(another, len(rows))
            assert kept.same(another, len(rows) - 1)
            assert not kept.same(RowRuns(rows[:-1]), len(rows))


def test_runs_take_no_memory_and_short_ones_no_more_than_the_rows():
    long, short = RowRuns(np.arange(1, 1_000_001)), RowRuns(np.arange(1, 2_000_001, 2))
    assert long.nbytes < 100
    assert short.nbytes <= 8 * 1_000_000 + 100
    agree(short.extended(np.arange(3_000_000, 3_000_100)), np.append(short.array(), np.arange(3_000_000, 3_000_100)))


def test_records_that_come_one_by_one_become_a_run():
    kept = RowRuns(np.array([7]))
    for row in range(8, 60):
        kept = kept.extended(np.array([row]))
        agree(kept, np.arange(7, row + 1))
    assert kept.nbytes < 100


def test_runs_are_found_across_pieces(monkeypatch):
    monkeypatch.setattr(row_runs, "_CHUNK", 10)
    rows = np.concatenate([np.arange(1, 31), np.arange(40, 70), np.arange(80, 100), [200]])
    for n in (9, 10, 11, 29, 30, 31, len(rows)):
        kept = RowRuns(rows[:n])
        agree(kept, rows[:n])
    assert kept.nbytes < 100 + 8 * 12
