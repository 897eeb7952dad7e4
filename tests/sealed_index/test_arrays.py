"""The container of arrays: one form for each content, and no other bytes are read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from encvec_store.sealed_index.arrays import FORMAT, pieces, read

DTYPES = ("u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
ARRAYS = st.builds(lambda dtype, shape: (np.dtype(dtype), shape), st.sampled_from(DTYPES), SHAPES).flatmap(
    lambda chosen: arrays_of.arrays(*chosen)
)
NAMED = st.dictionaries(st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True), ARRAYS, max_size=4)
GOLDEN = {"codes": np.array([[1, 2, 3], [4, 5, 6]], np.uint8), "rows": np.array([7, -1], np.int64)}


def joined(arrays):
    return np.concatenate(pieces(arrays))


@given(NAMED)
def test_round_trip(arrays):
    data = joined(arrays)
    found = read(data)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
        assert array.size == 0 or np.shares_memory(found[name], data)
        assert (found[name].ctypes.data - data.ctypes.data) % 64 == 0 or not array.size


@given(NAMED)
def test_size_depends_on_shapes_only(arrays):
    zeros = {name: np.zeros_like(array) for name, array in arrays.items()}
    assert list(map(len, pieces(zeros))) == list(map(len, pieces(arrays)))


def test_any_layout_and_byte_order():
    arrays = {"f": np.asfortranarray(GOLDEN["codes"]), "s": np.arange(9)[::2], "b": np.arange(3, dtype=">f4")}
    found = read(joined(arrays))
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    assert found["b"].dtype == np.float32


def test_known_bytes():
    data = joined(GOLDEN)
    assert FORMAT == 1
    expected = (
        "01000200"  # format, zero, two arrays
        "05636f6465730102" + "0200000000000000" + "0300000000000000"  # name, dtype, dimensions, shape
        "04726f77730801" + "0200000000000000"
    )
    assert data.tobytes().hex() == (
        expected.ljust(128, "0") + "010203040506".ljust(128, "0") + ("07" + "00" * 7 + "ff" * 8).ljust(128, "0")
    )
    found = read(np.frombuffer(data.tobytes(), np.uint8))
    assert {name: array.tolist() for name, array in found.items()} == {"codes": [[1, 2, 3], [4, 5, 6]], "rows": [7, -1]}


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("", np.zeros(1)),
        ("a" * 65, np.zeros(1)),
        ("\N{GREEK SMALL LETTER ALPHA}", np.zeros(1)),
        ("a", np.zeros(1, object)),
        ("a", np.zeros(1, bool)),
        ("a", np.zeros(1, "U3")),
        ("a", np.zeros(1, np.complex64)),
        ("a", np.zeros((1,) * 5)),
    ],
)
def test_what_cannot_be_stored(name, array):
    with pytest.raises(ValueError, match="cannot store an array"):
        pieces({name: array})


@given(st.integers(0, 191), st.integers(1, 255))
def test_changed_bytes_change_the_content_or_are_refused(position, flip):
    """Only `ValueError`; and what is read gives the same bytes again, so no byte is ignored."""
    data = joined(GOLDEN)
    data[position] ^= flip
    try:
        found = read(data)
    except ValueError:
        return
    assert joined(found).tobytes() == data.tobytes()


@given(st.binary(max_size=200))
def test_garbage(data):
    with pytest.raises(ValueError, match="arrays"):
        read(np.frombuffer(b"\x01\x00\x03\x00" + data, np.uint8)[: len(data)])


def test_any_other_length_is_refused():
    data = joined(GOLDEN)
    for wrong in [*(data[:length] for length in range(len(data))), np.append(data, np.zeros(64, np.uint8))]:
        with pytest.raises(ValueError, match="arrays"):
            read(wrong)


@pytest.mark.parametrize(
    "shape", [(2**63, 2), (2**64 - 1,), (0, 2**63), (2**32, 2**32, 2**32, 2**32), (0, 2**62, 2**62)]
)
def test_huge_shapes_are_refused(shape):
    """Before memory is taken for them."""
    data = joined({"a": np.zeros((0,) * len(shape), np.int64)})
    data[8 : 8 + 8 * len(shape)] = np.array(shape, "<u8").view(np.uint8)
    with pytest.raises(ValueError, match="arrays"):
        read(data)


def test_a_name_twice_is_refused():
    data = joined({"a": np.zeros(0), "b": np.zeros(0)})
    data[data == ord("b")] = ord("a")
    with pytest.raises(ValueError, match="malformed"):
        read(data)
