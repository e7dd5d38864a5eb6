"""Counting the outcomes about each day's decisions without reading them."""

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the index, which holds outcomes alone."""
    outcomes = sa.text("kind = 'outcome'")
    op.create_index("outcomes_by_decision", "records", ["about"], sqlite_where=outcomes, postgresql_where=outcomes)


def downgrade() -> None:
    """Refuse: monitoring would read every outcome once a minute."""
    raise CommandError("a decision log is never undone")
