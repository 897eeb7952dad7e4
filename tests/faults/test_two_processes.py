"""Two processes on one store: they take turns, and one that cannot wait any longer says so."""

import sys

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import errors
from encvec_store.schemes import profile as profiles
from tests.kits.faults.common import check, child, open_again, records
from tests.kits.faults.worker import DIM, SIZE, batch

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform == "win32", reason="kills by signal, limits by setrlimit"),
]


def test_two_processes_write(keyset, url):
    """They take turns; both lose nothing, and a reader sees whole batches only."""
    store, things = open_again(url, keyset)
    with child("write_twenty", url, 0) as (first, _), child("write_twenty", url, 20) as (second, _):
        seen = 0
        while not (first.poll(0) and second.poll(0.01)):
            count = things.count()
            assert count % SIZE == 0
            assert count >= seen
            seen = count
            hits = things.search(np.ones(DIM), k=5)
            assert len(hits) == min(5, count) or things.count() > count
            if not first.poll(0) and not second.poll(0):
                things.upsert(*batch(99))
        assert (first.recv(), second.recv()) == ("done", "done")
    check(things, records([*range(40), *([99] if things.get(["99/0"]) else [])]))
    store.close()


def test_while_another_process_holds_the_lock(keyset, url):
    store, things = open_again(url, keyset)
    for n in range(10):
        things.upsert(*batch(n))
    store.close()
    with child("hold_the_lock", url) as (pipe, _):
        assert pipe.poll(30)
        assert pipe.recv() == "holding"
        store = ev.connect(url, keyset=keyset, lock_timeout=0.2)
        things = store.collection("things", oversample=10_000)
        calls = [
            lambda: things.upsert(*batch(50)),
            lambda: things.delete(["0/0"]),
            lambda: things.calibrate(k=2, target_recall=0.5),
            lambda: store.drop("things"),
        ]
        if url.startswith("faiss"):
            calls.append(lambda: store.collection("new", dim=2))
        else:  # there, each collection has a lock of its own
            assert store.collection("new", dim=2).count() == 0
        for call in calls:
            with pytest.raises(errors.StoreLockedError, match="another process"):
                call()
        check(things, records(range(10)))
        pipe.send("go on")
        assert pipe.poll(30)
        assert pipe.recv() == "done"
    check(things, records(range(10)))
    things.upsert(*batch(10))
    check(things, records(range(11)))
    store.close()


def test_another_process_goes_on_when_the_scheme_is_changed(keyset, url, monkeypatch):
    """It notices at its next search or write, whichever comes first."""
    for name, value in (("LEAST_RECORDS", 2 * SIZE), ("PER_DIMENSION", 2), ("LEAST_DIMENSIONS", 2)):
        monkeypatch.setattr(profiles, name, value)
    store, things = open_again(url, keyset)
    for n in range(5):
        things.upsert(*batch(n))
    with child("serve", url) as (pipe, _):

        def ask(what):
            pipe.send(what)
            assert pipe.poll(30)
            return pipe.recv()

        assert pipe.poll(30)
        pipe.recv()
        query = np.ones(DIM, np.float32)
        for n, scheme in enumerate(("sealed", "sap", "sealed", "sketch", "sealed"), 5):
            ask(query)
            things.change(scheme=scheme)
            if n % 2:
                assert ask(n) == "written"
            ids, ok, name = ask(query)
            assert ids == [hit.id for hit in things.search(query, k=10)]
            assert (ok, name) == (True, scheme)
            if not n % 2:
                assert ask(n) == "written"
            check(things, records(range(n + 1)))
        assert ask(None) == "done"
    store.close()
