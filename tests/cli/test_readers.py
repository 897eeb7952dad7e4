"""Readers: every format gives the same records, in batches, and names the row of a bad one."""

import datetime as dt
import json
import uuid
from decimal import Decimal

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encvec_store.cli.columns import Columns
from encvec_store.cli.readers import open_reader
from encvec_store.errors import InputError
from tests.cli.conftest import DIM, write_lines

pytestmark = pytest.mark.usefixtures("home")


def read(path, size=7, kind=None, **columns):
    reader = open_reader(str(path), kind, Columns(**columns))
    batches = list(reader.batches(size))
    assert all(0 < len(batch.ids) <= size for batch in batches)
    ids = [id for batch in batches for id in batch.ids]
    positions = [place for batch in batches for place in batch.positions]
    metadata = [item for batch in batches for item in batch.metadata or []]
    documents = [item for batch in batches for item in batch.documents or []]
    stacked = np.concatenate([batch.vectors for batch in batches]) if batches else None
    assert reader.total in (None, len(ids))
    return ids, stacked, metadata, documents, positions


def make_npy(path, vectors):
    np.save(path, vectors)


def make_hdf5(path, vectors):
    with h5py.File(path, "w") as file:
        file["train"] = vectors
        file["test"] = vectors[:3]
        file.attrs["distance"] = "euclidean"


def make_parquet(path, vectors):
    pq.write_table(pa.table({"vector": list(vectors)}), path, row_group_size=10)


def make_lines(path, vectors):
    write_lines(path, *({"vector": vector.tolist()} for vector in vectors))


MAKERS = {"npy": make_npy, "hdf5": make_hdf5, "parquet": make_parquet, "jsonl": make_lines}


@pytest.mark.parametrize("suffix", MAKERS)
@pytest.mark.parametrize("size", [1, 7, 25, 1000])
def test_every_format_gives_all_rows_in_order(home, vectors, suffix, size):
    MAKERS[suffix](home / f"some.{suffix}", vectors[:25])
    ids, stacked, _, _, positions = read(f"some.{suffix}", size)
    assert ids == [f"some:{row}" for row in range(25)]
    assert np.array_equal(stacked, vectors[:25])
    assert list(positions) == list(range(1, 26) if suffix == "jsonl" else range(25))


@pytest.mark.parametrize("suffix", ["npy", "hdf5", "parquet"])
def test_a_scan_gives_the_vectors_alone(home, vectors, suffix):
    MAKERS[suffix](home / f"some.{suffix}", vectors[:25])
    scan = open_reader(f"some.{suffix}", None, Columns()).scan(10)
    assert np.array_equal(np.concatenate(list(scan)), vectors[:25])


@pytest.mark.parametrize("suffix", MAKERS)
def test_format_and_prefix_can_be_named(home, vectors, suffix):
    MAKERS[suffix](home / f"data.{suffix}", vectors[:2])
    (home / f"data.{suffix}").rename("data.bin")
    with pytest.raises(InputError, match="give --format"):
        read("data.bin")
    assert read("data.bin", kind=suffix, prefix="x")[0] == ["x:0", "x:1"]


def test_hdf5_names_its_metric_and_other_data_sets_can_be_read(home, vectors):
    make_hdf5(home / "a.hdf5", vectors)
    assert open_reader("a.hdf5", None, Columns()).metric == "l2"
    assert len(read("a.hdf5", vector="test")[0]) == 3


def test_parquet_keeps_types_and_leaves_nulls_out(home, vectors):
    zone = dt.timezone(dt.timedelta(hours=2))
    table = pa.table(
        {
            "key": pa.array([5, 6]),
            "emb": pa.array(vectors[:2].tolist(), pa.list_(pa.float64(), DIM)),
            "text": pa.array(["a", None], pa.large_string()),
            "price": pa.array([Decimal("1.50"), None]),
            "when": pa.array([dt.datetime(2024, 5, 1, tzinfo=zone)] * 2, pa.timestamp("ns", "+02:00")),
            "day": pa.array([dt.date(2024, 5, 1)] * 2),
            "raw": pa.array([b"\x00", b""]),
            "tags": pa.array([["a", "b"], []]),
            "nest": pa.array([{"x": 1}, None]),
            "lang": pa.array(["de", "fr"]).dictionary_encode(),
            "ok": pa.array([True, False]),
        }
    )
    pq.write_table(table, home / "t.parquet")
    ids, stacked, metadata, documents, _ = read("t.parquet", id="key", vector="emb", document="text")
    assert ids == ["5", "6"]
    assert np.array_equal(stacked, vectors[:2].astype(float))
    assert documents == ["a", None]
    assert metadata[0] == {
        "price": Decimal("1.50"),
        "when": dt.datetime(2024, 5, 1, tzinfo=zone),
        "day": dt.date(2024, 5, 1),
        "raw": b"\x00",
        "tags": ["a", "b"],
        "nest": {"x": 1},
        "lang": "de",
        "ok": True,
    }
    assert metadata[1].keys() == metadata[0].keys() - {"price", "nest"}


