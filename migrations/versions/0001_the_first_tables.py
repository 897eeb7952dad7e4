"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

min_reader = 1
_POSTGRESQL = ("terms", "records", "changes", "partitions", "blobs", "collections", "meta")
loses = {"collections": "SELECT count(*) FROM {at}collections"}


def upgrade() -> None:
    """Create the tables. Their layout differs: each dialect has the one that suits it."""
    schema = op.get_context().version_table_schema
    if schema is None:
        _sqlite()
    else:
        _postgresql(schema)


def downgrade() -> None:
    """Drop the tables. In PostgreSQL the tables of collections inherit from them and go too."""
    schema = op.get_context().version_table_schema
    if schema is None:
        for table in (
            "changes",
            "terms",
            "index_vectors",
            "vectors",
            "records",
            "partitions",
            "blobs",
            "collections",
            "meta",
        ):
            op.drop_table(table)
        return
    at = op.get_context().dialect.identifier_preparer.quote(schema)
    tables = ", ".join(f"{at}.{table}" for table in _POSTGRESQL)
    op.execute(f"DROP TABLE {tables} CASCADE")
    op.execute(sa.schema.DropSequence(sa.Sequence("contents", schema=schema)))


def _sqlite() -> None:
    op.create_table(
        "meta",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_meta")),
    )
    op.create_table(
        "collections",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("index_dim", sa.Integer(), nullable=False),
        sa.Column("envelope_size", sa.Integer(), nullable=False),
        sa.Column("config", sa.LargeBinary(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("stamp", sa.Integer(), nullable=False),
        sa.Column("purged_generation", sa.Integer(), nullable=False),
        sa.Column("content", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collections")),
        sa.UniqueConstraint("tenant", "name", name=op.f("uq_collections_tenant_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "blobs",
        sa.Column("collection", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("key_version", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("collection", "name", "part", name=op.f("pk_blobs")),
        _refers("blobs", "collection", "collections", "id"),
    )
    op.create_table(
        "partitions",
        sa.Column("collection", sa.Integer(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("records", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("collection", "partition", name=op.f("pk_partitions")),
        _refers("partitions", "collection", "collections", "id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "records",
        sa.Column("row", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("collection", sa.Integer(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("row", name=op.f("pk_records")),
        sa.UniqueConstraint("collection", "token", name=op.f("uq_records_collection_token")),
        _refers("records", "collection", "collections", "id"),
    )
    op.create_index(op.f("ix_records_collection_row_partition"), "records", ["collection", "row", "partition"])
    op.create_table(
        "vectors",
        sa.Column("row", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("row", name=op.f("pk_vectors")),
        _refers("vectors", "row", "records", "row"),
    )
    op.create_table(
        "index_vectors",
        sa.Column("row", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("row", name=op.f("pk_index_vectors")),
        _refers("index_vectors", "row", "records", "row"),
    )
    op.create_table(
        "terms",
        sa.Column("collection", sa.Integer(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("collection", "field", "kind", "value", "row", name=op.f("pk_terms")),
        _refers("terms", "row", "records", "row"),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_terms_row"), "terms", ["row"])
    op.create_table(
        "changes",
        sa.Column("collection", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("rows", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("collection", "generation", "kind", name=op.f("pk_changes")),
        _refers("changes", "collection", "collections", "id"),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO meta VALUES ('next_row', 1)")


def _postgresql(schema: str) -> None:
    op.execute(sa.schema.CreateSequence(sa.Sequence("contents", schema=schema)))
    op.create_table(
        "meta",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_meta")),
        schema=schema,
    )
    op.create_table(
        "collections",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("index_dim", sa.Integer(), nullable=False),
        sa.Column("envelope_size", sa.Integer(), nullable=False),
        sa.Column("config", sa.LargeBinary(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("next_row", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.BigInteger(), nullable=False),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.Column("purged", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collections")),
        sa.UniqueConstraint("tenant", "name", name=op.f("uq_collections_tenant_name")),
        sa.UniqueConstraint("content", name=op.f("uq_collections_content")),
        schema=schema,
        comment="Rows are numbered from next_row and never twice; records_<content> and terms_<content> hold them."
        " stamp is random with each write; changes up to the generation purged are forgotten",
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "blobs",
        sa.Column("collection", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("key_version", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("collection", "name", "part", name=op.f("pk_blobs")),
        _refers("blobs", "collection", f"{schema}.collections", "id"),
        schema=schema,
        comment="What is sealed beside the settings, too large to go along with every write: a profile",
    )
    at = op.get_context().dialect.identifier_preparer.quote(schema)
    op.execute(f"ALTER TABLE {at}.blobs ALTER content SET STORAGE EXTERNAL")
    op.create_table(
        "changes",
        sa.Column("collection", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("rows", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("collection", "generation", "kind", name=op.f("pk_changes")),
        _refers("changes", "collection", f"{schema}.collections", "id"),
        schema=schema,
        comment="Rows that each write added (kind 1) or removed (0), as packed ranges: followers read what is new",
    )
    op.create_table(
        "partitions",
        sa.Column("collection", sa.BigInteger(), nullable=False),
        sa.Column("partition", sa.BigInteger(), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("collection", "partition", name=op.f("pk_partitions")),
        _refers("partitions", "collection", f"{schema}.collections", "id"),
        schema=schema,
        comment="Counts of records, kept by every write so that counting costs nothing",
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "records",
        sa.Column("row", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("partition", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("row", name=op.f("pk_records")),
        sa.UniqueConstraint("token", name=op.f("uq_records_token")),
        schema=schema,
        comment="Parent of one table a collection; empty itself",
    )
    op.create_table(
        "terms",
        sa.Column("row", sa.BigInteger(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("field", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("rest", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("row", "n", name=op.f("pk_terms")),
        schema=schema,
        comment="Parent of one table a collection; empty itself. Values as bytes in the values' own order",
    )
    op.create_index(
        op.f("ix_terms_field_kind_key_row"),
        "terms",
        ["field", "kind", "key", "row"],
        schema=schema,
    )


def _refers(table: str, column: str, other: str, key: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}_{other.rpartition('.')[2]}")
    return sa.ForeignKeyConstraint([column], [f"{other}.{key}"], name=name, ondelete="CASCADE")
