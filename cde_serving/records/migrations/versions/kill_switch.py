"""Finding the last stop or resumption of automatic decisions among millions of decisions."""

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the index, which holds these events alone."""
    of_switch = sa.text("kind IN ('stop_auto', 'resume_auto')")
    op.create_index(
        "records_of_kill_switch",
        "records",
        ["portfolio", "recorded_at"],
        sqlite_where=of_switch,
        postgresql_where=of_switch,
    )


def downgrade() -> None:
    """Refuse: a service of this version would read every record twice a second."""
    raise CommandError("a decision log is never undone")
