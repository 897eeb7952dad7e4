"""Child processes that are killed, and what must be there afterwards: for the fault tests."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import time

import numpy as np
import psycopg

import encvec_store as ev
from tests.kits.faults import worker
from tests.kits.faults.worker import DIM, FIELDS, SIZE, VARIABLE, batch, dsn_of
from tests.kits.oracle import assert_hits

# Children come from a server that has imported everything: real processes, and a kill costs no second of imports.
CONTEXT = multiprocessing.get_context("forkserver") if sys.platform != "win32" else multiprocessing
if sys.platform != "win32":
    CONTEXT.set_forkserver_preload(
        ["tests.kits.faults.worker", "encvec_store.indexes.faiss", "encvec_store.storage.postgres"]
    )


@contextlib.contextmanager
def child(task, place, start=0):
    """Run a worker's task on a store's URL, or what it works on; killed at the end, if it still lives."""
    mine, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_run, args=(os.environ.get(VARIABLE), task, theirs, place, start), daemon=True)
    process.start()
    theirs.close()
    try:
        yield mine, process
    finally:
        process.kill()
        process.join(20)
        mine.close()


def _run(keyset, task, pipe, place, start):
    if keyset:
        os.environ[VARIABLE] = keyset  # the server that forked us has an environment of its own
    worker.main(task, pipe, place, start)


def kill_in_the_middle(task, place, start, rng, within=0.1):
    """Let a task acknowledge something, kill -9 at a random moment, and return all that it acknowledged."""
    with child(task, place, start) as (pipe, process):
        assert pipe.poll(30), "the child does nothing"
        acknowledged = [pipe.recv()]
        time.sleep(rng.uniform(0, within))
        os.kill(process.pid, signal.SIGKILL)
        process.join(20)
        assert process.exitcode == -signal.SIGKILL, "it ended before it was killed"
        try:
            while pipe.poll(0):
                acknowledged.append(pipe.recv())
        except (EOFError, ConnectionResetError):
            pass
    wait_for_the_end_of_sessions(place)
    return acknowledged


def wait_for_the_end_of_sessions(place):
    """Wait until a PostgreSQL server has done with clients that are gone: a commit on its way may still come."""
    if str(place).startswith("postgres"):
        until(place, "SELECT count(*) = 0 FROM pg_stat_activity WHERE {ours}")


def until(url, condition, seconds=20.0):
    """Wait for a condition, asked in SQL on a connection of our own; `{ours}` are the sessions of stores."""
    ours = "datname = current_database() AND application_name = 'encvec_store'"
    with psycopg.connect(dsn_of(url), autocommit=True) as connection:
        end = time.monotonic() + seconds
        while not (found := connection.execute(condition.format(ours=ours)).fetchone()) or not found[0]:
            assert time.monotonic() < end, f"never came: {condition}"
            time.sleep(0.01)
        return found[0]


def open_again(url, keyset, **options):
    """Open the store and its collection, with candidates enough that answers are exact."""
    store = ev.connect(url, keyset=keyset, **options)
    scheme = None if store.collections() else "sap"  # which has an index from the first record on
    return store, store.collection("things", dim=DIM, scheme=scheme, fields=FIELDS, oversample=10_000)


def fill(things, numbers):
    """Write batches, all at once."""
    ids, vectors, metadata, documents = zip(*map(batch, numbers), strict=True)
    ids, metadata, documents = (list(itertools.chain(*part)) for part in (ids, metadata, documents))
    things.upsert(ids, np.concatenate(vectors), metadata, documents)


def check(things, expected):
    """Verify, and compare every record and the answers with what must be there: {id: (vector, metadata, document)}."""
    report = things.verify()
    assert report.ok, report
    found = {record.id: record for record in things.scroll()}
    assert found.keys() == expected.keys()
    for id, (vector, metadata, document) in expected.items():
        assert np.array_equal(found[id].vector, vector), id
        assert (found[id].metadata, found[id].document) == (metadata, document)
    assert things.count() == len(expected)
    if expected:
        query = np.ones(DIM, np.float32)
        vectors = np.array([vector for vector, _, _ in expected.values()])
        assert_hits(things.search(query, k=50), "cosine", query, list(expected), vectors, 50)


def records(numbers, version=0):
    """What `check` expects of whole batches."""
    return {id: rest for n in numbers for id, *rest in zip(*batch(n, version), strict=True)}


def settled(things, n):
    """Say which version of a batch is there, whole; None where nothing of it is."""
    found = things.get(batch(n)[0])
    if not found:
        return None
    assert len(found) == SIZE, "half a batch"
    (version,) = {record.metadata["v"] for record in found}
    return version
