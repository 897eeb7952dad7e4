"""A PostgreSQL server killed, with its clients or without, restarted, turned into a standby, and out of space.

Each in the very middle of each kind of write, where that can be: what was acknowledged is there, nothing is half,
nothing is left behind, and the same Store goes on.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine

from encvec_store import errors
from encvec_store.localpg import LocalServer
from tests.kits.faults.common import (
    check,
    child,
    fill,
    open_again,
    records,
    settled,
    until,
    wait_for_the_end_of_sessions,
)
from tests.kits.faults.gates import Running, gate
from tests.kits.faults.worker import DIM, SIZE, WRITES, batch, dsn_of, postgres, sealed
from tests.kits.postgres_store import ask
from tests.kits.sealed import Answers, named_and_there, vectors_of
from tests.kits.sealed import small as small_graphs

pytestmark = pytest.mark.faults

BEFORE = records(range(10))
AFTER = {
    "upsert": records([*range(10), 20]),
    "delete": records(range(9)),
    "calibrate": BEFORE,
    "flush": BEFORE,
    "change": BEFORE,
}
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
    with LocalServer(settings={"synchronous_commit": "on", "wal_level": "replica"}) as server:
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


@pytest.mark.parametrize("given", ["own", "pool", "engine"])
def test_a_restart_between_calls(keyset, server, url, given):
    """Open connections are replaced, ours and a caller's: each kind of call may be the first to notice."""
    plain = dsn_of(url)
    with contextlib.ExitStack() as stack:
        options = {}
        if given == "pool":
            options["pool"] = stack.enter_context(ConnectionPool(plain, min_size=3, open=True))
        if given == "engine":
            options["engine"] = create_engine(plain.replace("postgresql:", "postgresql+psycopg:"))
            stack.callback(options["engine"].dispose)
        store, things = open_again("postgresql://?index_above=50" if options else url, keyset, **options)
        fill(things, range(10))
        kept = [WRITES[kind] for kind in AFTER if kind != "change"]
        for call in (WRITES["flush"], lambda things: check(things, BEFORE), *kept):
            server.restart()
            call(things)
        check(things, records([*range(9), 20]))
        assert things.stats()["store"]["index"] == "hnsw"
        store.close()


def test_a_standby(keyset, server, url):
    """Read, searched without the index that cannot be built there, and written again once it is promoted."""
    store, things = open_again(url, keyset)
    fill(things, range(10))
    signal_file = server.home / "pgdata" / "standby.signal"
    signal_file.touch()
    shutil.chown(signal_file, signal_file.parent.stat().st_uid)
    try:
        server.restart()
        check(things, BEFORE)
        other, theirs = open_again(url, keyset)
        check(theirs, BEFORE)
        for write in (*WRITES.values(), lambda things: store.collection("new", dim=2)):
            with pytest.raises(errors.StoreUnreachableError, match="read-only, a standby perhaps"):
                write(things)
        ask(dsn_of(url), "SELECT pg_promote()")
        for kind in ("flush", "upsert"):
            WRITES[kind](theirs)
        check(things, AFTER["upsert"])
        other.close()
    finally:
        signal_file.unlink(missing_ok=True)
        server.restart()
    store.close()


# ------------------------------------------------------------------------------------------------- space


@pytest.fixture
def small(server, tmp_path_factory):
    """A file system of 6 MB as a tablespace; yields its folder."""
    folder = Path(tempfile.mkdtemp(prefix="encvec-small-"))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], check=False).returncode:
        folder.rmdir()
        pytest.skip("only who may mount a file system can have a small one")
    try:
        owner = (server.home / "pgdata").stat()
        os.chown(folder, owner.st_uid, owner.st_gid)
        ask(server.dsn(), f"CREATE TABLESPACE small LOCATION '{folder}'")
        yield folder
        ask(server.dsn(), "DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


@pytest.mark.parametrize("kind", ["upsert", "calibrate", "flush"])
def test_no_partition_left(keyset, server, small, url, kind):
    """It is still read; once there is room, the same is written."""
    name = conninfo_to_dict(dsn_of(url))["dbname"]
    ask(server.dsn(), f"ALTER DATABASE {name} SET default_tablespace = small")
    store, things = half_done(url, keyset, kind)
    try:
        ballast = small / "ballast"
        free = os.statvfs(small)
        ballast.write_bytes(bytes(free.f_bavail * free.f_frsize))
        write = WRITES[kind] if kind != "upsert" else large_upsert
        with pytest.raises(errors.StoreUnreachableError, match=r"out of space \(.*No space left on device") as caught:
            write(things)
        told_clearly(caught.value)
        until(url, f"SELECT ({LEFT_BEHIND}) IS NULL")
        check(things, BEFORE)
        ballast.unlink()
        succeeds(url, things, kind)
    finally:
        store.close()
        ask(server.dsn(), f"DROP DATABASE {name} WITH (FORCE)")


def large_upsert(things):
    """Pages that are not full would take a small one."""
    things.upsert(*batch(20)[:3], ["x" * 20_000] * SIZE)


def test_no_room_for_a_sealed_index(keyset, server, small, url, monkeypatch):
    """It stays in memory, answers are right, and the next run stores it."""
    small_graphs(monkeypatch)
    name = conninfo_to_dict(dsn_of(url))["dbname"]
    ask(server.dsn(), f"ALTER DATABASE {name} SET default_tablespace = small")
    store, things = sealed(url)
    try:
        fill(things, range(10))
        answers = Answers("cosine", stored={id: vector for id, (vector, *_) in BEFORE.items()})
        ballast = small / "ballast"
        free = os.statvfs(small)
        ballast.write_bytes(bytes(free.f_bavail * free.f_frsize))
        for stored in (0, 10 * SIZE):
            things.maintain()
            index = things.stats()["sealed_index"]
            assert (index["rows"], index["stored_rows"]) == (10 * SIZE, stored)
            answers.search(things, vectors_of(40, 0, DIM))
            assert things.verify().ok
            ballast.unlink(missing_ok=True)
        answers.enough()
        named, there = named_and_there(things)
        assert named == there, "something is left over"
        until(url, f"SELECT ({LEFT_BEHIND}) IS NULL")
    finally:
        store.close()
        ask(server.dsn(), f"DROP DATABASE {name} WITH (FORCE)")
