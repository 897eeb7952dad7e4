"""FAISS's GPU calls, kept to the CPU."""

import faiss
import pytest

from encvec_store.indexes.faiss import device
from encvec_store.runtime import gpus


@pytest.fixture
def fresh():
    """Forget what was found out about GPUs, before and after."""
    caches = (device.uses_gpu, gpus.wanted)
    for one in caches:
        one.cache_clear()
    yield
    for one in caches:
        one.cache_clear()


def stand_in(monkeypatch, **fakes):
    """Put fakes into FAISS, whether it has such names or not."""
    for name, fake in fakes.items():
        monkeypatch.setattr(faiss, name, fake, raising=False)


@pytest.fixture
def gpu(fresh, monkeypatch):
    """FAISS with GPU calls that keep to the CPU; counts the copies made and the searches on them. Without CAGRA."""
    monkeypatch.setattr(gpus, "names", lambda: ("a GPU",))
    monkeypatch.delattr(faiss, "GpuIndexCagra", raising=False)
    seen = {"copies": 0, "searches": 0, "probes": []}

    class Copy:
        def __init__(self, raw):
            self.owner = faiss.clone_index(raw)
            self.raw = faiss.downcast_index(self.owner)
            self.nprobe = 1

        def search(self, queries, k):
            seen["searches"] += 1
            if hasattr(self.raw, "nprobe"):
                self.raw.nprobe = self.nprobe
            return self.raw.search(queries, k)

    class Space:
        def set_index_parameter(self, index, name, value):
            assert name == "nprobe"
            index.nprobe = value
            seen["probes"].append(value)

    def cloned(raw, options):
        assert options.shard
        seen["copies"] += 1
        return Copy(raw)

    class Options:
        shard = False

    stand_in(
        monkeypatch,
        StandardGpuResources=object,
        get_num_gpus=lambda: 1,
        GpuMultipleClonerOptions=Options,
        GpuParameterSpace=Space,
        index_cpu_to_all_gpus=cloned,
    )
    return seen


@pytest.fixture
def cagra(gpu, monkeypatch):
    """CAGRA's calls, over a flat index."""

    class Cagra:
        def __init__(self, resources, dim, metric, config):
            self.raw = faiss.IndexFlat(dim, metric)

        def train(self, vectors):
            gpu["copies"] += 1
            self.raw.add(vectors)

        def search(self, queries, k, params):
            assert params.itopk_size >= k
            assert params.itopk_size % 32 == 0
            gpu["searches"] += 1
            return self.raw.search(queries, k)

    class Parameters:
        itopk_size = 64

    stand_in(
        monkeypatch,
        GpuIndexCagra=Cagra,
        GpuIndexCagraConfig=object,
        SearchParametersCagra=Parameters,
    )
    return gpu