def test_parquet_vectors_of_every_list_type(home, vectors):
    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float16()), pa.list_(pa.float32(), DIM)):
        table = pa.table({"vector": pa.array(vectors[:9].astype(np.float16).tolist()).cast(kind)})
        pq.write_table(table, home / "v.parquet")
        assert np.array_equal(read("v.parquet", 4)[1].astype(np.float16), vectors[:9].astype(np.float16))


def test_lines_take_other_keys_as_metadata_and_tags_as_types(home):
    stamp = uuid.UUID(int=5)
    write_lines(
        home / "a.jsonl",
        "\ufeff"
        + json.dumps({"id": "a", "vector": [1], "metadata": {"n": 1}, "lang": "de", "u": {"$uuid": str(stamp)}}),
        "",
        {"id": 7, "vector": [2], "metadata": None, "document": "größe"},
    )
    ids, _, metadata, documents, positions = read("a.jsonl")
    assert ids == ["a", "7"]
    assert metadata == [{"n": 1, "lang": "de", "u": stamp}, {}]
    assert documents == [None, "größe"]
    assert positions == [1, 3]


GOOD = {"id": "a", "vector": [1, 2]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": ', "line 2: not JSON: Expecting value at column"),
        ("[" * 100_000, "line 2: not JSON that can be read"),
        ("[1]", "line 2: a record must be a JSON object, got '[1]'"),
        ({"id": "b"}, "line 2: no key 'vector'; there are: 'id'. Name the vector's with --vector-column"),
        ({**GOOD, "vector": "x"}, "line 2: 'vector' is not a list of numbers"),
        ({**GOOD, "vector": []}, "line 2: 'vector' is not a list of numbers"),
        ({**GOOD, "vector": [1, "2"]}, "line 2: 'vector' is not a list of numbers"),
        ({**GOOD, "vector": [1, None]}, "line 2: 'vector' is not a list of numbers"),
        ({**GOOD, "vector": [[1], [2, 3]]}, "line 2: 'vector' is not a list of numbers"),
        ({**GOOD, "vector": [1]}, "line 2: a vector of 1 numbers, where line 1 has 2"),
        ({**GOOD, "id": None}, "line 2: id 'id' must be a string or an integer, got null"),
        ({**GOOD, "id": True}, "line 2: id 'id' must be a string or an integer, got true"),
        ({**GOOD, "metadata": [1]}, "line 2: 'metadata' must be a JSON object, got"),
        ({**GOOD, "metadata": {"a": 1}, "a": 2}, "line 2: 'a' stands both in 'metadata' and beside it"),
        ({**GOOD, "day": {"$date": "soon"}}, 'line 2: {"$date": "soon"} is no value of the type $date'),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_line_is_named(home, line, said):
    write_lines(home / "bad.jsonl", GOOD, line)
    with pytest.raises(InputError) as caught:
        read("bad.jsonl")
    assert str(caught.value).startswith(f"bad.jsonl, {said}")


def test_a_line_that_is_no_text_is_named(home):
    (home / "bad.jsonl").write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(InputError, match="line 1: not UTF-8"):
        read("bad.jsonl")


def test_a_named_id_key_must_be_there(home):
    write_lines(home / "a.jsonl", {"vector": [1]})
    with pytest.raises(InputError, match="line 1: no key 'key'"):
        read("a.jsonl", id="key")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"emb": [[1.0]]}, "has no column 'vector'; it has: emb. Name it with --vector-column"),
        ({"vector": ["x"]}, "column 'vector' is string, not a list of numbers"),
        ({"vector": [["x"]]}, "column 'vector' is list<element: string>, not a list of numbers"),
        ({"vector": [[1.0], [2.0], None]}, "row 2: 'vector' is null"),
        ({"vector": [[1.0], [2.0], [None]]}, "row 2: 'vector' holds a null"),
        ({"vector": [[1.0], [2.0], [3.0, 4.0]]}, "row 2: a vector of 2 numbers, where row 0 has 1"),
        ({"vector": [[1.0], [2.0]], "id": ["a", None]}, "row 1: id 'id' must be a string or an integer, got null"),
        ({"vector": [[1.0], [2.0]], "id": [1.5, 2.5]}, "row 0: id 'id' must be a string or an integer, got 1.5"),
        ({"vector": [[1.0]], "t": pa.array([1], pa.timestamp("ns"))}, "column 't', timestamp[ns], has a value"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_bad_parquet_row_is_named(home, columns, said):
    pq.write_table(pa.table(columns), home / "bad.parquet")
    with pytest.raises(InputError) as caught:
        read("bad.parquet")
    assert said in str(caught.value).replace("item:", "element:")
    assert str(caught.value).startswith("bad.parquet")


def test_a_bad_row_in_a_later_batch_is_named_by_its_place_in_the_file(home):
    rows = [[1.0]] * 20 + [None]
    pq.write_table(pa.table({"vector": rows}), home / "bad.parquet", row_group_size=6)
    with pytest.raises(InputError, match="row 20: 'vector' is null"):
        read("bad.parquet", 4)


def save(array):
    return lambda path: np.save(path, array, allow_pickle=True)


def text(content):
    return lambda path: path.write_bytes(content)


def dataset(array):
    def make(path):
        with h5py.File(path, "w") as file:
            file["train"] = array

    return make


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("a.npy", save(np.array([{}])), "a.npy is no array of numbers"),
        ("a.npy", save(np.ones(3)), r"a.npy: expected \(n, dim\) numbers, got shape \(3,\)"),
        ("a.npy", save(np.array([["x"]])), "a.npy: expected numbers, got <U1"),
        ("a.npy", text(b""), "a.npy is no array of numbers"),
        ("a.npy", text(b"hello"), "a.npy is no array of numbers"),
        ("a.hdf5", text(b"hello"), "a.hdf5 is no HDF5 file"),
        ("a.hdf5", dataset(np.ones(4)), r"train: expected \(n, dim\) numbers"),
        ("a.parquet", text(b"hello"), "a.parquet is no parquet file"),
        ("a.parquet", text(b""), "a.parquet is no parquet file"),
    ],
)
def test_a_file_of_another_kind_is_refused(home, name, make, said):
    make(home / name)
    with pytest.raises(InputError, match=said):
        read(name)


