<%! from encvec_store.storage.revisions import FORMAT %>\
"""${message.capitalize()}."""

import sqlalchemy as sa
from alembic import op

revision = "${up_revision}"
down_revision = "${down_revision}"

# The smallest FORMAT of code that can use these tables. It stays the same if this revision only adds.
min_reader = ${FORMAT}
# What a downgrade deletes, with the query that counts it, such as {"notes": "SELECT count(*) FROM {at}notes"}.
loses: dict[str, str] = {}


def upgrade() -> None:
    """Say what it changes, and why."""
    schema = op.get_context().version_table_schema  # None: SQLite
    op.add_column("collections", sa.Column("colour", sa.Text()), schema=schema)


def downgrade() -> None:
    """Undo it."""
    op.drop_column("collections", "colour", schema=op.get_context().version_table_schema)
