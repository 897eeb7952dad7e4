"""Sealed records: any byte flipped, any part moved, any wrong key is an AuthenticationError and nothing else."""

import os
import traceback

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encvec_store.crypto.blobs import BlobCipher, blob_key_version, settings_head
from encvec_store.crypto.envelope import (
    HEADER,
    PREFIX,
    TOKEN,
    RecordCipher,
    Stamp,
    bindings_of,
    envelope_size,
    headers,
    is_of,
    key_versions,
    nonces_of,
    revisions,
)
from encvec_store.data import Precision
from encvec_store.errors import AuthenticationError

ROOT = bytes(range(32))
INCARNATION = bytes(range(100, 116))
STAMP = Stamp(scheme=1, revision=2, key_version=3)
HALF = Stamp(scheme=1, revision=2, key_version=3, precision=Precision.HALF)


def cipher(root=ROOT, tenant="acme", collection="faces", incarnation=INCARNATION):
    return RecordCipher(root, 3, (tenant, collection, incarnation))


def blobs(root=ROOT, tenant="acme", collection="faces", incarnation=INCARNATION):
    return BlobCipher(root, 3, (tenant, collection, incarnation))


def prefixes(n, stamp=STAMP, seed=0):
    rng = np.random.default_rng(seed)
    tokens, nonces, bindings = (rng.integers(0, 256, (n, 16), np.uint8) for _ in range(3))
    return tokens, headers(stamp, nonces, bindings)


def vectors(n, dim):
    return np.random.default_rng(1).standard_normal((n, dim)).astype(np.float32)


def row(data):
    return np.frombuffer(bytes(data), np.uint8)[None]


def opener(kind, **other):
    of, beside = cipher(**other), blobs(**other)
    return {
        "vector": lambda data: of.open_vectors(row(data)),
        "payload": lambda data: of.open_payloads([bytes(data)]),
        "settings": lambda data: beside.open_settings(bytes(data)),
        "blob": lambda data: beside.open_blob("profile", 0, "digest", bytes(data)),
    }[kind]


def sealed(kind, n=0):
    of = cipher()
    tokens, heads = prefixes(1, seed=n)
    match kind:
        case "vector":
            return of.seal_vectors(tokens, heads, vectors(1, 2))[0].tobytes()
        case "payload":
            return of.seal_payloads(tokens, heads, [b"some payload"])[0]
        case "settings":
            return blobs().seal_settings(b"some settings")
        case "blob":
            return blobs().seal_blob("profile", 0, "digest", b"some profile")


KINDS = pytest.mark.parametrize("kind", ["vector", "payload", "settings", "blob"])


@pytest.mark.parametrize("n", [0, 1, 2, 40])
@pytest.mark.parametrize("dim", [1, 3, 384])
def test_vectors_round_trip(n, dim):
    tokens, heads = prefixes(n)
    data = vectors(n, dim)
    envelopes = cipher().seal_vectors(tokens, heads, data)
    assert envelopes.shape == (n, envelope_size(dim)) == (n, 16 + 44 + 12 + 4 * dim + 16)
    opened = cipher().open_vectors(envelopes)
    assert opened.dtype == np.float32
    assert opened.tobytes() == data.tobytes()
    assert (envelopes[:, :TOKEN] == tokens).all()
    assert (envelopes[:, TOKEN:PREFIX] == heads).all()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("dim", [1, 2, 384])
def test_half_precision_round_trips(n, dim):
    tokens, heads = prefixes(n, HALF)
    data = vectors(n, dim).astype(np.float16)
    envelopes = cipher().seal_vectors(tokens, heads, data)
    assert envelopes.shape == (n, envelope_size(dim, Precision.HALF)) == (n, 16 + 44 + 12 + 2 * dim + 16)
    opened = cipher().open_vectors(envelopes)
    assert opened.dtype == np.float32
    assert opened.tobytes() == data.astype(np.float32).tobytes()
    assert is_of(envelopes, 1, Precision.HALF)
    assert not is_of(envelopes, 1, Precision.SINGLE)


def test_a_precision_is_never_taken_for_the_other():
    """Two halves have the size of a single: only the authenticated format tells them apart."""
    for stamp, dtype, other in ((HALF, np.float16, 1), (STAMP, np.float32, 2)):
        envelopes = cipher().seal_vectors(*prefixes(2, stamp), vectors(2, 4).astype(dtype))
        cipher().open_vectors(envelopes)
        for claimed in (0, other, 3, 255):
            for rows in ([0], [1], [0, 1]):
                forged = envelopes.copy()
                forged[rows, TOKEN] = claimed
                with pytest.raises(AuthenticationError):
                    cipher().open_vectors(forged)
        with pytest.raises(ValueError, match="headers of another precision"):
            cipher().seal_vectors(*prefixes(2, stamp), vectors(2, 4).astype(np.float16 if other == 2 else np.float32))


