"""Upserts of many parts: the threads that encrypt them are shared, and a child of a fork gets its own."""

import os
import signal
import sys

import numpy as np
import pytest

import encvec_store as ev
from encvec_store.engine import write as writing
from tests.kits import oracle


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(writing, "WRITE_CHUNK", 8)


def written(n=60):
    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        things = store.collection("things", 8, scheme="sap")
        things.upsert(oracle.ids(n), oracle.vectors(n))
        return [record.id for record in things.scroll()]


def test_parts_grow():
    assert [part.stop - part.start for part in writing._parts(5000)] == [256, 512, 1024, 1024, 1024, 1024, 136]
    assert writing._parts(1024) == [slice(0, 1024)]
    for n in (0, 1, 1025, 3000):
        places = [place for part in writing._parts(n) for place in range(n)[part]]
        assert places == list(range(n))


def test_threads_are_shared(small):
    for order in (written(), written()):
        assert sorted(order) == sorted(oracle.ids(60)), "each once, in whichever order"
    assert writing._workers() is writing._workers()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_child_of_a_fork_has_threads_of_its_own(small):
    """The parent's stay with the parent: whoever waits for them waits for good."""
    assert len(written()) == 60
    child = os.fork()
    if not child:
        signal.alarm(60)
        os._exit(0 if len(written()) == 60 else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(("mean", "said"), [(1.0, "With the mean of the vectors subtracted"), (0.0, None)])
def test_noise_that_hides_what_is_near_is_told_of_at_the_first_write(mean, said, caplog):
    """Under l2, vectors far from 0 lie in a small spot of the sphere; `sealed` is exact, and stays silent."""
    vectors = (mean + 0.1 * np.random.default_rng(0).standard_normal((600, 32))).astype(np.float32)
    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        for scheme in ({"name": "sap", "beta": 1.0}, "sealed"):
            things = store.collection(str(scheme)[:20], 32, "l2", scheme)
            things.upsert(oracle.ids(600), vectors)
            things.upsert(oracle.ids(600), vectors)
    told = [record.getMessage() for record in caplog.records if "of the ten nearest" in record.getMessage()]
    assert len(told) == (said is not None)
    assert said is None or said in told[0]
