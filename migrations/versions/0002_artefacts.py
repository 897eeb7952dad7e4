"""What a scheme keeps sealed beside the settings of a collection, such as a profile."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

min_reader = 1
loses = {"artefacts": "SELECT count(*) FROM {at}artefacts"}


def upgrade() -> None:
    """Make the table; in PostgreSQL closed to other tenants where the others are."""
    schema = op.get_context().version_table_schema
    at = "" if schema is None else f"{schema}."
    op.create_table(
        "artefacts",
        sa.Column("collection", sa.Integer() if schema is None else sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(collation=None if schema is None else "C"), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("collection", "name", name=op.f("pk_artefacts")),
        sa.ForeignKeyConstraint(
            ["collection"],
            [f"{at}collections.id"],
            name=op.f("fk_artefacts_collection_collections"),
            ondelete="CASCADE",
        ),
        schema=schema,
        comment="What a scheme keeps sealed beside the settings, too large to go along with every write: a profile",
    )
    if schema is None:
        return
    quoted = op.get_context().dialect.identifier_preparer.quote(schema)
    known = "'" + f"{quoted}.collections".replace("'", "''") + "'"
    op.execute(  # nothing of the user's but the schema's name, quoted
        f"DO $artefacts$ BEGIN IF (SELECT relforcerowsecurity FROM pg_class WHERE oid = {known}::regclass) THEN"  # noqa: S608
        f" ALTER TABLE {quoted}.artefacts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
        f" CREATE POLICY tenant ON {quoted}.artefacts USING (collection IN (SELECT id FROM {quoted}.collections));"
        " END IF; END $artefacts$"
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("artefacts", schema=op.get_context().version_table_schema)
