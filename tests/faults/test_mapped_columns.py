"""A process is killed while it searches, builds or stores the index of a mapped column: others find what is there.

And a server that is put back to an earlier state, under a process that has followed it further.
"""

import contextlib
import shutil
import signal
import subprocess
import sys

import psycopg
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from encvec_store.integrations.sqlalchemy import bulk_insert, maintain, sharing
from encvec_store.localpg import LocalServer
from encvec_store.sealed_index import builder, index
from tests.kits.faults.common import child
from tests.kits.faults.mapped import LEFT, MANY, VECTORS, best, found, opened, small
from tests.kits.orm import ask

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform == "win32", reason="kills by signal"),
]


def test_killed_at_every_step(pg_alone, keyset, monkeypatch):
    """On a server of its own: an index takes in only entries that are older than every open transaction there."""
    killed = 0
    for module, name in ((index, "COARSE"), (builder, "FIRST"), (builder, "LAST"), (builder, "COARSE")):
        monkeypatch.setattr(module, name, getattr(module, name))  # put back in the end
    small()
    with opened(pg_alone, keyset) as (session, made):
        for step in range(1, 400, 13):
            ask(session, "TRUNCATE items CASCADE; DELETE FROM items_embedding_blobs WHERE name LIKE 'index%'")
            session.commit()
            told = {}
            with child("mapped_life", pg_alone, step) as (pipe, process):
                with contextlib.suppress(EOFError, ConnectionResetError):
                    while "done" not in told:
                        told.update([pipe.recv()])
                process.join(20)
                assert ("done" in told) is (process.exitcode != -signal.SIGKILL)
            # Its builder may have had it killed between the end of a transaction and the word of it.
            there = sorted(map(int, session.scalars(select(made.Item.title))))
            session.rollback()
            first, end = (there[0], there[-1] + 1) if there else (0, 0)
            assert there == [*range(first, end)]
            assert first in ([LEFT] if "deleted" in told else [0, LEFT])
            assert end in [n for n in (0, 150, MANY) if n >= told.get("added", 0)]
            for turn in range(2):
                assert found(session, made, VECTORS[0]) == best(VECTORS[0], there), (step, turn)
                assert found(session, made, VECTORS[1], 5) == best(VECTORS[1], there)[:5]
                maintain(session, made.Item.embedding)
                session.rollback()
                for one in {*sharing._held[session.get_bind().pool].values()}:  # noqa: SLF001 - as a process that begins
                    one.sealed.forget()
            if "done" in told:
                break
            killed += 1
    assert killed > 5
    assert told["added"] == MANY


def test_a_server_that_is_put_back(tmp_path_factory, keyset):
    """After a recovery to an earlier time, transactions and rows have numbers that a running process knows already."""
    with LocalServer(settings={"synchronous_commit": "on", "max_prepared_transactions": "2"}) as server:
        dsn = server.dsn("postgres")
        with opened(dsn, keyset) as (session, made):

            def add(*numbers):
                bulk_insert(session, made.Item, [{"title": str(i), "embedding": VECTORS[i]} for i in numbers])
                session.commit()

            add(*range(9))
            with Session(session.get_bind(), twophase=True) as other:
                other.add(made.Item(title="9", embedding=VECTORS[9]))
                other.prepare()
                assert len(found(session, made, VECTORS[0])) == 9, "prepared is not committed"
                other.commit()
            assert len(found(session, made, VECTORS[0])) == 10
            data, kept = server.home / "pgdata", tmp_path_factory.mktemp("kept") / "pgdata"
            session.close()
            server.kill()
            subprocess.run(["cp", "-a", data, kept], check=True)
            server.restart()
            for number in range(10, 20):
                add(number)
            assert set(found(session, made, VECTORS[0])) == {str(i) for i in range(20)}
            session.close()
            server.kill()
            shutil.rmtree(data)
            subprocess.run(["cp", "-a", kept, data], check=True)
            server.restart()
            for number in range(30, 36):
                add(number)
            with psycopg.connect(dsn) as other:  # until numbers are as high as before
                for _ in range(60):
                    other.execute("SELECT pg_current_xact_id()")
                    other.commit()
            there = {str(i) for i in (*range(10), *range(30, 36))}
            assert set(found(session, made, VECTORS[0])) == there
            assert found(session, made, VECTORS[33], 1) == ["33"]
