"""Padding: sizes are rounded up as Padme says, and what was padded comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encvec_store.crypto.padding import LEAST, padded, padme, unpadded


@given(st.binary(max_size=3_000))
def test_round_trip(payload):
    content = padded(payload)
    assert unpadded(content) == payload
    assert len(content) >= LEAST
    assert len(content) in (LEAST, padme(len(content))), "a padded size is not padded further"


@given(st.integers(2, 2**40))
def test_sizes_grow_by_an_eighth_at_most(size):
    """The paper's bounds: never less, at most 12%, and no more than log2 L bits of mantissa are left."""
    rounded = padme(size)
    assert size <= rounded <= size * 1.12
    assert padme(rounded) == rounded
    exponent = rounded.bit_length() - 1
    assert rounded % (1 << (exponent - exponent.bit_length())) == 0


def test_known_sizes():
    """Worked out by hand from algorithm 1 of the paper."""
    assert [padme(size) for size in (2, 9, 100, 257, 1000, 1025, 10_000, 1_000_000)] == [
        2, 10, 104, 272, 1024, 1088, 10_240, 1_015_808,
    ]  # fmt: skip


def test_short_payloads_look_alike():
    assert {len(padded(bytes(n))) for n in range(LEAST - 3)} == {LEAST}
    assert len(padded(bytes(LEAST - 3))) > LEAST
    assert len({len(padded(bytes(n))) for n in range(10_000)}) < 100


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"\0\0\0\5abcd", b"\xff" * 300])
def test_a_length_that_does_not_fit(content):
    with pytest.raises(ValueError, match="length"):
        unpadded(content)
