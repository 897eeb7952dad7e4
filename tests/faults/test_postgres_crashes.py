"""The client, one backend or the whole PostgreSQL server killed with SIGKILL in the very middle of each kind of write.

What was acknowledged is there, nothing is half, nothing is left behind, and the same Store goes on.
"""

import os
import signal
import time

import psycopg
import pytest

from encvec_store import errors
from encvec_store.localpg import LocalServer
from tests.faults.gates import Running, gate
from tests.faults.kit import check, child, fill, open_again, records, settled, until, wait_for_the_end_of_sessions
from tests.faults.worker import WRITES, batch, dsn_of, postgres

pytestmark = pytest.mark.faults

BEFORE = records(range(10))
AFTER = {"upsert": records([*range(10), 20]), "delete": records(range(9)), "calibrate": BEFORE, "flush": BEFORE}
LEFT_BEHIND = """
    SELECT string_agg(relname, ', ') FROM pg_class WHERE relnamespace = 'encvec'::regnamespace AND (
        relkind = 'r' AND relname ~ '_[0-9]+$'
            AND substring(relname from '[0-9]+')::int NOT IN (SELECT content FROM encvec.collections)
        OR oid IN (SELECT indexrelid FROM pg_index WHERE NOT indisvalid)
        OR relkind = 'S' AND relname NOT IN ('contents', 'collections_id_seq'))
"""


def half_done(url, keyset, kind):
    """Open a store whose collection holds batches 0 to 9; without an index where the write is to build it."""
    store, things = open_again(url, keyset)
    fill(things, range(10))
    if kind != "flush":
        things.flush()
    return store, things


def succeeds(url, things, kind):
    """The store is as it was before; the write is done now, and nothing lies about that no collection uses."""
    assert things.verify().ok
    assert {record.id for record in things.scroll()} == BEFORE.keys()
    WRITES[kind](things)
    check(things, AFTER[kind])
    until(url, f"SELECT ({LEFT_BEHIND}) IS NULL")


def told_clearly(error):
    """By an error of ours that names the place, with neither statement nor value in it."""
    assert isinstance(error, errors.StoreUnreachableError), error
    text = str(error)
    assert "postgresql://" in text
    for word in ("COPY", "SELECT", "INSERT", "passfile", "\n"):
        assert word not in text, text
    assert error.__cause__ is None
    assert error.__suppress_context__


@pytest.mark.parametrize("kind", WRITES)
def test_a_client_killed(keyset, pg_dsn, kind):
    """Readers go on meanwhile; then its session ends, and with it what it held."""
    url = postgres(pg_dsn)
    store, things = half_done(url, keyset, kind)
    with gate(url, kind) as reached, child("write", url, kind) as (_, process):
        reached()
        os.kill(process.pid, signal.SIGKILL)
        process.join(20)
        assert things.count() == len(BEFORE)
        assert settled(things, 9) == 0
    store.close()
    wait_for_the_end_of_sessions(url)
    store, things = open_again(url, keyset, lock_timeout=1)
    succeeds(url, things, kind)
    store.close()


@pytest.fixture(scope="module")
def server():
    """A server that keeps what it acknowledged though it is killed; fsync is for machines that go down."""
    with LocalServer(settings={"synchronous_commit": "on"}) as server:
        yield server


@pytest.fixture
def url(server):
    """An empty database of that server."""
    name = f"crashes_{time.time_ns()}"
    server.ensure_database(name)
    return postgres(server.dsn(name))


@pytest.mark.parametrize("kind", WRITES)
def test_the_server_killed(keyset, server, url, kind):
    store, things = half_done(url, keyset, kind)
    with gate(url, kind) as reached:
        call = Running(WRITES[kind], things)
        reached()
        server.kill()
        told_clearly(call.ended())
    with pytest.raises(errors.StoreUnreachableError) as caught:
        things.count()
    told_clearly(caught.value)
    server.restart()
    succeeds(url, things, kind)
    store.close()


@pytest.mark.parametrize("kind", WRITES)
def test_its_backend_killed(keyset, url, kind):
    """The server then ends all others too, and recovers as after a crash."""
    store, things = half_done(url, keyset, kind)
    with gate(url, kind) as reached:
        call = Running(WRITES[kind], things)
        os.kill(reached(), signal.SIGKILL)
        told_clearly(call.ended())
    wait_for_recovery(url)
    succeeds(url, things, kind)
    store.close()


def wait_for_recovery(url):
    end = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(dsn_of(url)).close()
        except psycopg.OperationalError:
            assert time.monotonic() < end
            time.sleep(0.02)
        else:
            return


def test_a_server_that_was_away_for_long(keyset, server, url):
    """The pool's own attempts come ever more rarely: they must not be what the first call afterwards waits for."""
    store, things = open_again(url, keyset, pool_timeout=2)
    things.upsert(*batch(0))
    server.kill()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        with pytest.raises(errors.StoreUnreachableError):
            things.count()
    server.restart()
    check(things, records([0]))
    store.close()
