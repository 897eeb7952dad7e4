"""Readers: every format gives the same records, in batches, and names the row of a bad one."""

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
from encvec_store.cli.readers import open_reader, sound
from encvec_store.errors import InputError, MetricError
from encvec_store.lab.bench.files import open_data
from tests.cli.conftest import DIM, write_lines

pytestmark = pytest.mark.usefixtures("home")


def read(path, size=7, kind=None, **columns):
    reader = open_reader(str(path), kind, Columns(**columns))
    batches = list(sound(reader, size))
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


def make_texmex(kind):
    def make(path, vectors):
        rows = np.empty(len(vectors), [("dim", "<i4"), ("vector", kind, (DIM,))])
        rows["dim"], rows["vector"] = DIM, vectors
        rows.tofile(path)

    return make


def make_npz(path, vectors):
    np.savez_compressed(path, vectors=vectors)


def make_csv(separator):
    def make(path, vectors):
        rows = [f'"{json.dumps(vector.tolist())}"' for vector in vectors]
        path.write_text("\n".join(["vector", *rows]) + "\n", encoding="utf-8")

    return make


def make_parquet(path, vectors):
    pq.write_table(pa.table({"vector": list(vectors)}), path, row_group_size=10)


def make_lines(path, vectors):
    write_lines(path, *({"vector": vector.tolist()} for vector in vectors))


MAKERS = {
    "npy": make_npy,
    "npz": make_npz,
    "fvecs": make_texmex("<f4"),
    "hdf5": make_hdf5,
    "parquet": make_parquet,
    "jsonl": make_lines,
    "csv": make_csv(","),
    "tsv": make_csv("\t"),
}
TEXT = {"jsonl": 1, "csv": 2, "tsv": 2}
"""The line of the first row."""


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


GOOD = {"id": "a", "vector": [1, 2]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": ', "line 2: not JSON: Expecting value at column"),
        ("[" * 100_000, "line 2: not JSON that can be read"),
        ("[1]", "line 2: a record must be a JSON object, got '[1]'"),
        ({"id": "b"}, "line 2: no key 'vector'; there are: 'id'. Name the vector's with --vector-column"),
        ({**GOOD, "vector": "x"}, "line 2: 'vector' is neither a list of numbers nor base64 of float32 numbers"),
        ({**GOOD, "vector": "AAAA"}, "line 2: 'vector' is not made of float32 numbers: it has 3 bytes"),
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
        ({"vector": [1]}, "column 'vector' is int64, not a list of numbers"),
        ({"vector": ["x"]}, "row 0: 'vector' is neither a list of numbers nor base64 of float32 numbers"),
        ({"vector": [["x"]]}, "column 'vector' is list<element: string>, not a list of numbers"),
        ({"vector": [[1.0], [2.0], None]}, "row 2: 'vector' is null"),
        ({"vector": [[1.0], [2.0], [None]]}, "row 2: 'vector' holds a null"),
        ({"vector": [[1.0], [2.0], [3.0, 4.0]]}, "row 2: a vector of 2 numbers, where the first row has 1"),
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
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3 + 1])
        with pytest.raises(InputError, match=r"cut\."):
            read(path.name, 1000)


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


@pytest.mark.parametrize("kind", ["<f8", ">f4"])
def test_bytes_of_another_type_are_refused(home, kind):
    """They would be numbers, too, and other ones."""
    numbers = np.random.default_rng(0).standard_normal(384).astype(kind)
    write_lines(home / "a.jsonl", {"vector": base64.b64encode(numbers.tobytes()).decode()})
    with pytest.raises(InputError, match="line 1: 'vector' is not made of little-endian float32 numbers"):
        read("a.jsonl")


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


