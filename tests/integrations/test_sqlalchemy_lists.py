"""The index of a mapped column larger than `index_memory`: its codes lie in the database, in sealed blocks."""

import numpy as np
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from encvec_store.errors import AuthenticationError
from encvec_store.integrations.sqlalchemy import bulk_insert, maintain, nearest, sharing
from encvec_store.sealed_index import BUDGET, kinds
from tests.kits import sealed
from tests.kits.orm import ask, models, vectors

N = 400
V = vectors(N, seed=61)


@pytest.fixture
def pg_place(pg_place_alone):
    """On a server of its own: an index takes in only entries that are older than every open transaction there."""
    return pg_place_alone


@pytest.fixture
def made(monkeypatch):
    sealed.small(monkeypatch)
    monkeypatch.setattr(BUDGET, "_limit", 8_000)
    monkeypatch.setattr(kinds, "_FLAT_MOST", 50)
    return models()


@pytest.fixture
def session(session, made):
    """A session over N rows, whose index is stored as lists."""
    bulk_insert(session, made.Item, [{"title": str(i), "embedding": V[i]} for i in range(N)])
    session.commit()
    maintain(session, made.Item.embedding)
    session.commit()
    assert {part.graph.kind for part in index_of(session).state.parts} == {"lists"}
    return session


def index_of(session):
    (shared,) = {*sharing._held[session.get_bind().pool].values()}
    return shared.sealed


def check(session, made, there, *, below=N):
    """Check searches against a comparison of all vectors. One hit in a hundred may be missing."""
    there = np.array([i for i in there if i < below])
    lengths, missing = np.linalg.norm(V[there], axis=1), 0
    statement = select(made.Item.title)
    if below < N:
        statement = statement.where(text(f"title::int < {below}"))
    for query in vectors(20, seed=62):
        best = {str(i) for i in there[np.argsort(-(V[there] @ query) / lengths)[:10]]}
        hits = nearest(session, statement, made.Item.embedding, query, 10)
        assert len(hits) == 10
        assert {int(hit.item) for hit in hits} <= {*there.tolist()}
        missing += len(best - {hit.item for hit in hits})
    assert missing <= 2
    session.rollback()


def test_blocks_are_read_from_the_companion_table(session, made):
    check(session, made, range(N))
    assert index_of(session).blocks.fetched
    index_of(session).forget()
    check(session, made, range(N))
    check(session, made, range(N), below=200)
    ask(session, "DELETE FROM items WHERE title::int < 100")
    session.commit()
    check(session, made, range(100, N))
    maintain(session, made.Item.embedding, purge=True)
    check(session, made, range(100, N))


def test_an_old_session_reads_blocks_that_were_replaced(session, made):
    """It sees an older manifest than the one in memory, or blocks that the one in memory does not name any more."""
    repeatable = session.get_bind().execution_options(isolation_level="REPEATABLE READ")
    with Session(repeatable) as old:
        old.execute(text("SELECT 1 FROM items"))
        ask(session, "DELETE FROM items WHERE title::int < 100")
        session.commit()
        maintain(session, made.Item.embedding, purge=True)
        for _ in range(2):
            hits = nearest(old, select(made.Item.title), made.Item.embedding, V[7], 1)
            assert hits[0].item == "7"
            check(session, made, range(100, N))
            index_of(session).forget()


def test_a_block_that_was_altered(session, made):
    blobs = made.Item.__table__.metadata.tables["items_embedding_blobs"]
    (name,) = {part.graph.blocks.name for part in index_of(session).state.parts}
    index_of(session).forget()
    ask(session, f"UPDATE {blobs.name} SET content = content || '\\x00'::bytea WHERE name = '{name}'")
    session.commit()
    with pytest.raises(AuthenticationError):
        check(session, made, range(N))
    session.rollback()
    maintain(session, made.Item.embedding)
    check(session, made, range(N))
