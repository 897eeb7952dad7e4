"""What may go wrong around a followed table: triggers that did not fire, keys that change places, roles that pry."""

import logging
import sys
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, text, union
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from encvec_store import errors
from encvec_store.integrations.sqlalchemy import EncryptedVector, bulk_insert, follow, maintain, nearest, sharing
from encvec_store.integrations.sqlalchemy.following import covers
from tests.kits.orm import DIM, ask, models, opened, vectors

N = 30
V = vectors(N, seed=51)
searching = sys.modules["encvec_store.integrations.sqlalchemy.nearest"]  # the package has a function of that name


@pytest.fixture
def made():
    return models()


@pytest.fixture
def session(session, made):
    """A session over N rows, which has searched them."""
    bulk_insert(session, made.Item, [{"title": str(i), "embedding": V[i]} for i in range(N)])
    session.commit()
    assert found(session, made) == set(range(N))
    session.rollback()
    return session


def found(session, made, model=None):
    """Return the numbers of all rows that a search finds."""
    model = model or made.Item
    return {int(hit.item) for hit in nearest(session, select(model.title), model.embedding, V[0], 10 * N)}


def move(session, number):
    """Delete a row and insert it again under the same key, so that its cell still opens."""
    ask(session, "CREATE TABLE IF NOT EXISTS kept AS SELECT * FROM items WHERE false")
    ask(session, f"WITH d AS (DELETE FROM items WHERE title = '{number}' RETURNING *) INSERT INTO kept SELECT * FROM d")
    ask(session, f"INSERT INTO items SELECT * FROM kept WHERE title = '{number}'")


@pytest.fixture
def role(session):
    """A role that may read the table and its companions."""
    schema = session.scalar(text("SELECT current_schema()"))
    name = f'"{schema}_app"'
    ask(session, f"CREATE ROLE {name}; GRANT USAGE ON SCHEMA {schema} TO {name}")
    ask(session, f"GRANT SELECT ON items, items_embedding_rows, items_embedding_blobs TO {name}")
    session.commit()
    yield name
    session.rollback()
    ask(session, f"DROP OWNED BY {name}; DROP ROLE {name}")
    session.commit()


# ------------------------------------------------------------------------------------------ triggers that do not fire


def test_triggers_that_were_disabled_for_a_while(session, made):
    """Nobody notes what was written meanwhile. So the index is not used until `follow` has looked."""
    ask(session, "ALTER TABLE items DISABLE TRIGGER USER")
    move(session, 3)
    ask(session, "ALTER TABLE items ENABLE TRIGGER USER")
    session.commit()
    assert found(session, made) == set(range(N))
    with pytest.raises(errors.InputError, match="whose triggers are there"):
        maintain(session, made.Item.embedding)
    follow(session, made.Item.embedding)
    session.commit()
    assert found(session, made) == set(range(N))
    maintain(session, made.Item.embedding)


def test_maintain_says_that_rows_are_not_noted(session, made):
    """Who sets this needs rights that applications do not have, and leaves no trace that a search could see."""
    ask(session, "SET LOCAL session_replication_role = replica")
    ask(session, "DELETE FROM items WHERE title = '3'")
    session.commit()
    assert maintain(session, made.Item.embedding)[-1] == "29 vectors are there, and 30 are noted: call follow"
    session.rollback()
    follow(session, made.Item.embedding)
    session.commit()
    assert not any("follow" in done for done in maintain(session, made.Item.embedding))