def test_vectors_of_any_layout():
    tokens, heads = prefixes(4)
    data = np.asfortranarray(vectors(4, 6))
    envelopes = np.asfortranarray(cipher().seal_vectors(tokens, heads, data))
    assert (cipher().open_vectors(envelopes) == data).all()


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_payloads_round_trip(payloads):
    envelopes = cipher().seal_payloads(*prefixes(len(payloads)), payloads)
    assert cipher().open_payloads(envelopes) == payloads


@given(st.binary(max_size=300))
def test_settings_and_blobs_round_trip(content):
    data = blobs().seal_settings(content)
    assert blobs().open_settings(data) == content
    assert settings_head(data) == (3, INCARNATION)
    data = blobs().seal_blob("profile", 7, "digest", content)
    assert blobs().open_blob("profile", 7, "digest", data) == content
    assert blob_key_version(data) == 3


def test_a_blob_is_bound_to_its_name_part_and_digest():
    data = sealed("blob")
    for other in (
        ("profil", 0, "digest"),
        ("profile", 1, "digest"),
        ("profile", 0, "digesu"),
        ("profile0", 0, "igest"),
    ):
        with pytest.raises(AuthenticationError):
            blobs().open_blob(*other, data)


def test_headers_and_what_they_claim():
    tokens, nonces, bindings = (np.full((5, 16), value, np.uint8) for value in (1, 2, 3))
    heads = headers(STAMP, nonces, bindings)
    assert heads.shape == (5, HEADER)
    assert heads[0, :12].tobytes().hex() == "010100000000000200000003"
    envelopes = cipher().seal_vectors(tokens, heads, vectors(5, 2))
    assert (key_versions(envelopes) == 3).all()
    assert (nonces_of(envelopes) == nonces).all()
    assert (bindings_of(envelopes) == bindings).all()
    assert is_of(envelopes, 1, Precision.SINGLE)
    assert not is_of(envelopes, 2, Precision.SINGLE)
    assert revisions(envelopes) == (2, 2)
    mixed = envelopes.copy()
    mixed[1, TOKEN + 7], mixed[3, TOKEN + 4] = 1, 1
    assert revisions(mixed) == (1, 2**24 + 2)
    assert is_of(mixed, 1, Precision.SINGLE)
    mixed[2, TOKEN + 1] = 2
    assert not is_of(mixed, 1, Precision.SINGLE)
    big = headers(Stamp(255, 2**32 - 1, 2**32 - 1, name_kind=65535), *(np.zeros((1, 16), np.uint8),) * 2)
    assert key_versions(np.pad(big, ((0, 0), (16, 30)))).tolist() == [2**32 - 1]
    assert revisions(np.pad(big, ((0, 0), (16, 30)))) == (2**32 - 1, 2**32 - 1)


@KINDS
def test_any_flipped_byte_is_refused(kind):
    data = sealed(kind)
    opener(kind)(data)
    for position in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            broken = bytearray(data)
            broken[position] ^= flip
            with pytest.raises(AuthenticationError):
                opener(kind)(broken)


def test_one_bad_row_refuses_the_batch():
    envelopes = cipher().seal_vectors(*prefixes(9), vectors(9, 2))
    envelopes[7, -1] ^= 1
    with pytest.raises(AuthenticationError):
        cipher().open_vectors(envelopes)


@KINDS
def test_any_other_length_is_refused(kind):
    data = sealed(kind)
    for wrong in [data[:length] for length in range(len(data))] + [data + bytes(n) for n in (1, 4, 16)]:
        with pytest.raises(AuthenticationError):
            opener(kind)(wrong)


@given(st.binary(max_size=150))
def test_garbage_is_refused(data):
    for kind in ("vector", "payload", "settings", "blob"):
        with pytest.raises(AuthenticationError):
            opener(kind)(data)


@KINDS
@pytest.mark.parametrize(
    "other",
    [
        {"root": bytes(32)},
        {"tenant": "emca"},
        {"collection": "texts"},
        {"tenant": "faces", "collection": "acme"},
        {"tenant": "acm", "collection": "efaces"},
        {"incarnation": bytes(16)},
        {"incarnation": b""},
    ],
    ids=str,
)
def test_other_keys_and_places_are_refused(kind, other):
    with pytest.raises(AuthenticationError):
        opener(kind, **other)(sealed(kind))


@pytest.mark.parametrize("kind", ["vector", "payload"])
@pytest.mark.parametrize(
    "part", [slice(0, TOKEN), slice(TOKEN, PREFIX), slice(0, PREFIX), slice(PREFIX, PREFIX + 12)], ids=str
)
def test_parts_of_two_records_do_not_mix(kind, part):
    """Record token, header, both, nonce: each of another record that is genuine itself."""
    one, two = bytearray(sealed(kind)), sealed(kind, n=1)
    assert one[part] != two[part]
    one[part] = two[part]
    with pytest.raises(AuthenticationError):
        opener(kind)(one)


