"""EncryptedVector in mapped classes: every way of the ORM and Core to write and read gives the exact vector."""

import copy
import uuid

import numpy as np
import pytest
from sqlalchemy import (
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.orm import Session, aliased, defer, joinedload, undefer

from encvec_store import errors
from encvec_store.data import METRICS
from encvec_store.integrations.sqlalchemy import ciphertexts
from tests.kits.orm import ask, cell_of, models, opened, same, vectors

V = vectors(60)


# ------------------------------------------------------------------------------------------ in and out


@pytest.mark.parametrize("form", [np.array, list, lambda v: v.astype(np.float64)], ids=["array", "list", "double"])
def test_objects(session, made, form):
    item = made.Item(embedding=form(V[0]))
    session.add_all([item, auto := made.Auto(embedding=form(V[1])), none := made.Item()])
    session.commit()
    same(item.embedding, V[0])
    same(auto.embedding, V[1])
    assert type(item.embedding) is np.ndarray
    assert none.embedding is None
    item.embedding, none.embedding, auto.embedding = V[2], form(V[3]), V[4]
    session.commit()
    same(item.embedding, V[2])
    same(none.embedding, V[3])
    same(auto.embedding, V[4])
    item.embedding = None
    session.commit()
    assert item.embedding is None
    assert ask(session, f"SELECT embedding, {cell_of(made)} FROM items WHERE id = :id", id=item.id) == [(None, None)]


def test_untouched_vectors_are_not_written(session, made):
    session.add(item := made.Item(embedding=V[0]))
    session.commit()
    before = ask(session, f"SELECT {cell_of(made)} FROM items")
    same(item.embedding, V[0])  # loads it: a column that is set unseen is written, as any is
    item.title, item.embedding = "new", V[0].copy()  # equal: no change
    session.commit()
    assert item.title == "new"
    assert ask(session, f"SELECT {cell_of(made)} FROM items") == before


def test_a_set_vector_is_a_copy_that_cannot_change_unseen(made):
    mine = V[0].copy()
    item = made.Item(embedding=mine)
    mine[0] = 9
    same(item.embedding, V[0])
    with pytest.raises(ValueError, match="read-only"):
        item.embedding[0] = 9


def test_refresh_merge_expunge(session, made):
    session.add(item := made.Item(embedding=V[0]))
    session.commit()
    session.execute(update(made.Item).values(ciphertexts(made.Item.embedding, V[1], item.id)))
    same(item.embedding, V[1])  # the update expired it
    session.refresh(item)
    same(item.embedding, V[1])
    merged = session.merge(made.Item(id=item.id, title="m", embedding=V[2]))
    session.commit()
    same(merged.embedding, V[2])
    session.refresh(merged, ["embedding"])
    session.expunge(merged)
    same(merged.embedding, V[2])
    same(np.asarray(copy.deepcopy(merged).embedding), V[2])
    merged = session.merge(merged)
    session.commit()
    same(merged.embedding, V[2])


def test_merge_of_an_object_that_was_written_here_does_not_bring_its_old_envelope(orm_dsn, made):
    with opened(orm_dsn, made) as session:
        kept = Session(session.get_bind(), expire_on_commit=False)
        with kept:
            kept.add(item := made.Auto(embedding=V[0]))
            kept.commit()
        session.get(made.Auto, item.id).embedding = V[1]
        session.commit()
        session.get(made.Auto, item.id).embedding = V[0]
        session.commit()
        merged = session.merge(item)
        merged.title = "merged"
        session.commit()
        same(merged.embedding, V[0])


def test_core_and_bulk_inserts(session, made):
    table = made.Item.__table__
    session.execute(insert(made.Item), [{"title": str(i), "embedding": V[i]} for i in range(10)])
    session.execute(insert(made.Item).values([{"title": str(i), "embedding": V[i]} for i in range(10, 15)]))
    session.execute(table.insert(), [{"title": str(i), "embedding": V[i].tolist()} for i in range(15, 20)])
    session.execute(table.insert().values(title="20", embedding=V[20]))
    session.bulk_save_objects([made.Item(title="21", embedding=V[21])])
    session.bulk_insert_mappings(made.Item, [{"title": "22", "embedding": V[22]}])
    found = session.execute(insert(made.Item).returning(made.Item.embedding), [{"title": "23", "embedding": V[23]}])
    same(found.scalar_one(), V[23])
    session.add_all([made.Auto(title=str(i), embedding=V[i]) for i in range(30)])
    session.commit()
    for model in (made.Item, made.Auto):
        rows = session.execute(select(model.title, model.embedding)).all()
        assert len(rows) == (24 if model is made.Item else 30)
        for title, vector in rows:
            same(vector, V[int(title)])


def test_upsert(session, made):
    ids = [uuid.uuid4(), uuid.uuid4()]
    for turn in (0, 2):
        for i, id in enumerate(ids):
            new = {"id": id, **ciphertexts(made.Item.embedding, V[turn + i], id)}
            statement = pg_insert(made.Item).values(title="t", **new)
            both = {name: statement.excluded[name] for name in ("embedding", cell_of(made))}
            session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=both))
        session.commit()
        for i, id in enumerate(ids):
            same(session.get(made.Item, id).embedding, V[turn + i])


