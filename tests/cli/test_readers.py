"""Readers: every format gives the same records, in batches."""

import base64
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
from encvec_store.lab.bench.files import open_data
from tests.cli.conftest import DIM, write_lines
from tests.cli.formats import MAKERS, TEXT, make_hdf5, make_texmex, read

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize("suffix", MAKERS)
@pytest.mark.parametrize("size", [1, 7, 25, 1000])
def test_every_format_gives_all_rows_in_order(home, vectors, suffix, size):
    MAKERS[suffix](home / f"some.{suffix}", vectors[:25])
    ids, stacked, _, _, positions = read(f"some.{suffix}", size)
    assert ids == [f"some:{row}" for row in range(25)]
    assert np.array_equal(stacked, vectors[:25])
    assert list(positions) == list(range(25) if suffix not in TEXT else range(TEXT[suffix], 25 + TEXT[suffix]))


@pytest.mark.parametrize("suffix", ["npy", "npz", "fvecs", "hdf5", "parquet"])
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


@pytest.mark.parametrize("suffix", ["npy", "npz", "fvecs", "hdf5", "parquet"])
def test_rows_are_had_by_their_numbers(home, vectors, suffix):
    MAKERS[suffix](home / f"some.{suffix}", vectors[:25])
    batch = open_reader(f"some.{suffix}", None, Columns()).at([24, 3, 11])
    assert (batch.ids, list(batch.positions)) == (["some:24", "some:3", "some:11"], [24, 3, 11])
    assert np.array_equal(batch.vectors, vectors[[24, 3, 11]])


def test_bytes_of_sift(home, vectors):
    make_texmex("u1")(home / "a.bvecs", np.arange(3 * DIM).reshape(3, DIM))
    assert np.array_equal(read("a.bvecs")[1], np.arange(3 * DIM).reshape(3, DIM))
    assert open_reader("a.bvecs", None, Columns()).metric == "l2"


def test_an_archive_of_arrays_gives_ids_documents_and_metadata(home, vectors):
    days = np.array(["2024-05-01", "NaT"], "datetime64[ns]")
    extra = {"lang": np.array(["de", "fr"]), "n": np.array([1, 2]), "day": days, "odd": np.ones((3, 3))}
    np.savez(home / "a.npz", embeddings=vectors[:2], ids=np.array([7, 8]), documents=np.array(["x", "y"]), **extra)
    with pytest.raises(
        InputError, match=r"array 'odd' is float64 of shape \(3, 3\), not a value for each of 2 rows: --ex"
    ):
        read("a.npz")
    ids, stacked, metadata, documents, _ = read("a.npz", exclude=["odd"])
    assert (ids, documents) == (["7", "8"], ["x", "y"])
    assert np.array_equal(stacked, vectors[:2])
    assert metadata == [{"lang": "de", "n": 1, "day": dt.datetime(2024, 5, 1)}, {"lang": "fr", "n": 2}]
    np.savez(home / "a.npz", vectors=vectors[:1], day=np.array([1], "datetime64[ns]"))
    with pytest.raises(InputError, match="'day' has times below a microsecond"):
        read("a.npz")


def test_a_sheet_gives_text_and_leaves_empty_cells_out(home):
    (home / "a.csv").write_text(
        '\ufeffid,vector,document,lang,n\na,"[1, 2]","two\nlines",de,\nb,AACAPwAAAEA=,,fr,3\n', encoding="utf-8"
    )
    ids, stacked, metadata, documents, positions = read("a.csv")
    assert (ids, positions) == (["a", "b"], [3, 4])
    assert np.array_equal(stacked, [[1, 2], [1, 2]])
    assert metadata == [{"lang": "de"}, {"lang": "fr", "n": "3"}]
    assert documents == ["two\nlines", None]
    (home / "bad.csv").write_text("vector,n\n[1]\n")
    with pytest.raises(InputError, match=r"bad.csv, line 2: 1 cells under 2 names"):
        read("bad.csv")


def test_vectors_in_base64_and_in_bytes(home, vectors):
    packed = [vector.astype("<f4").tobytes() for vector in vectors[:4]]
    text = [base64.b64encode(item).decode() for item in packed]
    write_lines(home / "a.jsonl", *({"vector": item} for item in text))
    pq.write_table(pa.table({"vector": text}), home / "text.parquet")
    pq.write_table(pa.table({"vector": packed}), home / "bytes.parquet")
    for name in ("a.jsonl", "text.parquet", "bytes.parquet"):
        assert np.array_equal(read(name)[1], vectors[:4])


