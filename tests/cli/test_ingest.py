"""`encvec ingest`: what is stored is what the file holds, a batch is all or nothing, a run can be taken up again."""

import datetime as dt
import json
import signal
import sys

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encvec_store.collection import Collection
from encvec_store.sealing import Keyring
from encvec_store.transfer import uninterrupted
from tests.cli.conftest import DIM, write_lines

SUMMARY = {"collection", "tenant", "file", "read", "written", "skipped", "refused", "faults", "created", "seconds"} | {
    "records_per_second",
    "count",
}


@pytest.fixture
def stored(encvec):
    def read(collection, *options):
        answer = encvec("get", collection, "--all", "--vectors", "--json", *options)
        assert answer.code == 0
        return {record["id"]: record for record in answer.lines}

    return read


def test_a_first_file_makes_the_collection(home, encvec, stored, vectors):
    np.save("a.npy", vectors)
    answer = encvec("ingest", "docs", "a.npy", "--batch-size", 64, "--json")
    assert (answer.code, answer.err) == (0, "")
    summary = answer.document
    assert summary.keys() == SUMMARY
    assert summary["read"] == summary["written"] == summary["count"] == 300
    assert summary["created"] is True
    records = stored("docs")
    assert all(np.array_equal(np.float32(records[f"a:{n}"]["vector"]), vectors[n]) for n in range(300))


def test_the_text_summary_is_for_people(home, encvec, vectors):
    np.save("a.npy", vectors)
    answer = encvec("ingest", "docs", "a.npy")
    assert answer.code == 0
    assert "written             300\n" in answer.out


def test_settings_reach_the_collection(home, encvec, vectors):
    np.save("a.npy", vectors)
    options = [
        "--metric",
        "ip",
        "--scheme",
        "sketch",
        "--beta",
        "1.5",
        "--max-norm",
        "20",
        "--oversample",
        "7",
        "--field",
        "a=b=plain",
    ]
    options += ["--precision", "half"]
    assert encvec("ingest", "docs", "a.npy", *options, "--tenant", "acme").code == 0
    stats = encvec("stats", "docs", "--tenant", "acme", "--json").document
    assert (stats["metric"], stats["precision"]) == ("ip", "half")
    assert stats["scheme"] == {
        "name": "sketch", "k": None, "beta": 1.5, "gamma": 0.0, "query_beta": 0.0, "profile": None,
    }  # fmt: skip
    assert (stats["max_norm"], stats["oversample"], stats["fields"]) == (20.0, 7, {"a=b": "plain"})


def test_hdf5_gives_its_metric_and_the_longest_vector_of_the_file_counts(home, encvec, vectors):
    rising = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * np.arange(1, 301)[:, None]
    with h5py.File("a.hdf5", "w") as file:
        file["train"] = rising
        file.attrs["distance"] = "euclidean"
    assert encvec("ingest", "docs", "a.hdf5", "--batch-size", 10).code == 0
    stats = encvec("stats", "docs", "--json").document
    assert stats["metric"] == "l2"
    assert stats["max_norm"] == pytest.approx(1.25 * 300)


def test_json_lines_come_back_with_their_types(home, encvec, stored):
    lines = [
        {"id": "a", "vector": [1.5] * DIM, "metadata": {"day": {"$date": "2024-05-01"}, "n": 1}, "document": "größe"},
        {"id": "b", "vector": [0.1] * DIM, "metadata": {"t": {"$tuple": [1, {"$bytes": "AA=="}]}}, "document": None},
    ]
    write_lines(home / "a.jsonl", *lines)
    assert encvec("ingest", "docs", "a.jsonl").code == 0
    assert sorted(stored("docs").values(), key=lambda record: record["id"]) == lines


def test_what_get_prints_ingest_reads(home, encvec, stored, docs):
    (home / "copy.jsonl").write_text(encvec("get", "docs", "--all", "--vectors", "--json").out, encoding="utf-8")
    assert encvec("ingest", "copy", "copy.jsonl").code == 0
    assert stored("copy") == stored("docs")


