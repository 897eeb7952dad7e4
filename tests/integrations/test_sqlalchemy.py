"""EncryptedVector in mapped classes: every way of the ORM and Core to write and read gives the exact vector."""

import copy
import uuid
from typing import ClassVar

import numpy as np
import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    create_engine,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, defer, joinedload, mapped_column, undefer

import encvec_store as ev
from encvec_store import errors
from encvec_store.data import METRICS
from encvec_store.integrations.sqlalchemy import EncryptedVector, SealedVector, ciphertexts
from tests.kits.orm import DIM, ask, models, opened, vectors

V = vectors(60)


def same(found, vector):
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vector)


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
    assert ask(session, "SELECT embedding, embedding_sealed FROM items WHERE id = :id", id=item.id) == [(None, None)]


def test_untouched_vectors_are_not_written(session, made):
    session.add(item := made.Item(embedding=V[0]))
    session.commit()
    before = ask(session, "SELECT embedding_sealed FROM items")
    same(item.embedding, V[0])  # loads it: a column that is set unseen is written, as any is
    item.title, item.embedding = "new", V[0].copy()  # equal: no change
    session.commit()
    assert item.title == "new"
    assert ask(session, "SELECT embedding_sealed FROM items") == before


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
        assert item.embedding_sealed is not None
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
            both = {name: statement.excluded[name] for name in ("embedding", "embedding_sealed")}
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


def test_the_index_is_used(full, made):
    statement = select(made.Item.title).order_by(made.Item.embedding.cosine_distance(V[0])).limit(3)
    ask(full, "SET LOCAL enable_seqscan = off")
    compiled = statement.compile(full.get_bind())
    plan = full.connection().exec_driver_sql(f"EXPLAIN {compiled}", {**compiled.params}).scalars().all()
    assert any("ix_items_embedding_hnsw" in line for line in plan), plan


# ------------------------------------------------------------------------------------------ refused


def test_refused_where_it_is_said(made):
    Item = made.Item
    for call, error in {
        (lambda: Item(embedding=np.zeros(DIM))): errors.ZeroVectorError,
        (lambda: Item(embedding=np.ones(DIM + 1))): errors.ShapeError,
        (lambda: Item(embedding=[np.nan] * DIM)): errors.NonFiniteError,
        (lambda: Item(embedding=func.now())): errors.InputError,
        (lambda: Item.embedding == V[0]): errors.InputError,
        (lambda: Item.embedding.in_([V[0]])): errors.InputError,
        (lambda: Item.embedding.desc()): errors.InputError,
        (lambda: Item.embedding.op("<->")(V[0])): errors.InputError,
        (lambda: Item.embedding.l2_distance(V[0])): errors.MetricError,
        (lambda: Item.embedding.max_inner_product(V[0])): errors.MetricError,
        (lambda: Item.embedding.cosine_distance(V[0]) < 0.3): errors.InputError,
        (lambda: 1 - Item.embedding.cosine_distance(V[0])): errors.InputError,
        (lambda: Item.embedding.cosine_distance(V[0][:-1])): errors.ShapeError,
        (lambda: Item.embedding.cosine_distance(np.zeros(DIM))): errors.ZeroVectorError,
        (lambda: EncryptedVector(0, keyset=made.keyset)): errors.ShapeError,
        (lambda: EncryptedVector(DIM, keyset=made.keyset, metric="l2")): errors.NormError,
        (lambda: EncryptedVector(DIM, keyset=made.keyset, metric="l1")): errors.MetricError,
        (lambda: EncryptedVector(DIM, keyset=made.keyset, scheme="sealed")): errors.SchemeError,
        (lambda: EncryptedVector(DIM, keyset=made.keyset, scheme={"name": "sap", "cells": 2})): errors.SchemeError,
        (lambda: EncryptedVector(DIM, keyset=made.keyset).cipher): errors.InputError,
    }.items():
        with pytest.raises(error):
            call()
    with pytest.raises(AttributeError):
        _ = Item.embedding.l1_distance


