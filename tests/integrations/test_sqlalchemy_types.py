"""bulk_insert takes every value that an INSERT takes, of any type, and writes the same."""

import datetime as dt
import enum
import uuid
from decimal import Decimal
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import (
    ARRAY,
    CHAR,
    JSON,
    REAL,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Insert,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    PickleType,
    SmallInteger,
    String,
    Table,
    Text,
    Time,
    Uuid,
    create_engine,
    event,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import (
    BIT,
    CIDR,
    CITEXT,
    DOMAIN,
    HSTORE,
    INET,
    INT4RANGE,
    INT8MULTIRANGE,
    JSONB,
    MACADDR,
    MONEY,
    REGCLASS,
    TIME,
    TSRANGE,
    TSVECTOR,
    BitString,
    Range,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType

import encvec_store as ev
from encvec_store import errors
from encvec_store.integrations.sqlalchemy import EncryptedVector, bulk_insert
from tests.kits.orm import ask, opened, url

keyset = ev.Keyset.create("memory:")


class Point(UserDefinedType):
    """A type whose values are written by a SQL expression."""

    cache_ok = True

    def get_col_spec(self, **_):
        return "point"

    def bind_expression(self, bindvalue):
        return func.point(bindvalue, 1.0, type_=self)

    def bind_processor(self, dialect):
        return float


class Shade(enum.Enum):
    DARK = "dark"


class Small(enum.IntEnum):
    ONE = 1


UTC, NOON = dt.UTC, dt.datetime(2026, 1, 2, 12, 30, 1, 500)
TYPES = {
    "smallint": (SmallInteger(), -5), "integer": (Integer(), 70_000), "bigint": (BigInteger(), -(2**40)),
    "numpy int": (Integer(), np.int64(4)), "enum int": (Integer(), Small.ONE), "int as text": (Integer(), "12"),
    "numeric": (Numeric(20, 3), Decimal("1.2345")), "numeric of int": (Numeric(), 5), "float": (Float(), 0.1),
    "float of int": (Float(), 3), "real": (REAL(), 0.1), "numeric of float": (Numeric(10, 2), 1.25),
    "numpy float": (Float(), np.float64(0.25)), "boolean": (Boolean(), True), "money": (MONEY(), "$5.00"),
    "text": (Text(), "a\tb\\n\N{GRINNING FACE}"), "varchar": (String(9), "abc"), "char": (CHAR(9), "abc"),
    "citext": (CITEXT(), "aBc"), "name": (REGCLASS(), "pg_class"),
    "bytes": (LargeBinary(), b"\0\xff"), "memoryview": (LargeBinary(), memoryview(b"ab")),
    "uuid": (Uuid(), uuid.UUID(int=7)), "uuid as text": (Uuid(as_uuid=False), str(uuid.UUID(int=8))),
    "uuid as char": (Uuid(native_uuid=False), uuid.UUID(int=9)),
    "date": (Date(), NOON.date()), "time": (Time(), NOON.time()), "timetz": (TIME(timezone=True), NOON.timetz()),
    "timestamp": (DateTime(), NOON), "timestamptz": (DateTime(timezone=True), NOON.replace(tzinfo=UTC)),
    "timestamp of zoned": (DateTime(), NOON.replace(tzinfo=UTC)),
    "timestamptz of naive": (DateTime(timezone=True), NOON),
    "date of datetime": (Date(), NOON), "interval": (Interval(), dt.timedelta(days=3, microseconds=7)),
    "json": (JSON(), {"a": [1, None]}), "jsonb": (JSONB(), ["x", {"y": 1.5}]), "json null": (JSON(), None),
    "enum": (Enum(Shade, name="shade_native"), Shade.DARK),
    "enum as text": (Enum(Shade, native_enum=False), Shade.DARK),
    "domain": (DOMAIN("tall", Integer()), 7), "domain of text": (DOMAIN("word", String(9)), "x"),
    "texts": (ARRAY(String), ["x", 'y,"z'] ), "no texts": (ARRAY(Text), []),
    "texts and null": (ARRAY(Text), ["x", None]),
    "ints": (ARRAY(Integer), [1, 70_000]), "bigints": (ARRAY(BigInteger), [1]), "floats": (ARRAY(Float), [0.5]),
    "nested": (ARRAY(Integer), [[1, 2], [3, 4]]), "uuids": (ARRAY(Uuid), [uuid.UUID(int=1)]),
    "enums": (ARRAY(Enum(Shade, name="shade_array")), [Shade.DARK]),
    "inet": (INET(), "10.0.0.1"), "cidr": (CIDR(), "10.0.0.0/8"), "macaddr": (MACADDR(), "08:00:2b:01:02:03"),
    "bit": (BIT(3), BitString("101")), "tsvector": (TSVECTOR(), "a b"), "hstore": (HSTORE(), {"a": "b"}),
    "range": (INT4RANGE(), Range(1, 5)),
    "ranges": (INT8MULTIRANGE(), [Range(1, 5)]), "stamps": (TSRANGE(), Range(NOON)),
    "pickle": (PickleType(), {"a": 1}), "vector": (VECTOR(3), [1, 2, 3]), "half": (HALFVEC(3), np.ones(3)),
    "point": (Point(), 2),
}  # fmt: skip


def test_bulk_insert_takes_what_an_insert_takes(pg_dsn):
    """It writes the same bytes. Values that COPY would refuse or change go by INSERT."""
    metadata = MetaData()
    tables = {
        name: Table(
            f"of {name}",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("value", kind),
            Column("embedding", EncryptedVector(4, keyset=keyset)),
        )
        for name, (kind, _) in TYPES.items()
    }
    made = type("Made", (), {"Base": type("Base", (), {"metadata": metadata})})
    differ, inserted = {}, set()

    def note(name, connection, statement, multiparams, params, execution_options):
        if isinstance(statement, Insert):
            inserted.add(name)

    engine = create_engine(url(pg_dsn))
    with engine.begin() as connection:
        for extension in ("citext", "hstore"):
            connection.execute(text(f"CREATE EXTENSION {extension}"))
    engine.dispose()
    with opened(pg_dsn, made) as session:
        for name, table in tables.items():
            value = TYPES[name][1]
            session.execute(table.insert(), {"id": 1, "value": value, "embedding": [1, 2, 3, 4]})
            watch = partial(note, name)
            event.listen(session.get_bind(), "before_execute", watch)
            bulk_insert(session, table, [{"id": n, "value": value, "embedding": [1, 2, 3, n]} for n in (2, 3)])
            event.remove(session.get_bind(), "before_execute", watch)
            rows = ask(session, f'SELECT value::text, value IS NULL FROM "of {name}" ORDER BY id')
            if len(set(rows)) > 1 or len(rows) != 3:
                differ[name] = rows
            found = session.execute(select(table.c.embedding).order_by(table.c.id)).scalars().all()
            assert [vector.tolist() for vector in found[1:]] == [[1, 2, 3, 2], [1, 2, 3, 3]]
    assert differ == {}
    copied = "smallint integer bigint numeric boolean text varchar char bytes uuid date timestamp timestamptz interval"
    copied += " float real json jsonb enum domain texts"
    assert inserted & set(copied.split()) == set()
    assert {"money", "point", "ints", "numpy int", "hstore"} <= inserted


def test_bulk_insert_makes_what_the_mapper_and_defaults_make(orm_dsn):
    class Base(DeclarativeBase):
        pass

    class Page(Base):
        __tablename__ = "pages"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        version: Mapped[int] = mapped_column()
        title: Mapped[str]
        slug: Mapped[str] = mapped_column(default=lambda context: context.get_current_parameters()["title"].lower())
        made: Mapped[int] = mapped_column(default=func.length("abc"))
        embedding: Mapped[np.ndarray] = mapped_column(EncryptedVector(4, keyset=keyset))
        __mapper_args__: ClassVar = {
            "polymorphic_on": "kind",
            "polymorphic_identity": "page",
            "version_id_col": version,
        }

    class Cover(Page):
        __mapper_args__: ClassVar = {"polymorphic_identity": "cover"}

    with opened(orm_dsn, type("Made", (), {"Base": Base})) as session:
        row = {"id": 1, "title": "Title", "embedding": [1, 2, 3, 4]}
        bulk_insert(session, Cover, [row])
        bulk_insert(session, Page, [{**row, "id": 2, "slug": "mine", "made": 5}])
        pages = session.scalars(select(Page).order_by(Page.id)).all()
        assert [(type(p), p.slug, p.made, p.version) for p in pages] == [(Cover, "title", 3, 1), (Page, "mine", 5, 1)]
        assert pages[0].embedding.tolist() == [1, 2, 3, 4]
        with pytest.raises(errors.InputError, match="'title' must be a value in every row"):
            bulk_insert(session, Page, [row, {**row, "title": func.now()}])


@pytest.mark.parametrize(
    ("kind", "value"),
    [(SmallInteger, 2**15), (Integer, -(2**40)), (BigInteger, 2**70), (REAL, 1e300), (REAL, 1e-60)],
)
def test_a_number_out_of_range_is_refused_and_never_cut(orm_dsn, kind, value):
    vector = Column("embedding", EncryptedVector(4, keyset=keyset))
    table = Table("numbers", MetaData(), Column("id", Integer, primary_key=True), Column("value", kind()), vector)
    with opened(orm_dsn, type("Made", (), {"Base": table})) as session:
        row = {"id": 1, "value": value, "embedding": [1, 2, 3, 4]}
        for write in (
            lambda: session.execute(table.insert(), row),
            lambda: bulk_insert(session, table, [row]),
            lambda: bulk_insert(session, table, [{**row, "value": 1}, {**row, "id": 2}]),
        ):
            with pytest.raises(DBAPIError):
                write()
            session.rollback()
        assert session.scalar(select(func.count()).select_from(table)) == 0
