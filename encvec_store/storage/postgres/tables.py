"""The tables of the `postgresql:` store, in one place for SQLAlchemy and for migrations.

`records` and `terms` stay empty. Each is the parent of one table for each collection, which has its columns and
indexes. A migration alters the parent, and all tables follow. Only the tables of collections with index vectors have a
column for them, so that the others need no extension.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = ["build_metadata", "is_content_table", "on_each_content", "uncompressed"]

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def is_content_table(name: str) -> bool:
    """Return True for a table of one collection's content, which migrations reach through its parent."""
    parent, _, number = name.partition("_")
    return parent in ("records", "terms") and number.isdigit()


def on_each_content(schema: str, parent: str, action: str) -> str:
    """Return SQL that changes each collection's table where inheritance does not: indexes, policies, drops.

    Args:
        schema: where the store's tables are.
        parent: records or terms.
        action: a statement with `%s` for the table's name, and `%%` for a percent sign.
    """
    quoted = schema.replace('"', '""')
    above = f'"{quoted}".{parent}'.replace("'", "''")
    action = action.replace("'", "''")
    return (
        "DO $each$ DECLARE content regclass; BEGIN"  # noqa: S608 - names and statements of ours
        f" FOR content IN SELECT inhrelid FROM pg_inherits WHERE inhparent = '{above}'::regclass LOOP"
        f" EXECUTE format('{action}', content); END LOOP; END $each$"
    )


def build_metadata(schema: str = "encvec") -> MetaData:
    """Return the metadata of a store's tables in `schema`."""
    metadata = MetaData(schema=schema, naming_convention=_NAMES)
    Table(
        "meta",
        metadata,
        Column("name", Text, primary_key=True),
        Column("value", BigInteger, nullable=False),
    )
    Sequence("contents", metadata=metadata, schema=schema)
    Table(
        "collections",
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("tenant", Text(collation="C"), nullable=False),
        Column("name", Text(collation="C"), nullable=False),
        Column("index_dim", Integer, nullable=False),
        Column("envelope_size", Integer, nullable=False),
        Column("config", LargeBinary, nullable=False),
        Column("generation", BigInteger, nullable=False),
        Column("next_row", BigInteger, nullable=False),
        Column("content", BigInteger, nullable=False),
        Column("stamp", BigInteger, nullable=False),
        Column("purged", BigInteger, nullable=False),
        UniqueConstraint("tenant", "name"),
        UniqueConstraint("content"),
        comment="Rows are numbered from next_row and never twice; records_<content> and terms_<content> hold them."
        " stamp is random with each write; changes up to the generation purged are forgotten",
        postgresql_with={"fillfactor": 50},  # every write updates the row: the new version should fit on the same page
    )
    Table(
        "blobs",
        metadata,
        Column("collection", ForeignKey(f"{schema}.collections.id", ondelete="CASCADE"), nullable=False),
        Column("name", Text(collation="C"), nullable=False),
        Column("part", Integer, nullable=False),
        Column("key_version", BigInteger, nullable=False),
        Column("content", LargeBinary, nullable=False),
        PrimaryKeyConstraint("collection", "name", "part"),
        comment="What is sealed beside the settings, too large to go along with every write: a profile",
    )
    Table(
        "changes",
        metadata,
        Column("collection", ForeignKey(f"{schema}.collections.id", ondelete="CASCADE"), nullable=False),
        Column("generation", BigInteger, nullable=False),
        Column("kind", SmallInteger, nullable=False),
        Column("rows", LargeBinary, nullable=False),
        PrimaryKeyConstraint("collection", "generation", "kind"),
        comment="Rows that each write added (kind 1) or removed (0), as packed ranges: followers read what is new",
    )
    Table(
        "partitions",
        metadata,
        Column("collection", ForeignKey(f"{schema}.collections.id", ondelete="CASCADE"), nullable=False),
        Column("partition", BigInteger, nullable=False),
        Column("records", BigInteger, nullable=False),
        PrimaryKeyConstraint("collection", "partition"),
        comment="Counts of records, kept by every write so that counting costs nothing",
        postgresql_with={"fillfactor": 50},
    )
    Table(
        "records",
        metadata,
        Column("row", BigInteger, primary_key=True, autoincrement=False),
        Column("partition", BigInteger, nullable=False),
        Column("token", LargeBinary, nullable=False),
        Column("envelope", LargeBinary, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        UniqueConstraint("token"),
        comment="Parent of one table a collection; empty itself",
    )
    Table(
        "terms",
        metadata,
        Column("row", BigInteger, nullable=False),
        # tells terms of one record apart whose indexed parts are equal: long texts that begin alike
        Column("n", Integer, nullable=False),
        # bytes, because a field's name may hold characters that a text cannot
        Column("field", LargeBinary, nullable=False),
        Column("kind", Text(collation="C"), nullable=False),
        Column("key", LargeBinary, nullable=False),
        Column("rest", LargeBinary, nullable=True),
        PrimaryKeyConstraint("row", "n"),
        Index(None, "field", "kind", "key", "row"),
        comment="Parent of one table a collection; empty itself. Values as bytes in the values' own order",
    )
    return metadata


def uncompressed(schema: str) -> str:
    """Return the SQL that stores sealed blobs uncompressed: ciphertext does not compress, and parts can be read alone.

    SQLAlchemy cannot express it, and CREATE TABLE can only since PostgreSQL 16.
    """
    quoted = schema.replace('"', '""')
    return f'ALTER TABLE "{quoted}".blobs ALTER content SET STORAGE EXTERNAL'
