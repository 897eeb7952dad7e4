"""The sealed column: what a writer in the database altered, swapped, moved or put back is refused."""

import uuid
from typing import ClassVar

import numpy as np
import pytest
from sqlalchemy import ForeignKey, bindparam, create_engine, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import encvec_store as ev
from encvec_store import errors
from encvec_store.integrations.sqlalchemy import EncryptedVector, bulk_insert, ciphertexts, nearest, reencrypt
from tests.kits.orm import DIM, ask, models, opened, pages, same, vectors

V = vectors(20, seed=31)


@pytest.fixture
def made():
    return models()


@pytest.fixture
def session(session, made):
    session.add_all([model(title=str(i), embedding=V[i]) for model in (made.Item, made.Auto) for i in range(2)])
    session.commit()
    return session


@pytest.fixture(params=["followed", "held back", "not followed"])
def way(request, session, made):
    """What `nearest` looks at: the shared index, entries that are newer than it, or the whole table.

    An older transaction of anybody, in any table, makes each search read what is newer by itself.
    """
    with Session(session.get_bind()) as other:
        if request.param == "held back":
            other.execute(text("SELECT pg_current_xact_id()"))
        if request.param == "not followed":
            ask(session, "ALTER TABLE autos DISABLE TRIGGER USER")
            session.commit()
        yield


def refused(session, model):
    session.commit()
    session.expire_all()
    for read in (
        lambda: session.scalars(select(model)).all(),
        lambda: session.scalars(select(model.embedding)).all(),
        lambda: nearest(session, select(model), model.embedding, V[0], 5),
    ):
        with pytest.raises(errors.AuthenticationError, match="could not be authenticated"):
            read()
        session.rollback()


def test_one_bytea(session, made):
    ((kind, size),) = ask(session, "SELECT DISTINCT pg_typeof(embedding)::text, octet_length(embedding) FROM items")
    assert (kind, size) == ("bytea", 16 + 44 + 12 + 4 * DIM + 16)
    assert [name for name in list(made.Item.__table__.c.keys()) if name.startswith("embedding")] == ["embedding"]


def test_swapped_between_rows(session, made):
    ask(session, "UPDATE items SET embedding = other.embedding FROM items other WHERE other.id <> items.id")
    refused(session, made.Item)


def test_rows_whose_keys_the_server_made_are_bound_by_an_update(session, made):
    """The limit that decision 0011 states: cells of such rows can be exchanged, until an update binds them."""
    swap = "UPDATE autos SET embedding = other.embedding FROM autos other WHERE other.id <> autos.id"
    ask(session, swap)
    session.commit()
    rows = session.scalars(select(made.Auto).order_by(made.Auto.id)).all()
    same(rows[0].embedding, V[1])
    rows[0].embedding, rows[1].embedding = V[2], V[3]
    session.commit()
    ask(session, swap)
    refused(session, made.Auto)


def test_moved_to_another_key_or_table(session, made):
    ask(session, "UPDATE items SET id = gen_random_uuid()")
    refused(session, made.Item)
    ask(session, "UPDATE autos SET embedding = (SELECT embedding FROM items LIMIT 1)")
    refused(session, made.Auto)


def test_every_altered_byte_is_noticed(session, made, way):
    (cell,) = ask(session, "SELECT embedding FROM autos WHERE title = '0'")[0]
    for at in [0, 15, 16, 17, 18, 19, 20, 23, 24, 27, 28, 44, 59, 60, 71, 72, -1]:
        altered = bytearray(cell)
        altered[at] ^= 1
        ask(session, "UPDATE autos SET embedding = :new WHERE title = '0'", new=bytes(altered))
        refused(session, made.Auto)
    for change in ("substr(embedding, 2)", "embedding || '\\x00'::bytea", "''"):
        ask(session, f"UPDATE autos SET embedding = {change}")
        refused(session, made.Auto)
        ask(session, "UPDATE autos SET embedding = :old", old=cell)


