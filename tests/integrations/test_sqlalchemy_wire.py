"""No plaintext vector leaves the process, as searches of all traffic, the server's log and the engine's log show."""

import base64
import contextlib
import itertools
import logging
import secrets
import socket
import threading

import numpy as np
import psycopg
import pytest
from pgvector.sqlalchemy import VECTOR
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, update
from sqlalchemy.exc import IntegrityError

from encvec_store.integrations.sqlalchemy import bulk_insert, ciphertexts, nearest, reencrypt
from encvec_store.localpg import LocalServer
from tests.kits.orm import DIM, KINDS, models, opened, vectors

V = vectors(40, seed=77)
QUERIES = vectors(4, seed=78)


def forms(vector):
    """Yield every form the numbers could have: neighbouring pairs in binary, hex, base64 and decimal text."""
    unit = vector / np.linalg.norm(vector)
    for numbers in (vector, unit.astype(np.float32)):
        for kind in ("<f4", ">f4", "<f8", ">f8"):
            packed = numbers.astype(kind).tobytes()
            width = np.dtype(kind).itemsize * 2
            for start in range(0, len(packed) - width + 1, width):
                pair = packed[start : start + width]
                yield pair
                yield pair.hex().encode()
            yield base64.b64encode(packed)[:40]
        for one, two in itertools.pairwise(numbers):
            for show in (str, lambda x: f"{float(x):.6f}", lambda x: f"{float(x):.9g}", lambda x: f"{float(x):.17g}"):
                yield f"{show(one)},{show(two)}".encode()
                yield f"{show(one)}, {show(two)}".encode()


def found(haystack, plain):
    """Return the forms of vectors that a text holds. Single numbers count from three on: one may appear by chance."""
    shown = [form for vector in plain for form in forms(vector) if form in haystack]
    for vector in plain:
        for numbers in (vector, (vector / np.linalg.norm(vector)).astype(np.float32)):
            alone = [text for number in numbers if (text := repr(float(number)).encode()) in haystack]
            shown += alone if len(alone) >= 3 else []
    return shown


@contextlib.contextmanager
def proxied(dsn):
    """Yield a DSN that goes through a recording proxy, and what it records."""
    parts = conninfo_to_dict(dsn)
    host, port = str(parts["host"]), int(str(parts["port"]))
    seen, open_sockets = bytearray(), []

    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                seen.extend(data)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                if host.startswith("/"):
                    server = socket.socket(socket.AF_UNIX)
                    server.connect(f"{host}/.s.PGSQL.{port}")
                else:
                    server = socket.create_connection((host, port))
                open_sockets.extend([client, server])
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, daemon=True).start()
    with open(str(parts["passfile"]), encoding="utf-8") as file:
        password = file.read().strip().rpartition(":")[2]
    here = f"{parts['user']}:{password}@127.0.0.1:{listener.getsockname()[1]}/{parts['dbname']}"
    try:
        yield f"postgresql://{here}?sslmode=disable&gssencmode=disable", seen
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for each in open_sockets:
            each.close()


@pytest.fixture
def place(pg_server):
    """A database that logs every statement with every parameter, and its server's log."""
    with contextlib.ExitStack() as stack:
        local = pg_server.local or stack.enter_context(LocalServer())
        name = f"encvec_test_{secrets.token_hex(6)}"
        local.ensure_database(name)
        with psycopg.connect(local.dsn(name), autocommit=True) as connection:
            for setting in (
                "log_statement = 'all'",
                "log_parameter_max_length = -1",
                "log_duration = on",
                "log_parameter_max_length_on_error = -1",
            ):
                connection.execute(f"ALTER DATABASE {name} SET {setting}")
        start = local.log.stat().st_size
        yield local.dsn(name), lambda: local.log.read_bytes()[start:]
        with psycopg.connect(local.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def work(session, made):
    """Use everything that sends vectors."""
    Item, Auto = made.Item, made.Auto
    session.add(item := Item(title="known metadata", embedding=V[0]))
    session.add_all([Auto(title=str(i), embedding=V[i]) for i in range(1, 5)])
    session.commit()
    session.execute(insert(Item), [{"title": str(i), "embedding": V[i]} for i in range(5, 10)])
    session.execute(insert(Item).values([{"embedding": V[10]}, {"embedding": V[11].tolist()}]))
    session.execute(insert(Item.__table__).returning(Item.__table__.c.embedding), {"embedding": V[12]}).all()
    item.embedding = V[13]
    session.merge(Item(id=item.id, embedding=V[14]))
    session.commit()
    session.execute(update(Item).where(Item.id == item.id).values(ciphertexts(Item.embedding, V[15], item.id)))
    bulk_insert(session, Item, [{"title": "copied", "embedding": row} for row in V[16:30]])
    session.commit()
    assert len(nearest(session, select(Item), Item.embedding, QUERIES[1], 5)) == 5
    if Item.__table__.c.embedding.type.paired:
        near = select(Item).order_by(Item.embedding.cosine_distance(QUERIES[0])).limit(30)
        assert len(session.scalars(near).all()) > 20
        assert session.execute(select(Item.embedding.cosine_distance(QUERIES[2]))).all()
    made.keyset.rotate()
    assert reencrypt(session, Item.embedding)
    session.commit()
    session.add(Item(id=item.id, embedding=V[30]))
    session.expunge(item)
    with pytest.raises(IntegrityError) as caught:
        session.flush()
    session.rollback()
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_no_plaintext_on_the_wire_or_in_a_log(place, caplog, kind):
    dsn, log = place
    made = models(**KINDS[kind])
    with caplog.at_level(logging.INFO, logger="sqlalchemy.engine"), proxied(dsn) as (through, seen):
        with opened(through, made, echo=False) as session:
            session.get_bind().hide_parameters = False  # SQLAlchemy then shows what it sends: ciphertext
            error = work(session, made)
        wire, ours = bytes(seen), caplog.text.encode() + error.encode()
    for name, haystack in {"wire": wire, "server's log": log(), "engine's log": ours}.items():
        assert found(haystack, [*V, *QUERIES]) == [], name
        assert b"known metadata" in haystack, name  # other columns are as they were: the search does look
        for version in (1, 2):
            root = made.keyset.root(version)
            assert root not in haystack
            assert root.hex().encode() not in haystack
    assert b"INSERT INTO items" in ours
    assert b"copied" in wire
    assert (b"<#>" in log()) is (kind == "sap")


def test_the_search_finds_what_pgvector_sends(place):
    """The same search finds vectors in plaintext columns."""
    dsn, log = place
    plain = Table("plain", MetaData(), Column("id", Integer, primary_key=True), Column("v", VECTOR(DIM)))
    made = type("Made", (), {"Base": plain})
    with proxied(dsn) as (through, seen), opened(through, made) as session:
        session.execute(insert(plain), [{"v": V[0]}])
        session.execute(select(plain.c.id).order_by(plain.c.v.cosine_distance(QUERIES[0]))).all()
        session.commit()
        wire = bytes(seen)
    for haystack in (wire, log()):
        assert found(haystack, V[:1])
        assert found(haystack, QUERIES[:1])
        assert not found(haystack, V[1:])
