"""Updates change what they are given, and leave the rest as it is: down to the bytes of vectors."""

import numpy as np
import pytest

from encvec_store import errors, low_level
from encvec_store.engine import update
from tests.kits import oracle
from tests.stores.contract.opened import DIM

BAD_UPDATES = [
    ({"metadata": {"x": 1}}, errors.InputError, "either ids or where"),
    ({"ids": ["a"], "where": {}, "metadata": {}}, errors.InputError, "either ids or where"),
    ({"ids": ["a"]}, errors.InputError, "give at least one of them"),
    ({"where": {"n": 1}, "documents": ["x"]}, errors.InputError, "documents and vectors need ids"),
    ({"where": {"n": 1}, "metadata": [{"x": 1}]}, errors.InputError, "must be one mapping .* got list"),
    ({"where": {"n": {"near": 1}}, "metadata": {}}, errors.FilterError, "unknown operator 'near'"),
    ({"ids": ["a", "a"], "metadata": {}}, errors.DuplicateIdError, "repeats 'a'"),
    ({"ids": ["a", "b"], "metadata": [{}]}, errors.ShapeError, "got 1"),
    ({"ids": ["a"], "metadata": {"x": {1}}}, errors.MetadataError, "'x' is set"),
    ({"ids": ["a"], "documents": [b"x"]}, errors.MetadataError, "got bytes"),
    ({"ids": ["id-3"], "documents": ["\ud800"]}, errors.MetadataError, "lone surrogates"),
    ({"ids": ["a"], "vectors": np.ones((2, DIM))}, errors.ShapeError, "1 ids but 2 vectors"),
    ({"ids": ["a"], "vectors": [[np.nan] * DIM]}, errors.NonFiniteError, r"vectors\[0\]"),
    ({"ids": ["a"], "vectors": np.zeros((1, DIM))}, errors.ZeroVectorError, r"vectors\[0\]"),
]


def inside(things, look):
    """Return what a function finds in the parts of a collection, which may belong to an event loop."""
    own = vars(things)
    return own["_loop"].run(own["_async"]._call(look)) if "_loop" in own else look()  # noqa: SLF001


def envelopes(things, ids):
    """Return the sealed vectors of records, and their payloads, as the store holds them."""

    def look():
        rows, records = low_level.places(things, ids), low_level.records(things)
        return records.vectors(rows)[1], records.payloads(rows)[1]

    vectors, payloads = inside(things, look)
    return list(map(bytes, vectors)), payloads


class UpdateContract:
    """What `update` does."""

    def test_update(self, make, keyset):
        things = make(fields={"n": "blind", "*": "sealed"})
        names, stored = oracle.ids(30), oracle.vectors(30)
        things.upsert(names, stored, [{"n": i % 3, "i": i} for i in range(30)], [f"text {i}" for i in range(30)])
        before, payloads = envelopes(things, names)
        index_vectors = things.index_vectors(names)
        assert things.update(["id-0", "nobody", "id-1"], metadata={"n": 7}) == 2
        assert things.update(["id-2"], documents=["new"], metadata=[None]) == 1
        assert things.update(where={"n": 1}, metadata={"seen": True}) == 9
        assert things.count({"n": 7}) == 2
        assert things.count({"seen": True, "n": 1}) == things.count({"seen": {"exists": True}}) == 9
        assert [(record.metadata, record.document) for record in things.get(["id-0", "id-2"])] == [
            ({"n": 7, "i": 0}, "text 0"),
            ({"n": 2, "i": 2}, "new"),
        ]
        after, new = envelopes(things, names)
        assert after == before, "no vector is sealed anew"
        np.testing.assert_array_equal(things.index_vectors(names), index_vectors)
        changed = {0, 1, 2, *range(4, 30, 3)}
        assert {i for i in range(30) if new[i] != payloads[i]} == changed
        hits = things.search(stored[4], k=3, where={"seen": True}, include_vectors=True)
        assert hits[0].id == "id-4"
        np.testing.assert_array_equal(hits[0].vector, stored[4])
        assert things.verify().ok
        # replace, vectors, and another key version: then all is sealed anew
        assert things.update(["id-0"], metadata=[None], documents=[None], vectors=stored[5:6], replace=True) == 1
        (record,) = things.get(["id-0"])
        assert (record.metadata, record.document) == ({}, None)
        np.testing.assert_array_equal(record.vector, stored[5])
        keyset.rotate()
        assert things.update(where={"i": {"gte": 20}}, metadata={"n": 0}) == 10
        assert envelopes(things, names[19:20])[0] == before[19:20]
        assert not set(envelopes(things, names[20:])[0]) & set(before)
        assert things.stats()["key_versions"] == {"1": 20, "2": 10}
        assert things.count({"n": 0}) == 10 + 6
        assert things.count() == 30
        assert things.verify().ok
        for given, kind, message in BAD_UPDATES:
            with pytest.raises(kind, match=message):
                things.update(**given)
        assert things.update([], metadata=[]) == things.update(where={"n": 99}, metadata={}) == 0
        assert things.verify().ok

    def test_updates_and_parts(self, make, monkeypatch):
        """A large update is written in parts, in one transaction."""
        monkeypatch.setattr(update, "WRITE_CHUNK", 7)
        things = make()
        things.upsert(oracle.ids(30), oracle.vectors(30), [{"i": i} for i in range(30)])
        generation = inside(things, low_level.records(things).generation)
        assert things.update(oracle.ids(40), metadata=[{"j": -i} for i in range(40)]) == 30
        assert inside(things, low_level.records(things).generation) == generation + 1
        assert {record.id: record.metadata for record in things.scroll()} == {
            f"id-{i}": {"i": i, "j": -i} for i in range(30)
        }
        assert things.update(where={}, metadata={"i": 0}) == things.count({"i": 0}) == 30
