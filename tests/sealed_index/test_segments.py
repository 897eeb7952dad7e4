"""Segments: sealed arrays come back, and only from their own collection, segment and place."""

import asyncio

import numpy as np
import pytest

from encvec_store.errors import AuthenticationError, KeyUnavailableError
from encvec_store.keys import Keyset
from encvec_store.runtime import concurrency
from encvec_store.sealed_index import segments
from encvec_store.sealed_index.segments import MissingSegmentError, Segment, opened, sealed
from encvec_store.sealing import Keyring
from tests.kits.blobs import Blobs

OVERHEAD = 5 + 12 + 16
INCARNATION = bytes(range(16))
NAME = "index.1.00112233445566ff"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(segments, "PART", 4096)
    monkeypatch.setattr(segments, "STEP", 512)


@pytest.fixture
def keyset():
    return Keyset.create("memory:")


def keyring(keyset, tenant="acme", collection="faces", incarnation=INCARNATION):
    return Keyring(keyset, tenant, collection, incarnation)


def arrays(n=500, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "rows": np.arange(n),
        "codes": rng.integers(0, 256, (n, 24), np.uint8),
        "none": np.zeros((0, 3), np.float32),
    }


def stored(keys, given=None, count=500, version=1):
    records = Blobs()
    segment, blobs = sealed(keys, version, arrays() if given is None else given, count)
    records.keep(blobs)
    return records, segment


@pytest.mark.parametrize("n", [0, 1, 2, 100, 121, 122, 500])
def test_round_trip(keyset, n):
    """One part, exactly full parts, several parts."""
    keys = keyring(keyset)
    records, segment = stored(keys, arrays(n), n)
    assert sorted(records) == [(segment.name, part) for part in range(segment.parts)]
    assert segment.count == n
    found = opened(records, keyring(keyset), segment)
    for name, array in arrays(n).items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
        assert not found[name].flags.writeable
    sizes = [len(records[segment.name, part]) - OVERHEAD for part in range(segment.parts)]
    assert sizes[:-1] == [4096] * (segment.parts - 1)
    assert sizes[-1] % 512 == 0
    assert sum(sizes) == segment.padded
    assert 0 <= segment.padded - segment.size < 512


def test_an_exactly_full_part(keyset):
    records, segment = stored(keyring(keyset), {"a": np.ones(4096 - 64, np.uint8)})
    assert (segment.parts, segment.size, segment.padded) == (1, 4096, 4096)
    assert opened(records, keyring(keyset), segment)["a"].all()


def test_sizes_do_not_depend_on_content(keyset):
    one, two = (stored(keyring(keyset), given) for given in (arrays(), {k: 0 * v for k, v in arrays().items()}))
    assert [len(part) for part in one[0].values()] == [len(part) for part in two[0].values()]
    assert (one[1].count, one[1].parts, one[1].size) == (two[1].count, two[1].parts, two[1].size)
    assert one[1].name != two[1].name


def test_parts_are_sealed_when_they_are_asked_for(keyset):
    _, blobs = sealed(keyring(keyset), 1, arrays(), 500)
    assert next(blobs)[2].key_version == 1
    keyset.rotate()
    keyset.disable(1)
    with pytest.raises(KeyUnavailableError):
        next(blobs)


@pytest.mark.parametrize("position", [0, 3, 5, 16, 17, 2000, -1], ids=str)
@pytest.mark.parametrize("part", [0, 1, 3])
def test_damage_is_refused(keyset, part, position):
    """Format, key version, first and last byte of the nonce, body, tag."""
    records, segment = stored(keyring(keyset))
    assert segment.parts == 4
    broken = bytearray(records[segment.name, part])
    broken[position if part < 3 or position < 1000 else 100] ^= 1
    records[segment.name, part] = bytes(broken)
    with pytest.raises(AuthenticationError):
        opened(records, keyring(keyset), segment)


def test_swapped_moved_and_truncated_parts_are_refused(keyset):
    keys = keyring(keyset)
    records, segment = stored(keys)
    more, other = stored(keys, arrays(seed=1))
    name = segment.name
    for changes in (
        {(name, 0): records[name, 1], (name, 1): records[name, 0]},
        {(name, 1): records[name, 2]},
        {(name, 0): more[other.name, 0]},
        {(name, part): more[other.name, part] for part in range(4)},
        {(name, 2): records[name, 2][:-1]},
        {(name, 2): records[name, 2][:4]},
        {(name, 2): b""},
        {(name, 2): records[name, 2] + b"\0"},
        {(name, 2): records[name, 3]},
    ):
        with pytest.raises(AuthenticationError):
            opened(Blobs(records | changes), keys, segment)
    opened(records, keys, segment)


