"""Random histories: what two sessions find is what brute force finds, with rollbacks, savepoints and plain SQL."""

import logging

import numpy as np
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from encvec_store.data import METRICS
from encvec_store.integrations.sqlalchemy import bulk_insert, follow, maintain, nearest, reencrypt, sharing
from encvec_store.sealed_index import builder
from tests.kits.orm import ask, models, vectors

N = 60
V = vectors(4000, seed=41, dim=8)


@pytest.fixture
def pg_place(pg_place_alone):
    """On a server of its own: an index takes in only entries that are older than every open transaction there."""
    return pg_place_alone


@pytest.fixture
def made():
    return models(dim=8)


class History:
    """Writes of two sessions, and what each should see. Only one of them has uncommitted changes at a time."""

    def __init__(self, session, made, seed):
        self.made, self.rng = made, np.random.default_rng(seed)
        self.sessions = [session, Session(session.get_bind())]
        self.committed, self.next = {}, 0
        self.mine = dict(self.committed)
        self.writer = 0

    def vector(self):
        self.next += 1
        return V[self.next - 1]

    def step(self):
        session, made = self.sessions[self.writer], self.made
        kind = self.rng.integers(8)
        some = sorted(self.mine)[int(self.rng.integers(len(self.mine)))] if self.mine else None
        if kind <= 1 or some is None:
            new = {f"n{self.next}": self.vector() for _ in range(int(self.rng.integers(1, 5)))}
            bulk_insert(session, made.Item, [{"title": title, "embedding": v} for title, v in new.items()])
            self.mine.update(new)
        elif kind == 2:
            item = session.scalars(select(made.Item).where(made.Item.title == some)).one()
            item.embedding = self.mine[some] = self.vector()
        elif kind == 3:
            session.execute(text("DELETE FROM items WHERE title = :t"), {"t": some})
            session.expire_all()
            del self.mine[some]
        elif kind == 4:  # in a savepoint that is rolled back
            point = session.begin_nested()
            session.add(made.Item(title="never", embedding=self.vector()))
            session.execute(text("DELETE FROM items WHERE title = :t"), {"t": some})
            point.rollback()
        elif kind == 5:
            session.execute(text("UPDATE items SET title = title WHERE title = :t"), {"t": some})
        elif kind == 6:
            session.rollback()
            self.mine = dict(self.committed)
        else:
            session.commit()
            self.committed = dict(self.mine)
            self.writer = int(self.rng.integers(2))

    def check(self):
        self.sessions[self.writer].flush()
        for place, session in enumerate(self.sessions):
            truth = self.mine if place == self.writer else self.committed
            query = self.rng.standard_normal(8).astype(np.float32)
            hits = nearest(session, select(self.made.Item.title), self.made.Item.embedding, query, 5)
            names = sorted(truth)
            cosine = METRICS["cosine"]
            scores = cosine.scores(query, np.array([truth[name] for name in names], np.float32).reshape(-1, 8))
            best = np.sort(scores)[::-1][:5]
            np.testing.assert_allclose([hit.score for hit in hits], best, atol=1e-6)
            assert {hit.item for hit in hits} <= set(names)
            if place != self.writer:
                session.rollback()  # the next look has a new transaction


@pytest.mark.parametrize("seed", range(3))
def test_two_sessions(session, made, seed):
    history = History(session, made, seed)
    with history.sessions[1]:
        for _ in range(N):
            history.step()
            history.check()


