"""`encvec ingest` and `import` build the index as they go: at the end it is stored, also after an interruption."""

import numpy as np
import pytest

from encvec_store import low_level
from encvec_store.cli import building
from encvec_store.collection import Collection
from encvec_store.sealed_index import growth, lease
from tests.cli.conftest import DIM
from tests.kits import sealed

N = 400


@pytest.fixture(autouse=True)
def small(monkeypatch):
    sealed.small(monkeypatch)
    monkeypatch.setattr(building, "_STEP", 100)
    monkeypatch.setattr(building, "_LITTLE", 20)


@pytest.fixture(params=["ingest", "import"])
def load(request, home, encvec):
    """Load 400 vectors by a command, in batches of 20."""
    np.save("a.npy", np.random.default_rng(5).standard_normal((N, DIM)).astype(np.float32))

    def call(*more):
        if request.param == "ingest":
            return encvec("ingest", "docs", "a.npy", "--scheme", "sealed", "--batch-size", 20, "--json", *more)
        more = [option for option in more if option != "--resume"]
        return encvec("import", "a.npy", "docs", "--scheme", "sealed", "--batch-size", 20, "--json", *more)

    return call


def stored_rows(encvec):
    return encvec("stats", "docs", "--json").document["sealed_index"]["stored_rows"]


@pytest.fixture
def built(monkeypatch):
    """Where the command built: (records then, of which are stored in the index)."""
    maintain, found = Collection.maintain, []

    def noted(self, **how):
        done = maintain(self, **how)
        found.append((self.count(), self.stats()["sealed_index"]["stored_rows"]))
        return done

    monkeypatch.setattr(Collection, "maintain", noted)
    return found


def test_the_index_grows_with_the_collection(load, encvec, built):
    assert load().code == 0
    assert [count for count, _ in built] == [120, 240, 360, N]
    assert all(stored >= count - 10 for count, stored in built)
    assert stored_rows(encvec) >= N - 10


def test_records_enter_the_graph_once(load, encvec, monkeypatch):
    entered, grown = [], growth.grown

    def noted(metric, into, kind, version, rows, *more):
        entered.append(len(rows))
        return grown(metric, into, kind, version, rows, *more)

    for module in ("builder", "steps"):
        monkeypatch.setattr(f"encvec_store.sealed_index.{module}.grown", noted)
    assert load().code == 0
    assert sum(entered) <= N, entered


def test_nothing_is_built_without_an_index(load, encvec, built):
    assert load("--no-index").code == 0
    assert not built
    assert stored_rows(encvec) == 0


def test_interrupted_while_it_builds(load, encvec, built, monkeypatch):
    """The records are there, and so is what was built before. The same command goes on."""
    real, calls = growth.grown, []

    def interrupted(*given, **how):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **how)

    for module in ("builder", "steps"):
        monkeypatch.setattr(f"encvec_store.sealed_index.{module}.grown", interrupted)
    answer = load()
    assert answer.code == 130
    assert stored_rows(encvec) >= 110
    count = encvec("stats", "docs", "--json").document["count"]
    assert count == 240
    answer = load("--resume")
    assert (answer.code, answer.document["written"], answer.document["count"]) == (0, N - count, N)
    assert stored_rows(encvec) >= N - 10
    assert encvec("verify", "--json").code == 0


def test_a_process_that_was_killed_while_it_built_is_waited_for(load, encvec, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 3.0)
    monkeypatch.setattr(building, "_STEP", 10_000)
    assert load("--no-index").code == 0
    finish, waits = building.finish, []

    def left(target, *, index):
        session = low_level.session(target)
        assert lease.Lease(session.records, session.keyring).taken()  # and never given back
        finish(target, index=index)

    for command in ("ingest", "import_"):
        monkeypatch.setattr(f"encvec_store.cli.{command}.finish", left)
    sleep = building.time.sleep
    monkeypatch.setattr(building.time, "sleep", lambda seconds: (waits.append(seconds), sleep(seconds)))
    assert load("--resume").code == 0
    assert waits
    assert stored_rows(encvec) >= N - 10
