"""Which decision a record is about: reviews and outcomes follow decisions in the same chains."""

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column, which decisions leave empty, and the indices of what follows them."""
    op.add_column("records", sa.Column("about", sa.String(32)))
    followed = sa.text("about IS NOT NULL")
    for name, column in (("records_by_decision", "about"), ("follow_ups_by_time", "recorded_at")):
        op.create_index(name, "records", [column], sqlite_where=followed, postgresql_where=followed)


def downgrade() -> None:
    """Refuse: reviews and outcomes would no longer say what they are about."""
    raise CommandError("a decision log is never undone")
