"""A disk that is full: said so, still read, and written once there is room again."""

import sys

import pytest

from tests.kits.faults.common import check, child, open_again, records
from tests.kits.faults.worker import DIM, SIZE, batch, sealed
from tests.kits.sealed import Answers, named_and_there, vectors_of

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform == "win32", reason="kills by signal, limits by setrlimit"),
]


def test_a_full_disk(keyset, faiss_url):
    store, things = open_again(faiss_url, keyset)
    things.upsert(*batch(0))
    store.close()
    told = []
    with child("fill_the_disk", faiss_url, 1) as (pipe, _):
        while pipe.poll(60):
            told.append(pipe.recv())
            if told[-1] == "done":
                break
    acknowledged = [item for item in told if isinstance(item, int)]
    (failure,) = [item for item in told if isinstance(item, tuple)]
    name, message, count, hits = failure
    assert name == "StoreUnreachableError", failure
    assert message
    assert (count, hits) == (SIZE * (len(acknowledged) + 1), 1), "it can still be read"
    store, things = open_again(faiss_url, keyset)
    check(things, records(range(len(acknowledged) + 1)))
    things.upsert(*batch(1000))
    assert things.verify().ok
    store.close()


def test_a_scheme_changed_on_a_full_disk(keyset, faiss_url):
    store, things = open_again(faiss_url, keyset)
    for n in range(10):
        things.upsert(*batch(n))
    store.close()
    told = []
    with child("change_on_a_full_disk", faiss_url) as (pipe, _):
        while not told or told[-1] != "done":
            assert pipe.poll(60)
            told.append(pipe.recv())
    failure, *states = told
    assert failure[0] == "StoreUnreachableError", failure
    assert states == [("sap", 10 * SIZE, True), ("sketch", 10 * SIZE, True), "done"]
    store, things = open_again(faiss_url, keyset)
    check(things, records(range(10)))
    store.close()


@pytest.mark.parametrize("room", [0, 20_000, 90_000])
def test_a_disk_that_is_full_when_an_index_is_stored(keyset, tmp_path, room):
    """It stays in memory, answers are right, and the next run stores it. The lease, or some segments, still fit."""
    url = f"faiss:{tmp_path / 'store'}?index=hnsw"
    told = []
    with child("fill_the_disk_with_an_index", url, room) as (pipe, _):
        while not told or told[-1] != "done":
            assert pipe.poll(60)
            told.append(pipe.recv())
    assert told == [(10 * SIZE, 0, True), (10 * SIZE, 10 * SIZE, True), "done"]
    store, things = sealed(url)
    assert things.verify().ok
    named, there = named_and_there(things)
    assert named == there, "something is left over"
    answers = Answers("cosine", stored={id: vector for id, (vector, *_) in records(range(10)).items()})
    answers.search(things, vectors_of(40, 1, DIM))
    answers.enough()
    store.close()