def test_graphs_are_built_stored_and_loaded(session, made, monkeypatch, caplog):
    """With small limits: a graph, a young graph, a purge; and a process that loads what was stored."""
    monkeypatch.setattr(builder, "FIRST", 100)
    Item = made.Item
    rows = [{"title": str(i), "embedding": V[i]} for i in range(1700)]
    bulk_insert(session, Item, rows[:1000])
    session.commit()

    def check(count, gone=()):
        for query in V[3000:3004]:
            hits = nearest(session, select(Item.title), Item.embedding, query, 5)
            left = np.array([i for i in range(count) if i not in gone])
            scores = METRICS["cosine"].scores(query, V[left])
            assert [hit.item for hit in hits] == [str(i) for i in left[np.argsort(-scores, kind="stable")][:5]]
        session.rollback()

    assert maintain(session, Item.embedding) == ["index 1,000 new records"]
    blobs = "SELECT count(*) FROM items_embedding_blobs WHERE name LIKE 'index.%'"
    assert ask(session, blobs)[0][0] >= 3
    session.rollback()
    check(1000)
    session.execute(text("DELETE FROM items WHERE title::int < 400"))
    bulk_insert(session, Item, rows[1000:])
    session.commit()
    check(1700, range(400))
    done = maintain(session, Item.embedding, purge=True)
    assert "forget 400 deleted rows" in done
    assert ask(session, "SELECT count(*) FROM items_embedding_rows")[0][0] == 1301
    session.rollback()
    check(1700, range(400))
    # a process that begins
    sharing._held.clear()
    with caplog.at_level(logging.WARNING, logger="encvec_store"):
        check(1700, range(400))
    assert caplog.text == ""
    (index,) = {*next(iter(sharing._held.values())).values()}
    assert sum(part.living for part in index.sealed.state.parts) == 1300
    assert index.sealed.state.tail.count == 0
    made.keyset.rotate()
    while reencrypt(session, Item.embedding):
        session.commit()
    session.commit()
    check(1700, range(400))
    maintain(session, Item.embedding)
    check(1700, range(400))
    made.keyset.destroy(1)
    check(1700, range(400))


def test_entries_of_another_cluster(session, made):
    """After a restore, transaction numbers are of the future. Searches are right, and `follow` numbers rows anew."""
    Item = made.Item
    bulk_insert(session, Item, [{"title": str(i), "embedding": V[i]} for i in range(40)])
    session.commit()
    ask(session, "DELETE FROM items WHERE title::int < 10")
    ask(session, "UPDATE items_embedding_rows SET xid = xid + 1000000000")
    session.commit()
    for turn in range(2):
        hits = nearest(session, select(Item.title), Item.embedding, V[0], 40)
        assert {hit.item for hit in hits} == {str(i) for i in range(10, 40)}
        (index,) = {*next(iter(sharing._held.values())).values()}
        assert index.sealed.state.living == 30 * turn
        session.rollback()
        follow(session, Item.embedding)
        session.commit()


def test_a_follower_that_is_behind_when_entries_are_forgotten(session, made):
    Item = made.Item
    bulk_insert(session, Item, [{"title": str(i), "embedding": V[i]} for i in range(50)])
    session.commit()

    def found():
        hits = nearest(session, select(Item.title), Item.embedding, V[0], 50)
        session.rollback()
        return {hit.item for hit in hits}

    assert len(found()) == 50
    (index,) = {*next(iter(sharing._held.values())).values()}
    behind = index.sealed.state
    ask(session, "DELETE FROM items WHERE title::int < 20")
    session.commit()
    maintain(session, Item.embedding, purge=True)
    index.sealed._state = behind
    assert found() == {str(i) for i in range(20, 50)}
    assert index.sealed.state.living == 30


def test_a_stored_index_is_compared_with_all_entries(session, made, monkeypatch):
    """Entries have no stamp by which a new process could know that nothing was written since."""
    Item, there = made.Item, {str(i) for i in range(30)}
    for name in ("FIRST", "COARSE"):
        monkeypatch.setattr(builder, name, 10)
    bulk_insert(session, Item, [{"title": title, "embedding": V[int(title)]} for title in there])
    session.commit()
    maintain(session, Item.embedding)
    (index,) = {*next(iter(sharing._held.values())).values()}
    assert index.sealed.state.parts, "the index is stored"
    for gone in ("7", "8"):
        index.sealed.forget()
        assert {hit.item for hit in nearest(session, select(Item.title), Item.embedding, V[0], 30)} == there
        ask(session, f"DELETE FROM items WHERE title = '{gone}'")
        session.commit()
        there.remove(gone)