def test_cells_of_an_earlier_life_of_the_table(session, made):
    """A table that is dropped and made again has another incarnation: old cells, put back, do not open."""
    (item,) = session.scalars(select(made.Item).where(made.Item.title == "0"))
    id, cell = item.id, ask(session, "SELECT embedding FROM items WHERE title = '0'")[0][0]
    lives = "SELECT content FROM items_embedding_blobs WHERE name = 'incarnation'"
    (before,) = ask(session, lives)
    session.commit()
    made.Base.metadata.drop_all(session.get_bind(), [made.Tag.__table__, made.Item.__table__])
    made.Base.metadata.create_all(session.get_bind())
    assert ask(session, lives) != [before]
    ask(session, "INSERT INTO items (id, title, embedding) VALUES (:id, 'old', :cell)", id=id, cell=cell)
    refused(session, made.Item)
    ask(session, "UPDATE items_embedding_blobs SET content = :old WHERE name = 'incarnation'", old=before[0])
    assert len(session.scalars(select(made.Item)).all()) == 1, "with its incarnation, the whole old state opens"


@pytest.mark.parametrize(
    "other", [{"keyset": ev.Keyset.create("memory:")}, {"tenant": "other"}, {"collection": "elsewhere"}], ids=list
)
def test_other_keys(session, made, other):
    theirs = models(**{"keyset": made.keyset, **other})
    refused(session, theirs.Item)


def test_an_incarnation_that_is_deleted_or_cut(session, made):
    for change in ("DELETE FROM items_embedding_blobs", "UPDATE items_embedding_blobs SET content = 'short'"):
        ask(session, change)
        with pytest.raises(errors.AuthenticationError):
            session.scalars(select(made.Item)).all()
        session.rollback()


def test_statements_that_cannot_be_bound(orm_dsn):
    made = pages()
    with opened(orm_dsn, made) as session:
        Page, table = made.Page, made.Page.__table__
        session.add_all([Page(url="a", vec=V[0]), Page(url="b", vec=V[1])])
        session.commit()
        other = table.alias("other")
        inner = select(other.c.vector).limit(1).scalar_subquery()
        fresh = pg_insert(Page).values(url="a", vec=V[3])
        excluded = fresh.excluded
        at = update(table).where(table.c.url == bindparam("at"))
        statements = [
            (update(Page).values(vec=inner), None),
            (update(table).values(vector=other.c.vector).where(other.c.url == "b"), None),
            (update(table).values(vector=b"mine"), None),
            (update(Page).values(id=uuid.uuid4()), None),
            (insert(Page).from_select(["id", "vector"], select(text("gen_random_uuid()"), other.c.vector)), None),
            (insert(Page).values(vec=inner), None),
            (fresh.on_conflict_do_update(index_elements=["url"], set_={"vector": excluded.vector}), None),
            (fresh.on_conflict_do_update(index_elements=["url"], set_={"id": excluded.id}), None),
            (fresh.on_conflict_do_update(index_elements=["id"], set_={"vector": V[4]}), None),
            (at, {"at": "a", "vector": V[2]}),
            (at, {"at": "a", "id": uuid.uuid4()}),
            (at, [{"at": "a", "vector": V[2]}, {"at": "b", "vector": V[2]}]),
        ]
        for statement, rows in statements:
            with pytest.raises(errors.InputError):
                session.execute(statement, rows) if rows else session.execute(statement)
        session.commit()
        found = {page.url: page.vec for page in session.scalars(select(Page))}
        same(found["a"], V[0])
        same(found["b"], V[1])


