"""The contract of a store, one class: every backend subclasses it and says only how it is opened."""

import datetime as dt
import json
import threading
import uuid
from decimal import Decimal

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import collection as collection_module
from encvec_store import errors, writing
from encvec_store.crypto import profile as profiles
from tests.stores import oracle
from tests.stores.oracle import FILTERS, METRICS, assert_hits, exact, mixed_metadata
from tests.strategies import accepts

DIM = 8
QUIET = {"name": "sap", "beta": 1.0}
EVERYTHING = 1000  # oversample: every record is a candidate, so that answers are exact whatever the noise
FIELDS = ("n", "word", "odd", "rare", "absent")
POLICIES = [
    None,
    dict.fromkeys(FIELDS, "sealed"),
    dict.fromkeys(FIELDS, "blind"),
    dict.fromkeys(FIELDS, "plain"),
    {"n": "plain", "word": "blind", "odd": "plain", "*": "sealed"},
]


def hasten(monkeypatch):
    """Let a sketch be fitted on a few records, and in few dimensions: nearly every test crosses the threshold."""
    monkeypatch.setattr(profiles, "LEAST_RECORDS", 12)
    monkeypatch.setattr(profiles, "PER_DIMENSION", 2)
    monkeypatch.setattr(profiles, "LEAST_DIMENSIONS", 2)


class Opened:
    """A store's data and the ways to it."""

    def __init__(self, keyset):
        self.keyset = keyset

    def connect(self, keyset=None):
        """Open the data once more, as another process would."""
        raise NotImplementedError

    def reopen(self, store, keyset=None):
        """Close and open again."""
        raise NotImplementedError

    def collections(self, store, tenants):
        """List all collections, which are of these tenants."""
        return store.collections()

    def burglar(self, name="things", tenant=""):
        """Return a `tampering.Burglar` that reads and writes what is stored of a collection."""
        raise NotImplementedError


BAD_UPSERTS = {
    "too wide": ((["a"], np.ones((1, DIM + 1))), errors.ShapeError, r"expected shape \(n, 8\), got \(1, 9\)"),
    "one vector": ((["a"], np.ones(DIM)), errors.ShapeError, r"expected shape \(n, 8\), got \(8,\)"),
    "ragged": ((["a", "b"], [[1] * DIM, [1]]), errors.ShapeError, "rows of unlike length"),
    "text": ((["a"], [["x"] * DIM]), errors.ShapeError, "expected numbers"),
    "none": ((["a"], None), errors.ShapeError, "expected numbers"),
    "few vectors": ((["a", "b"], np.ones((1, DIM))), errors.ShapeError, "2 ids but 1 vectors"),
    "few ids": (([], np.ones((1, DIM))), errors.ShapeError, "0 ids but 1 vectors"),
    "nan": ((["a", "b"], [[1] * DIM, [1, np.nan] * 4]), errors.NonFiniteError, r"vectors\[1\] holds NaN"),
    "inf": ((["a", "b"], [[1] * DIM, [1, np.inf] * 4]), errors.NonFiniteError, r"vectors\[1\] holds NaN or inf"),
    "too large": ((["a"], np.full((1, DIM), 1e300)), errors.NonFiniteError, "overflows float32"),
    "zero": ((["a", "b"], [[1] * DIM, [0] * DIM]), errors.ZeroVectorError, r"vectors\[1\] is the zero vector"),
    "one id": (("a", np.ones((1, DIM))), errors.IdError, "not one string"),
    "no ids": ((None, np.ones((1, DIM))), errors.IdError, "list of strings, not NoneType"),
    "number": (([1], np.ones((1, DIM))), errors.IdError, r"ids\[0\] is int, not str"),
    "empty id": ((["a", ""], np.ones((2, DIM))), errors.IdError, r"ids\[1\] is empty"),
    "long id": ((["a" * 1025], np.ones((1, DIM))), errors.IdError, "1025 bytes; at most 1024"),
    "surrogate": ((["\ud800"], np.ones((1, DIM))), errors.IdError, "UTF-8"),
    "twice": ((["a", "b", "a"], np.ones((3, DIM))), errors.DuplicateIdError, r"ids\[2\] repeats 'a'"),
    "metadata": ((["a"], np.ones((1, DIM)), {"a": 1}), errors.ShapeError, "metadata: expected a list of 1"),
    "few": ((["a", "b"], np.ones((2, DIM)), [{}]), errors.ShapeError, "metadata: expected a list of 2"),
    "type": ((["a", "b"], np.ones((2, DIM)), [{}, {"x": {1}}]), errors.MetadataError, r"metadata\[1\]: 'x' is set"),
    "key": ((["a"], np.ones((1, DIM)), [{1: 1}]), errors.MetadataError, "keys are strings"),
    "no mapping": ((["a"], np.ones((1, DIM)), [[]]), errors.MetadataError, "is list, not a mapping"),
    "document": ((["a"], np.ones((1, DIM)), None, [b"x"]), errors.MetadataError, "bytes, not str"),
    "documents": ((["a"], np.ones((1, DIM)), None, "x"), errors.ShapeError, "documents: expected a list of 1"),
    "lone": (
        (["a", "b"], np.ones((2, DIM)), None, ["x", "\ud800"]),
        errors.MetadataError,
        "record 'b': text with lone",
    ),
}