def test_parquet_metadata_can_be_filtered_by_its_types(home, encvec, vectors):
    days = [dt.date(2024, 5, 1 + n % 3) for n in range(30)]
    pq.write_table(pa.table({"vector": list(vectors[:30]), "day": days}), "a.parquet")
    assert encvec("ingest", "docs", "a.parquet").code == 0
    where = '{"day": {"gte": {"$date": "2024-05-03"}}}'
    assert encvec("count", "docs", "--where", where, "--json").document["count"] == 10


def test_the_index_is_built_unless_left_to_the_first_search(home, encvec, vectors, monkeypatch):
    np.save("a.npy", vectors)
    built = []
    monkeypatch.setattr(Collection, "flush", lambda self: built.append(self.name))
    assert encvec("ingest", "one", "a.npy").code == encvec("ingest", "two", "a.npy", "--no-index").code == 0
    assert built == ["one"]


def test_a_file_of_known_size_is_encrypted_once(home, encvec, monkeypatch):
    """The scheme is fitted on a sample of the file first, not on the records after the load."""
    vectors = np.random.default_rng(0).standard_normal((6_000, 24), np.float32)
    vectors[17] = np.nan
    np.save("a.npy", vectors)
    sealed, seal = [], Keyring.seal

    def counted(self, config, ids, *more):
        sealed.append((config.index_dim, len(ids)))
        return seal(self, config, ids, *more)

    monkeypatch.setattr(Keyring, "seal", counted)
    options = ("--scheme", "sketch", "--on-error", "skip", "--batch-size", 1_000, "--json")
    assert encvec("ingest", "docs", "a.npy", *options).document["written"] == 5_999
    assert sum(n for dim, n in sealed if dim) == 5_999
    assert sum(n for dim, n in sealed if not dim) < 3_000, "only the first batch is tried, in memory"


def test_existing_ids_are_replaced(home, encvec, stored, vectors):
    np.save("a.npy", vectors[:5])
    encvec("ingest", "docs", "a.npy")
    np.save("a.npy", vectors[5:10])
    summary = encvec("ingest", "docs", "a.npy", "--json").document
    assert (summary["written"], summary["count"], summary["created"]) == (5, 5, False)
    assert np.array_equal(np.float32(stored("docs")["a:0"]["vector"]), vectors[5])


@pytest.mark.parametrize("limit", [1, 7, 8, 300, 999])
def test_limit(home, encvec, vectors, limit):
    np.save("a.npy", vectors)
    summary = encvec("ingest", "docs", "a.npy", "--limit", limit, "--batch-size", 8, "--json").document
    assert summary["read"] == summary["count"] == min(limit, 300)


def test_resume_skips_what_is_there(home, encvec, vectors, monkeypatch):
    np.save("a.npy", vectors)
    encvec("ingest", "docs", "a.npy", "--limit", 130)
    written = []
    upsert = Collection.upsert
    monkeypatch.setattr(Collection, "upsert", lambda self, ids, *rest: (written.extend(ids), upsert(self, ids, *rest)))
    summary = encvec("ingest", "docs", "a.npy", "--resume", "--batch-size", 100, "--json").document
    assert (summary["read"], summary["skipped"], summary["written"], summary["count"]) == (300, 130, 170, 300)
    assert written == [f"a:{n}" for n in range(130, 300)]
    again = encvec("ingest", "docs", "a.npy", "--resume", "--json").document
    assert (again["skipped"], again["written"]) == (300, 0)


def test_an_interrupt_leaves_whole_batches_and_says_how_to_go_on(home, encvec, vectors, monkeypatch):
    np.save("a.npy", vectors)
    upsert, calls = Collection.upsert, []

    def third_time(self, ids, *rest):
        calls.append(ids)
        if len(calls) == 4:  # the rehearsal of a new collection is the first
            raise KeyboardInterrupt
        upsert(self, ids, *rest)

    monkeypatch.setattr(Collection, "upsert", third_time)
    answer = encvec("ingest", "docs", "a.npy", "--batch-size", 50)
    assert answer.code == 130
    assert "100 records were written before; the same command with --resume goes on from here" in answer.err
    assert encvec("count", "docs").out == "100\n"
    calls[:] = calls[:2]
    answer = encvec("ingest", "docs", "a.npy", "--batch-size", 50, "--json")
    assert (answer.code, answer.out, answer.err.count("\n")) == (130, "", 1)
    assert (answer.error["type"], answer.error["written"]) == ("Interrupted", 50)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("command", ["ingest", "import"])