def test_a_truncated_file_is_refused(home, vectors):
    for suffix, maker in MAKERS.items():
        path = home / f"cut.{suffix}"
        maker(path, np.tile(vectors, (10, 1)))
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        with pytest.raises(InputError, match=r"cut\."):
            read(path.name, 1000)


def test_options_that_mean_nothing_are_refused(home, vectors):
    np.save("a.npy", vectors)
    make_hdf5(home / "a.hdf5", vectors)
    for name, columns in [("a.npy", {"id": "x"}), ("a.npy", {"vector": "x"}), ("a.hdf5", {"document": "x"})]:
        with pytest.raises(InputError, match="has no meaning for"):
            read(name, **columns)
    with pytest.raises(InputError, match=r"it has: test, train\. Name one with --vector-column"):
        read("a.hdf5", vector="nope")


def test_a_missing_file_and_a_folder_are_refused(home):
    for suffix in MAKERS:
        with pytest.raises(FileNotFoundError):
            read(f"nope.{suffix}")
    with pytest.raises(InputError, match="is a folder"):
        read("store")


def test_arrays_are_not_read_into_memory(home):
    """A file larger than what may be allocated is read all the same, slice by slice."""
    import tracemalloc

    np.save("big.npy", np.ones((200_000, 16), np.float32))  # 12.8 MB
    make_hdf5(home / "big.hdf5", np.ones((200_000, 16), np.float32))
    for name in ("big.npy", "big.hdf5"):
        tracemalloc.start()
        try:
            rows = sum(len(batch.ids) for batch in open_reader(name, None, Columns()).batches(1000))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert rows == 200_000
        assert peak < 2_000_000
