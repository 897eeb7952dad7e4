"""Records come back as they went, and bad ones change nothing."""

import datetime as dt
import uuid
from decimal import Decimal

import numpy as np
import pytest

from encvec_store import errors, low_level
from encvec_store.engine import read
from encvec_store.engine import write as writing
from encvec_store.sealing import Keyring
from encvec_store.storage import portions
from tests.kits import oracle
from tests.stores.contract.opened import DIM, QUIET

BAD_UPSERTS = {
    "too wide": ((["a"], np.ones((1, DIM + 1))), errors.ShapeError, r"expected shape \(n, 8\), got \(1, 9\)"),
    "one vector": ((["a"], np.ones(DIM)), errors.ShapeError, r"expected shape \(n, 8\), got \(8,\)"),
    "ragged": ((["a", "b"], [[1] * DIM, [1]]), errors.ShapeError, "rows of equal length"),
    "text": ((["a"], [["x"] * DIM]), errors.ShapeError, "expected numbers"),
    "none": ((["a"], None), errors.ShapeError, "vectors must be an array or a list"),
    "few vectors": ((["a", "b"], np.ones((1, DIM))), errors.ShapeError, "2 ids but 1 vectors"),
    "few ids": (([], np.ones((1, DIM))), errors.ShapeError, "0 ids but 1 vectors"),
    "nan": ((["a", "b"], [[1] * DIM, [1, np.nan] * 4]), errors.NonFiniteError, r"vectors\[1\] holds NaN"),
    "inf": ((["a", "b"], [[1] * DIM, [1, np.inf] * 4]), errors.NonFiniteError, r"vectors\[1\] holds NaN or inf"),
    "too large": ((["a"], np.full((1, DIM), 1e300)), errors.NonFiniteError, "overflows float32"),
    "zero": ((["a", "b"], [[1] * DIM, [0] * DIM]), errors.ZeroVectorError, r"vectors\[1\] is the zero vector"),
    "one id": (("a", np.ones((1, DIM))), errors.IdError, "got str: give a list"),
    "no ids": ((None, np.ones((1, DIM))), errors.IdError, "got NoneType: give a list"),
    "set": (({"a", "b"}, np.ones((2, DIM))), errors.IdError, "got set: give a list"),
    "generator": ((iter(["a"]), np.ones((1, DIM))), errors.IdError, "got list_iterator: give a list"),
    "number": (
        ([1.0], np.ones((1, DIM))),
        errors.IdError,
        r"ids\[0\] must be a string.* got float",
    ),
    "empty id": ((["a", ""], np.ones((2, DIM))), errors.IdError, r"ids\[1\] must not be empty"),
    "long id": ((["a" * 1025], np.ones((1, DIM))), errors.IdError, "at most 1024 bytes, got 1025"),
    "surrogate": ((["\ud800"], np.ones((1, DIM))), errors.IdError, "UTF-8"),
    "twice": ((["a", "b", "a"], np.ones((3, DIM))), errors.DuplicateIdError, r"ids\[2\] repeats 'a'"),
    "metadata": (
        (["a"], np.ones((1, DIM)), {"a": 1}),
        errors.ShapeError,
        "metadata must be a list.* got dict",
    ),
    "few": (
        (["a", "b"], np.ones((2, DIM)), [{}]),
        errors.ShapeError,
        "metadata must be a list.* got 1",
    ),
    "type": ((["a", "b"], np.ones((2, DIM)), [{}, {"x": {1}}]), errors.MetadataError, r"metadata\[1\]: 'x' is set"),
    "key": ((["a"], np.ones((1, DIM)), [{1: 1}]), errors.MetadataError, "keys must be strings"),
    "no mapping": ((["a"], np.ones((1, DIM)), [[]]), errors.MetadataError, "must be a mapping or None, got list"),
    "document": ((["a"], np.ones((1, DIM)), None, [b"x"]), errors.MetadataError, "must be a string or None, got bytes"),
    "documents": ((["a"], np.ones((1, DIM)), None, "x"), errors.ShapeError, "documents must be a list of 1 strings"),
    "lone": (
        (["a", "b"], np.ones((2, DIM)), None, ["x", "\ud800"]),
        errors.MetadataError,
        "record 'b': text with lone",
    ),
}
BAD_SEARCHES = [
    ((np.ones(DIM + 1),), errors.ShapeError, "queries: expected shape"),
    ((np.ones((2, 2, DIM)),), errors.ShapeError, "queries: expected shape"),
    ((1.0,), errors.ShapeError, "queries: expected shape"),
    ((None,), errors.ShapeError, "queries"),
    (("text",), errors.InputError, "takes vectors, not texts"),
    ((["a"] * DIM,), errors.InputError, "takes vectors, not texts"),
    (([[1.0] * DIM, [1.0]],), errors.ShapeError, "queries must have rows of equal length"),
    (([np.nan] + [1.0] * (DIM - 1),), errors.NonFiniteError, r"queries\[0\] holds NaN"),
    (([[1.0] * DIM, [np.inf] * DIM],), errors.NonFiniteError, r"queries\[1\] holds NaN or infinity"),
    ((np.zeros(DIM),), errors.ZeroVectorError, r"queries\[0\] is the zero vector"),
    ((np.ones(DIM), 0), errors.InputError, "k must be an integer >= 1, got 0"),
    ((np.ones(DIM), -1), errors.InputError, "k must be an integer"),
    ((np.ones(DIM), 1.5), errors.InputError, "k must be an integer"),
    ((np.ones(DIM), True), errors.InputError, "k must be an integer"),
    ((np.ones(DIM), None), errors.InputError, "k must be an integer"),
    ((np.ones(DIM), 1, {"a": {"gt": None}}), errors.FilterError, "gt must be a value with an order"),
]


