"""`nearest`: exact hits of what the session sees, whoever wrote it, and nothing that was rolled back."""

import asyncio
import logging
import sys

import numpy as np
import pytest
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, aliased, with_loader_criteria

from encvec_store import errors
from encvec_store.data import METRICS
from encvec_store.integrations.sqlalchemy import bulk_insert, nearest, nearest_async
from tests.kits.orm import ask, models, opened, url, vectors

V = vectors(300, seed=21)
searching = sys.modules["encvec_store.integrations.sqlalchemy.nearest"]  # the package has a function of that name


@pytest.fixture
def made():
    return models()


@pytest.fixture
def pg_place(pg_place_alone):
    """On a server of its own: an index takes in only entries that are older than every open transaction there."""
    return pg_place_alone


def rows(n, start=0):
    return [{"title": str(i), "embedding": V[i]} for i in range(start, start + n)]


def titles(session, made, query, k, *where):
    return [hit.item for hit in nearest(session, select(made.Item.title).where(*where), made.Item.embedding, query, k)]


def best(query, places, k, metric="cosine"):
    """Return the titles of the k nearest, by brute force."""
    places = np.array(sorted(places), np.int64)
    measure = METRICS[metric]
    order = np.argsort(measure.order(measure.scores(query, V[places])), kind="stable")
    return [str(i) for i in places[order][:k]]


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_exact_hits_and_scores(orm_dsn, metric):
    made = models(metric=metric)
    with opened(orm_dsn, made) as session:
        bulk_insert(session, made.Item, rows(200))
        session.commit()
        for query in vectors(4, seed=5):
            hits = nearest(session, select(made.Item), made.Item.embedding, query, 7)
            assert [hit.item.title for hit in hits] == best(query, range(200), 7, metric)
            scores = METRICS[metric].scores(query, V[[int(hit.item.title) for hit in hits]])
            np.testing.assert_allclose([hit.score for hit in hits], scores)


def test_what_the_session_flushed_counts_and_what_it_rolled_back_does_not(session, made):
    bulk_insert(session, made.Item, rows(50))
    session.commit()
    assert titles(session, made, V[7], 1) == ["7"]
    with Session(session.get_bind()) as other:
        session.add(made.Item(title="100", embedding=V[100]))
        assert titles(session, made, V[100], 1) == ["100"], "flushed by the search itself"
        assert titles(other, made, V[100], 60) == best(V[100], range(50), 60), "not committed"
        session.rollback()
        assert titles(session, made, V[100], 60) == best(V[100], range(50), 60)
        with session.begin_nested() as point:
            session.add(made.Item(title="101", embedding=V[101]))
            assert titles(session, made, V[101], 1) == ["101"]
            point.rollback()
        assert titles(session, made, V[101], 1) != ["101"]
        session.execute(text("DELETE FROM items WHERE title = '7'"))
        assert titles(session, made, V[7], 1) == best(V[7], set(range(50)) - {7}, 1)
        other.rollback()
        assert titles(other, made, V[7], 1) == ["7"], "still there for others"
        session.commit()
        other.rollback()
        assert titles(other, made, V[7], 50) == best(V[7], set(range(50)) - {7}, 50)


def test_an_update_and_a_running_transaction(session, made):
    bulk_insert(session, made.Item, rows(50))
    session.commit()
    assert titles(session, made, V[0], 1) == ["0"]
    with Session(session.get_bind()) as slow, Session(session.get_bind()) as other:
        slow.add(made.Item(title="200", embedding=V[200]))
        slow.flush()  # its transaction holds the index back
        item = other.scalars(select(made.Item).where(made.Item.title == "3")).one()
        item.embedding, item.title = V[150], "150"
        other.commit()
        now = (set(range(50)) - {3}) | {150}
        session.rollback()
        assert titles(session, made, V[150], 1) == ["150"]
        assert titles(session, made, V[3], 50) == best(V[3], now, 50)
        slow.commit()
    session.rollback()
    assert titles(session, made, V[200], 51) == best(V[200], now | {200}, 51)


def test_a_session_that_sees_an_older_state(session, made):
    """Under REPEATABLE READ the index may be newer than what the session sees."""
    bulk_insert(session, made.Item, rows(30))
    session.commit()
    engine = session.get_bind()
    with Session(engine.execution_options(isolation_level="REPEATABLE READ")) as old, Session(engine) as other:
        assert titles(old, made, V[5], 30) == best(V[5], range(30), 30)
        other.execute(text("DELETE FROM items WHERE title = '5'"))
        bulk_insert(other, made.Item, rows(1, 40))
        other.commit()
        assert titles(other, made, V[5], 30) == best(V[5], (set(range(30)) - {5}) | {40}, 30)
        assert titles(old, made, V[5], 30) == best(V[5], range(30), 30)


def test_filters(session, made):
    bulk_insert(session, made.Item, rows(300))
    session.commit()
    Item = made.Item
    for keep in (3, 40, 299):
        names = [str(i) for i in range(keep)]
        assert titles(session, made, V[250], 10, Item.title.in_(names)) == best(V[250], range(keep), 10)
    assert titles(session, made, V[0], 5, Item.title == "nobody") == []
    alias = aliased(Item)
    (hit,) = nearest(session, select(alias.title), alias.embedding, V[8], 1)
    assert hit.item == "8"
    pairs = select(Item.title, alias.title).join(alias, Item.id == alias.id)
    (hit,) = nearest(session, pairs, alias.embedding, V[9], 1)
    assert hit.item == ("9", "9")
    (hit,) = nearest(session.connection(), select(Item.__table__.c.title), Item.__table__.c.embedding, V[9], 1)
    assert hit.item == "9"


