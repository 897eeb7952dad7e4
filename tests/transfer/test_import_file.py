"""`encvec import` of FAISS indexes and arrays, made by FAISS and NumPy: ids, metadata, what can be had back."""

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import encvec_store as ev
from encvec_store import errors
from encvec_store.transfer import compare, load
from encvec_store.transfer.vectorfile import VectorFile
from tests.cli.conftest import write_lines
from tests.kits.transfer import DIM, N, vectors


def built(kind, labels=None, metric=faiss.METRIC_L2):
    index = faiss.index_factory(DIM, kind, metric)
    index.train(vectors())
    if labels is None:
        index.add(vectors())
    else:
        index.add_with_ids(vectors(), np.asarray(labels, np.int64))
    return index


@pytest.fixture
def put(tmp_path):
    def write(index, name="index.faiss"):
        faiss.write_index(index, str(tmp_path / name))
        return tmp_path / name

    return write


@pytest.fixture
def docs():
    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        yield store.collection("docs", dim=DIM)


LABELS = [int(i) for i in np.random.default_rng(1).permutation(10_000)[:N]]


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("Flat", None),
        ("HNSW8,Flat", None),
        ("IVF8,Flat", None),
        ("IVF8,Flat", LABELS),
        ("IDMap,Flat", LABELS),
        ("IDMap2,Flat", LABELS),
        ("IDMap,HNSW8,Flat", LABELS),
        ("IDMap,IVF8,Flat", LABELS),
    ],
    ids=str,
)
def test_exact_indexes_arrive_bit_for_bit(put, docs, kind, labels):
    source = VectorFile(put(built(kind, labels)))
    assert (source.lossy, source.metric, source.total) == ("", "l2", N)
    done = load(source, docs, batch_size=64)
    assert done.written == N
    names = [f"index:{i}" for i in range(N)] if labels is None else list(map(str, labels))
    found = {record.id: record.vector for record in docs.scroll()}
    assert found.keys() == set(names)
    assert all(found[name].tobytes() == row.tobytes() for name, row in zip(names, vectors(), strict=True))
    assert compare(source, docs).ok


def test_half_precision_is_compared_as_it_is_kept(put):
    source = VectorFile(put(built("Flat")))
    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        docs = store.collection("docs", dim=DIM, precision="half")
        assert load(source, docs).written == N
        assert compare(source, docs).ok
        assert load(source, docs).unchanged == N
        docs.upsert(["index:0"], vectors()[:1] + np.float32(0.01))
        report = compare(source, docs)
        assert (report.ok, report.mismatches[0].what) == (False, "vector differs")


@pytest.mark.parametrize("kind", ["SQ8", "PQ4x4", "HNSW8_SQ8", "IVF8,SQfp16", "OPQ4,IVF4,PQ4x4", "PCA4,Flat"])
def test_lossy_indexes_say_so(put, docs, kind):
    source = VectorFile(put(built(kind)))
    assert "keeps vectors approximately" in source.lossy
    load(source, docs)
    report = compare(source, docs)
    assert report.ok, "what the index gives back is what is stored"


def test_inner_product_is_the_index_s(put):
    assert VectorFile(put(built("Flat", metric=faiss.METRIC_INNER_PRODUCT))).metric == "ip"


@pytest.mark.parametrize("metric", ["METRIC_L1", "METRIC_Linf", "METRIC_Canberra", "METRIC_Jaccard"])
def test_an_index_of_another_metric_makes_no_cosine(put, metric):
    source = VectorFile(put(built("Flat", metric=getattr(faiss, metric))))
    with pytest.raises(errors.MetricError, match=f"index.faiss ranks by {metric}, which is not supported; choose"):
        _ = source.metric


def test_packed_bits_are_not_taken_for_coordinates(tmp_path, put):
    np.save(tmp_path / "bits.npy", np.packbits(vectors() > 0, axis=1))
    with pytest.raises(errors.MetricError, match="packed bits"):
        _ = VectorFile(tmp_path / "bits.npy").metric
    index = faiss.IndexBinaryFlat(DIM)
    index.add(np.packbits(vectors() > 0, axis=1))
    faiss.write_index_binary(index, str(tmp_path / "bits.faiss"))
    with pytest.raises(errors.InputError, match="neither a FAISS index of float vectors"):
        VectorFile(tmp_path / "bits.faiss")


def test_an_index_does_not_read_other_files(tmp_path, put):
    index = built("IVF4,Flat")
    lists = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(tmp_path / "private.ivfdata"))
    lists.merge_from(index.invlists, 0)
    index.replace_invlists(lists)
    with pytest.raises(errors.InputError, match="keeps its lists in another file, which is not read"):
        VectorFile(put(index))


def test_an_index_without_a_way_back_is_refused(put):
    index = faiss.IndexIVFPQFastScan(faiss.IndexFlatL2(DIM), DIM, 4, 4, 4)
    index.train(vectors())
    index.add(vectors())
    with pytest.raises(errors.InputError, match="IndexIVFPQFastScan cannot give its vectors back: these can: Flat"):
        VectorFile(put(index))
    lsh = faiss.index_factory(DIM, "PCA4,LSH")
    lsh.train(vectors())
    with pytest.raises(errors.InputError, match="IndexLSH cannot"):
        VectorFile(put(lsh))


