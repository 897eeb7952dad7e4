"""Primary keys that Python and PostgreSQL write alike are bound; others are refused when a table is declared."""

import uuid
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import (
    CHAR,
    BigInteger,
    Column,
    Date,
    ForeignKey,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.orm import DeclarativeBase, Mapped, configure_mappers, mapped_column

import encvec_store as ev
from encvec_store import errors
from encvec_store.integrations.sqlalchemy import EncryptedVector
from tests.kits.orm import opened


class Untouched(TypeDecorator):
    """Leaves values as they are, like the strings of SQLModel."""

    impl = String
    cache_ok = True


class Lower(TypeDecorator):
    impl = String
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value.lower()


BOUND = {
    "integer": (Integer(), 7),
    "bigint": (BigInteger().with_variant(Integer(), "sqlite"), np.int64(2**40)),
    "text": (Text(), "a, b:\N{GRINNING FACE} "),
    "varchar": (String(4), "abc "),
    "decorated": (Untouched(4), "abc "),
    "uuid": (Uuid(), uuid.UUID(int=3)),
    "uuid as text": (Uuid(as_uuid=False), str(uuid.UUID(int=0xABC)).upper()),
}
REFUSED = {
    "char": CHAR(8),
    "uuid as char": Uuid(native_uuid=False),
    "citext": CITEXT(),
    "numeric": Numeric(),
    "date": Date(),
    "decorated": Lower(),
    "variant": Integer().with_variant(CHAR(3), "postgresql"),
}


def keyed(kind, keyset):
    vector = Column("v", EncryptedVector(4, keyset=keyset))
    return Table("keyed", MetaData(), vector, Column("id", kind, primary_key=True))


@pytest.mark.parametrize("case", BOUND)
def test_keys_whose_text_is_the_same_on_both_sides(orm_dsn, case):
    kind, value = BOUND[case]
    table = keyed(kind, ev.Keyset.create("memory:"))
    table.c.v.type.require_identity = True
    with opened(orm_dsn, SimpleNamespace(Base=table)) as session:
        session.execute(insert(table).values(id=value, v=[1, 2, 3, 4]))
        assert session.scalar(select(table.c.v)).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("case", REFUSED)
def test_other_keys_are_refused_when_the_table_is_declared(case):
    with pytest.raises(errors.InputError, match=r"keyed\.id: the primary key of a table with encrypted vectors must"):
        keyed(REFUSED[case], ev.Keyset.create("memory:"))


def test_a_key_whose_type_a_foreign_key_brings_is_refused_when_mappers_are_configured():
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        day: Mapped[str] = mapped_column(ForeignKey("days.day"), primary_key=True)
        vec: Mapped[np.ndarray] = mapped_column(EncryptedVector(4, keyset=ev.Keyset.create("memory:")))

    class Day(Base):
        __tablename__ = "days"
        day: Mapped[str] = mapped_column(CHAR(10), primary_key=True)

    try:
        with pytest.raises(errors.InputError, match=r"notes\.day: the primary key"):
            configure_mappers()
    finally:
        Base.registry.dispose()


def test_a_key_that_the_server_would_cut_is_refused(orm_dsn):
    table = keyed(String(3), ev.Keyset.create("memory:"))
    with (
        opened(orm_dsn, SimpleNamespace(Base=table)) as session,
        pytest.raises(errors.InputError, match="at most 3 characters, got 5"),
    ):
        session.execute(insert(table).values(id="abc  ", v=[1, 2, 3, 4]))