def test_ctrl_c_in_a_write_lets_it_end_and_counts_it(home, encvec, vectors, monkeypatch, command):
    """The records are stored before the write returns: a tally that lacks them would be wrong."""
    np.save("a.npy", vectors)
    upsert, calls = Collection.upsert, []

    def third_time(self, ids, *rest):
        upsert(self, ids, *rest)
        calls.append(ids)
        if len(calls) == 4:  # the rehearsal of a new collection is the first; an import tries its rows otherwise
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Collection, "upsert", third_time)
    args = [command, *(["docs", "a.npy"] if command == "ingest" else ["a.npy", "docs"])]
    answer = encvec(*args, "--batch-size", 50, "--json")
    assert (answer.code, answer.error["type"]) == (130, "Interrupted")
    assert answer.error["written"] == encvec("count", "docs", "--json").document["count"] > 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_does_not_wait():
    done = []

    def twice():
        with uninterrupted():
            for number in range(3):
                signal.raise_signal(signal.SIGINT)
                done.append(number)

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert done == [0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_after_the_last_write_says_that_all_is_written(home, encvec, vectors, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    np.save("a.npy", vectors)
    monkeypatch.setattr(Collection, "flush", interrupted)
    answer = encvec("ingest", "docs", "a.npy")
    assert answer.code == 130
    assert "all 300 records are written" in answer.err


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=str)
def test_a_repeated_id_means_the_same_in_a_batch_and_across(home, encvec, stored, size, resume):
    lines = [{"id": id, "vector": [n + 1.0] * DIM} for n, id in enumerate("abca")]
    write_lines(home / "a.jsonl", *lines)
    answer = encvec("ingest", "docs", "a.jsonl", "--batch-size", size, *resume, "--json")
    assert (answer.code, answer.error["type"]) == (2, "RowError")
    assert "a.jsonl, line 4: the id repeats 'a'" in answer.error["message"]
    answer = encvec("ingest", "docs", "a.jsonl", "--batch-size", size, *resume, "--on-error", "skip", "--json")
    assert answer.document["faults"] == [{"row": "line 4", "reason": "the id repeats 'a'"}]
    assert {id: record["vector"][0] for id, record in stored("docs").items()} == {"a": 1, "b": 2, "c": 3}


def test_bad_rows_can_be_skipped_and_are_told(home, encvec, stored):
    good = [{"id": f"g{n}", "vector": [n + 1.0] * DIM} for n in range(4)]
    bad = ["{", {"id": "zero", "vector": [0] * DIM}, {"id": "short", "vector": [1]}, {"id": 5.5, "vector": [1] * DIM}]
    write_lines(home / "a.jsonl", *(line for pair in zip(good, bad, strict=True) for line in pair))
    for size in (1, 3, 100):
        answer = encvec("ingest", f"docs{size}", "a.jsonl", "--on-error", "skip", "--batch-size", size, "--json")
        assert answer.code == 1
        assert (answer.document["read"], answer.document["written"], answer.document["refused"]) == (8, 4, 4)
        assert [fault["row"] for fault in sorted(answer.document["faults"], key=lambda fault: fault["row"])] == [
            f"line {number}" for number in (2, 4, 6, 8)
        ]
        assert stored(f"docs{size}").keys() == {"g0", "g1", "g2", "g3"}
    answer = encvec("ingest", "docs1", "a.jsonl", "--on-error", "skip")
    assert "encvec: skipped line 4: the vector is the zero vector" in answer.err
    write_lines(home / "a.jsonl", *bad)
    answer = encvec("ingest", "none", "a.jsonl", "--on-error", "skip")
    assert answer.code == 2
    assert encvec("count", "none").code == 2


@pytest.mark.parametrize("suffix", ["npy", "jsonl", "parquet"])
def test_shuffled_rows_keep_their_ids(home, encvec, stored, vectors, monkeypatch, suffix):
    if suffix == "npy":
        np.save("a.npy", vectors)
    elif suffix == "parquet":
        pq.write_table(pa.table({"vector": list(vectors)}), "a.parquet", row_group_size=64)
    else:
        write_lines(home / "a.jsonl", *({"vector": vector.tolist()} for vector in vectors))
    written, orders = [], {}
    upsert = Collection.upsert
    monkeypatch.setattr(Collection, "upsert", lambda self, ids, *rest: (written.append(ids), upsert(self, ids, *rest)))
    for name, options in {"one": ["--seed", 1], "again": ["--seed", 1], "two": [], "three": []}.items():
        written.clear()
        options += ["--shuffle", "--batch-size", 100, "--limit", 250]
        assert encvec("ingest", name, f"a.{suffix}", *options).code == 0
        found = stored(name)
        assert found.keys() == {f"a:{n}" for n in range(250)}
        assert all(np.array_equal(np.float32(found[f"a:{n}"]["vector"]), vectors[n]) for n in (0, 99, 249))
        orders[name] = [id for ids in written[1:] for id in ids]  # the first is the rehearsal
    assert orders["one"] == orders["again"]
    assert len({tuple(order) for order in orders.values()}) == 3
    assert sorted(orders["one"]) == sorted(orders["two"])


def test_columns_reach_the_collection(home, encvec, stored):
    rows = pa.table({"vector": [[1.0] * DIM], "a": [1], "b": [2], "meta": pa.array([{"lang": "de"}])})
    pq.write_table(rows, "a.parquet")
    assert encvec("ingest", "docs", "a.parquet", "--exclude", "b", "--flatten", "meta").code == 0
    assert stored("docs")["a:0"]["metadata"] == {"a": 1, "lang": "de"}
    assert encvec("ingest", "docs", "a.parquet", "--columns", "b").code == 0
    assert stored("docs")["a:0"]["metadata"] == {"b": 2}
    answer = encvec("ingest", "docs", "a.parquet", "--columns", "b", "--flatten", "meta")
    assert (answer.code, "--flatten meta: this column is left out" in answer.err) == (2, True)


def test_a_metric_that_is_not_known_makes_no_collection(home, encvec, vectors):
    with h5py.File("a.hdf5", "w") as file:
        file["train"] = vectors
        file.attrs["distance"] = "jaccard"
    answer = encvec("ingest", "docs", "a.hdf5", "--json")
    assert (answer.code, answer.error["type"]) == (2, "MetricError")
    assert encvec("collections", "--json").document == {"collections": []}
    assert encvec("ingest", "docs", "a.hdf5", "--metric", "Euclidean").code == 0
    assert encvec("stats", "docs", "--json").document["metric"] == "l2"
    assert encvec("ingest", "docs", "a.hdf5").code == 0, "the collection has a metric"


def test_a_store_that_would_not_last_is_refused(home, encvec, vectors):
    np.save("a.npy", vectors)
    answer = encvec("ingest", "docs", "a.npy", "--store", "memory:")
    assert answer.code == 2
    assert "would be gone when the command ends" in answer.err


@pytest.mark.parametrize(
    ("change", "row", "said"),
    [
        (lambda v: v.__setitem__((70, 3), np.nan), 70, "the vector holds NaN or infinity"),
        (lambda v: v.__setitem__(55, 0), 55, "the vector is the zero vector"),
    ],
)
def test_a_bad_row_stops_the_run_after_the_batches_before_it(home, encvec, vectors, change, row, said):
    bad = vectors.copy()
    change(bad)
    np.save("a.npy", bad)
    answer = encvec("ingest", "docs", "a.npy", "--batch-size", 25, "--json")
    assert (answer.code, answer.out) == (2, "")
    written = row // 25 * 25
    assert f"a.npy, row {row}: {said}" in answer.error["message"]
    assert answer.error["message"].endswith(f"; {written} records were written before")
    assert answer.error["written"] == written == encvec("count", "docs", "--json").document["count"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"id": "", "vector": [1] * DIM}, "line 2: the id must not be empty"),
        ({"id": "a", "vector": [1] * DIM}, "line 2: the id repeats 'a'"),
        ({"id": "b", "vector": [1] * DIM, "document": 5}, "line 2: the document must be a string or None, got int"),
        ({"id": "b", "vector": [1e39] * DIM}, "line 2: the vector holds NaN or infinity"),
        ('{"id": "b", "vector": [1, 1, 1, 1, 1, 1, 1, 1], "x": "\\ud800"}', "lines 1 to 2: record 'b': text with"),
        ("{", "line 2: not JSON"),
    ],
    ids=str,
)
def test_a_mistake_in_the_first_batch_makes_no_collection(home, encvec, line, said):
    write_lines(home / "a.jsonl", {"id": "a", "vector": [1] * DIM}, line)
    answer = encvec("ingest", "docs", "a.jsonl")
    assert answer.code == 2
    assert answer.err.startswith(f"encvec: a.jsonl, {said}")
    assert answer.err.count("\n") == 1
    assert "nothing was written" in answer.err
    assert encvec("collections", "--json").document == {"collections": []}


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        (["--field", "x"], "UsageError", "--field must be NAME=POLICY"),
        (["--field", "x=plain", "--field", "x=blind"], "UsageError", "once a name"),
        (["--field", "x=foo"], "InputError", "policy must be one of sealed, blind, plain, got 'foo'"),
        (["--scheme", "rot13"], "SchemeError", "got 'rot13'"),
        (["--scheme", "sap", "--beta", "-1"], "SchemeError", "beta must be a number from 0"),
        (["--beta", "1"], "UsageError", "--beta must go with --scheme sketch or --scheme sap: sealed has no noise"),
        (["--metric", "manhattan"], "UsageError", "'manhattan' is not one of"),
        (["--dim", "3"], "ShapeError", "a.npy has vectors of dimension 8, not 3"),
        (["--max-norm", "1"], "InputError", "max_norm has no meaning under cosine"),
        (["--metric", "l2", "--max-norm", "0.001"], "NormError", "a.npy, row "),
        (["--id-column", "x"], "InputError", "--id-column has no meaning for npy"),
        (["--limit", "0"], "InputError", "--limit 0 leaves nothing to do"),
    ],
    ids=str,
)
def test_bad_options_make_no_collection(home, encvec, vectors, options, kind, said):
    np.save("a.npy", vectors)
    answer = encvec("ingest", "docs", "a.npy", *options, "--json")
    assert (answer.code, answer.out, answer.error["type"]) == (2, "", kind)
    assert said in answer.error["message"]
    assert encvec("collections", "--json").document == {"collections": []}


