"""Sealed parts of an index: bound to their names and places, and to nothing else; they look like noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encvec_store.crypto.segments import SEGMENT_OVERHEAD, SegmentCipher, segment_key_version
from encvec_store.errors import AuthenticationError

ROOT = bytes(range(32))
CONTEXT = ("acme", "faces", bytes(range(100, 116)))
PLACE = ("index.3.00112233445566ff", 1, 2, 5000)


def cipher(root=ROOT, version=3, context=CONTEXT):
    return SegmentCipher(root, version, context)


def refused(sealed, place=PLACE, **other):
    with pytest.raises(AuthenticationError, match=r"^a part of the sealed index could not be authenticated$"):
        cipher(**other).open(*place, bytes(sealed))


@given(st.binary(max_size=300))
def test_round_trip(content):
    sealed = cipher().seal(*PLACE, content)
    assert len(sealed) == len(content) + SEGMENT_OVERHEAD
    assert segment_key_version(sealed) == 3
    assert cipher().open(*PLACE, sealed).tobytes() == content
    out = np.ones(len(content), np.uint8)
    assert cipher().open(*PLACE, sealed, out) is out
    assert out.tobytes() == content


def test_any_flipped_byte_and_any_other_length_is_refused():
    """Format, key version, nonce, body, tag."""
    sealed = cipher().seal(*PLACE, b"some content")
    for position in range(len(sealed)):
        for flip in (0x01, 0x80, 0xFF):
            broken = bytearray(sealed)
            broken[position] ^= flip
            refused(broken)
    for wrong in [sealed[:length] for length in range(len(sealed))] + [sealed + bytes(n) for n in (1, 16)]:
        refused(wrong)


@pytest.mark.parametrize(
    "place",
    [
        ("index.3.00112233445566fe", 1, 2, 5000),
        ("index.3", 1, 2, 5000),
        ("index.3.00112233445566ff", 0, 2, 5000),
        ("index.3.00112233445566ff", 1, 3, 5000),
        ("index.3.00112233445566ff", 1, 2, 5001),
        ("index.3.00112233445566ff", 1, 25, 0),
    ],
)
def test_another_place_is_refused(place):
    refused(cipher().seal(*PLACE, b"some content"), place)


@pytest.mark.parametrize(
    "other",
    [
        {"root": bytes(32)},
        {"version": 4},
        {"context": ("acme", "texts", CONTEXT[2])},
        {"context": ("acm", "efaces", CONTEXT[2])},
        {"context": ("acme", "faces", bytes(16))},
    ],
    ids=str,
)
def test_other_keys_are_refused(other):
    refused(cipher().seal(*PLACE, b"some content"), **other)


def test_the_room_must_fit_and_is_cleared():
    sealed = bytearray(cipher().seal(*PLACE, b"some content"))
    for size in (11, 13):
        with pytest.raises(AuthenticationError):
            cipher().open(*PLACE, bytes(sealed), np.empty(size, np.uint8))
    sealed[-1] ^= 1
    out = np.ones(12, np.uint8)
    with pytest.raises(AuthenticationError):
        cipher().open(*PLACE, bytes(sealed), out)
    assert not out.any()


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x02" + bytes(40), b"\x01" + bytes(31)])
def test_no_key_version_of_other_bytes(data):
    with pytest.raises(AuthenticationError):
        segment_key_version(data)


def test_sealed_zeros_look_uniform():
    """Pearson's chi-square over the 256 byte values is above 420 for less than one of 10^9 keys."""
    parts = [cipher().seal(*PLACE, bytes(1 << 16))[5:] for _ in range(16)]
    counts = np.bincount(np.frombuffer(b"".join(parts), np.uint8), minlength=256)
    expected = counts.sum() / 256
    assert ((counts - expected) ** 2 / expected).sum() < 420
    blocks = np.frombuffer(b"".join(part[12:-16] for part in parts), "V16")
    assert len(set(blocks.tolist())) == len(blocks), "a block of the keystream was used twice"


def test_no_nonce_repeats():
    of = cipher()
    assert len({of.seal(*PLACE, b"")[5:17] for _ in range(50_000)}) == 50_000


def test_representations_show_nothing():
    of = cipher()
    assert ROOT.hex() not in repr(of)
    assert repr(ROOT)[2:-1] not in repr(vars(of))
