"""Results as files: resumed whole jobs only, ann-benchmarks' layout, two runs compared."""

import json

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from encvec_store.cli.app import cli
from encvec_store.errors import InputError
from encvec_store.lab.bench import BenchJob, measure
from encvec_store.lab.bench.compare import compared
from encvec_store.lab.bench.results import Results, key_of, machines, read
from tests.kits.bench import data, plain, row, vectors


def job(**more):
    return BenchJob(data(60, 5), schemes=[{"name": "sap", "beta": 1.0}], rounds=0, memory=False, **more)


def test_a_job_that_is_there_is_not_measured_again(tmp_path):
    wanted = job()
    results = Results(tmp_path)
    rows = results.add(key_of(wanted), measure(wanted))
    again = Results(tmp_path)
    assert again.done(key_of(wanted))
    assert again.of(key_of(wanted)) == rows
    assert not again.done(key_of(job(k=5)))
    assert not again.done(key_of(job(efforts=(9,))))
    (machine,) = machines([tmp_path])
    assert machine["versions"]["faiss-cpu"]
    assert str(tmp_path) not in (tmp_path / "rows.jsonl").read_text(), "results name no place"


def test_a_torn_line_is_left_out_and_not_written_onto(tmp_path):
    first = job()
    Results(tmp_path).add(key_of(first), measure(first))
    path = tmp_path / "rows.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-20])
    torn = Results(tmp_path)
    assert len(torn.rows) == 2
    second = job(k=3)
    torn.add(key_of(second), measure(second))
    assert len(read([path])) == 2 + 3
    path.write_text("{not json}\n" + whole)
    with pytest.raises(InputError, match="line 1: not JSON"):
        read([path])


def test_hdf5_is_laid_out_as_ann_benchmarks_does(tmp_path):
    wanted = job(passes=2)
    Results(tmp_path).add(key_of(wanted), found := measure(wanted))
    names = {path.parent.name: path for path in tmp_path.rglob("*.hdf5")}
    assert set(names) == {"plain-FAISS-plaintext", "faiss-sap", "faiss-sap-rerank"}
    assert names["faiss-sap"].parts[-4:-1] == ("random-n60", "10", "faiss-sap")
    with h5py.File(names["faiss-sap-rerank"]) as file:
        assert file["times"].shape == (5,)
        assert file["neighbors"].shape == file["distances"].shape == (5, 10)
        assert file.attrs["distance"] == "angular"
        assert file.attrs["count"] == 10
        np.testing.assert_array_equal(file["neighbors"][0], found[2].neighbours[0])
        assert (np.diff(file["distances"][:], axis=1) >= 0).all()
        stored, queries = vectors(60), vectors(5, seed=1)
        cosine = stored[file["neighbors"][0, 0]] @ queries[0]
        cosine /= np.linalg.norm(stored[file["neighbors"][0, 0]]) * np.linalg.norm(queries[0])
        assert file["distances"][0, 0] == pytest.approx(1 - cosine, abs=1e-5)


def test_compare_takes_out_what_the_machine_did():
    before = [plain(p50_ms=1.0), row(p50_ms=3.0, **{"recall@10": 0.99}), row(beta=9.0)]
    after = [plain(p50_ms=2.0), row(p50_ms=3.0, **{"recall@10": 0.98})]
    base, ours = compared(before, after)
    assert base["net_ratio"] is None
    assert ours["p50_ratio"] == 1
    assert ours["plaintext_ratio"] == 2
    assert ours["net_ratio"] == 0.5, "as fast on a machine half as fast"
    assert ours["recall_change"] == pytest.approx(-0.01)


def test_commands_resume_and_compare(tmp_path):
    arguments = ["--data", "iid:80x8", "--queries", "5", "--rounds", "0", "--no-memory", "--scheme", "sap", "--json"]
    kept = [*arguments, "--out", str(tmp_path / "kept")]
    first = CliRunner().invoke(cli, ["bench", *kept])
    assert first.exit_code == 0, first.output
    second = CliRunner().invoke(cli, ["bench", *kept])
    rows = json.loads(first.stdout)
    assert json.loads(second.stdout) == rows, "the very same times: nothing was measured"
    (tmp_path / "list.json").write_text(first.stdout)
    done = CliRunner().invoke(cli, ["bench", "compare", str(tmp_path / "kept"), str(tmp_path / "list.json"), "--json"])
    assert done.exit_code == 0, done.output
    assert {found["p50_ratio"] for found in json.loads(done.stdout)} == {1.0}
    shown = CliRunner().invoke(cli, ["bench", "compare", str(tmp_path / "kept"), str(tmp_path / "kept")])
    assert "plaintext's" in shown.stdout