class StoreContract:
    """What every store does, with every scheme."""

    @pytest.fixture
    def keyset(self):
        return ev.Keyset.create("memory:")

    @pytest.fixture
    def place(self, keyset, tmp_path):
        """Return the `Opened` of this backend."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, place):
        store = place.connect()
        yield store
        store.close()

    @pytest.fixture(params=["sap", "sealed", "sketch", "cells"])
    def scheme(self, request, monkeypatch):
        if request.param in ("sketch", "cells"):
            hasten(monkeypatch)
        given = {"sap": QUIET, "cells": {"name": "sketch", "cells": 3}}
        return given.get(request.param, request.param)

    @pytest.fixture
    def make(self, store, scheme):
        def make(name="things", dim=DIM, **given):
            return store.collection(name, dim=dim, **{"scheme": scheme, "oversample": EVERYTHING, **given})

        return make

    # ------------------------------------------------------------------------------ empty and small

    def test_empty(self, make):
        things = make()
        assert things.search(np.ones(DIM)) == []
        assert things.search(np.ones((3, DIM))) == [[], [], []]
        assert things.search(np.ones((2, DIM)), where={"a": 1}) == [[], []]
        assert things.count() == things.count({"a": 1}) == 0
        assert things.get(["x"]) == things.get([]) == []
        assert list(things.scroll()) == list(things.scroll({"a": 1})) == []
        assert things.delete(["x"]) == things.delete([]) == things.delete(where={"a": 1}) == 0
        assert things.index_vectors([]).shape == (
            0,
            things.stats()["dim"] if things.stats()["scheme"]["name"] == "sap" else 0,
        )
        report = things.verify()
        assert report.ok
        assert report.checked == 0

    def test_nothing_to_write_is_no_error(self, make):
        things = make()
        things.upsert([], [])
        things.upsert([], np.empty((0, DIM)), [], [])
        assert things.count() == 0
        with pytest.raises(errors.ShapeError):
            things.upsert([], np.empty((0, DIM + 1)))

    def test_no_queries_no_lists(self, make):
        things = make()
        things.upsert(["a"], [[1.0] * DIM])
        assert things.search(np.empty((0, DIM))) == []
        assert things.search(np.empty((0, DIM)), where={"a": 1}) == []
        for wrong in (np.empty((0, DIM + 1)), np.empty((2, 0)), [[]], []):
            with pytest.raises(errors.ShapeError):
                things.search(wrong)

    def test_one_record(self, make):
        things = make()
        things.upsert(["a"], [range(1, DIM + 1)], [{"x": 1}], ["text"])
        (hit,) = things.search(range(1, DIM + 1), include_vectors=True)
        assert (hit.id, hit.metadata, hit.document) == ("a", {"x": 1}, "text")
        assert hit.score == pytest.approx(1)
        np.testing.assert_array_equal(hit.vector, np.arange(1, DIM + 1))
        assert hit.vector.dtype == np.float32

    # ---------------------------------------------------------------------------------------- search

    @pytest.mark.parametrize("metric", METRICS)
    def test_answers_are_exact(self, make, metric):
        names, stored, queries = oracle.ids(200), oracle.vectors(200), oracle.vectors(7, seed=1)
        things = make(metric=metric)
        metadata = [{"i": i} for i in range(200)]
        documents = [None if i % 3 else f"text {i}" for i in range(200)]
        things.upsert(names[:150], stored[:150], metadata[:150], documents[:150])
        things.upsert(names[150:], stored[150:], metadata[150:], documents[150:])
        for k in (1, 10, 200, 1000):
            lists = things.search(queries, k=k, include_vectors=k == 10)
            assert len(lists) == len(queries)
            for query, hits in zip(queries, lists, strict=True):
                assert_hits(hits, metric, query, names, stored, k)
                for hit in hits:
                    i = names.index(hit.id)
                    assert (hit.metadata, hit.document) == (metadata[i], documents[i])
                    assert (hit.vector is not None) is (k == 10)
                    if hit.vector is not None:
                        np.testing.assert_array_equal(hit.vector, stored[i])
        single = things.search(queries[0], k=10)
        assert [hit.id for hit in single] == [hit.id for hit in things.search(queries[:1], k=10)[0]]
        assert [hit.id for hit in things.search(list(map(float, queries[0])), k=np.int64(10))] == [h.id for h in single]

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15, 1e30])
    def test_answers_are_exact_at_any_length(self, make, metric, scale):
        names, queries = oracle.ids(30), oracle.vectors(3, seed=1) * np.float32(scale)
        stored = oracle.vectors(30) * np.float32(scale)
        things = make(metric=metric)
        things.upsert(names, stored)
        for query, hits in zip(queries, things.search(queries, k=30), strict=True):
            order, scores = oracle.nearest(metric, query, stored, 30)
            assert [hit.id for hit in hits] == [names[i] for i in order]
            np.testing.assert_allclose([hit.score for hit in hits], scores, rtol=1e-9)
        assert things.verify().ok

    def test_more_than_there_are(self, make):
        things = make()
        things.upsert(oracle.ids(5), oracle.vectors(5))
        for k in (5, 6, 10**6, 2**40):
            assert len(things.search(np.ones(DIM), k=k)) == 5
            assert len(things.search(np.ones(DIM), k=k, where={"a": {"exists": False}})) == 5

    def test_equal_vectors_are_all_found(self, make):
        things = make()
        things.upsert(oracle.ids(40), np.repeat(oracle.vectors(4), 10, axis=0))
        hits = things.search(oracle.vectors(4)[1], k=10)
        assert sorted(hit.id for hit in hits) == sorted(oracle.ids(10, 10))

    def test_candidates_come_from_the_index(self, store):
        """With the default oversample on more records than candidates: no brute force, high recall."""
        things = store.collection("things", dim=32, scheme="sap")
        names, stored, queries = oracle.ids(3000), oracle.vectors(3000, 32), oracle.vectors(20, 32, seed=1)
        things.upsert(names, stored)
        found = 0
        for query, hits in zip(queries, things.search(queries, k=10), strict=True):
            order, _ = oracle.nearest("cosine", query, stored, 10)
            found += len({names[i] for i in order} & {hit.id for hit in hits})
            own = exact("cosine", query, stored)
            for hit in hits:
                assert hit.score == pytest.approx(own[names.index(hit.id)], rel=1e-9)
        assert found >= 0.8 * 200

    def test_explain(self, make, scheme):
        things = make(fields={"n": "blind", "s": "sealed"}, oversample=2)
        assert isinstance(things.explain(np.ones(DIM)), str)
        things.upsert(oracle.ids(30), oracle.vectors(30), [{"n": i % 3, "s": i} for i in range(30)])
        plain = things.explain(np.ones(DIM), k=5)
        assert ("10, of which the nearest 5" in plain) is (scheme == QUIET)
        assert ("3 cells" if "cells" in scheme else "30") in plain
        assert "filter" not in plain
        pushed = things.explain(np.ones(DIM), 5, {"n": 1, "s": {"lt": 9}})
        assert "blind and plain fields are checked by the store" in pushed
        assert "10" in pushed
        assert "checked here, on opened records" in things.explain(np.ones(DIM), 5, {"s": 1})
        for wrong in (
            lambda: things.explain(np.ones((2, DIM))),
            lambda: things.explain(np.ones(DIM + 1)),
            lambda: things.explain(np.zeros(DIM)),
            lambda: things.explain(np.ones(DIM), k=0),
            lambda: things.explain(np.ones(DIM), where={"unknown": 1}),
        ):
            with pytest.raises(errors.InputError):
                wrong()

    def test_hits_do_not_share_their_metadata(self, make):
        things = make()
        things.upsert(["a"], [[1.0] * DIM], [{"x": [1]}])
        lists = things.search(np.ones((2, DIM)), include_vectors=True)
        lists[0][0].metadata["mine"] = True
        lists[0][0].vector[:] = 0
        assert lists[1][0].metadata == {"x": [1]}
        assert things.get(["a"])[0].metadata == {"x": [1]}
        np.testing.assert_array_equal(lists[1][0].vector, np.ones(DIM))
        np.testing.assert_array_equal(things.search(np.ones(DIM), include_vectors=True)[0].vector, np.ones(DIM))

    # ----------------------------------------------------------------------- records come as they went

    def test_ids_are_kept_as_given(self, make):
        names = [
            "a b",
            " ",
            "\0",
            "'; DROP TABLE records; --",
            "../../x",
            "\u00e9",
            "e\u0301",
            "\U0001f600",
            "%s{}",
            "NULL",
        ]
        names += ["x" * 1024, "ü" * 512, "1", "1.0", "01", "A", "a"]
        things = make()
        stored = oracle.vectors(len(names))
        things.upsert(names, stored, [{"name": name} for name in names])
        assert [record.id for record in things.get(names[::-1])] == names[::-1]
        assert [record.id for record in things.scroll()] == names
        for name, vector in zip(names, stored, strict=True):
            (hit,) = things.search(vector, k=1)
            assert (hit.id, hit.metadata) == (name, {"name": name})
        assert things.delete(["A"]) == 1
        assert things.count() == len(names) - 1

    def test_metadata_keeps_its_types(self, make):
        metadata = {
            "text": "\U0001f600\0",
            "int": -(2**70),
            "huge": 10**5000,
            "float": -0.1,
            "inf": float("-inf"),
            "bool": True,
            "none": None,
            "bytes": b"\0\xff",
            "date": dt.date(1, 1, 1),
            "naive": dt.datetime(2024, 2, 29, 12, 0, 0, 1),
            "aware": dt.datetime(2024, 2, 29, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
            "uuid": uuid.UUID(int=5),
            "decimal": Decimal("1.10"),
            "list": [1, [2.0, (3,)]],
            "dict": {"$date": "no tag", "": {"a": ()}},
            "$tuple": [1],
            "": "",
            "numpy": np.float32(0.5),
        }
        things = make()
        things.upsert(["a", "b"], oracle.vectors(2), [metadata, None], ["", None])
        expected = metadata | {"numpy": 0.5}
        for record in (things.get(["a"])[0], next(things.scroll()), things.search(oracle.vectors(2)[0], k=1)[0]):
            assert record.metadata == expected
            assert list(record.metadata) == list(expected)
            assert {key: type(value) for key, value in record.metadata.items()} == {
                key: type(value) for key, value in expected.items()
            }
            assert record.document == ""
        (other,) = things.get(["b"])
        assert (other.metadata, other.document) == ({}, None)

    def test_the_callers_objects_are_left_alone(self, make):
        names, stored = ["a", "b"], oracle.vectors(2).astype(np.float64)
        before, metadata, documents = stored.copy(), [{"x": [np.int64(1)]}, None], ["text", None]
        things = make(metric="l2")
        things.upsert(names, stored, metadata, documents)
        query = np.ones(DIM)
        things.search(query)
        assert (names, documents) == (["a", "b"], ["text", None])
        assert metadata == [{"x": [1]}, None]
        assert type(metadata[0]["x"][0]) is np.int64
        np.testing.assert_array_equal(stored, before)
        np.testing.assert_array_equal(query, np.ones(DIM))

    def test_what_is_stored_does_not_change_with_the_callers_array(self, make):
        stored = oracle.vectors(2)
        things = make()
        things.upsert(["a", "b"], stored)
        kept = stored.copy()
        stored[:] = 7
        np.testing.assert_array_equal([record.vector for record in things.get(["a", "b"])], kept)

    def test_big_documents(self, make):
        text = "\U0001f600ab" * 300_000
        things = make()
        things.upsert(["a"], oracle.vectors(1), [{"blob": bytes(100_000)}], [text])
        (record,) = things.get(["a"])
        assert record.document == text
        assert record.metadata == {"blob": bytes(100_000)}

    def test_upsert_replaces_everything_of_a_record(self, make):
        things = make()
        first, second = oracle.vectors(3), oracle.vectors(3, seed=1)
        things.upsert(["a", "b", "c"], first, [{"x": 1}] * 3, ["one"] * 3)
        things.upsert(["b", "d"], second[:2], [{"y": 2}, None], None)
        assert things.count() == 4
        (record,) = things.get(["b"])
        assert (record.metadata, record.document) == ({"y": 2}, None)
        np.testing.assert_array_equal(record.vector, second[0])
        assert sorted(hit.id for hit in things.search(second[0], k=10)) == ["a", "b", "c", "d"]
        assert things.search(second[0], k=1)[0].id == "b"
        assert [record.id for record in things.scroll()] == ["a", "c", "b", "d"], "in the order of the last write"

    def test_a_large_upsert_is_written_in_parts(self, make, monkeypatch):
        """Of which all or none come to be."""
        monkeypatch.setattr(writing, "WRITE_CHUNK", 7)
        things, names = make(fields={"n": "blind"}), oracle.ids(30)
        things.upsert(names[:20], oracle.vectors(20), [{"n": i % 2} for i in range(20)])
        encrypt, made = writing.encrypt_batch, []

        def fail(*arguments):
            made.append(arguments)
            if len(made) == 3:
                raise MemoryError
            return encrypt(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(writing, "encrypt_batch", fail)
            with pytest.raises(MemoryError):
                things.upsert(names, oracle.vectors(30, seed=1), [{"n": 2}] * 30)
        assert things.count() == things.count({"n": {"in": [0, 1]}}) == 20
        np.testing.assert_array_equal(things.get(names[:1])[0].vector, oracle.vectors(20)[0])
        new = oracle.vectors(30, seed=2)
        things.upsert(names, new, [{"n": 2}] * 30, [f"text {i}" for i in range(30)])
        assert things.count() == things.count({"n": 2}) == 30
        records = list(things.scroll())
        assert [record.id for record in records] == names, "in the order given"
        np.testing.assert_array_equal(np.stack([record.vector for record in records]), new)
        assert [record.document for record in records] == [f"text {i}" for i in range(30)]
        assert things.verify().ok

    def test_get(self, make):
        things = make()
        stored = oracle.vectors(3)
        things.upsert(["a", "b", "c"], stored)
        assert [record.id for record in things.get(["c", "x", "a", "c"])] == ["c", "a", "c"]
        np.testing.assert_array_equal(things.get(["b"])[0].vector, stored[1])
        assert things.get(["b"], include_vectors=False)[0].vector is None

    def test_delete(self, make):
        things = make()
        things.upsert(oracle.ids(20), oracle.vectors(20), [{"n": i} for i in range(20)])
        assert things.delete(["id-0", "id-0", "nobody", "id-1"]) == 2
        assert things.delete(["id-0"]) == 0
        assert things.delete(where={"n": {"gte": 15}}) == 5
        assert things.delete(where={"n": 3, "absent": 1}) == 0
        assert things.count() == 13
        assert things.get(["id-0", "id-15"]) == []
        assert sorted(hit.id for hit in things.search(np.ones(DIM), k=20)) == sorted(oracle.ids(13, 2))
        things.upsert(["id-0"], oracle.vectors(1), [{"n": 0}])
        assert things.count() == 14
        assert things.verify().ok
        for wrong in ({}, {"ids": ["a"], "where": {"n": 1}}):
            with pytest.raises(errors.InputError, match="either ids or where"):
                things.delete(**wrong)
        with pytest.raises(errors.InputError, match="would delete everything"):
            things.delete(where={})
        assert things.count() == 14

    def test_scroll_in_small_chunks(self, make, monkeypatch):
        monkeypatch.setattr(collection_module, "_CHUNK", 7)
        things = make(fields={"n": "blind"})
        names, stored = oracle.ids(50), oracle.vectors(50)
        things.upsert(names, stored, [{"n": i % 2} for i in range(50)])
        records = list(things.scroll())
        assert [record.id for record in records] == names
        np.testing.assert_array_equal([record.vector for record in records], stored)
        assert [record.id for record in things.scroll({"n": 1}, include_vectors=False)] == names[1::2]
        scroll = things.scroll()
        next(scroll)
        things.delete(names[10:20])
        things.upsert(names[:1], stored[:1], [{"n": 5}])
        rest = [record.id for record in scroll]
        assert [name for name in rest if name not in names[:20]] == names[20:]
        assert not set(rest) & set(names[14:20])

    # --------------------------------------------------------------------------------------- filters

    @pytest.mark.parametrize("policies", POLICIES, ids=["none", "sealed", "blind", "plain", "mixed"])
    def test_filters_agree_with_the_oracle(self, make, policies):
        """Whatever the policy, and by every method that takes a filter."""
        names, stored, metadata = oracle.ids(120), oracle.vectors(120), mixed_metadata(120)
        things = make(fields=policies)
        things.upsert(names, stored, metadata)
        things.upsert(names[:30], stored[:30], metadata[:30])
        query = np.ones(DIM, np.float32)
        chosen_by = {}
        for number, where in enumerate(FILTERS):
            expected = [name for name, item in zip(names, metadata, strict=True) if accepts(where, item)]
            places = [names.index(name) for name in expected]
            for k in (3, 120):
                hits = things.search(query, k=k, where=where)
                assert_hits(hits, "cosine", query, expected, stored[places], k)
            assert things.count(where) == len(expected), where
            chosen_by[number] = expected
        for number in (0, 11, 17, 33):
            found = [record.id for record in things.scroll(FILTERS[number])]
            assert sorted(found) == sorted(chosen_by[number])
        lists = things.search(oracle.vectors(3, seed=4), k=5, where={"n": {"gte": 8}})
        assert all({hit.metadata["n"] for hit in hits} <= {8, 9} and len(hits) == 5 for hits in lists)
        assert sum(map(len, chosen_by.values())) > 500
        assert things.delete(where=FILTERS[33]) == len(chosen_by[33])
        assert things.count() == 120 - len(chosen_by[33])
        assert things.verify().ok

    @pytest.mark.parametrize("policy", ["sealed", "blind", "plain"])
    def test_rare_matches_are_all_found(self, store, scheme, policy):
        """Three among two thousand, and far from the query: fewer than k come only where fewer exist."""
        things = store.collection("things", dim=DIM, scheme=scheme, fields={"tag": policy})
        stored = oracle.vectors(2000)
        query = np.ones(DIM, np.float32)
        far = np.argsort(exact("cosine", query, stored))[:3]
        things.upsert(oracle.ids(2000), stored, [{"tag": "rare" if i in far else "common"} for i in range(2000)])
        wanted = {f"id-{i}" for i in far}
        assert {hit.id for hit in things.search(query, k=3, where={"tag": "rare"})} == wanted
        assert {hit.id for hit in things.search(query, k=10, where={"tag": "rare"})} == wanted
        assert {hit.id for hit in things.search(query, k=10, where={"tag": {"ne": "common"}})} == wanted
        lists = things.search(np.stack([query, -query]), k=3, where={"tag": "rare"})
        assert [{hit.id for hit in hits} for hits in lists] == [wanted, wanted]
        assert things.count({"tag": "rare"}) == 3

    def test_undeclared_fields_are_refused_not_ignored(self, make):
        things = make(fields={"a": "sealed", "b": "blind"})
        things.upsert(["x"], oracle.vectors(1), [{"c": 1}])
        calls = (
            lambda: things.search(np.ones(DIM), where={"c": 1}),
            lambda: things.count({"c": 1}),
            lambda: list(things.scroll({"c": 1})),
            lambda: things.delete(where={"c": 1}),
        )
        for call in calls:
            with pytest.raises(errors.UnknownFieldError, match="unknown field 'c'; the collection declares: a, b"):
                call()
        assert things.get(["x"])[0].metadata == {"c": 1}, "stored all the same"

    def test_malformed_filters_are_refused_by_every_method(self, make):
        things = make()
        things.upsert(["x"], oracle.vectors(1))
        for where in ({"a": {"like": 1}}, [{"a": 1}], "a", [], 0):
            for call in (
                lambda where: things.search(np.ones(DIM), where=where),
                things.count,
                lambda where: list(things.scroll(where)),
                lambda where: things.delete(where=where),
            ):
                with pytest.raises(errors.InputError):
                    call(where)
        assert things.count() == 1

    # ------------------------------------------------------------------------------------- bad input

    @pytest.mark.parametrize("case", BAD_UPSERTS)
    def test_bad_upserts_write_nothing(self, make, case):
        arguments, error, message = BAD_UPSERTS[case]
        things = make(fields={"x": "plain", "*": "sealed"})
        things.upsert(["a", "b"], oracle.vectors(2), [{"x": 1}, {}], ["old", None])
        with pytest.raises(error, match=message) as caught:
            things.upsert(*arguments)
        assert type(caught.value) is error
        assert isinstance(caught.value, ValueError)
        assert [record.id for record in things.scroll()] == ["a", "b"], "the order of writes: nothing was written again"
        (record,) = things.get(["a"])
        assert (record.metadata, record.document) == ({"x": 1}, "old")

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((np.ones(DIM + 1),), errors.ShapeError, "queries: expected shape"),
            ((np.ones((2, 2, DIM)),), errors.ShapeError, "queries: expected shape"),
            ((1.0,), errors.ShapeError, "queries: expected shape"),
            ((None,), errors.ShapeError, "queries"),
            (("text",), errors.ShapeError, "queries"),
            ((["a"] * DIM,), errors.ShapeError, "queries: expected numbers"),
            (([[1.0] * DIM, [1.0]],), errors.ShapeError, "queries: rows of unlike length"),
            (([np.nan] + [1.0] * (DIM - 1),), errors.NonFiniteError, r"queries\[0\] holds NaN"),
            (([[1.0] * DIM, [np.inf] * DIM],), errors.NonFiniteError, r"queries\[1\] holds NaN or infinity"),
            ((np.zeros(DIM),), errors.ZeroVectorError, r"queries\[0\] is the zero vector"),
            ((np.ones(DIM), 0), errors.InputError, "k is a whole number from 1, not 0"),
            ((np.ones(DIM), -1), errors.InputError, "k is a whole number"),
            ((np.ones(DIM), 1.5), errors.InputError, "k is a whole number"),
            ((np.ones(DIM), True), errors.InputError, "k is a whole number"),
            ((np.ones(DIM), None), errors.InputError, "k is a whole number"),
            ((np.ones(DIM), 1, {"a": {"gt": None}}), errors.FilterError, "gt takes a value with an order"),
        ],
    )
    def test_bad_searches(self, make, arguments, error, message):
        things = make()
        for fill in (False, True):
            if fill:
                things.upsert(["a"], oracle.vectors(1))
            with pytest.raises(error, match=message) as caught:
                things.search(*arguments)
            assert type(caught.value) is error

    def test_bad_ids_everywhere(self, make):
        things = make()
        for call in (things.get, things.delete, things.index_vectors):
            for ids in ("abc", [1], [""], [None], ["\ud800"], 5):
                with pytest.raises(errors.IdError):
                    call(ids)
        with pytest.raises(errors.InputError, match="no record 'x'"):
            things.index_vectors(["x"])

    # -------------------------------------------------------------------------------------- settings

    @pytest.mark.parametrize("metric", ["ip", "l2"])
    def test_max_norm(self, make, metric):
        things = make(metric=metric)
        assert things.stats()["max_norm"] is None
        things.upsert(["a", "b"], [[4.0] + [0] * (DIM - 1), [1.0] * DIM])
        assert things.stats()["max_norm"] == 5.0
        things.upsert(["c"], [[5.0] + [0] * (DIM - 1)])
        with pytest.raises(errors.NormError, match=r"vectors\[1\] has norm 5.1, above the collection's max_norm 5"):
            things.upsert(["d", "e"], [[1.0] * DIM, [5.1] + [0] * (DIM - 1)])
        assert things.count() == 3
        assert [hit.id for hit in things.search([9e9] * DIM, k=3)], "queries may have any length"
        assert things.search([0.0] * DIM, k=3), "and none"
        fixed = make("fixed", metric=metric, max_norm=1)
        unit = oracle.vectors(50)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        fixed.upsert(oracle.ids(50), unit)
        with pytest.raises(errors.NormError):
            fixed.upsert(["a"], [[2.0] * DIM])

    def test_creating_and_opening(self, place, store, scheme):
        with pytest.raises(
            errors.CollectionNotFoundError, match=r"no collection 'things'; give dim=\.\.\. to create it"
        ):
            store.collection("things")
        with pytest.raises(errors.CollectionNotFoundError, match="of tenant 'acme'"):
            store.collection("things", tenant="acme")
        things = store.collection("things", dim=DIM, metric="ip", scheme=scheme, fields={"a": "blind"}, max_norm=3.0)
        things.upsert(["a"], oracle.vectors(1))
        assert (things.name, things.tenant, things.dim, things.metric) == ("things", "", DIM, "ip")
        same = store.collection("things", dim=DIM, metric="ip", scheme=scheme, fields={"a": "blind"}, max_norm=3)
        assert same.count() == store.collection("things").count() == 1
        other = "sealed" if scheme != "sealed" else "sap"
        for given, part in (
            ({"dim": 9}, "dim is 8, not 9"),
            ({"metric": "l2"}, "metric is ip, not l2"),
            ({"scheme": other}, "scheme is"),
            ({"fields": {"a": "plain"}}, "fields are"),
            ({"max_norm": 4}, "max_norm is 3, not 4"),
        ):
            with pytest.raises(errors.ConfigMismatchError, match=part):
                store.collection("things", **given)
        assert place.collections(store, {""}) == [("", "things")]

    @pytest.mark.parametrize("name", ["", "x" * 256, "ü" * 128, "a\0b", 5, None, "\ud800", b"a"])
    def test_bad_names(self, place, store, name):
        with pytest.raises(errors.InputError, match="collection name"):
            store.collection(name, dim=DIM)
        if name:
            with pytest.raises(errors.InputError, match="tenant"):
                store.collection("things", dim=DIM, tenant=name)
        assert place.collections(store, {""}) == []

    def test_names_of_every_kind(self, place, store):
        names = [
            "a",
            "A",
            "a b",
            "..",
            ".",
            "/",
            "a/b",
            "../a",
            "\\",
            "CON",
            "a.",
            "\u00e9",
            "e\u0301",
            "\U0001f600",
            "%2e",
            "'",
        ]
        names += ["x" * 255, "ü" * 127, "\n", "*", "a:b", "-", "--", "~"]
        places = [("", name) for name in names] + [(name, "a") for name in names] + [("a", "b-c"), ("a-b", "c")]
        for i, (tenant, name) in enumerate(places):
            things = store.collection(name, dim=2, scheme="sealed" if i % 2 else "sap", tenant=tenant)
            things.upsert([f"of {i}"], [[1.0, i]])
        tenants = {tenant for tenant, _ in places}
        assert place.collections(store, tenants) == sorted(set(places))
        for i, (tenant, name) in enumerate(places):
            assert [r.id for r in store.collection(name, tenant=tenant).scroll()] == [f"of {i}"]
        assert store.collections("a") == sorted(("a", name) for tenant, name in places if tenant == "a")
        store = place.reopen(store)
        assert place.collections(store, tenants) == sorted(set(places))
        assert store.collection("../a").count() == 1
        store.close()

    def test_tenants_see_nothing_of_each_other(self, place, store, scheme):
        a = store.collection("things", dim=DIM, scheme=scheme, tenant="a")
        b = store.collection("things", dim=DIM, scheme=scheme, tenant="b")
        nobody = store.collection("things", dim=DIM, scheme=scheme)
        stored = oracle.vectors(3)
        a.upsert(["x", "y"], stored[:2], [{"of": "a"}] * 2)
        b.upsert(["x"], stored[:1], [{"of": "b"}])
        assert (a.count(), b.count(), nobody.count()) == (2, 1, 0)
        assert b.get(["x", "y"])[0].metadata == {"of": "b"}
        assert [hit.metadata for hit in b.search(stored[0])] == [{"of": "b"}]
        assert nobody.search(stored[0]) == []
        assert b.delete(["x", "y"]) == 1
        assert a.count() == 2
        if a.index_vectors(["x"]).size:
            b.upsert(["x"], stored[:1])
            assert not np.allclose(a.index_vectors(["x"]), b.index_vectors(["x"]), atol=0.1), "keys of their own"
        assert store.drop("things", tenant="a")
        assert place.collections(store, {"", "a", "b"}) == [("", "things"), ("b", "things")]

    def test_dropping_a_tenant(self, place, store, scheme):
        for tenant in ("", "a", "b"):
            for name in ("x", "y", "z"):
                store.collection(name, dim=DIM, scheme=scheme, tenant=tenant).upsert(["r"], oracle.vectors(1))
        assert store.drop_tenant("a") == 3
        assert store.drop_tenant("a") == store.drop_tenant("nobody") == 0
        left = [(tenant, name) for tenant in ("", "b") for name in ("x", "y", "z")]
        assert place.collections(store, {"", "a", "b"}) == left
        assert store.collection("x", tenant="b").get(["r"])[0].id == "r"
        with pytest.raises(errors.InputError, match="tenant is a string"):
            store.drop_tenant(None)

    def test_drop(self, place, store, scheme):
        things = store.collection("things", dim=DIM, scheme=scheme)
        things.upsert(oracle.ids(5), oracle.vectors(5), [{"a": 1}] * 5)
        assert store.drop("things") is True
        assert store.drop("things") is False
        assert place.collections(store, {""}) == []
        with pytest.raises(errors.CollectionNotFoundError):
            store.collection("things")
        again = store.collection("things", dim=3, metric="l2", scheme="sap")
        assert again.count() == 0
        again.upsert(["a"], np.ones((1, 3)))
        assert again.search(np.ones(3))[0].score == 0
        store = place.reopen(store)
        assert store.collection("things").count() == 1
        store.close()

    def test_reopening(self, place, store, make, scheme):
        names, stored = oracle.ids(60), oracle.vectors(60)
        things = make(fields={"n": "plain", "word": "blind", "*": "sealed"}, metric="l2")
        things.upsert(names, stored, mixed_metadata(60), [f"text {i}" for i in range(60)])
        things.delete(names[:5])
        things.flush()
        things.upsert(names[5:10], stored[:5], None, None)
        before = things.search(np.ones((4, DIM)), k=60)
        index = things.index_vectors(names[5:])
        store = place.reopen(store)
        things = store.collection("things", oversample=EVERYTHING)
        assert things.count() == 55
        assert things.search(np.ones((4, DIM)), k=60) == before
        np.testing.assert_array_equal(things.index_vectors(names[5:]), index)
        assert things.count({"word": "red"}) == len([h for h in before[0] if h.metadata.get("word") == "red"])
        assert things.verify().ok
        things.upsert(["new"], oracle.vectors(1, seed=9))
        assert things.count() == 56
        store.close()

    def test_stats(self, make, scheme):
        things = make(fields={"a": "blind"})
        things.upsert(oracle.ids(20), oracle.vectors(20), [{"a": i} for i in range(20)])
        stats = things.stats()
        assert json.loads(json.dumps(stats)) == stats
        assert (stats["name"], stats["tenant"], stats["count"], stats["dim"]) == ("things", "", 20, DIM)
        assert stats["scheme"]["name"] == (scheme["name"] if isinstance(scheme, dict) else scheme)
        assert stats["fields"] == {"a": "blind"}
        assert (stats["key_versions"], stats["primary"]) == ({"1": 20}, 1)
        assert stats["leakage"]
        assert {"index", "bytes"} <= stats["store"].keys()
        assert "things" in repr(things)

    def test_closed(self, place, store, scheme):
        things = store.collection("things", dim=DIM, scheme=scheme)
        things.upsert(["a"], oracle.vectors(1))
        store.close()
        store.close()
        for call in (store.collections, lambda: store.collection("things"), lambda: store.drop("things")):
            with pytest.raises(errors.StoreClosedError, match="closed"):
                call()

    def test_collections_of_a_closed_store(self, store, scheme):
        things = store.collection("things", dim=DIM, scheme=scheme)
        things.upsert(["a"], oracle.vectors(1))
        store.close()
        for call in (
            things.count,
            lambda: things.get(["a"]),
            lambda: things.search(np.ones(DIM)),
            lambda: things.upsert(["b"], oracle.vectors(1)),
            lambda: things.delete(["a"]),
            lambda: list(things.scroll()),
        ):
            with pytest.raises(errors.StoreClosedError, match="closed"):
                call()

    def test_with_statement(self, place, scheme):
        with place.connect() as store:
            store.collection("things", dim=DIM, scheme=scheme)
        with pytest.raises(errors.StoreClosedError):
            store.collections()

    def test_no_keyset_no_store(self, store):
        with pytest.raises(errors.InputError, match="keyset is a Keyset, not str"):
            ev.connect(store.url, keyset="memory:")
        with pytest.raises(errors.UriError, match="a store URL begins with one of memory:, faiss:"):
            ev.connect("nowhere:", keyset=store.keyset)

    # ---------------------------------------------------------------------------------- what is seen

    def test_the_same_upsert_leaves_the_same_index_vectors(self, place, store, make, scheme):
        """Fresh noise at every write would average out."""
        things = make()
        stored = oracle.vectors(10)
        things.upsert(oracle.ids(10), stored)
        first = things.index_vectors(oracle.ids(10))
        assert first.shape == (10, DIM if scheme == QUIET else 0)
        for _ in range(3):
            things.upsert(oracle.ids(10), stored)
        np.testing.assert_array_equal(things.index_vectors(oracle.ids(10)), first)
        things.delete(oracle.ids(10))
        things.upsert(oracle.ids(10)[::-1], stored[::-1], [{"x": 1}] * 10)
        np.testing.assert_array_equal(things.index_vectors(oracle.ids(10)), first)
        if first.size:
            things.upsert(oracle.ids(10, 10), stored)
            assert (np.abs(things.index_vectors(oracle.ids(10, 10)) - first).max(axis=1) > 1e-3).all(), (
                "other ids, other noise"
            )

    # ------------------------------------------------------------------------------------------ keys

    def test_rotation(self, place, store, make, keyset):
        names, stored = oracle.ids(60), oracle.vectors(60)
        metadata = [{"n": i % 3} for i in range(60)]
        things = make(fields={"n": "blind"})
        things.upsert(names[:30], stored[:30], metadata[:30])
        assert keyset.rotate() == 2
        assert things.count({"n": 0}) == 10, "before anything is written under the new version"
        things.upsert(names[30:], stored[30:], metadata[30:])
        assert things.stats()["key_versions"] == {"1": 30, "2": 30}
        queries = oracle.vectors(4, seed=1)
        for query, hits in zip(queries, things.search(queries, k=60), strict=True):
            assert_hits(hits, "cosine", query, names, stored, 60)
        for where, n in (({"n": 1}, 20), ({"n": {"in": [0, 1]}}, 40), ({"n": {"ne": 1}}, 40)):
            assert things.count(where) == n
            assert len(things.search(queries[0], k=60, where=where)) == n
        assert [record.id for record in things.get(names)] == names
        assert things.verify().ok
        things.upsert(names[:10], stored[10:20], metadata[:10])
        assert things.stats()["key_versions"] == {"1": 20, "2": 40}, "an update moves the record to the primary"
        assert things.count() == 60
        np.testing.assert_array_equal(things.get(["id-0"])[0].vector, stored[10])
        assert things.delete(names[5:15]) == 10
        assert things.stats()["key_versions"] == {"1": 15, "2": 35}
        keyset.rotate()
        things.upsert(names, stored, metadata)
        assert things.stats()["key_versions"] == {"3": 60}
        for query, hits in zip(queries, things.search(queries, k=60), strict=True):
            assert_hits(hits, "cosine", query, names, stored, 60)
        store = place.reopen(store)
        assert store.collection("things").verify().ok
        store.close()

    def test_index_vectors_under_two_versions_share_nothing(self, store, keyset):
        things = store.collection("things", dim=64, scheme="sap")
        stored = oracle.vectors(50, 64)
        things.upsert(oracle.ids(50), stored)
        first = things.index_vectors(oracle.ids(50))
        keyset.rotate()
        things.upsert(oracle.ids(50), stored)
        second = things.index_vectors(oracle.ids(50))
        cosines = (first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
        assert np.abs(cosines).max() < 0.6

    @pytest.fixture
    def mixed(self, make, keyset):
        """Half of 40 records under version 1, half under 2, which is the primary."""
        things = make(fields={"n": "blind", "p": "plain", "*": "sealed"})
        metadata = [{"n": i % 2, "p": i, "s": i % 2} for i in range(40)]
        things.upsert(oracle.ids(20), oracle.vectors(40)[:20], metadata[:20])
        things.search(np.ones(DIM))  # whatever is cached, is
        keyset.rotate()
        things.upsert(oracle.ids(20, 20), oracle.vectors(40)[20:], metadata[20:])
        things.search(np.ones(DIM))
        return things

    WHERES = (None, {"n": 1}, {"p": {"gte": 0}}, {"s": {"exists": True}})

    def check_only_newer(self, things):
        """The records of version 2 answer; those of version 1 do not, and break nothing."""
        names, stored = oracle.ids(20, 20), oracle.vectors(40)[20:]
        query = np.ones(DIM, np.float32)
        for where in self.WHERES:
            chosen = [i for i in range(20) if where != {"n": 1} or i % 2 == 1]
            hits = things.search(query, k=40, where=where)
            assert_hits(hits, "cosine", query, [names[i] for i in chosen], stored[chosen], 40)
            if where:
                assert things.count(where) == len(chosen)
            assert [record.id for record in things.scroll(where)] == [names[i] for i in chosen]
        assert things.get(["id-0", "id-20"])[0].id == "id-20"
        assert len(things.get(oracle.ids(40))) == 20
        assert things.count() == 40, "they are there, if unreadable"
        report = things.verify()
        assert (report.unreadable, report.ok, report.checked) == (20, True, 40)
        assert things.stats()["key_versions"] == {"1": 20, "2": 20}

    def test_disabling_a_version(self, mixed, keyset):
        keyset.disable(1)
        self.check_only_newer(mixed)
        keyset.enable(1)
        assert len(mixed.search(np.ones(DIM), k=40)) == 40, "and back"
        assert len(mixed.get(oracle.ids(40))) == 40
        assert mixed.verify().unreadable == 0

    def test_destroying_a_version(self, mixed, keyset, place, store):
        """Crypto-erasure: unreadable for good, and the rest works on."""
        keyset.destroy(1)
        self.check_only_newer(mixed)
        assert mixed.delete(where={"p": {"lt": 22}}) == 2
        mixed.upsert(
            ["id-20", "id-21"], oracle.vectors(40)[20:22], [{"n": i % 2, "p": i, "s": i % 2} for i in (20, 21)]
        )
        mixed.upsert(["id-0"], oracle.vectors(1, seed=5), [{"n": 7}])
        assert mixed.get(["id-0"])[0].metadata == {"n": 7}
        assert mixed.delete(["id-0"]) == 1
        mixed.upsert(
            oracle.ids(20, 20), oracle.vectors(40)[20:], [{"n": i % 2, "p": i, "s": i % 2} for i in range(20, 40)]
        )
        store = place.reopen(store)
        self.check_only_newer(store.collection("things", oversample=EVERYTHING))
        store.close()

    def test_destroying_a_version_after_the_records_moved_on(self, mixed, keyset, place, store):
        mixed.upsert(oracle.ids(20), oracle.vectors(40)[:20])
        keyset.destroy(1)
        store = place.reopen(store)
        things = store.collection("things", oversample=EVERYTHING)
        assert len(things.search(np.ones(DIM), k=40)) == 40
        report = things.verify()
        assert (report.unreadable, report.ok) == (0, True)
        store.close()

    def test_opening_reseals_the_settings(self, make, keyset, place, store):
        """Opened once after a rotation, a collection outlives the older version even before anything is written."""
        make().upsert(["a"], oracle.vectors(1))
        keyset.rotate()
        store = place.reopen(store)
        store.collection("things")
        keyset.destroy(1)
        store = place.reopen(store)
        things = store.collection("things")
        assert things.search(np.ones(DIM)) == []
        things.upsert(["b"], oracle.vectors(1))
        assert [hit.id for hit in things.search(np.ones(DIM))] == ["b"]
        store.close()

    def test_settings_outlive_the_version_that_sealed_them(self, make, keyset, place, store):
        """Settings are sealed anew with the first write under a new primary."""
        things = make()
        things.upsert(["a"], oracle.vectors(1))
        keyset.rotate()
        things.upsert(["a"], oracle.vectors(1))
        keyset.destroy(1)
        store = place.reopen(store)
        assert store.collection("things").get(["a"])[0].id == "a"
        store.close()

    def test_updating_a_record_whose_version_is_disabled(self, mixed, keyset):
        """Disable, look whether anything breaks, enable again: an update made meanwhile replaces the record."""
        keyset.disable(1)
        mixed.upsert(["id-0"], oracle.vectors(1, seed=5), [{"n": 7}])
        keyset.enable(1)
        assert [record.metadata for record in mixed.get(["id-0"])] == [{"n": 7}]
        hits = mixed.search(np.ones(DIM), k=40)
        assert len(hits) == len({hit.id for hit in hits}) == mixed.count() == 40
        assert mixed.delete(["id-0"]) == 1
        assert mixed.get(["id-0"]) == []

    def test_deleting_a_record_whose_version_is_disabled(self, mixed, keyset):
        """A deletion that reports nothing and comes undone when the version is enabled would be a trap."""
        keyset.disable(1)
        assert mixed.delete(["id-0", "id-20"]) == 2
        keyset.enable(1)
        assert mixed.get(["id-0", "id-20"]) == []
        assert mixed.count() == 38

    def test_wrong_key(self, place, store, make):
        things = make()
        things.upsert(["a"], oracle.vectors(1))
        things.flush()
        stranger = place.connect(ev.Keyset.create("memory:"))
        with pytest.raises(errors.AuthenticationError, match="settings could not be authenticated"):
            stranger.collection("things")
        with pytest.raises(errors.AuthenticationError):
            stranger.collection("things", dim=DIM)
        assert place.collections(stranger, {""}) == [("", "things")]
        assert things.get(["a"])[0].id == "a", "nothing was harmed"
        assert things.verify().ok

    def test_a_keyset_that_lacks_the_version(self, place, store, make, keyset, monkeypatch):
        """A process that opened the keyset before a rotation learns that it is behind, and writes nothing."""
        monkeypatch.setenv("ENCVEC_TEST_KEYSET", keyset.export(unsafe_cleartext=True))
        old = place.connect(ev.Keyset.open("env:ENCVEC_TEST_KEYSET"))
        things = make()
        things.upsert(["a"], oracle.vectors(1), [{"by": "new"}])
        behind = old.collection("things")
        assert behind.get(["a"])[0].metadata == {"by": "new"}
        keyset.rotate()
        things.upsert(["a"], oracle.vectors(1), [{"by": "newer"}])
        for call in (
            lambda: behind.upsert(["a"], oracle.vectors(1), [{"by": "old"}]),
            lambda: behind.search(np.ones(DIM)),
            lambda: behind.get(["a"]),
            lambda: old.collection("things"),
        ):
            with pytest.raises(errors.KeyUnavailableError, match="version 2 is not in this keyset; was it rotated"):
                call()
        assert [record.metadata for record in things.scroll()] == [{"by": "newer"}]

    # ----------------------------------------------------------------------------------- calibration

    def test_calibration(self, place, store):
        names, stored = oracle.ids(600), oracle.vectors(600, 16)
        things = store.collection(
            "things", dim=16, scheme={"name": "sap", "beta": 0.0}, fields={"n": "blind"}, oversample=5
        )
        things.upsert(names, stored, [{"n": i % 3} for i in range(600)], ["text"] * 600)
        before = things.index_vectors(names)
        dry = things.calibrate(k=10, max_candidates=200, target_recall=0.9, apply=False)
        np.testing.assert_array_equal(things.index_vectors(names), before)
        assert things.stats()["scheme"]["beta"] == 0
        seen = []
        found = things.calibrate(
            k=10, max_candidates=200, target_recall=0.9, progress=lambda n, total: seen.append((n, total))
        )
        assert found == dry
        assert found.beta > 0.5
        assert 0.9 <= found.recall_low <= found.recall <= 1
        assert sum(n for n, _ in seen) == 600
        stats = things.stats()
        assert stats["scheme"]["beta"] == found.beta
        assert stats["oversample"] == found.oversample == 20, "in this opening too"
        assert stats["calibration"] == found.to_dict()
        assert things.count() == 600
        assert [record.id for record in things.scroll(include_vectors=False)] == names
        assert things.verify().ok
        assert things.count({"n": 1}) == 200
        queries = oracle.vectors(30, 16, seed=1)
        recalls = []
        for query, hits in zip(queries, things.search(queries, k=10), strict=True):
            order, _ = oracle.nearest("cosine", query, stored, 10)
            recalls.append(len({names[i] for i in order} & {hit.id for hit in hits}) / 10)
        assert np.mean(recalls) > 0.75
        store = place.reopen(store)
        things = store.collection("things", scheme="sap")
        assert things.stats()["scheme"]["beta"] == found.beta
        assert things.stats()["oversample"] == 20
        assert things.get(["id-3"])[0].document == "text"
        with pytest.raises(errors.ConfigMismatchError, match="scheme is sap"):
            store.collection("things", scheme={"name": "sap", "beta": 0.0})
        narrow = store.collection("things", oversample=2)
        assert (narrow.stats()["oversample"], things.stats()["oversample"]) == (2, 20), "for that opening only"
        narrow.calibrate(k=10, max_candidates=150, target_recall=0.9)
        assert narrow.stats()["oversample"] == 15, "the noise now asks for more candidates than were asked for before"
        store.close()

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ({"k": 0}, errors.InputError, "k is"),
            ({"k": 1.5}, errors.InputError, "k is"),
            ({"k": "10"}, errors.InputError, "k is"),
            ({"k": 10, "max_candidates": 9}, errors.InputError, "k is from 1 to max_candidates"),
            ({"max_candidates": 20.5}, errors.InputError, "max_candidates is"),
            ({"planned_size": "many"}, errors.InputError, "planned_size is"),
            ({"planned_size": -1}, errors.InputError, "planned_size is"),
            ({"target_recall": 1}, errors.InputError, "target_recall is between 0 and 1"),
            ({"target_recall": "all"}, errors.InputError, "target_recall is between 0 and 1"),
            ({"target_recall": float("nan")}, errors.InputError, "target_recall is between 0 and 1"),
            ({"seed": -1}, errors.InputError, "seed is"),
            ({"sample": np.ones((200, DIM + 1))}, errors.ShapeError, "expected shape"),
            ({"sample": np.zeros((200, DIM))}, errors.ZeroVectorError, r"sample\[0\] is the zero vector"),
            ({"sample": np.ones((5, DIM))}, errors.CalibrationError, "a sample of 5 is too small; give at least 100"),
            ({}, errors.CalibrationError, "a sample of 10 is too small"),
            (
                {"sample": oracle.vectors(500), "planned_size": 10**9, "target_recall": 0.999, "max_candidates": 10},
                errors.CalibrationError,
                "target_recall|out of reach",
            ),
        ],
    )
    def test_bad_calibrations_change_nothing(self, store, given, error, message):
        things = store.collection("things", dim=DIM, scheme={"name": "sap", "beta": 1.0, "query_beta": 1.0})
        things.upsert(oracle.ids(10), oracle.vectors(10))
        before = things.index_vectors(oracle.ids(10))
        with pytest.raises(error, match=message):
            things.calibrate(**given)
        np.testing.assert_array_equal(things.index_vectors(oracle.ids(10)), before)
        assert things.stats()["calibration"] is None

    def test_sealed_has_no_noise_to_calibrate(self, store):
        things = store.collection("things", dim=DIM, scheme="sealed")
        with pytest.raises(errors.CalibrationError, match="'sealed' has no noise"):
            things.calibrate(oracle.vectors(200))

    @pytest.mark.parametrize("metric", METRICS)
    def test_calibrating_before_the_first_write(self, store, metric):
        things = store.collection("things", dim=DIM, metric=metric, scheme="sap")
        found = things.calibrate(oracle.vectors(400), k=5, target_recall=0.8, planned_size=1000)
        things.upsert(oracle.ids(20), oracle.vectors(20))
        assert things.stats()["scheme"]["beta"] == found.beta
        assert found.planned_size == 1000
        query = oracle.vectors(20)[3]
        assert_hits(things.search(query, k=5), metric, query, oracle.ids(20), oracle.vectors(20), 5)
        assert things.verify().ok

    def test_calibration_keeps_records_of_destroyed_versions_out(self, store, keyset):
        """What nobody can read any more does not stop the rest from being encrypted anew."""
        things = store.collection("things", dim=DIM, scheme="sap")
        things.upsert(oracle.ids(50), oracle.vectors(50))
        keyset.rotate()
        things.upsert(oracle.ids(150, 50), oracle.vectors(150, seed=1))
        keyset.disable(1)
        with pytest.raises(errors.KeyUnavailableError, match="version 1 is disabled"):
            things.calibrate(target_recall=0.8)
        assert things.count() == 200, "what can be enabled again is not thrown away"
        keyset.destroy(1)
        things.calibrate(target_recall=0.8)
        assert things.count() == 150
        assert things.verify().ok

    # ------------------------------------------------------------------ several openings and threads

    def test_two_openings_see_each_others_writes(self, place, store, make):
        mine = make(fields={"n": "blind"})
        other = place.connect()
        theirs = other.collection("things", oversample=EVERYTHING)
        stored = oracle.vectors(30)
        mine.upsert(oracle.ids(10), stored[:10], [{"n": 1}] * 10)
        assert theirs.count() == theirs.count({"n": 1}) == 10
        theirs.upsert(oracle.ids(20, 10), stored[10:], [{"n": 2}] * 20)
        mine.delete(["id-3"])
        for things in (mine, theirs):
            hits = things.search(stored[0], k=30)
            kept = [i for i in range(30) if i != 3]
            assert_hits(hits, "cosine", stored[0], [f"id-{i}" for i in kept], stored[kept], 30)
            assert [record.id for record in things.get(["id-3", "id-29"])] == ["id-29"]
        other.close()

    def test_one_calibrates_while_the_other_works(self, place, store):
        stored = oracle.vectors(300, 16)
        mine = store.collection("things", dim=16, oversample=30, metric="l2", scheme="sap")
        mine.upsert(oracle.ids(200), stored[:200])
        other = place.connect()
        theirs = other.collection("things", oversample=30)
        assert theirs.search(stored[7], k=10)[0].id == "id-7"
        mine.calibrate(target_recall=0.8, max_candidates=300)
        for query, hits in zip(stored[:9], theirs.search(stored[:9], k=10), strict=True):
            assert_hits(hits, "l2", query, oracle.ids(200), stored[:200], 10)
        mine.calibrate(target_recall=0.9, max_candidates=300)
        theirs.upsert(oracle.ids(100, 200), stored[200:], [{"a": 1}] * 100)
        assert mine.verify().ok
        assert mine.count() == 300
        mine.calibrate(target_recall=0.8, max_candidates=300)
        assert theirs.get(["id-250"])[0].metadata == {"a": 1}
        assert theirs.delete(["id-250"]) == 1
        assert theirs.verify().ok
        other.close()

    def test_threads_lose_nothing(self, make, keyset):
        """Writers of their own records and of shared ones, readers, deleters, a rotation: on one collection."""
        things = make(fields={"n": "blind"}, metric="l2", max_norm=100.0)
        base = oracle.vectors(400)
        problems: list[BaseException] = []
        stop = threading.Event()

        def guarded(work):
            def run():
                try:
                    work()
                except BaseException as error:
                    problems.append(error)

            return threading.Thread(target=run, daemon=True)

        def writer(number):
            def work():
                for batch in range(10):
                    start = number * 100 + batch * 10
                    things.upsert(oracle.ids(10, start), base[start : start + 10], [{"n": number}] * 10)
                    things.upsert(["shared", f"shared-{number}"], base[start : start + 2], [{"n": -1, "by": start}] * 2)
                    if batch % 3 == 2:
                        assert things.delete([f"id-{start}"]) == 1

            return work

        def reader():
            while not stop.is_set():
                for hits in things.search(base[:3], k=20):
                    scores = [hit.score for hit in hits]
                    assert scores == sorted(scores)
                    for hit in hits:
                        if hit.id.startswith("id-"):
                            i = int(hit.id[3:])
                            assert hit.metadata == {"n": i // 100}
                hits = things.search(base[0], k=5, where={"n": 1})
                assert {hit.metadata["n"] for hit in hits} <= {1}
                for record in things.get(["shared", "id-7"]):
                    assert record.id in ("shared", "id-7")
                things.count({"n": 2})

        readers = [guarded(reader) for _ in range(2)]
        writers = [guarded(writer(number)) for number in range(4)]
        for thread in readers + writers:
            thread.start()
        keyset.rotate()
        for thread in writers:
            thread.join(60)
        stop.set()
        for thread in readers:
            thread.join(60)
        assert not problems, problems
        assert not any(thread.is_alive() for thread in readers + writers)
        expected = [n * 100 + i for n in range(4) for i in range(100) if not (i % 10 == 0 and i // 10 % 3 == 2)]
        found = {record.id: record for record in things.scroll()}
        assert set(found) == {f"id-{i}" for i in expected} | {"shared"} | {f"shared-{n}" for n in range(4)}
        assert things.count() == len(found)
        for i in expected:
            np.testing.assert_array_equal(found[f"id-{i}"].vector, base[i])
        by = found["shared"].metadata["by"]
        np.testing.assert_array_equal(found["shared"].vector, base[by])
        assert things.verify().ok
