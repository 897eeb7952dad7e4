"""${message.capitalize()}."""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

# The least FORMAT of a code that can read and write these tables. Only adding keeps that of the revision before.
min_reader = 1
# What a downgrade deletes, and how it is counted: {"notes": "SELECT count(*) FROM {at}notes"}.
loses: dict[str, str] = {}




def upgrade() -> None:
    """Change the tables; on SQLite (`op.get_bind().dialect.name`) the same where it can be."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Undo `upgrade`."""
    ${downgrades if downgrades else "pass"}
