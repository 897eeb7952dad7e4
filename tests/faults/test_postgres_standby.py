"""A real standby, fed by streaming: stores opened on it read and search, are refused writes, and may lag behind."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session

import encvec_store as ev
from encvec_store import errors
from encvec_store.engine import session
from encvec_store.integrations.sqlalchemy import bulk_insert, nearest
from encvec_store.localpg import LocalServer, find_installation
from tests.kits.faults import mapped
from tests.kits.faults.common import check, fill, records, until
from tests.kits.faults.worker import DIM, FIELDS, WRITES, batch
from tests.kits.orm import url
from tests.kits.postgres_store import ask

pytestmark = pytest.mark.faults

SETTINGS = {
    "wal_level": "replica",
    "max_wal_senders": "4",
    "hot_standby": "on",
    "fsync": "off",
    "synchronous_commit": "on",
}
SCHEMES = ("sealed", "sap")


@pytest.fixture(scope="module")
def servers():
    """A primary, and its standby."""
    program = find_installation().prefix / "bin" / "pg_basebackup"
    if not program.exists():
        pytest.skip("this PostgreSQL has no pg_basebackup")
    with LocalServer(settings=SETTINGS) as primary:
        home = Path(tempfile.mkdtemp(prefix="encvec-standby-"))
        try:
            copy(program, primary, home)
            with LocalServer(home, settings=SETTINGS) as standby:
                yield primary, standby
        finally:
            shutil.rmtree(home)


def copy(program, primary, home):
    """Make the folder of a standby."""
    data, passfile = home / "pgdata", primary.home / "pgpass"
    command = [program, "-D", data, "--checkpoint=fast", "--wal-method=stream", "--no-sync", "-d", primary.dsn()]
    subprocess.run(command, check=True)
    (data / "standby.signal").touch()
    place = conninfo_to_dict(primary.dsn())
    password = passfile.read_text(encoding="utf-8").strip().rpartition(":")[2]  # the server may not read our file
    place = make_conninfo(host=place["host"], port=place["port"], user=place["user"], password=password)
    with (data / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
        file.write("primary_conninfo = '{}'\n".format(place.replace("'", "''")))
    shutil.copy2(passfile, home / "pgpass")
    owner = (primary.home / "pgdata").stat()
    for folder, _, files in os.walk(data):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            os.chown(path, owner.st_uid, owner.st_gid)


@pytest.fixture
def dsns(servers, request):
    """An empty database, on the primary and on the standby."""
    name = f"of_{request.node.name}".replace("[", "_").rstrip("]")
    servers[0].ensure_database(name)
    replayed(*(server.dsn() for server in servers))  # until then, the standby lets nobody connect to it
    return [server.dsn(name) for server in servers]


def collections(store):
    return [store.collection(scheme, dim=DIM, scheme=scheme, fields=FIELDS, oversample=10_000) for scheme in SCHEMES]


def replayed(primary, standby):
    """Wait until the standby has everything that the primary has written."""
    ((position,),) = ask(primary, "SELECT pg_current_wal_lsn()::text")
    until(f"{standby}?index_above=50", f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn")


def test_it_reads_and_refuses_writes(keyset, dsns):
    primary, standby = dsns
    with contextlib.ExitStack() as stack:
        mine = collections(stack.enter_context(ev.connect(primary, keyset=keyset)))
        for things in mine:
            fill(things, range(10))
            things.flush()
        replayed(primary, standby)
        other = stack.enter_context(ev.connect(standby, keyset=keyset, replica=True))
        theirs = [other.collection(scheme, oversample=10_000) for scheme in SCHEMES]
        for ours, things in zip(mine, theirs, strict=True):
            check(things, records(range(10)))
            query, where = np.ones(DIM), {"batch": {"in": [2, 3]}, "i": {"lt": 5}}
            assert len(things.search(query, k=20, where=where)) == 10
            assert things.search(query, k=20, where=where) == ours.search(query, k=20, where=where)
            for write in (
                *map(WRITES.get, ("upsert", "delete")),
                lambda things: things.change(scheme="sap" if things.name == "sealed" else "sealed"),
                lambda things: (
                    things.calibrate(k=2, target_recall=0.5, max_candidates=100)
                    if things.name == "sap"
                    else other.drop("sealed")
                ),
                lambda things: other.collection("new", dim=2),
            ):
                with pytest.raises(errors.StoreUnreachableError, match="read-only, a standby perhaps"):
                    write(things)
        for ours in mine:
            WRITES["delete"](ours)
            ours.upsert(*batch(3, version=1))
        replayed(primary, standby)
        for things in theirs:
            check(things, records([*range(3), *range(4, 9)]) | records([3], version=1))


def test_mapped_columns(keyset, dsns):
    """A standby does not say which transactions its snapshots see as running, so an old one compares all vectors."""
    primary, standby = dsns
    with contextlib.ExitStack() as stack:
        session, made = stack.enter_context(mapped.opened(primary, keyset))

        def theirs(**options):
            engine = create_engine(url(standby), **options)
            stack.callback(engine.dispose)
            return engine, stack.enter_context(Session(engine))

        item, first = made.Item, mapped.VECTORS[3]
        bulk_insert(session, item, [{"title": str(i), "embedding": mapped.VECTORS[i]} for i in range(20)])
        session.commit()
        session.scalars(select(item).where(item.title == "3")).one().embedding = mapped.VECTORS[100]
        session.flush()  # it has a number, and is still running
        with psycopg.connect(primary, autocommit=True) as other:
            other.execute("CREATE TABLE later ()")
        replayed(primary, standby)
        engine, new = theirs()
        old = stack.enter_context(Session(engine.execution_options(isolation_level="REPEATABLE READ")))
        assert mapped.found(new, made, first) == mapped.best(first, range(20))
        old.execute(text("SELECT 1"))
        session.commit()
        replayed(primary, standby)
        for _ in range(2):
            (hit,) = nearest(new, select(item), item.embedding, mapped.VECTORS[100], 1)
            assert (hit.item.title, hit.score) == ("3", pytest.approx(1))
            new.rollback()
            hits = nearest(old, select(item.title), item.embedding, first, 20)
            assert [hit.item for hit in hits] == mapped.best(first, range(20))
            assert hits[0].score == pytest.approx(1)


def test_a_lagging_standby_after_a_failover(keyset, servers, dsns, monkeypatch):
    """A store that has seen the primary, and is then led to a standby that has not replayed the last writes.

    It comes last here, because it ends the primary.
    """
    places = [conninfo_to_dict(dsn) for dsn in dsns]
    both = {name: ",".join(str(place[name]) for place in places) for name in ("host", "port")}
    either = f"{dsns[0].partition('?')[0]}?host={both['host']}&port={both['port']}&passfile={places[0]['passfile']}"
    with ev.connect(either, keyset=keyset, replica=True) as store:
        things = collections(store)
        for each in things:
            fill(each, range(5))
        replayed(*dsns)
        ask(dsns[1], "SELECT pg_wal_replay_pause()")
        keyset.rotate()  # the next write seals the settings anew, under the next revision
        for each in things:
            each.upsert(*batch(7))
        ((position,),) = ask(dsns[0], "SELECT pg_current_wal_lsn()::text")
        until(f"{dsns[1]}?index_above=50", f"SELECT pg_last_wal_receive_lsn() >= '{position}'::pg_lsn")
        servers[0].kill()
        monkeypatch.setattr(session, "_LAG", 0.2)
        for each in things:
            with pytest.raises(errors.ReplicaLagError, match="lags behind: its settings have revision"):
                each.get(["7/0"])
        monkeypatch.setattr(session, "_LAG", 10.0)
        threading.Timer(0.3, ask, [dsns[1], "SELECT pg_wal_replay_resume()"]).start()
        for each in things:
            check(each, records([*range(5), 7]))
