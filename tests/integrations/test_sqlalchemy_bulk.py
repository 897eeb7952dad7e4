"""Many rows: COPY, exact re-ranking, rotation, async engines."""

import asyncio
import datetime as dt
import enum
import uuid
from decimal import Decimal

import numpy as np
import pytest
from sqlalchemy import (
    ARRAY,
    JSON,
    Enum,
    ForeignKey,
    Numeric,
    String,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import (
    JSONB,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column

import encvec_store as ev
from encvec_store import errors
from encvec_store.data import METRICS
from encvec_store.integrations.sqlalchemy import (
    EncryptedVector,
    bulk_insert,
    ciphertexts,
    nearest,
    nearest_async,
    reencrypt,
    rerank,
)
from tests.kits.orm import DIM, ask, cell_of, models, opened, url, vectors

V = vectors(400)


def rows(n, start=0):
    return [{"title": str(i), "embedding": V[i]} for i in range(start, start + n)]


def check(session, model):
    for title, vector in session.execute(select(model.title, model.embedding)):
        np.testing.assert_array_equal(vector, V[int(title)])


# ------------------------------------------------------------------------------------------ bulk_insert


def test_bulk_insert(session, made):
    assert bulk_insert(session, made.Item, rows(300)) == 300
    assert bulk_insert(session, made.Auto, rows(50)) == 50
    assert bulk_insert(session.connection(), made.Item.__table__, rows(50, 300)) == 50
    assert bulk_insert(session, made.Item, []) == 0
    bulk_insert(session, made.Item, [{"title": "350", "embedding": V[350].tolist()}, {"title": "0", "embedding": None}])
    bulk_insert(session, made.Item, [{"id": uuid.uuid4()}])
    session.commit()
    assert session.scalar(select(func.count(made.Item.id))) == 353
    assert session.scalar(select(func.count(made.Item.id)).where(made.Item.embedding.is_(None))) == 2
    check(session, select(made.Item).where(made.Item.embedding.is_not(None)).subquery().c)
    check(session, made.Auto)


def test_bulk_insert_binds_the_keys_that_are_given(session, made):
    bulk_insert(session, made.Item, rows(2))
    bulk_insert(session, made.Auto, [{"id": i, **row} for i, row in enumerate(rows(2))])
    session.commit()
    for table, model in (("items", made.Item), ("autos", made.Auto)):
        cell = cell_of(made)
        ask(
            session,
            f"UPDATE {table} SET (embedding, {cell}) = "
            f"(SELECT embedding, {cell} FROM {table} o WHERE o.title <> {table}.title)"
            if cell != "embedding"
            else f"UPDATE {table} SET embedding = (SELECT embedding FROM {table} o WHERE o.title <> {table}.title)",
        )
        with pytest.raises(errors.AuthenticationError):
            session.scalars(select(model)).all()
        session.rollback()


def test_bulk_insert_of_other_columns(orm_dsn):
    class Colour(enum.Enum):
        RED = "red"

    class Base(DeclarativeBase):
        pass

    class Parent(Base):
        __tablename__ = "parents"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Wide(Base):
        __tablename__ = "wide table"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent: Mapped[int] = mapped_column(ForeignKey("parents.id"))
        one: Mapped[str | None] = mapped_column(String(20))
        when: Mapped[dt.datetime] = mapped_column(default=lambda: dt.datetime(2026, 1, 2))
        price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
        data: Mapped[dict] = mapped_column(JSONB)
        more: Mapped[dict] = mapped_column(JSON)
        words: Mapped[list] = mapped_column(ARRAY(String))
        colour: Mapped[Colour] = mapped_column(Enum(Colour))
        flag: Mapped[bool] = mapped_column("is flag", default=True)
        blob: Mapped[bytes]
        made: Mapped[int] = mapped_column(server_default="5")
        first: Mapped[np.ndarray] = mapped_column(EncryptedVector(DIM, keyset=keyset))
        second: Mapped[np.ndarray | None] = mapped_column(EncryptedVector(4, keyset=keyset, metric="l2", max_norm=5.0))

    with opened(orm_dsn, type("Made", (), {"Base": Base})) as session:
        session.add(Parent(id=1))  # flushed first
        row = {
            "parent": 1, "one": None, "price": Decimal("1.50"), "data": {"a": [1]}, "more": {"b": None},
            "words": ["x", "y"], "colour": Colour.RED, "blob": b"\0\1", "first": V[0], "second": np.arange(4) / 2,
        }  # fmt: skip
        bulk_insert(session, Wide, [row, {**row, "second": None}])
        session.commit()
        found = session.scalars(select(Wide).order_by(Wide.id)).first()
        for name, value in row.items():
            if name not in ("first", "second"):
                assert getattr(found, name) == value
        np.testing.assert_array_equal(found.first, V[0])
        assert found.second.tolist() == [0, 0.5, 1, 1.5]
        assert (found.when, found.flag, found.made) == (dt.datetime(2026, 1, 2), True, 5)


keyset = ev.Keyset.create("memory:")


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ([{"embedding": V[0]}, {"title": "x"}], "same names as"),
        ([{"embedding": V[0], "colour": 1}], "unknown 'colour'"),
        ([{"embedding": V[0]}, {"embedding": V[1][:-1]}], "expected shape"),
        ([{"embedding": V[0]}, {"embedding": np.zeros(DIM)}], "zero vector"),
        ([{"embedding": V[0], "embedding_sealed": b""}], "must be left out|unknown"),
    ],
    ids=str,
)
def test_bulk_insert_refuses(session, made, bad, error):
    with pytest.raises(errors.InputError, match=error):
        bulk_insert(session, made.Item, rows(3) and bad)
    assert session.scalar(select(func.count(made.Item.id))) == 0