def test_statements_that_say_enough(orm_dsn):
    made = pages()
    with opened(orm_dsn, made) as session:
        Page, table = made.Page, made.Page.__table__
        session.add_all([Page(url="a", vec=V[0]), Page(url="b", vec=V[1])])
        session.commit()
        keys = {page.url: page.id for page in session.scalars(select(Page))}

        def read():
            session.expire_all()
            return {page.url: page.vec for page in session.scalars(select(Page))}

        fresh = pg_insert(Page).values(id=keys["a"], url="a", vec=V[5])
        session.execute(fresh.on_conflict_do_update(index_elements=[Page.id], set_={"vector": fresh.excluded.vector}))
        same(read()["a"], V[5])
        new = ciphertexts(Page.vec, V[6], keys["a"])
        fresh = pg_insert(Page).values(id=keys["a"], url="a", vec=V[7])
        session.execute(fresh.on_conflict_do_update(index_elements=[Page.id], set_=new))
        same(read()["a"], V[6])
        session.execute(insert(table).values(vector=bindparam("v")), [{"v": V[8], "url": "c"}, {"v": V[9], "url": "f"}])
        assert len(session.scalars(select(Page)).all()) == 4
        session.execute(update(Page).where(Page.url == "c").values(vec=None))
        assert read()["c"] is None
        session.execute(insert(Page).values([{"url": "d", "vec": V[10]}, {"url": "e", "vec": V[11]}]))
        same(read()["e"], V[11])
        ask(session, "UPDATE pages SET vector = (SELECT vector FROM pages o WHERE o.url = 'd') WHERE url = 'e'")
        with pytest.raises(errors.AuthenticationError):  # the keys that Python made are bound
            read()


class ByRow:
    """A default of the primary key that looks at the rest of its row."""

    def __call__(self, context):
        return f"note {context.get_current_parameters()['number']}"


def test_composite_keys_joined_tables_and_defaults_of_keys(orm_dsn):
    keyset = ev.Keyset.create("memory:")

    class Base(DeclarativeBase):
        pass

    class Animal(Base):
        __tablename__ = "animals"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}

    class Cat(Animal):
        __tablename__ = "cats"
        vec: Mapped[np.ndarray] = mapped_column(EncryptedVector(DIM, keyset=keyset, require_identity=True))
        id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
        __mapper_args__: ClassVar = {"polymorphic_identity": "cat"}

    class Note(Base):
        __tablename__ = "a table with a name that is longer than most names are"
        vec: Mapped[np.ndarray] = mapped_column(EncryptedVector(DIM, keyset=keyset, require_identity=True))
        number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        name: Mapped[str] = mapped_column(primary_key=True, default=ByRow())

    with opened(orm_dsn, type("Made", (), {"Base": Base})) as session:
        session.add_all([Cat(vec=V[0]), Cat(vec=V[1]), Note(number=1, vec=V[2]), Note(number=2, vec=V[3])])
        session.commit()
        (hit,) = nearest(session, select(Cat), Cat.vec, V[1], 1)
        same(hit.item.vec, V[1])
        (hit,) = nearest(session, select(Note), Note.vec, V[3], 1)
        assert (hit.item.number, hit.item.name) == (2, "note 2")
        hit.item.number = 7  # a new key: sealed anew
        session.commit()
        (hit,) = nearest(session, select(Note), Note.vec, V[3], 1)
        assert hit.item.number == 7
        keyset.rotate()
        assert reencrypt(session, Note.vec) == 2
        session.commit()
        (hit,) = nearest(session, select(Note), Note.vec, V[3], 1)
        assert hit.item.number == 7


def test_other_databases_are_refused(made):
    engine = create_engine("sqlite://")
    with pytest.raises(errors.InputError, match="needs PostgreSQL, got sqlite"):
        made.Base.metadata.create_all(engine)
    engine.dispose()


def test_a_table_needs_a_primary_key():
    from sqlalchemy import Column, MetaData, Table

    with pytest.raises(errors.InputError, match="must have a primary key"):
        Table("t", MetaData(), Column("v", EncryptedVector(4, keyset=ev.Keyset.create("memory:"))))


def test_disabled_and_destroyed_keys(session, made):
    made.keyset.rotate()
    bulk_insert(session, made.Item, [{"title": "new", "embedding": V[5]}])
    session.commit()

    def found():
        return {hit.item for hit in nearest(session, select(made.Item.title), made.Item.embedding, V[0], 5)}

    assert found() == {"0", "1", "new"}
    made.keyset.disable(1)
    assert found() == {"new"}
    with pytest.raises(errors.KeyUnavailableError):
        session.scalars(select(made.Item)).all()
    made.keyset.enable(1)
    assert found() == {"0", "1", "new"}
    made.keyset.destroy(1)
    assert found() == {"new"}


