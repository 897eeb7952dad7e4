"""The record codec: what it seals it opens, and each part that is another record's is told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encvec_store.crypto import PREFIX, TOKEN
from encvec_store.data import encode_payload
from encvec_store.errors import KeyUnavailableError
from encvec_store.keys import Keyset
from encvec_store.sealing.codec import of_one_write
from encvec_store.sealing.config import CollectionConfig
from encvec_store.sealing.keyring import Keyring
from tests.kits import oracle

DIM, N = 6, 9
IDS = oracle.ids(N)
METADATA = [{"n": i % 3, "word": "x"} for i in range(N)]
PAYLOADS = [encode_payload(id, item, None) for id, item in zip(IDS, METADATA, strict=True)]


def config(scheme="sap", precision=None):
    return CollectionConfig.build(
        dim=DIM,
        metric_name="l2",
        scheme_spec=scheme,
        fields={"n": "blind", "word": "plain"},
        max_norm=20.0,
        oversample=None,
        precision_name=precision,
    )


def sealed(scheme="sap", precision=None, keyset=None):
    settings = config(scheme, precision)
    keyring = Keyring(keyset or Keyset.create("memory:"), "acme", "things", settings.incarnation)
    return keyring, settings, keyring.seal(settings, IDS, oracle.vectors(N, DIM), PAYLOADS, METADATA)


@pytest.mark.parametrize("precision", ["single", "half"])
@pytest.mark.parametrize("scheme", ["sap", "sealed"])
def test_there_and_back(scheme, precision):
    keyring, settings, batch = sealed(scheme, precision)
    kept = settings.precision.kept(oracle.vectors(N, DIM)).astype(np.float32)
    np.testing.assert_array_equal(keyring.open_vectors(batch.vectors), kept)
    opened = keyring.open_payloads(batch.payloads)
    assert opened == [(id, item, None) for id, item in zip(IDS, METADATA, strict=True)]
    codec = keyring.codec(1, settings)
    assert of_one_write(batch.vectors[:, :PREFIX], [payload[:PREFIX] for payload in batch.payloads])
    assert codec.are_named(IDS, batch.tokens).all()
    assert codec.are_bound(batch.vectors, kept, batch.index_vectors.astype(np.float32)).all()
    assert len(batch.terms) == 2 * N
    assert batch.index_vectors.shape == (N, settings.index_dim)


@given(st.integers(0, N - 1), st.integers(0, PREFIX - 1))
def test_one_byte_of_a_header_is_another_write(row, position):
    _, _, batch = SEALED
    heads = batch.vectors[:, :PREFIX].copy()
    heads[row, position] ^= 1
    prefixes = [payload[:PREFIX] for payload in batch.payloads]
    assert not of_one_write(heads, prefixes)
    others = [i for i in range(N) if i != row]
    assert of_one_write(heads[others], [prefixes[i] for i in others])
    assert not of_one_write(heads[others], prefixes), "as many of the one as of the other"


def test_parts_too_short_for_a_header():
    _, _, batch = SEALED
    assert not of_one_write(batch.vectors[:1, :PREFIX], [batch.payloads[0][: PREFIX - 1]])


def test_names_and_bindings_of_others():
    keyring, settings, batch = SEALED
    codec, kept = keyring.codec(1, settings), oracle.vectors(N, DIM)
    swapped = [IDS[1], IDS[0], *IDS[2:]]
    assert codec.are_named(swapped, batch.tokens).tolist() == [False, False] + [True] * (N - 2)
    index = batch.index_vectors.copy()
    index[4, 0] = np.nextafter(index[4, 0], np.float32(9))
    assert np.flatnonzero(~codec.are_bound(batch.vectors, kept, index)).tolist() == [4]
    moved = kept.copy()
    moved[2] += 1
    assert np.flatnonzero(~codec.are_bound(batch.vectors, moved, batch.index_vectors)).tolist() == [2]
    renamed = batch.vectors.copy()
    renamed[3, :TOKEN] = renamed[5, :TOKEN]
    assert np.flatnonzero(~codec.are_bound(renamed, kept, batch.index_vectors)).tolist() == [3]


def test_key_versions_retire_each_other():
    """A record written under the primary takes away what had its id under the others, disabled ones too."""
    keyset = Keyset.create("memory:")
    first = sealed(keyset=keyset)[0].tokens(IDS)[1]
    keyset.rotate()
    keyset.disable(1)
    keyring, settings, batch = sealed(keyset=keyset)
    theirs = keyring.tokens(IDS, held=True)
    assert set(theirs) == {1, 2}
    assert {bytes(token) for token in theirs[1]} == set(batch.retired)
    assert not set(batch.retired) & {bytes(token) for token in first}, "another incarnation, other names"
    with pytest.raises(KeyUnavailableError):
        keyring.codec(1, settings)


SEALED = sealed()
