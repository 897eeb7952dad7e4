"""Sealing anew, killed at every step, twice at once, and beside readers and writers in other processes."""

import itertools
import signal
import sys

import numpy as np
import pytest

import encvec_store as ev
from encvec_store.sealed_index import builder, index, lease
from tests.kits.faults.common import check, child, fill, records, wait_for_the_end_of_sessions
from tests.kits.faults.worker import DIM, FIELDS, NEVER, REKEY_STEPS, VARIABLE, batch
from tests.kits.sealed import apart, named_and_there

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform == "win32", reason="kills by signal"),
]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Make graphs of a few records."""
    monkeypatch.setattr(index, "COARSE", 150)
    for module, name, value in ((builder, "FIRST", 60), (builder, "LAST", 10), (builder, "COARSE", 150)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(lease, "SECONDS", -1.0)  # that of the killed process is void


def opened(url, keyset, scheme):
    store = ev.connect(url, keyset=keyset, maintenance="manual")
    return store, store.collection("things", dim=DIM, scheme=scheme, fields=FIELDS, oversample=10_000)


def rotated(keyset, monkeypatch):
    keyset.rotate()
    monkeypatch.setenv(VARIABLE, keyset.export(unsafe_cleartext=True))


@pytest.mark.parametrize("scheme", REKEY_STEPS)
def test_killed_at_every_step(url, keyset, scheme, monkeypatch):
    """What it leaves is whole, and the next call ends it: nothing is left under the older version then."""
    store, things = opened(url, keyset, scheme)
    fill(things, range(6))
    things.maintain()
    expected = records(range(6))
    store.close()
    for step, places in REKEY_STEPS[scheme]:
        killed = 0
        for n in places:
            rotated(keyset, monkeypatch)
            with child("rekeying", url, (step, n)) as (pipe, process):
                ended = True
                try:
                    pipe.recv()
                except (EOFError, ConnectionResetError):
                    ended = False
                    process.join(20)
                    assert process.exitcode == -signal.SIGKILL
            wait_for_the_end_of_sessions(url)
            if not ended:
                killed += 1
                apart()  # it loads what is stored
                with (fresh := opened(url, keyset, scheme))[0]:
                    check(fresh[1], expected)
            with (last := opened(url, keyset, scheme))[0]:
                things = last[1]
                if not ended:
                    things.rekey()
                assert things.stats()["key_versions"] == {str(keyset.primary): len(expected)}
                keyset.destroy(keyset.primary - 1)
                check(things, expected)
            if ended:
                break
        else:
            pytest.fail("it never came to an end")
        assert killed, step
    store, things = opened(url, keyset, scheme)
    things.maintain()
    if scheme == "sealed":
        named, there = named_and_there(things)
        assert named
        assert named <= there
        assert {name.split(".")[1] for name in there if name.count(".") == 2} == {str(keyset.primary)}
    store.close()


@pytest.mark.parametrize("scheme", REKEY_STEPS)
def test_two_at_once_beside_a_reader_and_a_writer(url, keyset, scheme, monkeypatch):
    """Each answer has each record once; updates made meanwhile stay."""
    store, things = opened(url, keyset, scheme)
    fill(things, range(30))
    things.maintain()
    rotated(keyset, monkeypatch)
    with child("rekeying", url, NEVER) as (one, _), child("rekeying", url, NEVER) as (other, _):
        for version in itertools.count(1):
            hits = things.search(np.ones(DIM), k=600)
            assert len({hit.id for hit in hits}) == len(hits) == 600
            assert len(things.get(batch(version % 30)[0])) == 20
            things.upsert(*batch(29, version))
            if one.poll(0) and other.poll(0):
                break
        assert one.recv() + other.recv() > 0
    assert things.stats()["key_versions"] == {"2": 600}
    keyset.destroy(1)
    check(things, records(range(29)) | records([29], version))
    store.close()
