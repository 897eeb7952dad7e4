"""A disk that is full: said so, still read, and written once there is room again."""

import sys

import pytest

from tests.kits.faults.common import check, child, open_again, records
from tests.kits.faults.worker import SIZE, batch

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
