"""API keys: who may ask the service, as keyed hashes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(12), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("scopes", sa.String(64), nullable=False),
        sa.Column("rate", sa.String(64)),
        sa.Column("name", sa.String(100)),
        sa.Column("last_digits", sa.String(8), nullable=False),
        sa.Column("digest", sa.String(64)),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("created_by", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.String(32)),
        sa.Column("revoked_at", sa.String(32)),
        sa.Column("revoked_by", sa.String(64)),
    )


def downgrade() -> None:
    """Drop the table: nobody is let in then until keys are created anew."""
    op.drop_table("api_keys")