def test_values_for_updates(session, made):
    session.add(item := made.Item(embedding=V[0]))
    session.commit()
    session.execute(
        update(made.Item).where(made.Item.id == item.id).values(**ciphertexts(made.Item.embedding, V[1], item.id))
    )
    same(item.embedding, V[1])
    session.execute(update(made.Item.__table__).values(ciphertexts(made.Item.__table__.c.embedding, None)))
    session.expire_all()
    assert item.embedding is None
    with pytest.raises(errors.InputError, match="expected an encrypted column"):
        ciphertexts(made.Item.title, V[0])


def test_changed_primary_key(session, made):
    session.add(item := made.Item(embedding=V[0]))
    session.commit()
    item.id = uuid.uuid4()
    session.commit()
    same(item.embedding, V[0])
    item.id, item.embedding = uuid.uuid4(), V[1]
    session.commit()
    same(item.embedding, V[1])


# ------------------------------------------------------------------------------------------ ways to read


@pytest.fixture
def full(session, made):
    session.add_all([made.Item(title=str(i), embedding=V[i], tags=[made.Tag(), made.Tag()]) for i in range(30)])
    session.commit()
    return session


def test_ways_to_read(full, made):
    Item = made.Item
    alias = aliased(Item)
    inner = select(Item).where(Item.title == "3").subquery()
    over = aliased(Item, inner)
    one = {
        "entity": full.scalars(select(Item).where(Item.title == "3")).one().embedding,
        "column": full.scalars(select(Item.embedding).where(Item.title == "3")).one(),
        "label": full.execute(select(Item.embedding.label("e")).where(Item.title == "3")).one().e,
        "alias": full.scalars(select(alias.embedding).where(alias.title == "3")).one(),
        "alias entity": full.scalars(select(alias).where(alias.title == "3")).one().embedding,
        "subquery": full.scalars(select(inner.c.embedding)).one(),
        "entity of subquery": full.scalars(select(over)).one().embedding,
        "core": full.execute(select(Item.__table__).where(Item.__table__.c.title == "3")).one().embedding,
        "union": full.scalars(
            select(Item.embedding).where(Item.title == "3").union(select(Item.embedding).where(Item.title == "3"))
        ).one(),
        "query": full.query(Item).filter_by(title="3").one().embedding,
    }
    for vector in one.values():
        same(vector, V[3])
    full.expunge_all()
    wrapped = select(Item).options(joinedload(Item.tags)).where(Item.title == "3").limit(1)
    item = full.scalars(wrapped).unique().one()
    same(item.embedding, V[3])
    assert len(item.tags) == 2
    full.expunge_all()
    item = full.scalars(select(Item).options(defer(Item.embedding)).where(Item.title == "3")).one()
    assert "embedding" not in item.__dict__
    same(item.embedding, V[3])
    item = full.scalars(select(Item).options(undefer(Item.embedding)).where(Item.title == "4")).one()
    same(item.embedding, V[4])
    tags = full.execute(select(made.Tag, Item).join(Item, isouter=True).where(Item.title == "3")).all()
    same(tags[0].Item.embedding, V[3])
    assert full.scalar(select(func.count()).where(Item.embedding.is_not(None))) == 30
    assert full.scalar(select(func.count()).where(Item.embedding == None)) == 0  # noqa: E711
    nothing = select(alias.embedding).select_from(Item).outerjoin(alias, alias.title == "none").limit(1)
    assert full.execute(nothing).one() == (None,)


