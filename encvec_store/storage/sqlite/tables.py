"""The tables of `records.sqlite3`, in one place for SQLAlchemy and for migrations. Only a new file needs them.

Row numbers come from `meta.next_row`. So they are unique within the file and never used twice. Vectors and payloads
are in tables of their own, so that reading one does not load the pages of the other.
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
    "blobs",
    "changes",
    "collections",
    "meta",
    "metadata",
    "partitions",
    "records",
    "terms",
]

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
    sqlite_autoincrement=True,  # numbers are never used again: index folders are named by them
)
"""`generation` counts committed writes, and each write draws a random `stamp`. If an older copy of the file was put
back, a generation may come twice, but not with the same stamp. `content` starts at 1 and grows by a random step
whenever everything is replaced. Changes up to `purged_generation` were deleted."""

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
"""Sealed bytes that are too large to be written with the settings each time, such as a profile. The key version is in
clear, so that a rotation finds the blobs that must be sealed again."""

partitions = Table(
    "partitions",
    metadata,
    Column("collection", ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("partition", Integer, nullable=False),
    Column("records", Integer, nullable=False),
    PrimaryKeyConstraint("collection", "partition"),
    sqlite_with_rowid=False,
)
"""Numbers of records. Every write updates them, so that counting is fast."""

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
"""Little-endian float32, or float16 in half precision. The length tells which."""

terms = Table(
    "terms",
    metadata,
    Column("collection", Integer, nullable=False),
    Column("field", Text, nullable=False),
    Column("kind", Text, nullable=False),
    # BLOB is the only affinity that converts nothing. Floats, text and bytes keep their types and their order:
    # numbers by value, text by code point, bytes by byte
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
"""What each write did, so that other processes can follow without listing all rows. `kind` is 1 for added rows and 0
for removed rows; `rows` are ranges, see `storage.ranges`. Every write has at least one entry, also an empty write.
A reader who finds none knows that entries were lost, and lists everything."""
