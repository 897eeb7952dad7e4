"""Tokens of names, and sealed names: right for every name, of one size, and bound to their place."""

import hashlib
import hmac
import itertools
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encvec_store.crypto.labels import Purpose, derive, encode
from encvec_store.crypto.names import NameCipher, name_key_version, open_name_key, seal_name_key
from encvec_store.errors import AuthenticationError

KEY = bytes(range(32))
SIZE = 549
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=255).filter(
    lambda name: len(name.encode()) <= 255
)
PLACES = st.tuples(NAMES, NAMES.filter(bool))


@given(PLACES, PLACES)
def test_any_names(one, other):
    """A name comes back, whatever it is; it has the size of any other; and two have the same tokens if they are one."""
    cipher = NameCipher(KEY)
    tokens, sealed = cipher.tokens(*one), cipher.seal(*one)
    assert cipher.open(tokens, sealed) == one
    assert len(sealed) == len(cipher.seal(*other)) == SIZE
    assert all(len(token) == 32 and int(token, 16) >= 0 for token in tokens)
    assert (tokens == cipher.tokens(*other)) == (one == other)
    assert (tokens[0] == cipher.tokens(*other)[0]) == (one[0] == other[0])
    assert cipher.seal(*one) != sealed, "the nonce is random"
    if one != other:
        with pytest.raises(AuthenticationError):
            cipher.open(cipher.tokens(*other), sealed)


def test_a_token_is_hmac_sha256():
    """Computed once more by the standard library."""
    cipher, tenant = NameCipher(KEY), derive(KEY, Purpose.TENANT_TOKEN)
    found = cipher.tokens("acme", "faces")
    assert found[0] == hmac.new(tenant, encode("acme"), hashlib.sha256).hexdigest()[:32]
    name = derive(KEY, Purpose.NAME_TOKEN)
    assert found[1] == hmac.new(name, encode("acme", "faces"), hashlib.sha256).hexdigest()[:32]
    assert found[0] == cipher.tenant_token("acme") == cipher.tokens("acme", "other")[0]


def test_tokens_of_different_keys_are_unlinkable():
    """No token comes twice, and bits of one name's tokens under two keys are equal as often as a coin says."""
    places = [(f"tenant-{n % 40}", f"docs-{n}") for n in range(2_000)]
    bits = []
    for seed in range(3):
        cipher = NameCipher(bytes([seed]) * 32)
        raw = [bytes.fromhex(cipher.tokens(*place)[1]) for place in places]
        bits.append(np.unpackbits(np.frombuffer(b"".join(raw), np.uint8)).reshape(len(places), 128))
    for one, other in itertools.combinations(bits, 2):
        equal = (one == other).mean(axis=0)  # of each of the 128 bits, 5 standard deviations about a half
        assert np.abs(equal - 0.5).max() < 5 * 0.5 / np.sqrt(len(places))
    assert len({row.tobytes() for each in bits for row in each}) == 3 * len(places)
    names = np.array([np.unpackbits(np.frombuffer(b"%-16b" % n.encode()[:16], np.uint8)) for _, n in places])
    assert np.abs((names == bits[0]).mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(len(places)), "nor those of a name"


def test_every_bit_counts():
    """Neither the name key nor a name opens with one bit changed, cut off, or under another key."""
    cipher, root = NameCipher(KEY), os.urandom(32)
    tokens, name = cipher.tokens("acme", "faces"), cipher.seal("acme", "faces")
    key = seal_name_key(root, 7, KEY)
    assert (open_name_key(root, key), name_key_version(key)) == (KEY, 7)

    def opened_key(sealed):
        name_key_version(sealed)
        return open_name_key(root, sealed)

    for sealed, opened in ((name, lambda sealed: cipher.open(tokens, sealed)), (key, opened_key)):
        bent = [bytearray(sealed) for _ in sealed]
        for place, copy in enumerate(bent):
            copy[place] ^= 1 << place % 8
        for other in (*map(bytes, bent), sealed[:-1], sealed + b"\0", b"", sealed[:10]):
            with pytest.raises(AuthenticationError, match="names could not be authenticated"):
                opened(other)
    for fails in (lambda: open_name_key(bytes(32), key), lambda: NameCipher(bytes(32)).open(tokens, name)):
        with pytest.raises(AuthenticationError):
            fails()
