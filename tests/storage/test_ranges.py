"""Rows as ranges in bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encvec_store.storage.ranges import packed, unpacked

_ROWS = st.lists(st.integers(1, 60), unique=True).map(lambda rows: np.array(sorted(rows), np.int64))


@given(_ROWS, st.sampled_from([0, 1 << 40, (1 << 62) - 100]))
def test_what_is_packed_comes_back(rows, base):
    assert np.array_equal(unpacked(packed(rows + base)), rows + base)


@given(_ROWS)
def test_a_run_takes_sixteen_bytes_and_the_bytes_are_pairs(rows):
    ranges = packed(rows)
    assert len(ranges) == 16 * (len(set((rows - np.arange(len(rows))).tolist())))
    numbers = [int.from_bytes(ranges[i : i + 8], "big") for i in range(0, len(ranges), 8)]
    spelt = [n for first, last in zip(numbers[::2], numbers[1::2], strict=True) for n in range(first, last + 1)]
    assert spelt == rows.tolist()


@given(st.lists(_ROWS, max_size=5))
def test_joined_ranges_are_the_union(lists):
    rows = unpacked(b"".join(map(packed, lists)))
    assert rows.tolist() == sorted({row for rows in lists for row in rows.tolist()})
    assert rows.dtype == np.int64


def test_rows_must_ascend():
    for rows in ([2, 1], [1, 1]):
        with pytest.raises(ValueError, match="must ascend"):
            packed(np.array(rows, np.int64))


def test_damaged_ranges_are_refused():
    with pytest.raises(ValueError, match="multiple of 16"):
        unpacked(bytes(24))
    with pytest.raises(ValueError, match="must not end before"):
        unpacked(np.array([2, 1], ">i8").tobytes())