def test_vectors_inside_objects(home):
    write_lines(home / "a.jsonl", {"emb": {"values": [1, 2], "model": "m"}, "n": 1}, {"emb": {"values": [3, 4]}})
    _, stacked, metadata, _, _ = read("a.jsonl", vector="emb.values")
    assert np.array_equal(stacked, [[1, 2], [3, 4]])
    assert metadata == [{"emb": {"model": "m"}, "n": 1}, {}]
    rows = pa.array([{"values": [1.0, 2.0], "model": "m"}, {"values": [3.0, 4.0], "model": None}])
    pq.write_table(pa.table({"emb": rows}), home / "a.parquet")
    _, stacked, metadata, _, _ = read("a.parquet", vector="emb.values")
    assert np.array_equal(stacked, [[1, 2], [3, 4]])
    assert metadata == [{"emb": {"model": "m"}}, {"emb": {"model": None}}]
    with pytest.raises(InputError, match="which has no field 'nope'"):
        read("a.parquet", vector="emb.nope")


def test_tensors_of_one_dimension_are_vectors(home, vectors):
    for name, shape in (("flat", (DIM,)), ("row", (1, DIM)), ("square", (2, DIM // 2))):
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(vectors[:5].reshape(5, *shape))
        pq.write_table(pa.table({"vector": column}), home / f"{name}.parquet")
    assert np.array_equal(read("flat.parquet", 2)[1], vectors[:5])
    assert np.array_equal(read("row.parquet")[1], vectors[:5])
    with pytest.raises(InputError, match=r"holds tensors of shape \[2, 4\], not vectors"):
        read("square.parquet")


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_columns_can_be_chosen_and_left_out(home, suffix):
    table = {"vector": ["[1, 2]", "[3, 4]"], "a": ["1", "2"], "b": ["3", "4"], "c": ["5", "6"]}
    if suffix == "parquet":
        pq.write_table(pa.table(table), home / "some.parquet")
    elif suffix == "csv":
        (home / "some.csv").write_text('vector,a,b,c\n"[1, 2]",1,3,5\n"[3, 4]",2,4,6\n')
    else:
        write_lines(
            home / "some.jsonl", *(dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True))
        )
    assert read(f"some.{suffix}", only=["c", "a"])[2] == [{"a": "1", "c": "5"}, {"a": "2", "c": "6"}]
    assert read(f"some.{suffix}", exclude=["c"])[2] == [{"a": "1", "b": "3"}, {"a": "2", "b": "4"}]
    assert read(f"some.{suffix}", only=[])[2] == [{}, {}]
    if suffix != "jsonl":
        with pytest.raises(InputError, match="has no column 'nope' for --exclude; it has: vector, a, b, c"):
            read(f"some.{suffix}", exclude=["nope"])


def test_columns_of_objects_are_flattened(home):
    objects = pa.array([{"lang": "de", "n": 1}, None])
    table = {"vector": [[1.0], [2.0]], "meta": objects, "more": ['{"x": {"y": 2}}', None], "n": [1, 5]}
    pq.write_table(pa.table(table), home / "a.parquet")
    metadata = read("a.parquet", flatten=["meta", "more"])[2]
    assert metadata == [{"n": 1, "lang": "de", "x": {"y": 2}}, {"n": 5}]
    pq.write_table(pa.table({**table, "n": [2, 5]}), home / "a.parquet")
    with pytest.raises(InputError, match="row 0: 'n' stands both in 'meta' and in a column of its own, with different"):
        read("a.parquet", flatten=["meta"])
    with pytest.raises(InputError, match="row 0: column 'n' must hold JSON objects, got int"):
        read("a.parquet", flatten=["n"])


@pytest.mark.parametrize(
    ("value", "metric"),
    [
        ("angular", "cosine"),
        ("Angular", "cosine"),
        ("COSINE", "cosine"),
        (b"euclidean", "l2"),
        (np.bytes_(b"L2"), "l2"),
        (np.array([b"Squared-Euclidean"]), "l2"),
        (np.array(["dot"], h5py.string_dtype()), "ip"),
        ("Inner Product", "ip"),
    ],
    ids=repr,
)
def test_hdf5_metrics_in_any_spelling(home, vectors, value, metric):
    make_hdf5(home / "a.hdf5", vectors)
    with h5py.File(home / "a.hdf5", "r+") as file:
        file.attrs["distance"] = value
    assert open_reader("a.hdf5", None, Columns()).metric == metric
    assert open_data(home / "a.hdf5").metric == metric


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