@pytest.mark.parametrize("made", [models(tenant="acme")])
def test_a_tenant_that_is_erased(session, made):
    """Rows from before the tenant had a key of its own are moved first; then nothing answers, from memory neither."""

    def found():
        return {hit.item for hit in nearest(session, select(made.Item.title), made.Item.embedding, V[0], 5)}

    made.keyset.tenants.add("acme")
    assert found() == {"0", "1"}
    assert reencrypt(session, made.Item.embedding) == 2
    bulk_insert(session, made.Item, [{"title": "new", "embedding": V[5]}])
    session.commit()
    made.keyset.destroy(1)
    assert found() == {"0", "1", "new"}
    made.keyset.tenants.erase("acme")
    session.expire_all()
    for read in (found, lambda: session.scalars(select(made.Item)).all()):
        with pytest.raises(errors.TenantErasedError):
            read()
        session.rollback()
    with pytest.raises(errors.TenantErasedError):
        bulk_insert(session, made.Item, [{"title": "more", "embedding": V[6]}])


def test_a_role_without_rights_on_the_companion_tables_may_write(orm_dsn, made):
    with opened(orm_dsn, made) as session:
        schema = session.scalar(text("SELECT current_schema()"))
        ask(
            session,
            f"""
            CREATE ROLE "{schema}_app" LOGIN;
            GRANT USAGE ON SCHEMA "{schema}" TO "{schema}_app";
            GRANT SELECT, INSERT, UPDATE, DELETE ON items TO "{schema}_app";
            GRANT SELECT ON items_embedding_rows, items_embedding_blobs TO "{schema}_app";
        """,
        )
        session.commit()
        try:
            with Session(session.get_bind()) as theirs:
                ask(theirs, f'SET LOCAL ROLE "{schema}_app"')
                theirs.add(made.Item(title="0", embedding=V[0]))
                (hit,) = nearest(theirs, select(made.Item), made.Item.embedding, V[0], 1)
                assert hit.item.title == "0"
                theirs.commit()
        finally:
            session.rollback()
            ask(session, f'DROP OWNED BY "{schema}_app"; DROP ROLE "{schema}_app"')
            session.commit()


def test_row_level_security_decides(orm_dsn, made):
    with opened(orm_dsn, made) as session:
        schema = session.scalar(text("SELECT current_schema()"))
        bulk_insert(session, made.Item, [{"title": str(i), "embedding": V[i]} for i in range(10)])
        ask(
            session,
            f"""
            CREATE ROLE "{schema}_app";
            GRANT USAGE ON SCHEMA "{schema}" TO "{schema}_app";
            GRANT SELECT ON items, items_embedding_rows, items_embedding_blobs TO "{schema}_app";
            ALTER TABLE items ENABLE ROW LEVEL SECURITY;
            CREATE POLICY few ON items USING (title = ANY(string_to_array(current_setting('app.titles'), ',')));
        """,
        )
        session.commit()
        try:
            for titles in ("1,2,3", "4", "2,7"):
                with Session(session.get_bind()) as mine:  # the owner's index is the one that was used last
                    assert len(nearest(mine, select(made.Item.title), made.Item.embedding, V[0], 10)) == 10
                with Session(session.get_bind()) as theirs:
                    ask(theirs, f'SET LOCAL ROLE "{schema}_app"')
                    ask(theirs, f"SET LOCAL app.titles = '{titles}'")
                    hits = nearest(theirs, select(made.Item.title), made.Item.embedding, V[0], 10)
                    assert {hit.item for hit in hits} == set(titles.split(","))
        finally:
            session.rollback()
            ask(session, f'DROP OWNED BY "{schema}_app"; DROP ROLE "{schema}_app"')
            session.commit()
