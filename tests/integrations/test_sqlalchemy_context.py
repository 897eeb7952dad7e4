"""The helpers run where the session itself would: on its engine for the class, in its schema, in its transaction."""

import contextlib

import numpy as np
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine, event, func, select, text
from sqlalchemy.exc import DBAPIError, UnboundExecutionError
from sqlalchemy.orm import Session, aliased, scoped_session, sessionmaker

from encvec_store import errors
from encvec_store.integrations.sqlalchemy import bulk, bulk_insert, nearest, reencrypt, rerank, search
from tests.kits.orm import SAP, cell_of, models, opened, url, vectors

V = vectors(60, seed=3)


def rows(n, start=0):
    return [{"title": str(i), "embedding": V[i]} for i in range(start, start + n)]


@pytest.fixture
def other(pg_place):
    """Make a second schema."""
    name = f"{pg_place.schema} other"
    with psycopg.connect(pg_place.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    return name


@pytest.fixture
def engine(orm_dsn, made, other):
    """An engine whose default schema is the test's own. Both schemas have the tables."""
    engine = create_engine(url(orm_dsn), hide_parameters=True)
    made.Base.metadata.create_all(engine)
    made.Base.metadata.create_all(engine.execution_options(schema_translate_map={None: other}))
    yield engine
    engine.dispose()


def contents(engine, made, schema=None):
    """Return the titles in a schema. Every row must open."""
    with Session(engine.execution_options(schema_translate_map={None: schema})) as session:
        return {item.title for item in session.scalars(select(made.Item)) if item.embedding is not None}


def use_all(session, made, alias=False):
    """Use every helper that runs statements, and check that it sees the right rows."""
    Item = aliased(made.Item) if alias else made.Item
    assert bulk_insert(session, made.Item, rows(20, 40)) == 20
    assert [hit.item.title for hit in nearest(session, select(Item), Item.embedding, V[45], 1)] == ["45"]
    assert [hit.item for hit in nearest(session, select(Item.title), Item.embedding, V[45], 1)] == ["45"]
    made.keyset.rotate()
    assert reencrypt(session, Item.embedding) == 20
    assert reencrypt(session, Item.embedding) == 0
    session.commit()


def translated(engine, other, how):
    options = {"schema_translate_map": {None: other}}
    if how == "engine":
        return Session(engine.execution_options(**options))
    if how == "session":
        return Session(engine, execution_options=options)
    if how == "connection":
        return Session(engine.connect().execution_options(**options))
    session = Session(engine)
    session.connection(execution_options=options)
    return session


@pytest.mark.parametrize("how", ["engine", "session", "connection", "session's connection"])
def test_schema_translate_map(engine, made, other, how):
    with Session(engine) as session:
        bulk_insert(session, made.Item, rows(10))
        session.commit()
    session = translated(engine, other, how)
    with contextlib.closing(session.get_bind() if how == "connection" else session), session:
        use_all(session, made)
    assert contents(engine, made) == {str(i) for i in range(10)}
    assert contents(engine, made, other) == {str(i) for i in range(40, 60)}


def test_options_of_a_statement(engine, made, other):
    """The execution options of a statement count, as for `session.execute`."""
    with Session(engine.execution_options(schema_translate_map={None: other})) as session:
        bulk_insert(session, made.Item, rows(10))
        session.commit()
    with Session(engine) as session:
        there = select(made.Item.title).execution_options(schema_translate_map={None: other})
        assert [hit.item for hit in nearest(session, there, made.Item.embedding, V[3], 1)] == ["3"]
        assert nearest(session, select(made.Item.title), made.Item.embedding, V[3], 1) == []


@pytest.mark.parametrize("bound", ["class", "base", "table", "alias"])
def test_binds(engine, made, other, bound):
    """A session with an engine for each class, and none for the rest."""
    there = engine.execution_options(schema_translate_map={None: other})
    key = {"class": made.Item, "base": made.Base, "alias": made.Item, "table": made.Item.__table__}[bound]
    with Session(binds={key: there}) as session:
        use_all(session, made, alias=bound == "alias")
    assert contents(engine, made) == set()
    assert contents(engine, made, other) == {str(i) for i in range(40, 60)}
    with Session(binds={made.Tag: there}) as session:
        for call in (
            lambda: bulk_insert(session, made.Item, rows(1)),
            lambda: nearest(session, select(made.Item), made.Item.embedding, V[0], 1),
            lambda: reencrypt(session, made.Item.embedding),
        ):
            with pytest.raises(UnboundExecutionError):
                call()


def test_tables_and_columns_in_the_place_of_classes(engine, made, other):
    table = made.Item.__table__
    with Session(binds={table: engine.execution_options(schema_translate_map={None: other})}) as session:
        bulk_insert(session, table, rows(5))
        assert nearest(session, select(table.c.title), table.c.embedding, V[3], 1)[0].item == "3"
        made.keyset.rotate()
        assert reencrypt(session, table.c.embedding) == 5
        session.commit()
    assert contents(engine, made, other) == {str(i) for i in range(5)}


def test_scoped_session(engine, made):
    session = scoped_session(sessionmaker(engine))
    use_all(session, made)
    session.remove()
    assert contents(engine, made) == {str(i) for i in range(40, 60)}


def test_what_is_pending_is_written_first(engine, made):
    with Session(engine, autoflush=False) as session:
        session.add(made.Item(title="0", embedding=V[0]))
        bulk_insert(session, made.Item, rows(1, 1))
        assert session.scalar(select(func.count(made.Item.id))) == 2


def test_autocommit(engine, made):
    with Session(engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        use_all(session, made)


def test_autocommit_of_ranked_columns(ranked, made):
    """Settings of a transaction have no effect there, so the index may give too few rows. Then all are compared."""
    with Session(ranked.execution_options(isolation_level="AUTOCOMMIT")) as session:
        bulk_insert(session, made.Item, rows(20))
        session.execute(text("SET enable_seqscan = off"))
        assert len(rerank(session, select(made.Item), V[0], 20, oversample=3)) == 20
        session.execute(text("RESET enable_seqscan"))


@pytest.fixture
def ranked(engine, made):
    """The engine, where columns are ranked by the server."""
    if not made.Item.__table__.c.embedding.type.paired:
        pytest.skip("the server ranks pairs only")
    return engine


@pytest.fixture
def unbound(engine, made):
    """A connection without transactions, and 20 rows under an old key version. The server refuses row 17 twice."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        bulk_insert(connection, made.Item, rows(20))
        made.keyset.rotate()
        connection.execute(text(
            "CREATE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN IF NEW.title = '17' THEN RAISE 'refused'; END IF; RETURN NEW; END$$"
        ))  # fmt: skip
        connection.execute(text(
            "CREATE TRIGGER refused BEFORE INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION refused()"
        ))  # fmt: skip
        yield connection


def test_autocommit_is_all_or_nothing(unbound, engine, made, monkeypatch):
    versions = text(f"SELECT DISTINCT substring({cell_of(made)}, 25, 4) FROM items")
    with pytest.raises(DBAPIError, match="refused"):
        reencrypt(unbound, made.Item.embedding)
    assert unbound.scalars(versions).all() == [(1).to_bytes(4, "big")], "no row was rewritten"
    for copies in (True, False):
        monkeypatch.setattr(bulk, "can_copy", lambda connection, copies=copies: copies)
        with pytest.raises(DBAPIError, match="refused"):
            bulk_insert(unbound, made.Item, rows(20))
    assert unbound.scalar(select(func.count(made.Item.id))) == 20, "no row was inserted"
    unbound.execute(text("DROP TRIGGER refused ON items"))
    assert reencrypt(unbound, made.Item.embedding) == 20
    assert reencrypt(unbound, made.Item.embedding) == 0
    assert contents(engine, made) == {str(i) for i in range(20)}


def test_autocommit_keeps_a_vector_that_is_written_meanwhile(unbound, engine, made):
    """Rows are not locked between the two statements of reencrypt."""
    unbound.execute(text("DROP TRIGGER refused ON items"))
    done = []

    def write(connection, cursor, statement, parameters, context, executemany):
        if executemany and not done:
            done.append(statement)
            with Session(engine) as session:
                session.scalars(select(made.Item).where(made.Item.title == "3")).one().embedding = V[33]
                session.commit()

    event.listen(unbound, "before_cursor_execute", write)
    assert reencrypt(unbound, made.Item.embedding) == 20
    assert reencrypt(unbound, made.Item.embedding) == 0
    with Session(engine) as session:
        found = {item.title: item.embedding for item in session.scalars(select(made.Item))}
    for title, vector in found.items():
        np.testing.assert_array_equal(vector, V[33 if title == "3" else int(title)])


def test_an_error_puts_the_settings_back(ranked, made):
    with Session(ranked) as session:
        bulk_insert(session, made.Item, rows(3))
        session.execute(text("UPDATE items SET embedding_sealed = NULL"))
        with pytest.raises(errors.AuthenticationError):
            rerank(session, select(made.Item), V[0], 1)
        assert session.scalar(text("SHOW hnsw.iterative_scan")) == "off"


# ------------------------------------------------------------------------------------------ what an index gives


def test_rerank_compares_all_rows_where_the_index_gives_too_few(orm_dsn, caplog, monkeypatch):
    """HNSW stops after a number of rows, so it may find none that pass a rare filter."""
    made = models(scheme=SAP)
    monkeypatch.setattr(search, "_told", set())
    with opened(orm_dsn, made) as session:
        many = vectors(600, seed=4) + np.repeat([3, -3], [560, 40])[:, None]  # two places, far apart
        bulk_insert(session, made.Item, [{"title": str(i), "embedding": row} for i, row in enumerate(many)])
        session.commit()
        session.execute(text("SET LOCAL enable_seqscan = off"))
        session.execute(text("SET LOCAL hnsw.max_scan_tuples = 1"))
        scores = many @ many[0] / np.linalg.norm(many, axis=1)
        rare = np.argsort(scores)[:40]
        only = select(made.Item.title).where(made.Item.title.in_([str(i) for i in rare]))
        for _ in range(2):
            hits = rerank(session, only, many[0], 10)
            assert [int(hit.item) for hit in hits] == rare[::-1][:10].tolist()
        assert session.scalar(text("SHOW enable_seqscan")) == "off"
    assert caplog.text.count("40 pass the filter") == 1


@pytest.mark.parametrize("dim", [2000, 2001, 4000])
def test_an_index_of_many_dimensions(orm_dsn, dim):
    """Above 2,000 the index has half precision. It is used, and the scores of rerank are exact."""
    made = models(dim=dim, scheme=SAP)
    data = vectors(30, seed=5, dim=dim)
    with opened(orm_dsn, made) as session:
        bulk_insert(session, made.Item, [{"title": str(i), "embedding": row} for i, row in enumerate(data)])
        session.commit()
        session.execute(text("SET LOCAL enable_seqscan = off"))
        near = select(made.Item.title).order_by(made.Item.embedding.cosine_distance(data[7])).limit(3)
        plan = "\n".join(session.execute(text(f"EXPLAIN {shown(near, session)}")).scalars())
        assert "ix_items_embedding_hnsw" in plan
        assert session.scalars(near).first() == "7"
        (hit,) = rerank(session, select(made.Item), data[8], 1)
        assert (hit.item.title, hit.score) == ("8", pytest.approx(1))
        np.testing.assert_array_equal(hit.item.embedding, data[8])


def shown(statement, session):
    """Return a statement as SQL with its values, which are ciphertext."""
    compiled = statement.compile(session.get_bind())
    return compiled.string % {
        name: f"'{value}'" if isinstance(value, str) else value for name, value in compiled.params.items()
    }


def test_more_dimensions_than_an_index_takes():
    with pytest.raises(errors.InputError, match=r"at most 4000 dimensions, and .* have 4001"):
        models(dim=4001, scheme=SAP)
