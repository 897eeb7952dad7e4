"""EncryptedVector as a column: the tables and classes that it is declared in, and what it refuses."""

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
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import encvec_store as ev
from encvec_store import errors
from encvec_store.integrations.sqlalchemy import EncryptedVector, SealedVector, nearest
from tests.kits.orm import DIM, KINDS, SAP, models, opened, same, vectors

V = vectors(20)


@pytest.fixture
def made():
    return models(scheme=SAP)


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
        (lambda: EncryptedVector(DIM, keyset=made.keyset, metric="l2", scheme="sap")): errors.NormError,
        (lambda: EncryptedVector(DIM, keyset=made.keyset, metric="l1")): errors.MetricError,
        (lambda: EncryptedVector(DIM, keyset=made.keyset, scheme="sketch")): errors.SchemeError,
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


def test_both_columns_wherever_tables_are_made(made):
    table = made.Item.__table__
    assert [c.name for c in table.c if c.name.startswith("embedding")] == ["embedding", "embedding_sealed"]
    copied = table.to_metadata(MetaData(), schema="other")
    assert copied.c.keys() == table.c.keys()
    assert copied.c.embedding.type.collection == "other.items.embedding"
    assert table.c.embedding.type.collection == "items.embedding"
    kind = EncryptedVector(DIM, keyset=made.keyset, scheme="sap")
    shared = Table("t", MetaData(), Column("id", Integer, primary_key=True), Column("a", kind), Column("b", kind))
    assert shared.c.keys() == ["id", "a", "a_sealed", "b", "b_sealed"]
    assert (shared.c.a.type.collection, shared.c.b.type.collection) == ("t.a", "t.b")
    assert isinstance(shared.c.b_sealed.type, SealedVector)
    assert EncryptedVector(DIM, keyset=made.keyset, collection="old").cipher.place == "old"


@pytest.mark.parametrize("column", KINDS)
def test_mixins_inheritance_and_renamed_attributes(orm_dsn, column):
    keyset = ev.Keyset.create("memory:")

    class Base(DeclarativeBase):
        pass

    class Embedded:
        embedding: Mapped[np.ndarray | None] = mapped_column(
            "vec", EncryptedVector(DIM, keyset=lambda: keyset, scheme=SAP)
        )

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
        assert nearest(session, select(Page), Page.embedding, V[11], 1)[0].item.id == "c"
        for model, count in ((Page, 3), (Cover, 1), (Poster, 1), (Note, 1)):
            assert len(nearest(session, select(model), model.embedding, V[11], 5)) == count


def test_columns_in_the_database(orm_dsn, made):
    with opened(orm_dsn, made) as session:
        columns = {c["name"]: str(c["type"]) for c in inspect(session.get_bind()).get_columns("items")}
        assert columns["embedding"] == f"VECTOR({DIM})"
        assert columns["embedding_sealed"] == "BYTEA"
    made = models(metric="l2", max_norm=9.0, scheme=SAP)
    assert made.Item.__table__.c.embedding.type.index_dim == DIM + 2


@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_asked_for_at_first_use(orm_dsn, kind):
    asked = []
    keyset = ev.Keyset.create("memory:")

    def later():
        asked.append(1)
        return keyset

    made = models(later, **KINDS[kind])
    engine = create_engine("postgresql+psycopg://")
    str(select(made.Item).compile(engine))
    assert asked == []
    with opened(orm_dsn, made) as session:
        session.add(made.Item(embedding=V[0]))
        session.flush()
        session.add(made.Item(embedding=V[0]))
        session.flush()
    assert asked == [1]