OUTSIDE = {
    "a child": """
        CREATE TABLE more () INHERITS (items);
        WITH d AS (DELETE FROM ONLY items WHERE title IN ('3', '4') RETURNING *) INSERT INTO more SELECT * FROM d
    """,
    "a subscription": """
        SET LOCAL allow_system_table_mods = on;
        SET LOCAL session_replication_role = replica;
        CREATE TABLE kept AS SELECT * FROM items WHERE title IN ('3', '4');
        DELETE FROM items WHERE title IN ('3', '4');
        SET LOCAL session_replication_role = origin;
        DELETE FROM items_embedding_rows WHERE row IN (4, 5);
        SET LOCAL session_replication_role = replica;
        INSERT INTO items SELECT * FROM kept;
        INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate) VALUES (4000000000, 'items'::regclass, 'r');
        SET LOCAL session_replication_role = origin
    """,
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_rows_that_no_trigger_sees(session, made, kind):
    """All are compared: those of tables that inherit, and those that a subscription brings."""
    for statement in OUTSIDE[kind].split(";"):
        ask(session, statement)
    assert found(session, made) == set(range(N))
    session.rollback()
    assert found(session, made) == set(range(N))


def test_a_partitioned_table(orm_dsn, made):
    """Rows may come to a partition by its own name, or with it."""
    made.Item.__table__.dialect_options["postgresql"]["partition_by"] = "HASH (id)"
    with opened(orm_dsn, made) as session:
        ask(session, "CREATE TABLE half PARTITION OF items FOR VALUES WITH (modulus 2, remainder 0)")
        ask(session, "CREATE TABLE rest PARTITION OF items FOR VALUES WITH (modulus 2, remainder 1)")
        bulk_insert(session, made.Item, [{"title": str(i), "embedding": V[i]} for i in range(N)])
        session.commit()
        assert found(session, made) == set(range(N))
        ask(session, "CREATE TABLE kept AS SELECT * FROM half; DELETE FROM items WHERE id IN (SELECT id FROM kept)")
        ask(session, "INSERT INTO half SELECT * FROM kept")
        session.commit()
        assert found(session, made) == set(range(N))


def test_policies_of_a_companion_table(session, made, role, caplog, monkeypatch):
    """Some services enable row-level security on every table. Then a role sees no entry, but all rows."""
    monkeypatch.setattr(searching, "_told", set())
    ask(session, "ALTER TABLE items_embedding_rows ENABLE ROW LEVEL SECURITY")
    session.commit()
    with Session(session.get_bind()) as theirs, caplog.at_level(logging.WARNING, logger="encvec_store"):
        ask(theirs, f"SET LOCAL ROLE {role}")
        assert found(theirs, made) == set(range(N))
    assert "row-level security" in caplog.text


def test_an_incarnation_that_a_policy_hides(session, made, role):
    """A cell that nobody could open is not written."""
    ask(session, f"GRANT INSERT ON items, items_embedding_blobs TO {role}")
    ask(session, "ALTER TABLE items_embedding_blobs ENABLE ROW LEVEL SECURITY")
    ask(session, "CREATE POLICY blind ON items_embedding_blobs FOR INSERT WITH CHECK (true)")
    session.commit()
    with Session(session.get_bind()) as theirs:
        ask(theirs, f"SET LOCAL ROLE {role}")
        theirs.add(made.Item(title="99", embedding=V[0]))
        with pytest.raises((errors.StoreError, DBAPIError), match=r"incarnation|row-level security"):
            theirs.flush()


# ------------------------------------------------------------------------------------------ keys that change places


def test_keys_that_change_places_in_one_statement(session, made):
    """Entries of the keys that others had before are gone, and not those of the keys that they have now."""
    ask(session, "ALTER TABLE autos DROP CONSTRAINT autos_pkey, ADD PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED")
    bulk_insert(session, made.Auto, [{"title": str(i), "embedding": V[i]} for i in range(5)])
    session.commit()
    ask(session, "UPDATE autos SET id = id + 1")
    session.commit()
    assert found(session, made, made.Auto) == set(range(5))
    ask(session, "UPDATE autos SET id = 8 - id")
    session.commit()
    assert found(session, made, made.Auto) == set(range(5))
    assert ask(session, "SELECT count(*) FROM autos_embedding_rows WHERE NOT gone") == [(5,)]


def test_rows_that_are_deleted_and_inserted_in_one_statement(session, made):
    move_all = "WITH d AS (DELETE FROM items RETURNING *) INSERT INTO items SELECT * FROM d"
    ask(session, move_all)
    session.commit()
    assert found(session, made) == set(range(N))
    ask(session, move_all + " LIMIT 7")  # the INSERT ends before the DELETE does
    session.commit()
    assert len(found(session, made)) == 7
    assert ask(session, "SELECT count(*) FROM items_embedding_rows WHERE NOT gone") == [(7,)]
    ask(session, "TRUNCATE items CASCADE")
    assert found(session, made) == set()
    session.rollback()
    assert len(found(session, made)) == 7


def test_rows_that_a_foreign_key_deletes(session, made):
    ask(session, "CREATE TABLE owners AS SELECT DISTINCT title FROM items; ALTER TABLE owners ADD PRIMARY KEY (title)")
    ask(session, "ALTER TABLE items ADD FOREIGN KEY (title) REFERENCES owners ON DELETE CASCADE")
    ask(session, "DELETE FROM owners WHERE title::int < 10")
    session.commit()
    assert found(session, made) == set(range(10, N))
    assert ask(session, "SELECT count(*) FROM items_embedding_rows WHERE NOT gone") == [(N - 10,)]


def test_a_joined_filter_that_repeats_rows(session, made, monkeypatch):
    """A list of the rows that pass is cut by a number of rows of the statement, and these repeat."""
    monkeypatch.setattr(searching, "_FEW", 50)
    ids = dict(session.execute(select(made.Item.title, made.Item.id)).all())
    session.add_all([made.Tag(item_id=ids[str(i)]) for i in range(N) for _ in range(5)])
    session.commit()
    asked = select(made.Item.title).join(made.Tag).where(made.Tag.id > 0)
    hits = nearest(session, asked, made.Item.embedding, V[0], 5 * N)
    assert {int(hit.item) for hit in hits} == set(range(N))
    assert len(hits) == 5 * N


# ------------------------------------------------------------------------------------------ roles, locks, isolation


def test_nobody_uses_the_function_for_a_table_of_his_own(session, made, role):
    """It has the rights of its owner. A table with the same columns would hide rows from the searches of all."""
    with Session(session.get_bind()) as theirs:
        ask(theirs, f"SET LOCAL ROLE {role}")
        ask(theirs, "CREATE TEMP TABLE evil AS SELECT id, embedding FROM items")
        with pytest.raises(DBAPIError, match="permission denied for function"):
            ask(
                theirs,
                "CREATE TRIGGER evil AFTER DELETE ON evil REFERENCING OLD TABLE AS encvec_old FOR EACH STATEMENT"
                " EXECUTE FUNCTION items_embedding_follow()",
            )


def test_follow_needs_to_see_what_was_committed_before_its_lock(session, made):
    engine = session.get_bind()
    with Session(engine.execution_options(isolation_level="REPEATABLE READ")) as old:
        old.execute(text("SELECT 1"))
        with pytest.raises(DBAPIError, match="READ COMMITTED"):
            follow(old, made.Item.embedding)
    strict = models()
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
        ask(connection, "CREATE SCHEMA IF NOT EXISTS strict_place")
        connection.execution_options(schema_translate_map={None: "strict_place"})
        strict.Base.metadata.create_all(connection)  # new tables have no rows that could be missed
        connection.rollback()


def test_follow_waits_for_writers_and_they_not_for_it(session, made):
    """A writer reads the incarnation, then writes the table: `follow` takes its locks in the same order."""
    engine, failed = session.get_bind(), []

    def run():
        try:
            with Session(engine) as other:
                follow(other, made.Item.embedding)
                other.commit()
        except Exception as error:
            failed.append(error)

    session.add(made.Item(title="100", embedding=V[0]))
    session.connection()
    kind = made.Item.__table__.c.embedding.type
    kind.sealed(V[:1], None, session.connection())  # reads the incarnation
    thread = threading.Thread(target=run)
    thread.start()
    with Session(engine) as watch:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
        for _ in range(1000):
            if ask(watch, waiting + " AND relation = 'items_embedding_blobs'::regclass")[0][0]:
                break
            watch.rollback()
            threading.Event().wait(0.01)
    session.flush()
    session.commit()
    thread.join()
    assert failed == []
    assert found(session, made) == {*range(N), 100}


def test_the_incarnation_is_read_again_after_a_savepoint(session, made):
    """The lock that keeps it is given back when the savepoint is rolled back."""
    engine = session.get_bind()
    with session.begin_nested() as point:
        session.add(made.Auto(title="1", embedding=V[1]))
        session.flush()
        point.rollback()
    with Session(engine) as other:
        other.execute(text("SET LOCAL lock_timeout = '5s'"))
        follow(other, made.Auto.embedding)  # no rows: a new life begins
        other.commit()
    session.add(made.Auto(title="2", embedding=V[2]))
    session.commit()
    np.testing.assert_array_equal(session.scalars(select(made.Auto.embedding)).one(), V[2])


def test_snapshots():
    assert covers("10:20:12", "9:19:12,13")
    assert not covers("10:20:12", "20:20:")
    assert not covers("10:20:", "20:20:"), "a standby does not name the transactions that it sees as running"
    assert covers("20:20:", "10:20:12")


def test_an_old_session_that_updates_the_index_does_not_hide_that_it_is_newer(session, made):
    """What is replaced is not in the index. So a session that saw it before must not use the index."""
    engine = session.get_bind()
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    item = made.Item
    session.add(item(title="30", embedding=V[8]))  # the newest entry
    session.commit()
    with Session(engine) as running, Session(repeatable) as old, Session(repeatable) as older:
        running.execute(text("SELECT pg_current_xact_id()"))
        for one in (older, old):
            one.execute(text("SELECT 1"))
        for number in ("7", "30"):
            session.scalars(select(item).where(item.title == number)).one().embedding = V[9]
            session.commit()
        for index in {*sharing._held[engine.pool].values()}:
            index.sealed.forget()
        for one in (session, old, older):
            hits = nearest(one, select(item.title), item.embedding, V[7], 1)
            assert (hits[0].item == "7") is (one is not session)
            assert found(one, made) == set(range(N + 1))


def test_serializable_searches_conflict_with_what_they_would_have_found(session, made):
    """The index is no way around it: each of two sessions searches, and then inserts."""
    engine = session.get_bind().execution_options(isolation_level="SERIALIZABLE")
    with Session(engine) as one, Session(engine) as other:
        for each, title in ((one, "40"), (other, "41")):
            assert found(each, made) == set(range(N))
            each.add(made.Item(title=title, embedding=V[0]))
        one.commit()
        with pytest.raises(DBAPIError, match="could not serialize"):
            other.commit()


def test_only_hits_are_locked(session, made):
    asked = select(made.Item).with_for_update()
    nearest(session, asked.where(made.Item.title != "5"), made.Item.embedding, V[3], 2)
    with Session(session.get_bind()) as other:
        free = other.scalars(select(made.Item.title).with_for_update(skip_locked=True)).all()
        assert len(free) == N - 2
        assert "3" not in free


def test_statements_of_which_candidates_tell_nothing(session, made):
    item = made.Item
    for asked in (
        select(item.title).group_by(item.title),
        select(item.title).ext(distinct_on(item.title)),
        select(item.title).having(item.title != "1"),
    ):
        with pytest.raises(errors.InputError, match="GROUP BY, HAVING and DISTINCT ON"):
            nearest(session, asked, item.embedding, V[0], 1)
    with pytest.raises(errors.InputError, match="must be a select"):
        nearest(session, union(select(item.title), select(item.title)), item.embedding, V[0], 1)


def test_a_renamed_table(session, made):
    """By the recipe of docs/sqlalchemy.md."""

    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        title: Mapped[str]
        embedding: Mapped[np.ndarray | None] = mapped_column(
            EncryptedVector(DIM, keyset=made.keyset, collection="items.embedding")
        )

    page = (Path(__file__).parents[2] / "docs" / "sqlalchemy.md").read_text(encoding="utf-8")
    for statement in page.partition("DROP FUNCTION")[2].partition("```")[0].splitlines():
        ask(session, ("" if statement.startswith("ALTER") else "DROP FUNCTION") + statement)
    follow(session, Thing.embedding)
    session.commit()
    assert found(session, made, Thing) == set(range(N))
    session.add(Thing(title="77", embedding=V[0]))
    assert found(session, made, Thing) == {*range(N), 77}
