"""A segment and its manifest in real record stores: what is stored opens, after the store was closed as well."""

from contextlib import closing

import numpy as np
import pytest

from encvec_store.keys import Keyset
from encvec_store.sealed_index.manifest import Manifest, StoredGraph, name_of, read, seal
from encvec_store.sealed_index.segments import opened, sealed
from encvec_store.sealing import Keyring
from encvec_store.storage import MemoryStore
from encvec_store.storage.sqlite import SqliteStore
from tests.kits.records import CONFIG, SPEC, batch


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_there_and_back(kind, tmp_path):
    keyring = Keyring(Keyset.create("memory:"), SPEC.tenant, SPEC.name, bytes(16))
    codes = {"rows": np.arange(1, 4), "codes": np.arange(24, dtype=np.uint8).reshape(3, 8)}
    segment, coded = sealed(keyring, 1, codes, 3)
    structure, linked = sealed(keyring, 1, {"links": np.zeros((3, 4), np.uint32)}, 3)
    manifest = Manifest(1, 1, 8, "cosine", 1, 1, 5, (StoredGraph("flat", (segment,), structure, 3),))
    blobs = {name: blob for each in (coded, linked) for name, _, blob in each} | {name_of(1): seal(keyring, manifest)}
    store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path)
    with closing(store):
        store.create(SPEC, CONFIG).put(batch("a"), under=CONFIG, blobs=blobs)
        if kind == "sqlite":
            store.close()
            store = SqliteStore(tmp_path)
        with closing(store):
            records = store.open(SPEC.tenant, SPEC.name)
            found, stored = read(records, keyring, 1)
            assert (found, stored) == (manifest, blobs[name_of(1)].content)
            for name, array in opened(records, keyring, found.parts[0].codes[0]).items():
                np.testing.assert_array_equal(array, codes[name])
