"""Clients for other people's benchmarks: on the interface of ann-benchmarks, on VectorDBBench's real base classes."""

import importlib
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.peers import python

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ann(monkeypatch):
    """The module, under a base class with the interface of ann-benchmarks: it is on no package index."""
    for name in ("ann_benchmarks", "ann_benchmarks.algorithms", "ann_benchmarks.algorithms.base"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    base = types.ModuleType("ann_benchmarks.algorithms.base.module")
    base.BaseANN = type("BaseANN", (), {"get_batch_results": lambda self: self.res, "__str__": lambda self: self.name})
    monkeypatch.setitem(sys.modules, base.__name__, base)
    monkeypatch.delitem(sys.modules, "benchmarks.outsiders.annbenchmarks.module", raising=False)
    yield importlib.import_module("benchmarks.outsiders.annbenchmarks.module")
    sys.modules.pop("benchmarks.outsiders.annbenchmarks.module", None)


@pytest.mark.parametrize("metric", ["angular", "euclidean"])
@pytest.mark.parametrize("options", [{}, {"scheme": "sap", "beta": 0.5, "index": "hnsw"}], ids=["default", "sap"])
def test_ann_benchmarks(ann, metric, options):
    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32) * 5
    found = ann.EncvecStore(metric, options)
    found.fit(vectors)
    if options:
        found.set_query_arguments(80, 20)
        assert "ef=80" in str(found)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = -(unit @ unit[:9].T) if metric == "angular" else np.linalg.norm(vectors[:, None] - vectors[:9], axis=2)
    for query in range(9):
        np.testing.assert_array_equal(found.query(vectors[query], 3), np.argsort(distances[:, query])[:3])
    found.batch_query(vectors[:9], 3)
    assert [int(answer[0]) for answer in found.get_batch_results()] == list(range(9))
    folder = Path(found._folder.name)  # noqa: SLF001
    found.done()
    assert not folder.exists()


def test_ann_benchmarks_config_names_what_is_there(ann):
    text = (ROOT / "benchmarks/outsiders/annbenchmarks/config.yml").read_text()
    ((entry,),) = (kinds["any"] for kinds in yaml.safe_load(text).values())
    constructor = getattr(ann, entry["constructor"])
    for group in entry["run_groups"].values():
        for options in group["arg_groups"]:
            constructor("angular", options).done()
    with pytest.raises(NotImplementedError):
        constructor("jaccard", {})


def vectordbbench(*module):
    """Run a module of the client in VectorDBBench's environment, and return what it prints."""
    interpreter = python("vectordb-bench")
    if not interpreter.exists():
        pytest.skip("VectorDBBench is not installed: make peers ARGS=--outsiders")
    done = subprocess.run([str(interpreter), "-m", *module], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.peers
@pytest.mark.parametrize("scheme", [[], ["sap"]], ids=["default", "sap"])
def test_vectordbbench(tmp_path, scheme):
    assert vectordbbench("benchmarks.outsiders.vectordbbench.check", str(tmp_path), *scheme) == {
        "is_vector_db": True, "inserted": [100, 100, 100], "refused": [0, "ZeroVectorError"], "found": 1.0,
        "kept": 100, "secret": True,
    }  # fmt: skip


@pytest.mark.peers
def test_vectordbbench_runs_it():
    told = vectordbbench("benchmarks.outsiders.vectordbbench.run", "--n", "500", "--seconds", "1")
    assert told["records"] == 500
    assert told["recall"] > 0.99
    assert told["queries_per_s"] > 0
