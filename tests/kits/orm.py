"""Mapped classes with encrypted vectors, new for each test, and sessions over its database."""

import contextlib
import uuid
from types import SimpleNamespace

import numpy as np
from sqlalchemy import ForeignKey, UniqueConstraint, Uuid, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import encvec_store as ev
from encvec_store.integrations.sqlalchemy import EncryptedVector, hnsw_index

DIM = 24
SAP = {"name": "sap", "beta": 2.0}
KINDS = {"sealed": {}, "sap": {"scheme": SAP}}
"""Options of the two kinds of columns: one sealed `bytea`, and the pair that the server ranks by."""


def vectors(n, seed=0, dim=DIM):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def models(keyset=None, dim=DIM, **options):
    """Return Item, with a key made by Python; Auto, with one made by the server; Tag, many to an item.

    Vectors are sealed, unless `scheme` says otherwise.
    """
    keyset = keyset or ev.Keyset.create("memory:")
    options = {"keyset": keyset, **options}

    class Base(DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "items"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        title: Mapped[str] = mapped_column(default="untitled")
        embedding: Mapped[np.ndarray | None] = mapped_column(EncryptedVector(dim, **options))
        tags: Mapped[list["Tag"]] = relationship()

    class Auto(Base):
        __tablename__ = "autos"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str | None]
        embedding: Mapped[np.ndarray | None] = mapped_column(EncryptedVector(dim, **options))

    class Tag(Base):
        __tablename__ = "tags"
        id: Mapped[int] = mapped_column(primary_key=True)
        item_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("items.id"))

    if options.get("scheme") is not None:
        hnsw_index(Item.embedding)
    return SimpleNamespace(Base=Base, Item=Item, Auto=Auto, Tag=Tag, keyset=keyset)


def pages(keyset=None, **options):
    """Return Page, with a key made by Python and another unique column; Auto, with a key made by the server."""
    keyset = keyset or ev.Keyset.create("memory:")

    class Base(DeclarativeBase):
        pass

    class Page(Base):
        __tablename__ = "pages"
        __table_args__ = (UniqueConstraint("url"),)
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
        url: Mapped[str | None]
        vec: Mapped[np.ndarray | None] = mapped_column("vector", EncryptedVector(DIM, keyset=keyset, **options))

    class Auto(Base):
        __tablename__ = "autos"
        id: Mapped[int] = mapped_column(primary_key=True)
        url: Mapped[str | None] = mapped_column(unique=True)
        owner: Mapped[uuid.UUID | None] = mapped_column(Uuid(native_uuid=False))
        vec: Mapped[np.ndarray | None] = mapped_column(EncryptedVector(DIM, keyset=keyset, **options))

    return SimpleNamespace(Base=Base, Page=Page, Auto=Auto, keyset=keyset)


def url(dsn):
    return dsn.replace("postgresql://", "postgresql+psycopg://", 1)


@contextlib.contextmanager
def opened(dsn, made, **options):
    """Yield a session over a database that has the tables."""
    engine = create_engine(url(dsn), hide_parameters=True, **options)
    try:
        made.Base.metadata.create_all(engine)
        with Session(engine) as session:
            yield session
    finally:
        engine.dispose()


def cell_of(made):
    """Return the name of the column of `items` and `autos` that holds exact vectors."""
    return "embedding_sealed" if made.Item.__table__.c.embedding.type.paired else "embedding"


def ask(session, statement, **values):
    """Run SQL without any types. Returns its rows, if there are any."""
    result = session.execute(text(statement), values)
    return result.all() if result.returns_rows else []


def same(found, vector):
    """Check that a vector was read exactly as it was written."""
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vector)