def test_kinds_are_not_confused():
    """The same bytes sealed as one kind do not open as another, though prefix and size agree."""
    tokens, heads = prefixes(1)
    dim = 65  # as many bytes as the shortest payload has with its padding
    vector = cipher().seal_vectors(tokens, heads, vectors(1, dim - 1))[0].tobytes()
    payload = cipher().seal_payloads(tokens, heads, [vectors(1, 2).tobytes()])[0]
    assert len(vector) == len(payload)
    settings, blob = blobs().seal_settings(bytes(60)), blobs().seal_blob("profile", 0, "digest", bytes(60))
    for data, mine in ((vector, "vector"), (payload, "payload"), (settings, "settings"), (blob, "blob")):
        for kind in {"vector", "payload", "settings", "blob"} - {mine}:
            with pytest.raises(AuthenticationError):
                opener(kind)(data)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x02" + bytes(40), bytes(16), b"\x01" + bytes(15)])
def test_settings_and_blobs_of_another_format(data):
    for read in (settings_head, blob_key_version):
        with pytest.raises(AuthenticationError):
            read(data)


def test_no_gcm_nonce_repeats():
    n = 50_000
    envelopes = cipher().seal_vectors(*prefixes(n), np.zeros((n, 1), np.float32))
    payloads = cipher().seal_payloads(*prefixes(n), [b""] * n)
    nonces = {envelope[PREFIX : PREFIX + 12].tobytes() for envelope in envelopes}
    nonces |= {envelope[PREFIX : PREFIX + 12] for envelope in payloads}
    assert len(nonces) == 2 * n


def test_sealing_twice_shows_nothing():
    """Equal plaintexts under equal headers: no byte of the two ciphertexts agrees more than by chance."""
    tokens, heads = prefixes(1)
    one, two = (cipher().seal_vectors(tokens, heads, np.zeros((1, 1000), np.float32))[0, PREFIX:] for _ in "12")
    assert (one == two).sum() < 60


def test_errors_give_nothing_away():
    """One text for every cause, and no key, plaintext or inner error in the traceback."""
    texts = set()
    for kind in ("vector", "payload"):
        data = sealed(kind)
        for wrong, other in ((data[:-1] + bytes([data[-1] ^ 1]), {}), (data, {"root": bytes(32)}), (data[:30], {})):
            with pytest.raises(AuthenticationError) as caught:
                opener(kind, **other)(wrong)
            texts.add(str(caught.value))
            shown = "".join(traceback.format_exception(caught.value))
            assert "InvalidTag" not in shown
            assert ROOT.hex() not in shown
            assert repr(ROOT) not in shown
            assert caught.value.__cause__ is None
    assert texts == {"a record could not be authenticated"}
    assert ROOT.hex() not in repr(cipher())


def test_tokens_and_terms():
    of = cipher()
    ids = ["a", "b", "", "ab" * 40, "\N{GREEK SMALL LETTER ALPHA}", "a" * 16]
    tokens = of.tokens(ids)
    assert tokens.shape == (6, 16)
    assert (of.tokens(ids[::-1]) == tokens[::-1]).all()
    terms = of.blind_tokens([("a", b"bc"), ("ab", b"c"), ("", b"abc"), ("a", b"b"), ("b", b"bc")])
    everything = {
        *terms,
        *(token.tobytes() for token in tokens),
        of.bindings(tokens[:1], tokens[:1], np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)).tobytes(),
    }
    assert len(everything) == 12
    for other in (cipher(root=bytes(32)), cipher(tenant="x"), cipher(collection="x"), cipher(incarnation=bytes(16))):
        assert not (other.tokens(ids) == tokens).all(axis=1).any()
        assert not set(other.blind_tokens([("a", b"bc"), ("ab", b"c")])) & set(terms)
    assert of.blind_tokens([]) == []
    assert of.tokens([]).shape == (0, 16)


def test_bindings_depend_on_every_byte():
    of = cipher()
    parts = [of.tokens(["a"]), of.tokens(["nonce"]), vectors(1, 3), vectors(1, 9)]
    tags = {of.bindings(*parts).tobytes()}
    for number, part in enumerate(parts):
        for position in range(part.nbytes):
            changed = part.copy()
            changed.view(np.uint8)[0, position] ^= 1
            tags.add(of.bindings(*parts[:number], changed, *parts[number + 1 :]).tobytes())
    assert len(tags) == 1 + 16 + 16 + 12 + 36
    assert of.bindings(
        of.tokens(["a", "b"]), of.tokens(["c", "d"]), vectors(2, 3), np.empty((2, 0), np.float32)
    ).shape == (2, 16)


def test_cache_tags():
    tag = cipher().cache_tag(b"index")
    assert cipher().is_cache_tag(b"index", tag)
    assert not cipher().is_cache_tag(b"indey", tag)
    assert not cipher(root=bytes(32)).is_cache_tag(b"index", tag)
    for wrong in (b"", tag[:-1], tag + b"\x00", os.urandom(16)):
        assert not cipher().is_cache_tag(b"index", wrong)
