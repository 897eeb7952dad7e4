"""Manifests: strict, bound to their collection and key version, and an older one can be told by its number."""

import json
import logging
from dataclasses import replace

import pytest

from encvec_store.errors import AuthenticationError, KeyUnavailableError
from encvec_store.keys import Keyset
from encvec_store.sealed_index.manifest import Manifest, StoredGraph, name_of, read, seal
from encvec_store.sealed_index.segments import Segment
from encvec_store.sealing import Keyring
from tests.kits.blobs import Blobs

INCARNATION = bytes(range(16))


def segment(digit, count=3, version=1, size=128):
    return Segment(f"index.{version}.{digit:016x}", count, 1, size)


PARTS = (
    StoredGraph("hnsw", (segment(1), segment(2, 4)), segment(3, 6), 6),
    StoredGraph("flat", (segment(4),), segment(5), 3),
)
MANIFEST = Manifest(1, 7, 384, "cosine", 12, 1, -(2**63), PARTS)


@pytest.fixture
def keyset():
    return Keyset.create("memory:")


def keyring(keyset, collection="faces", incarnation=INCARNATION):
    return Keyring(keyset, "acme", collection, incarnation)


def stored(keys, manifest=MANIFEST):
    blob = seal(keys, manifest)
    assert blob.key_version == manifest.version
    records = Blobs()
    records[name_of(manifest.version), 0] = blob.content
    return records


def test_round_trip(keyset):
    keys = keyring(keyset)
    records = stored(keys)
    assert read(records, keyring(keyset), 1) == (MANIFEST, records["index.1", 0])
    assert read(records, keys, 2) is None
    assert len(records["index.1", 0]) == 4096 + 33
    assert [item.name[-1] for item in MANIFEST.segments] == list("12345")
    empty = replace(MANIFEST, parts=())
    assert read(stored(keys, empty), keys, 1)[0] == empty


def test_a_replayed_manifest_opens_with_its_lower_number(keyset):
    keys = keyring(keyset)
    before, after = stored(keys), stored(keys, replace(MANIFEST, number=8))
    assert read(before, keys, 1)[0].number < read(after, keys, 1)[0].number


def test_any_damage_is_refused(keyset):
    keys = keyring(keyset)
    good = stored(keys)["index.1", 0]
    broken = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in (0, 4, 5, 16, 17, 2000, len(good) - 1)]
    for data in (*broken, good[:-1], good + b"\0", good[:32], b""):
        with pytest.raises(AuthenticationError):
            read(Blobs({("index.1", 0): data}), keys, 1)


def test_another_place_is_refused(keyset):
    keyset.rotate()
    keys = keyring(keyset)
    good = stored(keys)["index.1", 0]
    two = replace(MANIFEST, version=2, parts=())
    for records, reader in (
        (Blobs({("index.2", 0): good}), keys),
        (Blobs({("index.1", 0): stored(keys, two)["index.2", 0]}), keys),
        (Blobs({("index.1", 0): keys.seal_segment(1, PARTS[0].structure.name, 0, 1, 0, b"{}").content}), keys),
        (stored(keys), keyring(keyset, collection="texts")),
        (stored(keys), keyring(keyset, incarnation=bytes(16))),
        (stored(keys), keyring(Keyset.create("memory:"))),
    ):
        for version in {int(name.split(".")[1]) for name, _ in records}:
            with pytest.raises(AuthenticationError):
                read(records, reader, version)


def test_keys_stop_working_at_once(keyset):
    keys = keyring(keyset)
    records = stored(keys)
    keyset.rotate()
    keyset.disable(1)
    with pytest.raises(KeyUnavailableError, match="disabled"):
        read(records, keys, 1)
    keyset.destroy(1)
    with pytest.raises(KeyUnavailableError, match="destroyed"):
        read(records, keys, 1)
    with pytest.raises(KeyUnavailableError, match="destroyed"):
        seal(keys, MANIFEST)


def _fields(keys):
    sealed = seal(keys, MANIFEST).content
    return json.loads(keys.open_segment("index.1", 0, 1, 0, sealed).tobytes())


CHANGES = {
    "format": lambda fields: fields.update(format=1),
    "no format": lambda fields: fields.pop("format"),
    "more": lambda fields: fields.update(more=1),
    "less": lambda fields: fields.pop("dim"),
    "float": lambda fields: fields.update(generation=1.0),
    "bool": lambda fields: fields.update(content=True),
    "negative": lambda fields: fields.update(generation=-1),
    "number": lambda fields: fields.update(number=0),
    "dim": lambda fields: fields.update(dim=10**6),
    "stamp": lambda fields: fields.update(stamp=2**63),
    "metric": lambda fields: fields.update(metric="hamming"),
    "metrics": lambda fields: fields.update(metric=["l2"]),
    "version": lambda fields: fields.update(version=2, parts=[]),
    "parts": lambda fields: fields.update(parts={"a": 1}),
    "part": lambda fields: fields.update(parts=[3]),
    "kind": lambda fields: fields["parts"][0].update(kind="HNSW; x"),
    "too many": lambda fields: fields["parts"][0].update(count=8),
    "codes": lambda fields: fields["parts"][0].update(codes=7),
    "entry": lambda fields: fields["parts"][0]["structure"].append(1),
    "twice": lambda fields: fields["parts"].append(fields["parts"][0]),
    "of another version": lambda fields: fields["parts"][0]["structure"].__setitem__(0, "index.2." + 16 * "0"),
    "complete": lambda fields: fields.update(complete=1),
    "path": lambda fields: fields["parts"][0]["structure"].__setitem__(0, "index.1/../" + 16 * "0"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_formats_are_none_and_logged_once(keyset, caplog, change):
    """Authentic, and not in the form that this version writes."""
    keys = keyring(keyset)
    fields = _fields(keys)
    CHANGES[change](fields)
    records = Blobs()
    records["index.1", 0] = keys.seal_segment(1, "index.1", 0, 1, 0, json.dumps(fields).encode()).content
    with caplog.at_level(logging.WARNING, "encvec_store"):
        assert read(records, keys, 1) is None
    assert [record.getMessage() for record in caplog.records] == [
        "the sealed index of key version 1 has a format that this version does not know"
    ]


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"format": NaN}', b"9" * 5000])
def test_no_json_object_is_none(keyset, content):
    keys = keyring(keyset)
    records = Blobs()
    records["index.1", 0] = keys.seal_segment(1, "index.1", 0, 1, 0, content).content
    assert read(records, keys, 1) is None


def test_the_size_does_not_depend_on_digits(keyset):
    keys = keyring(keyset)
    large = replace(MANIFEST, number=10**15, generation=10**15, content=10**15)
    assert len(seal(keys, large).content) == len(seal(keys, MANIFEST).content)
