"""A log belongs to one portfolio, whose name is kept beside that of its master key."""

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the name: that of all decisions, null where nothing or for several portfolios was decided."""
    op.add_column("vault", sa.Column("portfolio", sa.String(64)))
    op.execute(
        "UPDATE vault SET portfolio = (SELECT min(portfolio) FROM records WHERE kind = 'decision') "
        "WHERE (SELECT count(DISTINCT portfolio) FROM records WHERE kind = 'decision') = 1"
    )


def downgrade() -> None:
    """Refuse: another portfolio could read, answer and erase what is not its own."""
    raise CommandError("a decision log is never undone")
