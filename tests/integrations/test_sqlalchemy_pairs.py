"""No statement writes half of an encrypted pair, and an error on load names the row."""

import uuid

import numpy as np
import pytest
from sqlalchemy import (
    bindparam,
    func,
    insert,
    literal_column,
    null,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.exc import SQLAlchemyError

from encvec_store import errors
from encvec_store.integrations.sqlalchemy import ciphertexts, rerank
from tests.kits.orm import SAP, ask, pages, vectors

V = vectors(20, seed=11)


@pytest.fixture
def made():
    return pages(scheme=SAP)


@pytest.fixture
def session(session, made):
    session.add_all([made.Page(url="a", vec=V[0]), made.Page(url="b", vec=V[1]), made.Auto(url="a", vec=V[0])])
    session.commit()
    return session


def read(session, model):
    """Read every row. This fails if one pair is not whole."""
    session.expire_all()
    return {row.url: row.vec for row in session.scalars(select(model))}


def half_written(made):
    """Statements that would leave a row that cannot be read."""
    Page, table = made.Page, made.Page.__table__
    new = ciphertexts(Page.vec, V[2], uuid.uuid4())
    other = table.alias("other")
    inner = select(other.c.vector).limit(1).scalar_subquery()
    fresh = pg_insert(Page).values(url="a", vec=V[3])
    upsert = {"index_elements": ["id"]}
    excluded = fresh.excluded
    return {
        "subquery": update(Page).values(vec=inner),
        "another column": update(table).values(vector=other.c.vector).where(other.c.url == "b"),
        "both from another row": update(table).values(vector=other.c.vector, vector_sealed=other.c.vector_sealed),
        "vector alone": update(Page).values(vec=new["vector"]),
        "companion alone": update(table).values(vector_sealed=new["vector_sealed"]),
        "companion to NULL": update(table).values(vector_sealed=None),
        "NULL beside a value": update(table).values(vector=None, vector_sealed=b"x"),
        "ordered": update(table).ordered_values((table.c.vector, inner)),
        "key": update(Page).values(id=uuid.uuid4()),
        "from select": insert(Page).from_select(["id", "vector"], select(func.gen_random_uuid(), other.c.vector)),
        "both from select": insert(table).from_select(
            ["id", "vector", "vector_sealed"], select(func.gen_random_uuid(), other.c.vector, other.c.vector_sealed)
        ),
        "inserted subquery": insert(Page).values(vec=inner),
        "inserted SQL": insert(table).values(vector=literal_column("NULL")),
        "inserted companion": insert(table).values(vector_sealed=b"x"),
        "conflict on another column": fresh.on_conflict_do_update(
            index_elements=["url"], set_={"vector": excluded.vector}
        ),
        "conflict on a constraint": fresh.on_conflict_do_update(
            constraint="uq_pages_url", set_={"vector": excluded.vector}
        ),
        "conflict sets the key": fresh.on_conflict_do_update(**upsert, set_={"id": uuid.uuid4()}),
        "conflict takes the key alone": fresh.on_conflict_do_update(
            index_elements=["url"], set_={"id": excluded.id}
        ),
        "conflict sets a vector": fresh.on_conflict_do_update(**upsert, set_={"vector": V[4]}),
        "conflict sets half": fresh.on_conflict_do_update(**upsert, set_={"vector": new["vector"]}),
        "conflict mixes": fresh.on_conflict_do_update(
            **upsert, set_={"vector": excluded.vector, "vector_sealed": new["vector_sealed"]}
        ),
    }  # fmt: skip


@pytest.mark.parametrize("case", half_written(pages(scheme=SAP)))
def test_half_a_pair_is_refused(session, made, case):
    before = read(session, made.Page)
    with pytest.raises(errors.InputError) as caught:
        session.execute(half_written(made)[case])
    assert not isinstance(caught.value, SQLAlchemyError)
    session.commit()  # nothing was sent, so the transaction goes on
    assert {url: vector.tolist() for url, vector in read(session, made.Page).items()} == {
        url: vector.tolist() for url, vector in before.items()
    }


def test_half_a_pair_in_parameters_is_refused(session, made):
    table = made.Page.__table__
    at = update(table).where(table.c.url == bindparam("at"))
    for statement, row in (
        (at, {"at": "a", "vector": V[2]}),
        (at, {"at": "a", "vector_sealed": b"x"}),
        (at, {"at": "a", "id": uuid.uuid4()}),
        (at, {"at": "a", "vector": None, "vector_sealed": b"x"}),
        (insert(table), {"vector_sealed": b"x"}),
        (insert(table), {"vector": None, "vector_sealed": b"x"}),
        (insert(table).values(vector=bindparam("v"), vector_sealed=bindparam("s")), {"v": V[0], "s": b"x"}),
    ):
        for rows in (row, [row, row]):
            with pytest.raises(errors.InputError):
                session.execute(statement, rows)
            session.rollback()
    assert read(session, made.Page).keys() == {"a", "b"}


def test_what_says_enough_is_completed(session, made):
    Page, table = made.Page, made.Page.__table__
    keys = {page.url: page.id for page in session.scalars(select(Page))}
    at = update(table).where(table.c.url == bindparam("at"))

    def upsert(new, **set_):
        fresh = pg_insert(Page).values(id=keys["a"], url="a", vec=new)
        clause = {name: fresh.excluded[column] for name, column in set_.items()}
        session.execute(fresh.on_conflict_do_update(index_elements=[Page.id], set_=clause))

    upsert(V[5], vector="vector")
    np.testing.assert_array_equal(read(session, Page)["a"], V[5])
    upsert(V[6], vector_sealed="vector_sealed")
    np.testing.assert_array_equal(read(session, Page)["a"], V[6])
    fresh = pg_insert(Page).values(id=uuid.uuid4(), url="a", vec=V[7])
    whole = {"id": fresh.excluded.id, "vector": fresh.excluded.vector}
    session.execute(fresh.on_conflict_do_update(index_elements=["url"], set_=whole))
    np.testing.assert_array_equal(read(session, Page)["a"], V[7])
    fresh = pg_insert(table).on_conflict_do_update(index_elements=["url"], set_={"url": "c"})
    session.execute(fresh, [{"url": "a", "vector": V[8]}, {"url": "d", "vector": V[9]}])
    assert read(session, Page).keys() == {"b", "c", "d"}
    for statement, rows in (
        (update(Page).values(vec=None), None),
        (update(table).values(vector=null()), None),
        (update(table).ordered_values((table.c.vector, None)), None),
        (at, [{"at": "b", "vector": None}, {"at": "c", "vector": None}]),
        (at, {"at": "b", "vector": None}),
        (update(Page), [{"id": keys["b"], "vec": None}]),
    ):
        session.execute(update(table).where(table.c.url == "b").values(ciphertexts(Page.vec, V[1], keys["b"])))
        session.execute(statement, rows) if rows else session.execute(statement)
        assert read(session, Page)["b"] is None
    assert ask(session, "SELECT vector, vector_sealed FROM pages WHERE url = 'b'") == [(None, None)]


def test_a_row_whose_key_the_server_makes_may_conflict_on_another_column(session, made):
    fresh = pg_insert(made.Auto).values(url="a", vec=V[3])
    session.execute(fresh.on_conflict_do_update(index_elements=["url"], set_={"vec": fresh.excluded.vec}))
    np.testing.assert_array_equal(read(session, made.Auto)["a"], V[3])


def test_insert_from_select_without_the_vector(session, made):
    session.execute(insert(made.Auto).from_select(["url"], select(literal_column("'new'"))))
    assert read(session, made.Auto)["new"] is None


def test_an_error_on_load_names_the_row(session, made):
    """One such row stops a query over many, so users must be able to find and repair it."""
    key = session.scalar(select(made.Page.id).where(made.Page.url == "b"))
    for change in ("vector = NULL", "vector_sealed = NULL", "vector_sealed = ''", "vector = vector + vector"):
        ask(session, f"UPDATE pages SET {change} WHERE url = 'b'")
        for reading in (lambda: read(session, made.Page), lambda: rerank(session, select(made.Page.url), V[0], 2)):
            with pytest.raises(errors.AuthenticationError, match=rf"^pages\.vector: .* primary key '{key}'"):
                reading()
        session.rollback()
    ask(session, "UPDATE autos SET vec_sealed = NULL")
    with pytest.raises(errors.AuthenticationError, match="primary key '1'"):
        read(session, made.Auto)


def test_loaded_vectors_are_read_only(session, made):
    for vector in (*read(session, made.Page).values(), *session.scalars(select(made.Page.vec))):
        with pytest.raises(ValueError, match="read-only"):
            vector[0] = 1
