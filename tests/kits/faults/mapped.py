"""What a killed process does with a mapped column: writes, searches, builds, stores. It dies at a given step."""

import contextlib
import os
import signal

import numpy as np
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session

import encvec_store as ev
from encvec_store.integrations.sqlalchemy import bulk_insert, following, maintain, nearest
from encvec_store.sealed_index import builder, index
from tests.kits.orm import models, url, vectors

DIM, MANY, LEFT = 8, 220, 40
VECTORS = vectors(MANY, seed=71, dim=DIM)


def column(keyset):
    """Return the mapped classes."""
    return models(keyset, dim=DIM)


def small():
    """Make graphs of a few rows."""
    index.COARSE, builder.FIRST, builder.LAST, builder.COARSE = 100, 60, 10, 100


@contextlib.contextmanager
def opened(dsn, keyset):
    """Yield a session over a database that has the tables, and the mapped classes."""
    made = column(keyset)
    engine = create_engine(url(dsn), hide_parameters=True, pool_pre_ping=True)
    try:
        made.Base.metadata.create_all(engine)
        with Session(engine) as session:
            yield session, made
    finally:
        engine.dispose()


def found(session, made, query, k=MANY):
    """Return the titles that a search finds, nearest first."""
    hits = nearest(session, select(made.Item.title), made.Item.embedding, query, k)
    session.rollback()
    return [hit.item for hit in hits]


def mapped_life(pipe, dsn, last):
    """Live once, in steps: every statement of the index, before and after, and every change of its state."""
    small()
    count = 0

    def stepped(fn):
        def call(*args, **kwargs):
            nonlocal count
            for act in (lambda: None, lambda: fn(*args, **kwargs)):
                done = act()
                count += 1
                if count == last:
                    os.kill(os.getpid(), signal.SIGKILL)
            return done

        return call

    following.TableRecords.rows_of = stepped(following.TableRecords.rows_of)
    following.TableRecords.keep = stepped(following.TableRecords.keep)
    index.SealedIndex.publish = stepped(index.SealedIndex.publish)
    index.SealedIndex._update = stepped(index.SealedIndex._update)
    made = column(ev.Keyset.open("env:ENCVEC_TEST_KEYSET"))
    item = made.Item
    with Session(create_engine(url(dsn), hide_parameters=True)) as session:

        def add(start, end):
            bulk_insert(session, item, [{"title": str(i), "embedding": VECTORS[i]} for i in range(start, end)])
            session.commit()
            pipe.send(("added", end))

        add(0, 150)
        found(session, made, VECTORS[0])
        maintain(session, item.embedding)
        session.execute(text("DELETE FROM items WHERE title::int < :n"), {"n": LEFT})
        session.commit()
        pipe.send(("deleted", LEFT))
        found(session, made, VECTORS[0])
        add(150, MANY)
        maintain(session, item.embedding, purge=True)
        found(session, made, VECTORS[0])
    pipe.send(("done", count))


def best(query, numbers):
    """Return the titles of all vectors by brute force, nearest first."""
    numbers = np.array(sorted(numbers))
    chosen = VECTORS[numbers]
    scores = chosen @ query / np.linalg.norm(chosen, axis=1)
    return [str(i) for i in numbers[np.argsort(-scores, kind="stable")]]