class RecordContract:
    """What is kept of records."""

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
        assert sorted(record.id for record in things.scroll()) == sorted(names)
        for name, vector in zip(names, stored, strict=True):
            (hit,) = things.search(vector, k=1)
            assert (hit.id, hit.metadata) == (name, {"name": name})
        assert things.delete(["A"]) == 1
        assert things.count() == len(names) - 1

    def test_len_in_and_counts(self, make):
        things = make()
        assert (len(things), bool(things), "a" in things) == (0, True, False)
        assert things.upsert(["a", 1, "b"], oracle.vectors(3)) == 3
        assert things.upsert(["a"], oracle.vectors(1)) == 1
        assert things.upsert([], np.empty((0, DIM))) == 0
        assert len(things) == things.count() == 3
        assert ["a" in things, 1 in things, "1" in things, "c" in things] == [True, True, False, False]
        things.delete(["a"])
        assert ("a" in things, len(things)) == (False, 2)
        with pytest.raises(errors.IdError):
            assert None in things

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
        (scrolled,) = (record for record in things.scroll() if record.id == "a")
        for record in (things.get(["a"])[0], scrolled, things.search(oracle.vectors(2)[0], k=1)[0]):
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
        order = [record.id for record in things.scroll()]
        assert (set(order[:2]), set(order[2:])) == ({"a", "c"}, {"b", "d"}), "in the order of the last write"

    def test_a_large_upsert_is_written_in_parts(self, make, monkeypatch):
        """Of which all or none come to be."""
        monkeypatch.setattr(writing, "WRITE_CHUNK", 7)
        things, names = make(fields={"n": "blind"}), oracle.ids(30)
        things.upsert(names[:20], oracle.vectors(20), [{"n": i % 2} for i in range(20)])
        seal, made = Keyring.seal, []

        def fail(*arguments):
            made.append(arguments)
            if len(made) == 3:
                raise MemoryError
            return seal(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(Keyring, "seal", fail)
            with pytest.raises(MemoryError):
                things.upsert(names, oracle.vectors(30, seed=1), [{"n": 2}] * 30)
        assert things.count() == things.count({"n": {"in": [0, 1]}}) == 20
        np.testing.assert_array_equal(things.get(names[:1])[0].vector, oracle.vectors(20)[0])
        new = oracle.vectors(30, seed=2)
        things.upsert(names, new, [{"n": 2}] * 30, [f"text {i}" for i in range(30)])
        assert things.count() == things.count({"n": 2}) == 30
        records = sorted(things.scroll(), key=lambda record: names.index(record.id))
        assert [record.id for record in records] == names
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
        with pytest.raises(errors.InputError, match="would delete every record"):
            things.delete(where={})
        assert things.count() == 14

    def test_scroll_in_small_chunks(self, make, monkeypatch):
        monkeypatch.setattr(read, "_CHUNK", 7)
        things = make(fields={"n": "blind"})
        names, stored = oracle.ids(50), oracle.vectors(50)
        things.upsert(names, stored, [{"n": i % 2} for i in range(50)])
        records = list(things.scroll())
        order = [record.id for record in records]
        assert sorted(order) == sorted(names)
        np.testing.assert_array_equal([record.vector for record in records], stored[[names.index(id) for id in order]])
        assert [record.id for record in things.scroll({"n": 1}, include_vectors=False)] == [
            id for id in order if names.index(id) % 2
        ]
        scroll = things.scroll()
        next(scroll)
        things.delete(order[10:20])
        things.upsert(order[:1], stored[:1], [{"n": 5}])
        rest = [record.id for record in scroll]
        assert [name for name in rest if name not in order[:20]] == order[20:]
        assert not set(rest) & set(order[14:20])

    def test_large_documents_are_read_a_few_at_a_time(self, make, monkeypatch):
        """Pages are cut by bytes too, whatever reads them; a single larger document is a page of its own."""
        monkeypatch.setattr(portions, "PAGE_BYTES", 60_000)
        things = make()
        names, sizes = oracle.ids(40), [80_000 if i == 20 else 10_000 if i > 20 else 10 for i in range(40)]
        things.upsert(names, oracle.vectors(40), [{"n": i % 2} for i in range(40)], ["x" * size for size in sizes])
        records, read_at_once = type(low_level.session(things).records), []
        payloads = records.payloads

        def watched(self, rows):
            found, envelopes = payloads(self, rows)
            read_at_once.append((sum(map(len, envelopes)), len(envelopes)))
            return found, envelopes

        monkeypatch.setattr(records, "payloads", watched)
        for use in (
            lambda: list(things.scroll()),
            lambda: list(things.scroll({"n": 1})),
            lambda: things.count({"n": 1}),
            lambda: things.verify(),
            lambda: things.delete(where={"n": 1}),
        ):
            read_at_once.clear()
            use()
            assert len(read_at_once) > 2
            assert [size for size, n in read_at_once if size > 60_000 and n > 1] == []
        assert things.count() == 20

    def test_bad_upserts_write_nothing(self, make, subtests):
        things = make(fields={"x": "plain", "*": "sealed"})
        things.upsert(["a", "b"], oracle.vectors(2), [{"x": 1}, {}], ["old", None])
        before = [record.id for record in things.scroll()]
        for case, (arguments, error, message) in BAD_UPSERTS.items():
            with subtests.test(case):
                with pytest.raises(error, match=message) as caught:
                    things.upsert(*arguments)
                assert type(caught.value) is error
                assert isinstance(caught.value, ValueError)
                assert [record.id for record in things.scroll()] == before, "nothing was written again"
                (record,) = things.get(["a"])
                assert (record.metadata, record.document) == ({"x": 1}, "old")

    def test_bad_searches(self, make, subtests):
        things = make()
        for fill in (False, True):
            if fill:
                things.upsert(["a"], oracle.vectors(1))
            for arguments, error, message in BAD_SEARCHES:
                with subtests.test(arguments=arguments, fill=fill):
                    with pytest.raises(error, match=message) as caught:
                        things.search(*arguments)
                    assert type(caught.value) is error

    def test_bad_ids_everywhere(self, make):
        things = make()
        for call in (things.get, things.delete, things.index_vectors):
            for ids in ("abc", [True], [""], [None], ["\ud800"], 5, {"a"}, (id for id in "a"), {"a": 1}):
                with pytest.raises(errors.IdError):
                    call(ids)
        with pytest.raises(errors.InputError, match="no record 'x'"):
            things.index_vectors(["x"])

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