def test_a_time_that_python_cannot_hold_costs_its_row_only(home):
    times = pa.array([1_000, 1, None], pa.timestamp("ns"))
    pq.write_table(pa.table({"vector": [[1.0], [2.0], [3.0]], "t": times, "n": [1, 2, 3]}), home / "a.parquet")
    (batch,) = open_reader("a.parquet", None, Columns()).batches(10)
    assert (batch.ids, [item["n"] for item in batch.metadata]) == (["a:0", "a:2"], [1, 3])
    assert np.array_equal(batch.vectors, [[1], [3]])
    ((place, reason),) = batch.faults
    assert place == "row 1"
    assert reason.endswith("--exclude t leaves the column out")
    assert read("a.parquet", exclude=["t"])[2] == [{"n": 1}, {"n": 2}, {"n": 3}]


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


@pytest.mark.parametrize(
    "value", ["jaccard", "hamming", b"", 7, np.array(["l2", "l2"], "S2"), h5py.Empty("S4")], ids=repr
)
def test_a_metric_that_is_not_known_is_no_cosine(home, vectors, value):
    make_hdf5(home / "a.hdf5", vectors)
    with h5py.File(home / "a.hdf5", "r+") as file:
        file.attrs["distance"] = value
    reader = open_reader("a.hdf5", None, Columns())
    with pytest.raises(MetricError, match=r"a.hdf5 names the metric .* which is not supported; choose"):
        _ = reader.metric
    with pytest.raises(MetricError):
        open_data(home / "a.hdf5")
    assert open_data(home / "a.hdf5", "l2").metric == "l2"


def test_packed_bits_are_not_taken_for_coordinates(home, vectors):
    bits = np.packbits(vectors > 0, axis=1)
    np.save("a.npy", bits)
    np.savez("a.npz", vectors=bits)
    pq.write_table(pa.table({"vector": pa.array(bits.tolist(), pa.list_(pa.uint8()))}), "a.parquet")
    for name in ("a.npy", "a.npz", "a.parquet"):
        reader = open_reader(name, None, Columns())
        with pytest.raises(MetricError, match="holds uint8 and names no metric: if its numbers are packed bits"):
            _ = reader.metric


def test_hdf5_files_do_not_read_other_files(home, vectors):
    with h5py.File(home / "private.hdf5", "w") as file:
        file["train"] = vectors
    (home / "private.bin").write_bytes(vectors.tobytes())
    layout = h5py.VirtualLayout(vectors.shape, np.float32)
    layout[:] = h5py.VirtualSource(home / "private.hdf5", "train", vectors.shape)
    with h5py.File(home / "a.hdf5", "w") as file:
        file["linked"] = h5py.ExternalLink("private.hdf5", "train")
        file["elsewhere"] = h5py.ExternalLink("private.hdf5", "/")
        file["soft"] = h5py.SoftLink("/elsewhere/train")
        size = (home / "private.bin").stat().st_size
        file.create_dataset("outside", vectors.shape, "f4", external=[("private.bin", 0, size)])
        file.create_virtual_dataset("virtual", layout)
        file["own"] = vectors[:4]
        file["group/own"] = vectors[:4]
    for name, said in {
        "linked": "'linked' is an external link, which is not followed",
        "elsewhere/train": "'elsewhere' is an external link",
        "soft": "'soft' is a soft link",
        "outside": "data set 'outside' is kept in other files, which are not read",
        "virtual": "data set 'virtual' is kept in other files",
        "nope": "it has: outside, own, virtual",
    }.items():
        with pytest.raises(InputError, match=said):
            read("a.hdf5", vector=name)
    assert len(read("a.hdf5", vector="own")[0]) == len(read("a.hdf5", vector="group/own")[0]) == 4


@pytest.mark.parametrize("name", ["train", "test"])
def test_the_bench_does_not_read_other_files_either(home, vectors, name):
    make_hdf5(home / "a.hdf5", vectors)
    make_hdf5(home / "private.hdf5", vectors)
    with h5py.File(home / "a.hdf5", "r+") as file:
        del file[name]
        file[name] = h5py.ExternalLink("private.hdf5", "train")
    with pytest.raises(InputError, match=r"is an external link, which is not followed|has no data set 'train'"):
        open_data(home / "a.hdf5")


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