def test_what_cannot_be_checked_is_not_read(full, made):
    Item = made.Item
    bare = select(Item.embedding).subquery()
    for statement in (select(bare.c.embedding), select(func.coalesce(Item.embedding, None))):
        with pytest.raises(errors.InputError, match="only be read from its table"):
            full.execute(statement)


@pytest.mark.parametrize("made", ["sap"], indirect=True)
def test_ordering(full, made):
    Item = made.Item
    for i in (0, 7, 21):
        query = V[i] + 0.05 * vectors(1, seed=9)[0]
        statement = select(Item.title).order_by(Item.embedding.cosine_distance(query)).limit(3)
        assert full.scalars(statement).first() == str(i)
        alias = aliased(Item)
        assert full.scalars(select(alias.title).order_by(alias.embedding.cosine_distance(query).asc())).first() == str(
            i
        )
        inner = select(Item).subquery()
        assert full.scalars(select(inner.c.title).order_by(inner.c.embedding.cosine_distance(query))).first() == str(i)
    nearest = Item.embedding.cosine_distance(V[5]).label("distance")
    assert full.execute(select(Item.title, nearest).order_by(nearest)).first().title == "5"


@pytest.mark.parametrize(
    ("metric", "method"), [("cosine", "cosine_distance"), ("l2", "l2_distance"), ("ip", "max_inner_product")]
)
def test_ranks_as_the_metric_does(orm_dsn, metric, method):
    """Without noise, ciphertexts are ordered as the metric orders vectors, whatever their length."""
    bounds = {} if metric == "cosine" else {"max_norm": 30.0}
    made = models(metric=metric, scheme={"name": "sap", "beta": 0.0}, **bounds)
    data = V[:40] * np.linspace(0.2, 3, 40, dtype=np.float32)[:, None]
    with opened(orm_dsn, made) as session:
        session.add_all([made.Item(title=str(i), embedding=row) for i, row in enumerate(data)])
        session.commit()
        for query in vectors(4, seed=3):
            distance = getattr(made.Item.embedding, method)(query)
            found = session.scalars(select(made.Item.title).order_by(distance)).all()
            measure = METRICS[metric]
            scores = measure.order(measure.scores(query, data))
            np.testing.assert_allclose(scores[[int(title) for title in found]], np.sort(scores), atol=1e-4)
        same(session.scalars(select(made.Item.embedding).where(made.Item.title == "7")).one(), data[7])


@pytest.mark.parametrize("made", ["sap"], indirect=True)
def test_the_index_is_used(full, made):
    statement = select(made.Item.title).order_by(made.Item.embedding.cosine_distance(V[0])).limit(3)
    ask(full, "SET LOCAL enable_seqscan = off")
    compiled = statement.compile(full.get_bind())
    plan = full.connection().exec_driver_sql(f"EXPLAIN {compiled}", {**compiled.params}).scalars().all()
    assert any("ix_items_embedding_hnsw" in line for line in plan), plan