def test_an_existing_collection_keeps_its_settings(home, encvec, vectors, docs):
    np.save("a.npy", vectors)
    np.save("wide.npy", np.ones((3, DIM + 1)))
    answer = encvec("ingest", "docs", "a.npy", "--metric", "l2", "--json")
    assert (answer.code, answer.error["type"]) == (2, "ConfigMismatchError")
    answer = encvec("ingest", "docs", "wide.npy")
    assert "wide.npy has vectors of dimension 9, collection 'docs' of 8" in answer.err
    assert encvec("count", "docs", "--json").document["count"] == 60
    assert encvec("ingest", "docs", "a.npy", "--metric", "cosine", "--scheme", "sealed").code == 0


def test_an_empty_file_is_an_error(home, encvec, vectors):
    np.save("a.npy", vectors[:0])
    (home / "a.jsonl").write_text("\n\n")
    for name in ("a.npy", "a.jsonl"):
        assert encvec("ingest", "docs", name).err == f"encvec: {name} holds no records\n"


def test_a_mistyped_store_is_made_by_ingest_only(home, encvec, vectors):
    np.save("a.npy", vectors)
    url = f"faiss://{home}/other?index=hnsw"
    answer = encvec("count", "docs", "--store", url)
    assert answer.code == 2
    assert "no store at" in answer.err
    assert not (home / "other").exists()
    assert encvec("ingest", "docs", "a.npy", "--scheme", "sap", "--store", url).code == 0
    assert encvec("stats", "docs", "--store", url, "--json").document["store"]["index"] == "hnsw"


def test_a_bad_line_in_a_long_file_costs_no_memory(home, encvec):
    """The reader goes line by line: lines after the mistake are never looked at."""
    with open("a.jsonl", "w", encoding="utf-8") as file:
        for n in range(5000):
            file.write(json.dumps({"vector": [n + 1.0] * DIM}) + "\n")
        file.write("oops\n" * 100_000)
    answer = encvec("ingest", "docs", "a.jsonl", "--batch-size", 1000, "--json")
    assert answer.error["written"] == 5000
    assert "a.jsonl, line 5001: not JSON" in answer.error["message"]
