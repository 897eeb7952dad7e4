"""The tables of `records.sqlite3`, in one place for SQLAlchemy and for migrations.

A *row* number comes from `meta.next_row`, so it is unique within the file and never used twice, whatever
becomes of the tables. Vectors stand apart from payloads, so that reading one never pages in the other.
"""

from __future__ import annotations

from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = [
    "OF_A_RECORD",
    "PAGE_SIZE",
    "blobs",
    "changes",
    "collections",
    "meta",
    "metadata",
    "partitions",
    "records",
    "terms",
]

PAGE_SIZE = 8192
"""Two-kilobyte vectors waste half of SQLite's usual pages of four."""

OF_A_RECORD = ("vectors", "index_vectors", "terms", "records")
"""Tables by row, the last the one that the others refer to."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Integer, nullable=False),
)
"""`format` and `revision` (see `storage.revisions`), and `next_row` of the whole file."""

collections = Table(
    "collections",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("index_dim", Integer, nullable=False),
    Column("envelope_size", Integer, nullable=False),
    Column("config", LargeBinary, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("stamp", Integer, nullable=False),
    Column("purged_generation", Integer, nullable=False),
    Column("content", Integer, nullable=False),
    UniqueConstraint("tenant", "name"),
    sqlite_autoincrement=True,  # the folder of a dropped collection must never be taken for another's
)
"""`generation` counts committed writes and `stamp` is random with each: where an older copy of the file was put back,
a generation may come twice, but never with the same stamp. `content` grows by a random
step, from 1, whenever everything is replaced. Changes up to `purged_generation` are gone."""

blobs = Table(
    "blobs",
    metadata,
    Column("collection", ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("part", Integer, nullable=False),
    Column("key_version", Integer, nullable=False),
    Column("content", LargeBinary, nullable=False),
    PrimaryKeyConstraint("collection", "name", "part"),
)
"""Sealed bytes beside the settings, too large to go along with every write: a profile, say. The key version that sealed
them stands in clear, so that a rotation finds what is left to seal anew."""

partitions = Table(
    "partitions",
    metadata,
    Column("collection", ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("partition", Integer, nullable=False),
    Column("records", Integer, nullable=False),
    PrimaryKeyConstraint("collection", "partition"),
    sqlite_with_rowid=False,
)
"""Counts of records, kept by every write so that counting costs nothing."""

records = Table(
    "records",
    metadata,
    Column("row", Integer, primary_key=True, autoincrement=False),
    Column("collection", ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("partition", Integer, nullable=False),
    Column("token", LargeBinary, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    UniqueConstraint("collection", "token"),
    Index(None, "collection", "row", "partition"),  # lists rows without touching payloads
)

vectors = Table(
    "vectors",
    metadata,
    Column("row", ForeignKey("records.row", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("envelope", LargeBinary, nullable=False),
)

index_vectors = Table(
    "index_vectors",
    metadata,
    Column("row", ForeignKey("records.row", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("vector", LargeBinary, nullable=False),
)
"""Little-endian float32, or float16 in half precision: the length tells which."""

terms = Table(
    "terms",
    metadata,
    Column("collection", Integer, nullable=False),
    Column("field", Text, nullable=False),
    Column("kind", Text, nullable=False),
    # BLOB: the one affinity that converts nothing, so floats, text and bytes keep their class and their order
    # (numbers by value, text by code point, bytes by byte)
    Column("value", LargeBinary, nullable=False),
    Column("row", ForeignKey("records.row", ondelete="CASCADE"), nullable=False),
    PrimaryKeyConstraint("collection", "field", "kind", "value", "row"),
    Index(None, "row"),
    sqlite_with_rowid=False,
)

changes = Table(
    "changes",
    metadata,
    Column("collection", ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("kind", Integer, nullable=False),
    Column("rows", LargeBinary, nullable=False),
    PrimaryKeyConstraint("collection", "generation", "kind"),
    sqlite_with_rowid=False,
)
"""What each write did, so that other processes can follow without listing all that stayed. `kind` is 1 for rows that
were added and 0 for rows that went; `rows` are ranges, see `storage.ranges`. Every write has at least one entry, even
where it did nothing: a reader who misses one knows that it was lost, and lists everything."""