def test_refused_at_the_last_door(session, made):
    """No statement sends a plaintext vector, and no error shows one."""
    session.add(item := made.Item(embedding=V[0]))
    session.commit()
    held = made.Item(embedding=V[1]).embedding
    table = made.Item.__table__
    statements = [
        (update(made.Item).values(embedding=V[1]), None),
        (update(table).values(embedding=V[1].tolist()), None),
        (update(made.Item).values(embedding=held), None),
        (update(made.Item), [{"id": item.id, "embedding": V[1]}]),
        (insert(made.Item), [{"embedding": V[1], "embedding_sealed": b"mine"}]),
        (insert(made.Item), [{"embedding": np.zeros(DIM)}]),
        (insert(made.Item), [{"embedding": V[1][:-1]}]),
        (insert(made.Item).values(embedding_sealed=V[1]), None),
    ]
    for statement, rows in statements:
        with pytest.raises(errors.InputError) as caught:
            session.execute(statement, rows) if rows else session.execute(statement)
        assert not isinstance(caught.value, StatementError)
        assert str(V[1][0])[:6] not in str(caught.value)
        session.rollback()
    item.embedding = V[2]
    session.flush()
    with pytest.raises(errors.InputError):  # its ciphertext went with the flush
        session.execute(update(made.Item).values(embedding=item.embedding))


# ------------------------------------------------------------------------------------------ tables


def test_both_columns_wherever_tables_are_made(made):
    table = made.Item.__table__
    assert [c.name for c in table.c if c.name.startswith("embedding")] == ["embedding", "embedding_sealed"]
    copied = table.to_metadata(MetaData(), schema="other")
    assert copied.c.keys() == table.c.keys()
    assert copied.c.embedding.type.collection == "other.items.embedding"
    assert table.c.embedding.type.collection == "items.embedding"
    kind = EncryptedVector(DIM, keyset=made.keyset)
    shared = Table("t", MetaData(), Column("id", Integer, primary_key=True), Column("a", kind), Column("b", kind))
    assert shared.c.keys() == ["id", "a", "a_sealed", "b", "b_sealed"]
    assert (shared.c.a.type.collection, shared.c.b.type.collection) == ("t.a", "t.b")
    assert isinstance(shared.c.b_sealed.type, SealedVector)
    assert EncryptedVector(DIM, keyset=made.keyset, collection="old").cipher.place == "old"


def test_mixins_inheritance_and_renamed_attributes(orm_dsn):
    keyset = ev.Keyset.create("memory:")

    class Base(DeclarativeBase):
        pass

    class Embedded:
        embedding: Mapped[np.ndarray | None] = mapped_column("vec", EncryptedVector(DIM, keyset=lambda: keyset))

    class Page(Embedded, Base):
        __tablename__ = "pages"
        id: Mapped[str] = mapped_column(primary_key=True)
        kind: Mapped[str]
        __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "page"}

    class Cover(Page):
        __mapper_args__: ClassVar = {"polymorphic_identity": "cover"}

    class Poster(Page):
        __tablename__ = "posters"
        id: Mapped[str] = mapped_column(ForeignKey("pages.id"), primary_key=True)
        __mapper_args__: ClassVar = {"polymorphic_identity": "poster"}

    class Note(Embedded, Base):
        __tablename__ = "notes"
        one: Mapped[int] = mapped_column(primary_key=True)
        two: Mapped[str] = mapped_column(primary_key=True)

    assert Page.__table__.c.vec.type.collection == "pages.vec"
    assert Note.__table__.c.vec.type.collection == "notes.vec"
    made = type("Made", (), {"Base": Base})
    with opened(orm_dsn, made) as session:
        objects = [Page(id="p", embedding=V[0]), Cover(id="c", embedding=V[1]), Poster(id="o", embedding=V[2])]
        session.add_all([*objects, note := Note(one=1, two="a:\N{GREEK SMALL LETTER ALPHA},", embedding=V[3])])
        session.commit()
        for i, thing in enumerate([*objects, note]):
            same(thing.embedding, V[i])
            thing.embedding = V[10 + i]
        session.commit()
        for i, thing in enumerate([*objects, note]):
            same(thing.embedding, V[10 + i])
        assert session.scalars(select(Page).order_by(Page.embedding.cosine_distance(V[11]))).first().id == "c"


def test_columns_in_the_database(orm_dsn, made):
    with opened(orm_dsn, made) as session:
        columns = {c["name"]: str(c["type"]) for c in inspect(session.get_bind()).get_columns("items")}
        assert columns["embedding"] == f"VECTOR({DIM})"
        assert columns["embedding_sealed"] == "BYTEA"
    made = models(metric="l2", max_norm=9.0)
    assert made.Item.__table__.c.embedding.type.index_dim == DIM + 2


def test_keys_are_asked_for_at_first_use(orm_dsn):
    asked = []
    keyset = ev.Keyset.create("memory:")

    def later():
        asked.append(1)
        return keyset

    made = models(later)
    engine = create_engine("postgresql+psycopg://")
    str(select(made.Item).compile(engine))
    assert asked == []
    with opened(orm_dsn, made) as session:
        session.add(made.Item(embedding=V[0]))
        session.flush()
        session.add(made.Item(embedding=V[0]))
        session.flush()
    assert asked == [1]