def test_a_filter_that_passes_only_what_is_far(session, made, monkeypatch):
    """The walk over the index finds nothing that passes, so all that passes is listed."""
    import sys

    from encvec_store.integrations.sqlalchemy import nearest as module  # noqa: F401

    monkeypatch.setattr(sys.modules["encvec_store.integrations.sqlalchemy.nearest"], "_FEW", 5)
    bulk_insert(session, made.Item, rows(300))
    session.commit()
    far = [int(title) for title in best(V[0], range(300), 300)[-20:]]
    found = titles(session, made, V[0], 10, made.Item.title.in_([str(i) for i in far]))
    assert found == best(V[0], far, 10)


@pytest.fixture
def sent(session):
    """The statements that were sent, and whether SQLAlchemy compiled each anew."""
    found = []

    def note(connection, cursor, statement, parameters, context, many):
        found.append(context.cache_hit.name)

    event.listen(session.get_bind(), "before_cursor_execute", note)
    yield found
    event.remove(session.get_bind(), "before_cursor_execute", note)


def test_a_search_of_what_is_unchanged_is_two_statements_which_are_compiled_once(session, made, sent):
    bulk_insert(session, made.Item, rows(60))
    session.commit()
    for i in range(2):
        assert titles(session, made, V[i], 1) == [str(i)]
    for i, at_most in ((3, 40), (5, 50)):
        sent.clear()
        assert titles(session, made, V[i], 1) == [str(i)]
        assert sent == ["CACHE_HIT"] * 2
        names = [str(j) for j in range(at_most)]
        assert titles(session, made, V[45], 1, made.Item.title.in_(names)) == best(V[45], range(at_most), 1)
    sent.clear()
    assert titles(session, made, V[4], 1, made.Item.title == "4") == ["4"]
    assert titles(session, made, V[4], 1, made.Item.title == "6") == ["6"], "equal but for its value"
    assert sent[-3:] == ["CACHE_HIT"] * 3


def test_statements_that_only_differ_in_what_their_cache_keys_leave_out(session, made):
    """Aliases change places, and criteria change their values."""
    bulk_insert(session, made.Item, rows(40))
    session.commit()
    Item = made.Item
    one, two = aliased(Item), aliased(Item)
    for first, second, found in ((one, two, ("8", "9")), (two, one, ("9", "8"))):
        asked = select(first.title, second.title).join(second, first.title != second.title)
        asked = asked.where(first.title.in_(["8", "9"]), second.title.in_(["8", "9"]))
        (hit,) = nearest(session, asked, one.embedding, V[8], 1)
        assert hit.item == found
    for name in ("3", "4"):
        criteria = with_loader_criteria(Item, Item.title == name)
        (hit,) = nearest(session, select(Item.title).options(criteria), Item.embedding, V[5], 1)
        assert hit.item == name


def test_criteria_that_a_listener_of_the_session_adds(session, made):
    """As soft deletion and tenants are often made: each statement of a search gets them."""
    bulk_insert(session, made.Item, rows(40))
    session.commit()
    few = [str(i) for i in range(20, 40)]

    def add(state):
        state.statement = state.statement.options(with_loader_criteria(made.Item, made.Item.title.in_(few)))

    event.listen(session, "do_orm_execute", add)
    for where in ((), (made.Item.title != "25",)):
        left = set(range(20, 40)) - ({25} if where else set())
        assert titles(session, made, V[3], 30, *where) == best(V[3], left, 30)
    event.remove(session, "do_orm_execute", add)
    assert titles(session, made, V[3], 1) == ["3"]


def test_distances_in_sql_name_the_replacement(made):
    for name in ("cosine_distance", "l2_distance", "max_inner_product"):
        with pytest.raises(errors.InputError, match="use nearest"):
            getattr(made.Item.embedding, name)(V[0])


def test_bad_arguments(session, made):
    for query, k, error in ((V[0], 0, errors.InputError), (V[0][:-1], 1, errors.ShapeError)):
        with pytest.raises(error):
            nearest(session, select(made.Item), made.Item.embedding, query, k)
    assert nearest(session, select(made.Item), made.Item.embedding, V[0], 3) == []


def test_without_triggers_everything_is_scanned_and_said_once(session, made, caplog, monkeypatch):
    monkeypatch.setattr(searching, "_CHUNK", 7)
    monkeypatch.setattr(searching, "_told", set())
    bulk_insert(session, made.Item, rows(20))
    session.commit()
    assert titles(session, made, V[3], 1) == ["3"]
    ask(session, "DROP FUNCTION items_embedding_follow() CASCADE")
    bulk_insert(session, made.Item, [*rows(20, 20), {"title": "none", "embedding": None}])
    session.commit()
    with caplog.at_level(logging.WARNING, logger="encvec_store"):
        for _ in range(2):
            assert titles(session, made, V[33], 40) == best(V[33], range(40), 40)
    assert caplog.text.count("no triggers") == 1
    with Session(session.get_bind().execution_options(isolation_level="AUTOCOMMIT")) as other:
        assert titles(other, made, V[33], 40) == best(V[33], range(40), 40)


def test_async(orm_dsn, made):
    async def main():
        engine = create_async_engine(url(orm_dsn), hide_parameters=True)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(made.Base.metadata.create_all)
            async with AsyncSession(engine) as session:
                await session.run_sync(bulk_insert, made.Item, rows(100))
                await session.commit()
                session.add(made.Item(title="150", embedding=V[150]))
                found = await nearest_async(session, select(made.Item), made.Item.embedding, V[150], 2)
                assert [hit.item.title for hit in found] == best(V[150], [*range(100), 150], 2)
        finally:
            await engine.dispose()

    asyncio.run(main())
