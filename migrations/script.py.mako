<%! from encvec_store.backends.revisions import FORMAT %>\
"""${message.capitalize()}."""

import sqlalchemy as sa
from alembic import op

revision = "${up_revision}"
down_revision = "${down_revision}"

# The least FORMAT of a code that can read and write these tables: as before, where they only get more.
min_reader = ${FORMAT}
# What a downgrade deletes, and how it is counted, such as {"notes": "SELECT count(*) FROM {at}notes"}.
loses: dict[str, str] = {}


def upgrade() -> None:
    """Say what is done, and why."""
    schema = op.get_context().version_table_schema  # None: SQLite
    op.add_column("collections", sa.Column("colour", sa.Text()), schema=schema)


def downgrade() -> None:
    """Undo it."""
    op.drop_column("collections", "colour", schema=op.get_context().version_table_schema)
