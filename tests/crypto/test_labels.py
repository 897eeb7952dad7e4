"""Labels: the encoding is injective, and no subkey serves two purposes, tenants or collections."""

import hmac
from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from encvec_store.crypto.labels import FORMAT, Purpose, derive, encode

ROOT = bytes(range(32))
PARTS = st.lists(st.text(max_size=4) | st.binary(max_size=4) | st.integers(), max_size=4).map(tuple)


def typed(parts):
    return [(type(part), part) for part in parts]


@given(PARTS, PARTS)
@example(("a", "b-c"), ("a-b", "c"))  # PEERS, defect 1
@example(("a", "b"), ("ab",))
@example(("1",), (1,))
@example(("a",), (b"a",))
@example((), ("",))
@example(("", ""), ("",))
@example(("a\x00\x00\x00\x01b",), ("a", "b"))
def test_encode_is_injective(one, two):
    assert (encode(*one) == encode(*two)) == (typed(one) == typed(two))


def decode(data):
    """Read a tuple back: that this can be written shows that nothing is lost."""
    kinds = {b"s": bytes.decode, b"b": bytes, b"i": int}
    parts = []
    while data:
        end = 5 + int.from_bytes(data[1:5], "big")
        parts.append(kinds[data[:1]](data[5:end]))
        data = data[end:]
    return tuple(parts)


@given(PARTS)
def test_encode_can_be_read_back(parts):
    assert typed(decode(encode(*parts))) == typed(parts)


@given(PARTS, PARTS)
def test_encode_is_prefix_free_by_parts(one, two):
    """Associated data appends fixed-size bytes to a tuple: concatenation must be the longer tuple's encoding."""
    assert encode(*one) + encode(*two) == encode(*one, *two)


def hkdf(root, info):
    """RFC 5869 with an empty salt and one block of output."""
    key = hmac.new(bytes(32), root, sha256).digest()
    return hmac.new(key, info + b"\x01", sha256).digest()


@pytest.mark.parametrize("purpose", Purpose)
def test_derive_is_hkdf(purpose):
    context = ("acme", "faces", 3)
    assert derive(ROOT, purpose, *context) == hkdf(ROOT, encode("encvec/1", purpose.value, *context))


def test_every_use_has_its_own_subkey():
    contexts = [(), ("a",), ("a", "b-c"), ("a-b", "c"), ("b-c", "a"), ("a", "b-c", 1), ("a", "b-c", "1"), ("", "")]
    roots = [ROOT, ROOT[::-1]]
    keys = {derive(root, p, *context) for root in roots for p in Purpose for context in contexts}
    assert len(keys) == len(roots) * len(Purpose) * len(contexts)
    assert {len(key) for key in keys} == {32}


def test_purposes_are_pinned():
    """A purpose that changes its text makes all data unreadable."""
    assert FORMAT == "encvec/1"
    names = {name: name.lower().replace("_", "-") for name in Purpose.__members__}  # aliases too: there are none
    assert {name: str(purpose) for name, purpose in Purpose.__members__.items()} == names