def test_another_count_or_number_of_parts_is_refused(keyset):
    records, segment = stored(keyring(keyset))
    for count, size in ((499, segment.size), (500, segment.size - 4096), (500, segment.size + 4096)):
        claimed = Segment(segment.name, count, -(-size // 4096), size)
        with pytest.raises((AuthenticationError, MissingSegmentError)):
            opened(records, keyring(keyset), claimed)


@pytest.mark.parametrize("part", [0, 3])
def test_a_missing_part(keyset, part):
    records, segment = stored(keyring(keyset))
    del records[segment.name, part]
    with pytest.raises(MissingSegmentError, match=f"part {part} of 4"):
        opened(records, keyring(keyset), segment)


@pytest.mark.parametrize("other", [{"tenant": "x"}, {"collection": "x"}, {"incarnation": bytes(16)}], ids=str)
def test_another_collection_is_refused(keyset, other):
    records, segment = stored(keyring(keyset))
    with pytest.raises(AuthenticationError):
        opened(records, keyring(keyset, **other), segment)


def test_another_keyset_is_refused(keyset):
    records, segment = stored(keyring(keyset))
    with pytest.raises(AuthenticationError):
        opened(records, keyring(Keyset.create("memory:")), segment)


def test_a_segment_under_the_name_of_another_key_version_is_refused(keyset):
    """Sealed by us, with the name of one version and the key of another."""
    keyset.rotate()
    keys = keyring(keyset)
    sealed_as = keys.seal_segment(2, NAME, 0, 1, 5, bytes(512)).content
    with pytest.raises(AuthenticationError):
        keys.open_segment(NAME, 0, 1, 5, sealed_as)
    for name in ("index", "indexes.2", "profile", "index.02", ""):
        blob = keys.seal_segment(2, name, 0, 1, 5, b"")
        with pytest.raises(AuthenticationError):
            keys.open_segment(name, 0, 1, 5, blob.content)


def test_keys_stop_working_at_once(keyset):
    keys = keyring(keyset)
    records, segment = stored(keys)
    keyset.rotate()
    opened(records, keys, segment)
    keyset.disable(1)
    with pytest.raises(KeyUnavailableError, match="disabled"):
        opened(records, keys, segment)
    keyset.enable(1)
    opened(records, keys, segment)
    keyset.destroy(1)
    with pytest.raises(KeyUnavailableError, match="destroyed"):
        opened(records, keys, segment)
    with pytest.raises(KeyUnavailableError, match="destroyed"):
        next(sealed(keys, 1, arrays(), 500)[1])


def test_a_later_format_of_arrays_is_no_forgery(keyset):
    keys = keyring(keyset)
    segment = Segment(NAME, 5, 1, 64)
    records = Blobs()
    records[NAME, 0] = keys.seal_segment(1, NAME, 0, 1, 5, b"\x02" + bytes(511)).content
    with pytest.raises(ValueError, match="format 1, got 2"):
        opened(records, keys, segment)


@pytest.mark.parametrize(
    "fields",
    [
        ("index.1", 5, 1, 64),
        ("index.0.00112233445566ff", 5, 1, 64),
        (NAME + "\n", 5, 1, 64),
        (7, 5, 1, 64),
        (NAME, -1, 1, 64),
        (NAME, True, 1, 64),
        (NAME, 5.0, 1, 64),
        (NAME, 5, 2, 64),
        (NAME, 5, 0, 0),
        (NAME, 5, 1, 4097),
        (NAME, 5, 2**48, 2**60),
    ],
    ids=str,
)
def test_impossible_segments(fields):
    with pytest.raises(ValueError, match="a segment must have"):
        Segment(*fields)


def test_in_an_event_loop(keyset):
    """Reading waits in the loop, in the caller's greenlet; only opening happens in threads."""

    class Slow(Blobs):
        def blob(self, name, part=0):
            concurrency.wait_for(asyncio.sleep(0))
            return super().blob(name, part)

    records, segment = stored(keyring(keyset))
    found = asyncio.run(concurrency.spawn(opened, Slow(records), keyring(keyset), segment))
    np.testing.assert_array_equal(found["codes"], arrays()["codes"])


def test_representations_show_no_plaintext(keyset):
    keys = keyring(keyset)
    secret = {"codes": np.frombuffer(b"secret-plaintext" * 300, np.uint8)}
    segment, blobs = sealed(keys, 1, secret, 300)
    shown = repr((segment, blobs, list(blobs), keys))
    assert "secret" not in shown
    assert keyset.root(1).hex() not in shown
