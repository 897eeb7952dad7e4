"""Connections to PostgreSQL cut in the middle of a question, of its answer, of a write, and of its COMMIT.

Reads are asked once more. Writes are not: whether one whose COMMIT was not answered took place is found out, or said
to be unknown, and the same call again does no harm.
"""

import pytest

from encvec_store import errors
from tests.kits.faults.common import check, fill, open_again, records, until
from tests.kits.faults.proxy import Proxy
from tests.kits.faults.worker import WRITES, batch, postgres

pytestmark = pytest.mark.faults

BEFORE = records(range(10))
AFTER = {"upsert": records([*range(10), 20]), "delete": records(range(9)), "calibrate": BEFORE, "change": BEFORE}
COMMITTED = sorted(AFTER)
READS = {
    "get": lambda things: things.get(batch(3)[0]),
    "search": lambda things: things.search(batch(3)[1][0], k=30, include_vectors=True),
    "filtered search": lambda things: things.search(batch(3)[1][0], k=30, where={"batch": 3}),
    "scroll": lambda things: list(things.scroll()),
    "count": lambda things: things.count({"v": 0}),
}


@pytest.fixture
def proxy(pg_dsn):
    with Proxy(pg_dsn) as proxy:
        yield proxy


@pytest.fixture
def things(proxy, keyset):
    """The batches 0 to 9, indexed, by way of the proxy."""
    store, things = open_again(postgres(proxy.dsn), keyset)
    fill(things, range(10))
    things.flush()
    things.search(batch(0)[1][0])
    yield things
    store.close()


@pytest.mark.parametrize("kind", READS)
def test_a_read_is_asked_once_more(proxy, things, kind):
    """Cut before the server has the question, before it answers, and in the middle of its answer."""
    whole = READS[kind](things)
    for cut in ({}, {"deliver": True}, {"answer": 1}, {"answer": 200}):
        proxy.cut(b"records_", **cut)
        assert str(READS[kind](things)) == str(whole)
        assert proxy.left == 0


def test_but_not_for_ever(proxy, things):
    proxy.cut(b"records_", times=1000)
    with pytest.raises(errors.StoreUnreachableError, match="connection"):
        READS["get"](things)
    assert proxy.left == 998
    proxy.cut(b"records_", times=0)
    check(things, BEFORE)


@pytest.mark.parametrize("kind", COMMITTED)
def test_a_write_is_not(proxy, things, kind):
    """A connection cut before the COMMIT: nothing was written, and that is said."""
    word = {"upsert": b"PGCOPY", "delete": b"WITH gone AS", "calibrate": b"PGCOPY", "change": b"PGCOPY"}[kind]
    proxy.cut(word)
    proxy.seen.clear()
    with pytest.raises(errors.StoreUnreachableError, match="nothing was written"):
        WRITES[kind](things)
    assert sum(chunk.count(word) for chunk in proxy.seen) == 1
    check(things, BEFORE)
    WRITES[kind](things)
    check(things, AFTER[kind])


@pytest.mark.parametrize("kind", COMMITTED)
def test_a_commit_that_was_not_answered_but_came(proxy, things, kind):
    """The server is asked what became of the transaction: it was written, once, so no error."""
    proxy.cut(b"COMMIT", deliver=True)
    WRITES[kind](things)
    assert proxy.left == 0
    check(things, AFTER[kind])


@pytest.mark.parametrize("kind", COMMITTED)
def test_a_commit_that_never_came(proxy, things, kind):
    proxy.cut(b"COMMIT")
    with pytest.raises(errors.StoreUnreachableError, match="nothing was written") as caught:
        WRITES[kind](things)
    assert not isinstance(caught.value, errors.OutcomeUnknownError)
    check(things, BEFORE)
    WRITES[kind](things)
    check(things, AFTER[kind])


@pytest.mark.parametrize("deliver", [False, True], ids=["lost", "delivered"])
@pytest.mark.parametrize("kind", COMMITTED)
def test_a_commit_of_which_nobody_knows(keyset, pg_dsn, proxy, things, kind, deliver):
    """The server cannot be reached afterwards. The same call again, once it can, is right either way."""
    proxy.cut(b"COMMIT", deliver=deliver, down=True)
    with pytest.raises(errors.OutcomeUnknownError, match=r"may or may not have been written.*again"):
        WRITES[kind](things)
    store, direct = open_again(postgres(pg_dsn), keyset)
    check(direct, AFTER[kind] if deliver else BEFORE)
    WRITES[kind](direct)
    check(direct, AFTER[kind])
    store.close()


def test_a_commit_still_under_way(pg_dsn, proxy, things, monkeypatch):
    """Not the server's end of the connection was cut, so it waits for a COMMIT that will not come."""
    monkeypatch.setattr("encvec_store.storage.postgres.source._SETTLING", 0.3)
    proxy.cut(b"COMMIT", hang=True)
    with pytest.raises(errors.OutcomeUnknownError):
        WRITES["upsert"](things)
    proxy.release()
    until(postgres(pg_dsn), "SELECT count(*) = 0 FROM pg_stat_activity WHERE {ours} AND state LIKE 'idle in%'")
    WRITES["upsert"](things)
    check(things, AFTER["upsert"])
