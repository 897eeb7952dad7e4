"""Sealed names with several processes at once, with keysets of different age, and killed at each step."""

import signal
import sys

import pytest

import encvec_store as ev
from tests.kits.faults.common import child, wait_for_the_end_of_sessions
from tests.kits.faults.worker import DIM, VARIABLE

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform == "win32", reason="kills by signal"),
]
NAMES = [f"collection-{n}" for n in range(6)]
ALL = [("acme", name) for name in NAMES]


def stored(store):
    """Return what stands in the place of names: one row a collection."""
    return store._connection.store.collections()


def test_processes_begin_at_once_and_one_rotates(url, keyset):
    """They make each collection once: at the beginning, and while one has the new key version and others do not."""
    with child("sealed_names", url, None) as (one, _), child("sealed_names", url, None) as (other, _):
        assert (one.recv(), other.recv()) == ("open", "open")
        for pipe in (one, other):
            pipe.send(NAMES[:3])
        assert ALL[:3] == one.recv() == other.recv()
        with ev.connect(url, keyset=keyset, maintenance="manual") as store:
            before = stored(store)
            assert len(before) == 3
            keyset.rotate()
            assert all(each.done for each in store.rekey())
            for pipe in (one, other):  # behind by a version: what they write is under the older one
                pipe.send(NAMES[3:])
            store.collection("late", dim=DIM, tenant="acme")  # under the new version, which they lack
            assert set(ALL) <= set(one.recv())
            assert set(ALL) <= set(other.recv())
            assert store.collections("acme") == sorted([*ALL, ("acme", "late")])
            assert len(stored(store)) == len(set(stored(store))) == 7
            assert set(before) <= set(stored(store))
            for pipe in (one, other):
                pipe.send(None)
                assert pipe.recv() == "done"
            store.rekey()
            keyset.destroy(1)
            assert len(store.collections()) == 7
            assert all(store.collection(name, tenant="acme").verify().ok for name in NAMES)


STEPS = [("keep_name_key", "before"), ("keep_name_key", "after"), ("create", "before"), ("create", "after")]


def test_killed_at_each_step(url, keyset, monkeypatch):
    """While a store begins, makes a collection, or moves its name key: it opens again, whole, and goes on."""
    for step in STEPS:
        with child("sealed_names", url, step) as (pipe, process):
            if step[0] == "create":
                assert pipe.recv() == "open"
                pipe.send(NAMES[:1])
            process.join(30)
            assert process.exitcode == -signal.SIGKILL, step
        wait_for_the_end_of_sessions(url)
        with ev.connect(url, keyset=keyset) as store:
            sealed = store._connection.store.name_key() is not None
            assert sealed == (step != ("keep_name_key", "before"))
            assert store.collections() == (ALL[:1] if step == ("create", "after") else [])
    with ev.connect(url, keyset=keyset) as store:
        before = stored(store)
        for step in STEPS[:2]:
            keyset.rotate()
            monkeypatch.setenv(VARIABLE, keyset.export(unsafe_cleartext=True))
            with child("sealed_names", url, step) as (_, process):
                process.join(30)
                assert process.exitcode == -signal.SIGKILL, step
            version = store._connection.store.name_key()[4]
            assert version == keyset.primary - (step[1] == "before")
            with ev.connect(url, keyset=keyset) as other:
                assert other._connection.store.name_key()[4] == keyset.primary
                assert store.collections() == other.collections() == ALL[:1]
                assert stored(other) == before
