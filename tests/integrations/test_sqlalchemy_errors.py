"""No error shows a plaintext vector, and a warning names an engine that shows other values."""

import logging
import pickle
import traceback

import pytest
from sqlalchemy import (
    bindparam,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.exc import SQLAlchemyError, StatementError

from encvec_store import errors
from encvec_store.integrations.sqlalchemy import ciphertexts, nearest, statements
from tests.kits.orm import KINDS, pages, vectors

V = vectors(20, seed=11)


@pytest.fixture(params=["sealed", "sap"])
def made(request):
    return pages(**KINDS[request.param])


@pytest.fixture
def session(session, made):
    session.add(made.Auto(vec=V[0]))
    session.commit()
    return session


class Failing:
    """An array whose conversion fails, with its numbers in the message."""

    def __init__(self, vector):
        self.vector = vector

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError(f"lost the device that held {self.vector.tolist()}")


def everything(error):
    """Return what a log or a report would show of an error and of all its causes."""
    shown, seen = [], []
    while error is not None and error not in seen:
        seen.append(error)
        shown += [str(error), repr(error), repr(error.args), "".join(traceback.format_exception(error))]
        shown += [repr(vars(error))]
        error = error.__cause__ or error.__context__
    return "\n".join(shown)


def breaks(made):
    """Statements that fail while a plaintext vector is in their parameters."""
    Auto, table = made.Auto, made.Auto.__table__
    ragged = [*V[5].tolist()[:3], V[5].tolist()]
    spelled = [*map(str, V[5].tolist())]
    conflict = pg_insert(table).on_conflict_do_update(index_elements=["id"], set_={"vec": V[5]})
    return {
        "ragged": (insert(table), [{"vec": ragged}]),
        "many ragged": (insert(table), [{"vec": V[4]}, {"vec": ragged}]),
        "words": (insert(table), [{"vec": spelled}]),
        "object": (insert(table), [{"vec": {"a": V[5]}}]),
        "__array__": (insert(Auto), [{"vec": Failing(V[5])}]),
        "__array__ in values": (insert(Auto).values(vec=Failing(V[5])), None),
        "too short": (insert(table), [{"vec": V[5][:-1]}]),
        "no such row name": (insert(table), [{"url": "x", "vec": V[5]}, {"url": "y"}]),
        "another column": (insert(table), [{"owner": "no uuid", "vec": V[5]}, {"owner": 5, "vec": V[4]}]),
        "by another name": (insert(table).values(vec=bindparam("v")), [{"v": V[5]}]),
        "update": (update(table), [{"vec": V[5]}]),
        "mapped update": (update(Auto), [{"id": 1, "vec": V[5]}]),
        "conflict": (conflict, [{"vec": V[4]}]),
    }  # fmt: skip


def numbers(vector):
    return {f"{number:.5f}"[:7] for number in vector.tolist() if abs(number) > 0.1}


@pytest.mark.parametrize("case", breaks(pages()))
def test_no_error_shows_a_vector(session, made, case):
    session.get_bind().hide_parameters = False
    statement, rows = breaks(made)[case]
    if case == "by another name" and not made.Auto.__table__.c.vec.type.paired:
        session.execute(statement, rows)  # a sealed column takes it
        return
    with pytest.raises((errors.InputError, StatementError, SQLAlchemyError)) as caught:
        session.execute(statement, rows) if rows else session.execute(statement)
    shown = everything(caught.value)
    assert not [number for number in numbers(V[5]) | numbers(V[4]) if number in shown]
    if isinstance(caught.value, StatementError):
        assert not [number for number in numbers(V[5]) if number.encode() in pickle.dumps(caught.value.params, 0)]


@pytest.mark.parametrize("fails", ["before", "after"])
def test_no_error_shows_a_vector_of_a_missing_key(session, made, fails):
    """The keyset cannot be opened, or a key version is gone."""
    session.get_bind().hide_parameters = False

    def unopened():
        raise KeyError("VECTOR_PASSPHRASE")

    theirs = pages(unopened) if fails == "before" else made
    if fails == "after":
        made.keyset.rotate()
        made.keyset.root = None  # stands for a keyset that lost its roots
    for statement, rows in ((insert(theirs.Auto), [{"vec": V[5]}]), (insert(theirs.Auto).values(vec=V[5]), None)):
        with pytest.raises((SQLAlchemyError, TypeError, KeyError)) as caught:
            session.execute(statement, rows) if rows else session.execute(statement)
        session.rollback()
        assert not [number for number in numbers(V[5]) if number in everything(caught.value)]


def test_no_error_of_a_flush_shows_a_vector(session, made):
    session.get_bind().hide_parameters = False
    item = session.scalar(select(made.Auto))
    item.vec, item.owner = V[5], "no uuid"
    for _ in range(2):
        with pytest.raises(StatementError) as caught:
            session.flush()
        assert not [number for number in numbers(V[5]) if number in everything(caught.value)]
        session.rollback()
        session.add(made.Auto(vec=V[5], owner="no uuid"))


def test_no_value_that_is_set_is_shown(made):
    for call in (
        lambda: made.Auto(vec=Failing(V[5])),
        lambda: nearest(None, select(made.Auto), made.Auto.vec, Failing(V[5]), 1),
        lambda: ciphertexts(made.Auto.vec, Failing(V[5])),
        lambda: made.Auto(vec=[V[5].tolist(), 1]),
    ):
        with pytest.raises(errors.ShapeError) as caught:
            call()
        assert not [number for number in numbers(V[5]) if number in everything(caught.value)]


def test_an_engine_that_shows_parameters_is_warned_of_once(session, made, caplog, monkeypatch):
    monkeypatch.setattr(statements, "_warned", set())
    with caplog.at_level(logging.WARNING, logger="encvec_store"):
        session.execute(insert(made.Auto).values(vec=V[0]))
        assert caplog.text == ""
        session.get_bind().hide_parameters = False
        for _ in range(2):
            session.execute(insert(made.Auto).values(vec=V[0]))
    assert caplog.text.count("hide_parameters=True") == 1