def test_bulk_insert_is_all_or_nothing(session, made):
    id = uuid.uuid4()
    with pytest.raises(IntegrityError) as caught:
        bulk_insert(session, made.Item, [{"id": uuid.uuid4(), "embedding": V[0]}] + [{"id": id, "embedding": V[1]}] * 2)
    assert isinstance(caught.value, DBAPIError)
    assert str(V[1][0])[:6] not in str(caught.value)
    session.rollback()
    assert session.scalar(select(func.count(made.Item.id))) == 0
    with pytest.raises(errors.InputError, match="run_sync"):
        bulk_insert(object(), made.Item, rows(1))


# ------------------------------------------------------------------------------------------ rerank


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_rerank_is_exact(orm_dsn, metric):
    options = {} if metric == "cosine" else {"max_norm": 12.0}
    made = models(metric=metric, scheme={"name": "sap", "beta": 1.0}, **options)
    with opened(orm_dsn, made) as session:
        bulk_insert(session, made.Item, rows(400))
        session.commit()
        measure = METRICS[metric]
        for query in vectors(3, seed=5):
            hits = rerank(session, select(made.Item), query, 5, oversample=80)
            scores = measure.scores(query, V)
            order = np.argsort(measure.order(scores))[:5]
            assert [int(hit.item.title) for hit in hits] == order.tolist()
            np.testing.assert_allclose([hit.score for hit in hits], scores[order])


@pytest.mark.parametrize("made", ["sap"], indirect=True)
def test_rerank_of_other_statements(session, made):
    bulk_insert(session, made.Item, rows(200))
    session.add(made.Item(title="none"))
    session.commit()
    Item = made.Item
    even = Item.title.in_([str(i) for i in range(0, 200, 2)])
    hits = rerank(session, select(Item).where(even).order_by(Item.title).limit(1), V[7], 5, oversample=20)
    assert len(hits) == 5
    assert all(int(hit.item.title) % 2 == 0 for hit in hits)
    (hit,) = rerank(session, select(Item.title, Item.id), V[7], 1)
    assert hit.item[0] == "7"
    assert hit.score == pytest.approx(1)
    alias = aliased(Item)
    (hit,) = rerank(session, select(alias.title), V[8], 1)
    assert hit.item == "8"
    (hit,) = rerank(
        session, select(Item.title, alias.title).join(alias, Item.id == alias.id), V[9], 1, column=alias.embedding
    )
    assert hit.item == ("9", "9")
    (hit,) = rerank(session.connection(), select(Item.__table__.c.title), V[9], 1)
    assert hit.item == "9"
    assert rerank(session, select(Item).where(Item.title == "nobody"), V[0], 3) == []
    with pytest.raises(errors.InputError, match="name one"):
        rerank(session, select(made.Tag), V[0], 1)
    with pytest.raises(errors.InputError, match="integers >= 1, got 0 and 10"):
        rerank(session, select(Item), V[0], 0)
    with pytest.raises(errors.ShapeError):
        rerank(session, select(Item), V[0][1:], 1)