def test_what_is_no_index_is_refused(tmp_path, put):
    (tmp_path / "x.faiss").write_bytes(b"nonsense")
    with pytest.raises(errors.InputError, match="neither a FAISS index"):
        VectorFile(tmp_path / "x.faiss")
    with pytest.raises(FileNotFoundError):
        VectorFile(tmp_path / "missing.faiss")
    np.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(errors.ShapeError):
        VectorFile(tmp_path / "a.npy")


def test_ids_and_metadata_by_place_and_by_id(home, encvec, put):
    put(built("Flat"))
    write_lines(home / "rows.jsonl", *({"n": i, "document": f"text {i}"} for i in range(N)))
    (home / "ids.txt").write_text("".join(f"doc-{i}\n" for i in range(N)))
    args = ("import", "index.faiss", "docs", "--ids", "ids.txt", "--metadata", "rows.jsonl", "--metric", "cosine")
    answer = encvec(*args, "--json")
    assert answer.code == 0, answer.err
    (record,) = encvec("get", "docs", "doc-17", "--json").lines
    assert (record["metadata"], record["document"]) == ({"n": 17}, "text 17")
    assert encvec("stats", "docs", "--json").document["metric"] == "cosine"

    put(built("IDMap,Flat", range(N)), "mapped.faiss")
    order = list(np.random.default_rng(2).permutation(N))
    pq.write_table(pa.table({"id": [str(i) for i in order[:250]], "n": [int(i) for i in order[:250]]}), "rows.parquet")
    assert encvec("import", "mapped.faiss", "other", "--metadata", "rows.parquet", "--oversample", 30).code == 0
    (record,) = encvec("get", "other", str(order[0]), "--json").lines
    assert record["metadata"] == {"n": int(order[0])}
    (record,) = encvec("get", "other", str(order[-1]), "--json").lines
    assert record["metadata"] == {}


def test_ids_from_the_metadata_and_from_arrays(home, encvec, put):
    put(built("Flat"))
    write_lines(home / "rows.jsonl", *({"id": f"r{i}", "metadata": {"n": i}} for i in range(N)))
    np.save("ids.npy", np.arange(N) + 5)
    assert encvec("import", "index.faiss", "a", "--metadata", "rows.jsonl", "--oversample", 30).code == 0
    assert encvec("get", "a", "r299").code == 0
    assert encvec("import", "index.faiss", "b", "--ids", "ids.npy", "--oversample", 30).code == 0
    assert encvec("get", "b", "304").code == 0
    assert encvec("import", "index.faiss", "c", "--ids", "rows.jsonl", "--oversample", 30).code == 0
    assert encvec("get", "c", "r299").code == 0


@pytest.mark.parametrize(
    ("ids", "rows", "said"),
    [
        (["a"] * N, None, "row 1: the id repeats 'a'"),
        (["a"], None, "300 vectors, but there are 1 ids"),
        (None, [{"n": 1}], "has 300 vectors, but rows.jsonl has 1 rows without ids"),
        (None, [{"id": "x", "n": 1}, {"n": 2}], "some rows have an id, some have none"),
    ],
    ids=str,
)
def test_ids_that_do_not_fit(home, encvec, put, ids, rows, said):
    put(built("Flat"))
    args = ["import", "index.faiss", "docs"]
    if ids:
        (home / "ids.txt").write_text("\n".join(ids))
        args += ["--ids", "ids.txt"]
    if rows:
        write_lines(home / "rows.jsonl", *rows)
        args += ["--metadata", "rows.jsonl"]
    answer = encvec(*args)
    assert answer.code == 2
    assert said in answer.err
    assert encvec("collections", "--json").document == {"collections": []}


def test_metadata_of_an_id_without_a_vector_is_an_error(home, encvec, put):
    put(built("IDMap,Flat", range(N)))
    write_lines(home / "rows.jsonl", {"id": "5", "n": 1}, {"id": "x", "n": 2})
    answer = encvec("import", "index.faiss", "docs", "--metadata", "rows.jsonl")
    assert "has an id that index.faiss has no vector for: 'x'" in answer.err


def test_rows_that_are_not_finite_are_all_named(tmp_path, docs):
    bad = vectors()
    bad[[3, 250], 2] = np.nan, np.inf
    np.save(tmp_path / "a.npy", bad)
    source = VectorFile(tmp_path / "a.npy")
    with pytest.raises(errors.InputError, match=r"2 rows cannot be stored.*'a:3': the vector holds NaN.*'a:250'"):
        load(source, docs)
    done = load(source, docs, on_error="skip", batch_size=100)
    assert (done.written, done.skipped) == (N - 2, 2)
    report = compare(source, docs)
    assert {(m.id, m.changed) for m in report.mismatches} == {("a:3", False), ("a:250", False)}


def test_a_file_that_was_changed_meanwhile_is_noticed(tmp_path, put):
    source = VectorFile(put(built("Flat")))
    source.again()
    put(built("SQ8"))
    with pytest.raises(errors.InputError, match="was changed after it was read"):
        source.again()
