"""Readers: what cannot be read is refused, and the row of a bad value is named."""

import base64

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encvec_store.cli.columns import Columns
from encvec_store.cli.readers import open_reader
from encvec_store.errors import InputError, MetricError
from encvec_store.lab.bench.files import open_data
from tests.cli.conftest import write_lines
from tests.cli.formats import MAKERS, make_hdf5, read

pytestmark = pytest.mark.usefixtures("home")

GOOD = {"id": "a", "vector": [1, 2]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": ', "line 2: not JSON: Expecting value at column"),
        ("[" * 100_000, "line 2: not JSON that can be read"),
        ("[1]", "line 2: a record must be a JSON object, got list"),
        ({"id": "b"}, "line 2: no key 'vector'; there are: 'id'. Name the vector's with --vector-column"),
        ({**GOOD, "vector": "x"}, "line 2: 'vector' is neither a list of numbers nor base64 of float32 numbers"),
        ({**GOOD, "vector": "AAAA"}, "line 2: 'vector' is not made of float32 numbers: it has 3 bytes"),
        ({**GOOD, "vector": []}, "line 2: 'vector' is not a list of numbers"),
        ({**GOOD, "vector": [1, "2"]}, "line 2: 'vector' is not a list of numbers"),
        ({**GOOD, "vector": [1, None]}, "line 2: 'vector' is not a list of numbers"),
        ({**GOOD, "vector": [[1], [2, 3]]}, "line 2: 'vector' is not a list of numbers"),
        ({**GOOD, "vector": [1]}, "line 2: a vector of 1 numbers, where line 1 has 2"),
        ({**GOOD, "id": None}, "line 2: id 'id' must be a string or an integer, got NoneType"),
        ({**GOOD, "id": True}, "line 2: id 'id' must be a string or an integer, got bool"),
        ({**GOOD, "metadata": [1]}, "line 2: 'metadata' must be a JSON object, got list"),
        ({**GOOD, "metadata": {"a": 1}, "a": 2}, "line 2: 'a' stands both in 'metadata' and beside it"),
        ({**GOOD, "day": {"$date": "soon"}}, "line 2: the value tagged $date is none of that type"),
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
        ({"vector": [[1.0], [2.0]], "id": ["a", None]}, "row 1: id 'id' must be a string or an integer, got NoneType"),
        ({"vector": [[1.0], [2.0]], "id": [1.5, 2.5]}, "row 0: id 'id' must be a string or an integer, got float"),
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


@pytest.mark.parametrize("kind", ["<f8", ">f4"])
def test_bytes_of_another_type_are_refused(home, kind):
    """They would be numbers, too, and other ones."""
    numbers = np.random.default_rng(0).standard_normal(384).astype(kind)
    write_lines(home / "a.jsonl", {"vector": base64.b64encode(numbers.tobytes()).decode()})
    with pytest.raises(InputError, match="line 1: 'vector' is not made of little-endian float32 numbers"):
        read("a.jsonl")


def test_a_time_that_python_cannot_hold_costs_its_row_only(home):
    times = pa.array([1_000, 1, None], pa.timestamp("ns"))
    pq.write_table(pa.table({"vector": [[1.0], [2.0], [3.0]], "t": times, "n": [1, 2, 3]}), home / "a.parquet")
    (batch,) = open_reader("a.parquet", None, Columns()).batches(10)
    assert (batch.ids, [item["n"] for item in batch.metadata]) == (["a:0", "a:2"], [1, 3])
    assert np.array_equal(batch.vectors, [[1], [3]])
    ((place, reason),) = batch.faults
    assert place == "row 1"
    assert reason.endswith("has a value that Python cannot hold; --exclude t leaves the column out")
    assert read("a.parquet", exclude=["t"])[2] == [{"n": 1}, {"n": 2}, {"n": 3}]


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