@pytest.mark.parametrize("made", ["sap"], indirect=True)
def test_rerank_looks_at_enough_candidates_and_puts_the_settings_back(session, made):
    """HNSW gives 40 rows unless its settings say more."""
    bulk_insert(session, made.Item, rows(400))
    session.commit()
    session.execute(text("SET LOCAL enable_seqscan = off"))
    session.execute(text("SET LOCAL hnsw.ef_search = 33"))
    seen = session.execute(select(made.Item.id).order_by(made.Item.embedding.cosine_distance(V[0])).limit(300)).all()
    assert len(seen) < 100
    assert len(rerank(session, select(made.Item), V[0], 300, oversample=1)) == 300
    assert session.scalar(text("SHOW hnsw.ef_search")) == "33"
    assert session.scalar(text("SHOW hnsw.iterative_scan")) == "off"


# ------------------------------------------------------------------------------------------ rotation


def test_rotation(session, made):
    bulk_insert(session, made.Item, rows(60))
    bulk_insert(session, made.Auto, rows(20))
    session.commit()
    assert reencrypt(session, made.Item.embedding) == 0
    made.keyset.rotate()
    bulk_insert(session, made.Item, rows(40, 60))
    session.commit()
    check(session, made.Item)
    for i in (3, 80):  # one under each key version
        (hit,) = nearest(session, select(made.Item), made.Item.embedding, V[i], 1)
        assert hit.item.title == str(i)
    done = []
    while n := reencrypt(session, made.Item.embedding, limit=25):
        done.append(n)
        session.commit()
    assert done == [25, 25, 10]
    assert reencrypt(session, made.Auto.embedding) == 20
    assert reencrypt(session, made.Auto.embedding) == 0
    session.commit()
    made.keyset.destroy(1)
    check(session, made.Item)
    check(session, made.Auto)
    assert nearest(session, select(made.Item.title), made.Item.embedding, V[3], 1)[0].item == "3"


def test_reencrypt_binds_what_was_not_bound(session, made):
    session.add_all([made.Auto(title=str(i), embedding=V[i]) for i in range(3)])
    session.commit()
    assert reencrypt(session, made.Auto.embedding) == 3
    session.commit()
    check(session, made.Auto)
    ask(session, "UPDATE autos SET id = id + 100")
    with pytest.raises(errors.AuthenticationError):
        session.scalars(select(made.Auto)).all()


def test_rows_of_a_disabled_version_are_not_found(session, made):
    bulk_insert(session, made.Item, rows(20))
    session.commit()
    made.keyset.rotate()
    bulk_insert(session, made.Item, rows(20, 20))
    made.keyset.disable(1)
    assert {
        int(hit.item.title) >= 20 for hit in nearest(session, select(made.Item), made.Item.embedding, V[3], 40)
    } == {True}


# ------------------------------------------------------------------------------------------ async


def test_async(orm_dsn, made):
    async def main():
        engine = create_async_engine(url(orm_dsn), hide_parameters=True)
        async with engine.begin() as connection:
            await connection.run_sync(made.Base.metadata.create_all)
        async with AsyncSession(engine, expire_on_commit=False) as session:
            session.add(item := made.Item(title="0", embedding=V[0]))
            await session.commit()
            item.embedding = V[1]
            await session.commit()
            await session.refresh(item)
            np.testing.assert_array_equal(item.embedding, V[1])
            assert await session.run_sync(bulk_insert, made.Item, rows(50, 50)) == 50
            await session.commit()
            (hit,) = await nearest_async(session, select(made.Item), made.Item.embedding, V[70], 1)
            assert hit.item.title == "70"
            with pytest.raises(IntegrityError):
                await session.run_sync(bulk_insert, made.Item, [{"id": item.id, "embedding": V[0]}])
            await session.rollback()
            made.keyset.rotate()
            assert await session.run_sync(reencrypt, made.Item.embedding) == 51
            await session.commit()
        await engine.dispose()

    asyncio.run(main())


def test_ciphertexts_need_no_database(made):
    one, two = (ciphertexts(made.Item.embedding, V[0], key) for key in (None, uuid.uuid4()))
    assert one.keys() == two.keys() == {"embedding", cell_of(made)}
