"""Devices of the `faiss:` store: cuda degrades to the CPU in one line; the GPU path, with FAISS's GPU calls faked.

No test here has seen a GPU: the fakes show that the copy is made, used, renewed and left out where it must be.
"""

import logging

import faiss
import numpy as np
import pytest

from encvec_store import Keyset, connect
from encvec_store.errors import UriError
from encvec_store.indexes.faiss import ann, device
from encvec_store.runtime import gpus

pytestmark = pytest.mark.usefixtures("fresh")


def collection(store):
    found = store.collection("some", 8, scheme={"name": "sap", "beta": 0.1})
    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    found.upsert([str(i) for i in range(300)], vectors)
    return found, vectors


def test_cuda_without_a_gpu_says_so_once_and_goes_on(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(gpus, "names", tuple)
    with (
        caplog.at_level(logging.WARNING, "encvec_store"),
        connect(f"faiss:{tmp_path}?device=cuda", keyset=Keyset.create("memory:")) as store,
    ):
        found, vectors = collection(store)
        assert [found.search(vector, k=1)[0].id for vector in vectors[:5]] == list("01234")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("device=cuda: ")
    assert line.endswith("runs on the CPU")
    assert "\n" not in line


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this FAISS has GPU support")
def test_a_faiss_without_gpu_support_says_so(monkeypatch, caplog):
    monkeypatch.setattr(gpus, "names", lambda: ("a GPU",))
    with caplog.at_level(logging.WARNING, "encvec_store"):
        assert not device.uses_gpu("auto")
        assert not device.uses_gpu("cuda")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("device=cuda: this FAISS was built without GPU support")


def test_auto_without_a_gpu_says_nothing(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(gpus, "names", tuple)
    with (
        caplog.at_level(logging.WARNING, "encvec_store"),
        connect(f"faiss:{tmp_path}?device=auto", keyset=Keyset.create("memory:")) as store,
    ):
        found, vectors = collection(store)
        assert found.search(vectors[7], k=1)[0].id == "7"
    assert not caplog.records


def test_an_unknown_device_is_refused(tmp_path):
    with pytest.raises(UriError, match="device must be one of auto, cpu, cuda"):
        connect(f"faiss:{tmp_path}?device=tpu", keyset=Keyset.create("memory:"))


@pytest.mark.parametrize("index", ["flat", "ivf"])
def test_the_copy_searches_and_is_renewed(tmp_path, gpu, index):
    with connect(f"faiss:{tmp_path}?device=cuda&index={index}", keyset=Keyset.create("memory:")) as store:
        found, vectors = collection(store)
        assert [found.search(vector, k=1)[0].id for vector in vectors[:5]] == list("01234")
        assert gpu["copies"] == 1
        assert gpu["searches"] == 5
        assert bool(gpu["probes"]) == (index == "ivf")
        found.upsert(["new"], vectors[:1] * -1)
        assert found.search(-vectors[0], k=1)[0].id == "new"
        assert gpu["copies"] == 2, "a copy from before knows no new records"


@pytest.mark.parametrize("storage", ["sq8", "float32"])
def test_cagra_stands_for_graphs(tmp_path, cagra, storage, monkeypatch):
    monkeypatch.setattr(ann, "_NODE", 0)  # else so few records are scanned
    url = f"faiss:{tmp_path}?device=cuda&index=hnsw&storage={storage}&ef_search=40"
    with connect(url, keyset=Keyset.create("memory:")) as store:
        found, vectors = collection(store)
        assert [found.search(vector, k=1)[0].id for vector in vectors[:5]] == list("01234")
        assert cagra == {"copies": 1, "searches": 5, "probes": []}
        found.upsert(["new"], vectors[:1] * -1)
        assert found.search(-vectors[0], k=1)[0].id == "new"
        assert cagra["copies"] == 2
        assert len(found.search(vectors[0], k=250)) == 250
        assert cagra["searches"] == 6, "nearly all of the records are scanned"


def test_graphs_stay_on_the_cpu_without_it(tmp_path, gpu):
    with connect(f"faiss:{tmp_path}?device=cuda&index=hnsw", keyset=Keyset.create("memory:")) as store:
        found, vectors = collection(store)
        assert found.search(vectors[3], k=1)[0].id == "3"
    assert gpu["copies"] == 0
