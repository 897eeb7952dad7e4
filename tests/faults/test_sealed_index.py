"""The sealed index when processes are killed, compete or read meanwhile: searches stay right, nothing is left over."""

import contextlib
import shutil
import signal
import sys

import numpy as np
import psycopg
import pytest

from encvec_store.sealed_index import builder, index, lease
from tests.kits.faults.common import child, records, wait_for_the_end_of_sessions
from tests.kits.faults.worker import DIM, SEALED_STEPS, batch, dsn_of, postgres, sealed
from tests.kits.sealed import Answers, named_and_there, vectors_of

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


@pytest.fixture(params=["faiss", "postgresql"])
def place(request, tmp_path, keyset):
    """A store that builds graphs, by its URL."""
    if request.param == "faiss":
        return f"faiss:{tmp_path / 'store'}?index=hnsw"
    return postgres(request.getfixturevalue("pg_dsn"))


def emptied(place, tmp_path):
    """Delete the store."""
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    if place.startswith("postgres"):
        wait_for_the_end_of_sessions(place)
        with psycopg.connect(dsn_of(place)) as connection:
            connection.execute("DROP SCHEMA IF EXISTS encvec CASCADE")


def check(things, expected):
    """Verify, and compare answers with a comparison of every vector."""
    assert things.verify().ok
    assert things.count() == len(expected)
    answers = Answers("cosine", stored={id: vector for id, (vector, _, _) in expected.items()})
    answers.search(things, vectors_of(40, 0, DIM))
    answers.enough()


@pytest.mark.parametrize(("step", "places"), SEALED_STEPS)
def test_killed_at_every_step(tmp_path, place, step, places, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", -1.0)  # that of the killed process is void
    killed = 0
    for n in places:
        emptied(place, tmp_path)
        told = []
        with child("sealed_life", place, (step, n)) as (pipe, process):
            with contextlib.suppress(EOFError, ConnectionResetError):
                while not told or told[-1] != "done":
                    told.append(pipe.recv())
            process.join(20)
            code = process.exitcode
        if told and told[-1] == "done":
            break
        assert code == -signal.SIGKILL
        wait_for_the_end_of_sessions(place)
        killed += 1
        expected = records([number for number in told if isinstance(number, int)])
        if "deleted" in told:
            expected = {id: rest for id, rest in expected.items() if id not in batch(0)[0]}
        store, things = sealed(place)
        if expected:
            check(things, expected)
        things.upsert(*batch(50))
        things.upsert(*batch(51))
        things.upsert(*batch(52))
        things.upsert(*batch(53))
        things.maintain()
        check(things, expected | records(range(50, 54)))
        named, there = named_and_there(things)
        assert named == there
        assert named, "there was nothing to save"
        store.close()
        store, things = sealed(place)
        check(things, expected | records(range(50, 54)))
        store.close()
    else:
        pytest.fail("it never came to an end")
    assert killed


def test_two_builders_at_once(place):
    """Leases are void at once, so both build: one manifest wins, and what it names is there."""
    store, things = sealed(place)
    for n in range(4):
        things.upsert(*batch(n))
    with child("sealed_builder", place, -1.0) as (one, _), child("sealed_builder", place, -1.0) as (other, _):
        for pipe in (one, other):
            said = None
            while said != "done":
                assert pipe.poll(30)
                said = pipe.recv()
    check(things, records([*range(4), 200]))
    things.maintain(purge=True)
    named, there = named_and_there(things)
    assert named
    assert named <= there
    check(things, records([*range(4), 200]))
    store.close()


def test_a_reader_beside_a_builder(place):
    """Records are rewritten and graphs replaced meanwhile: each answer has ten whole records, once each."""
    store, things = sealed(place)
    for n in range(4):
        things.upsert(*batch(n, 1))
    seen = 0
    with child("sealed_churn", place) as (pipe, process):
        while seen < 4:
            hits = things.search(np.ones(DIM), k=10, include_vectors=True)
            assert len({hit.id for hit in hits}) == len(hits) == 10
            for hit in hits:
                n, i = map(int, hit.id.split("/"))
                np.testing.assert_array_equal(hit.vector, batch(n, hit.metadata["v"])[1][i])
            if pipe.poll(0):
                seen = pipe.recv()
        pipe.send("stop")
        process.join(20)
        with contextlib.suppress(EOFError, ConnectionResetError):
            while pipe.poll(0):
                seen = pipe.recv()
    check(things, {id: rest for n in range(4) for id, rest in records([n], seen).items()})
    store.close()
