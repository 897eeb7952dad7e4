"""Maintenance: who does what is due, and when. What it does to what is stored, the contract of stores tests."""

import logging
import threading

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import errors, low_level
from encvec_store.maintenance import fitting, lifecycle
from encvec_store.maintenance.rewrite import settle
from tests.kits import oracle, sealed
from tests.stores.contract.opened import EVERYTHING, hasten

DIM = 16


@pytest.fixture(autouse=True)
def early(monkeypatch):
    hasten(monkeypatch)  # a profile takes twelve records


@pytest.fixture
def opened():
    """Return what opens a collection in a maintenance mode; the stores are closed in the end."""
    stores = []

    def opened(mode, **given):
        stores.append(ev.connect("memory:", keyset=ev.Keyset.create("memory:"), maintenance=mode))
        return stores[-1].collection("things", DIM, **{"scheme": "sketch", "oversample": EVERYTHING, **given})

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def gate(monkeypatch):
    """Hold every rewrite until the gate opens; list the threads that rewrite."""

    class Gate:
        began, opened, threads = threading.Event(), threading.Event(), []

    def held(session, config, progress=None):
        Gate.threads.append(threading.current_thread())
        Gate.began.set()
        assert Gate.opened.wait(20)
        rewrite(session, config, progress)

    rewrite = lifecycle.rewrite
    monkeypatch.setattr(lifecycle, "rewrite", held)
    yield Gate
    Gate.opened.set()


def write(things, n, start=0):
    things.upsert(oracle.ids(n, start), oracle.vectors(start + n, DIM)[start:])


def state(things):
    return things.stats()["profile"]["state"]


def test_inline(opened, gate):
    gate.opened.set()
    things = opened("inline")
    write(things, 30)
    assert (state(things), gate.threads) == ("sketch", [threading.current_thread()])
    assert things.stats()["maintenance"] == {"mode": "inline", "due": []}


def test_in_the_background(opened, gate):
    """The write returns before; others go on meanwhile, none starts a second job; closing waits."""
    things = opened("background")
    write(things, 30)
    assert gate.began.wait(20)
    assert state(things) == "sealed"
    assert things.stats()["maintenance"]["due"] == ["fit a profile: there are 12 records or more"]
    assert things.search(oracle.vectors(1, DIM)[0], k=1)[0].id == "id-0"
    assert len(gate.threads) == 1
    assert gate.threads[0] is not threading.current_thread()
    gate.opened.set()
    low_level.lifecycle(things).close()
    assert state(things) == "sketch"
    assert things.verify().ok
    write(things, 100, 30)
    low_level.lifecycle(things).close()
    assert things.stats()["maintenance"]["due"], "after closing nothing starts"


def test_a_write_beside_the_job_is_not_lost(opened, gate):
    """It makes the job's transaction stale: the next write tries again."""
    things = opened("background")
    write(things, 30)
    assert gate.began.wait(20)
    write(things, 5, 30)
    gate.opened.set()
    low_level.lifecycle(things).job.wait()
    write(things, 1, 35)
    low_level.lifecycle(things).job.wait()
    assert state(things) == "sketch"
    assert things.count() == 36
    assert things.verify().ok


@pytest.mark.parametrize("method", ["refit", "calibrate"])
def test_asked_for_beside_the_job(opened, gate, method):
    """It waits for the job, and then begins from what that left."""
    things = opened("background")
    write(things, 120)
    assert gate.began.wait(20)
    threading.Timer(0.3, gate.opened.set).start()
    if method == "refit":
        things.refit()
    else:
        things.calibrate(target_recall=0.5, max_candidates=100, accept_less_noise=True)
    assert state(things) == "sketch"
    assert len(gate.threads) == 2
    assert things.verify().ok


def test_manual(opened, caplog):
    things = opened("manual")
    with caplog.at_level(logging.INFO, "encvec_store"):
        write(things, 30)
        write(things, 30, 30)
    (line,) = [record.getMessage() for record in caplog.records if "due" in record.getMessage()]
    assert line == (
        "due: fit a profile: there are 12 records or more. Call Collection.maintain(), or run `encvec maintain`"
    )
    assert (state(things), things.stats()["profile"]["failed"]) == ("sealed", None)
    (due,) = things.stats()["maintenance"]["due"]
    seen = []
    assert things.maintain(progress=lambda n, total: seen.append((n, total))) == [due]
    assert sum(n for n, _ in seen) == 60
    assert state(things) == "sketch"
    assert things.maintain() == things.stats()["maintenance"]["due"] == []
    caplog.clear()
    with caplog.at_level(logging.INFO, "encvec_store"):
        write(things, 100, 60)
    assert "due: widen: the candidates of a search were chosen for 120 records" in caplog.text
    assert things.maintain() == ["widen: the candidates of a search were chosen for 120 records"]
    assert things.stats()["profile"]["fitted"]["sized"] == 320
    assert things.verify().ok


def test_settings_that_change_while_candidates_are_counted(opened, monkeypatch):
    """Somebody seals them under a new key version, say: the older ones, with more candidates, are not put over them."""
    things = opened("manual")
    write(things, 30)
    things.maintain()
    write(things, 300, 30)
    session, enough = low_level.session(things), fitting.enough
    before = session.config

    def interrupted(*given):
        settle(session, session.config)
        return enough(*given)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "enough", interrupted)
        with pytest.raises(errors.StaleConfigError, match="settings were changed"):
            things.maintain()
    assert (session.config.revision, session.config.fitted) == (before.revision + 1, before.fitted)
    assert things.maintain()[0].startswith("widen")
    assert session.config.revision == before.revision + 2
    assert things.verify().ok


def test_maintain_waits_for_the_job_and_does_not_do_it_twice(opened, gate):
    things = opened("background")
    write(things, 30)
    assert gate.began.wait(20)
    threading.Timer(0.2, gate.opened.set).start()
    assert things.maintain() == []
    assert len(gate.threads) == 1
    assert state(things) == "sketch"


def test_what_fails_is_raised_to_whom_asked_and_told_to_the_others(opened, caplog):
    same = np.repeat(oracle.vectors(1, DIM), 30, axis=0)
    things = opened("background")
    things.upsert(oracle.ids(30), same)
    low_level.lifecycle(things).job.wait()
    assert "ProfileError: the vectors of the sample are all the same" in caplog.text
    assert things.stats()["profile"]["failed"].startswith("ProfileError")
    with pytest.raises(errors.ProfileError, match="all the same"):
        things.maintain()
    write(things, 30)
    assert things.maintain() == ["fit a profile: there are 12 records or more"]
    assert things.stats()["profile"]["failed"] is None


@pytest.mark.parametrize("scheme", ["sap", "sealed"])
def test_schemes_that_need_none(opened, scheme):
    things = opened("inline", scheme=scheme)
    write(things, 30)
    assert things.maintain() == things.stats()["maintenance"]["due"] == []
    assert things.stats()["profile"] is None


def test_unknown_modes():
    for mode in ("never", "", None, 1):
        with pytest.raises(errors.InputError, match="maintenance must be one of background, inline, manual, got"):
            ev.connect("memory:", keyset=ev.Keyset.create("memory:"), maintenance=mode)


@pytest.mark.parametrize("scheme", ["sap", "sketch"])
def test_index_vectors_need_no_graph(opened, monkeypatch, scheme):
    """They have an index of their own. A graph beside it would be built, and stored, for nobody."""
    sealed.small(monkeypatch)
    things = opened("inline", scheme=scheme)
    write(things, 100)
    assert things.maintain() == []
    assert things.stats()["sealed_index"] is None
    assert not low_level.session(things).records.blobs("index.")
