"""The first tables: records in chains, customers' keys, and which master key wraps them."""

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "records",
        sa.Column("chain", sa.String(32), primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("record_id", sa.String(32), nullable=False),
        sa.Column("format", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("portfolio", sa.String(64), nullable=False),
        sa.Column("applied_at", sa.String(32), nullable=False),
        sa.Column("recorded_at", sa.String(32), nullable=False),
        sa.Column("customer", sa.String(64), nullable=False),
        sa.Column("key_number", sa.Integer),
        sa.Column("idempotency", sa.String(64)),
        sa.Column("fingerprint", sa.String(64)),
        sa.Column("decision", sa.String(16)),
        sa.Column("decided_by", sa.String(64)),
        sa.Column("reason_codes", sa.Text),
        sa.Column("variant", sa.String(16)),
        sa.Column("bundle", sa.String(64)),
        sa.Column("model", sa.String(64)),
        sa.Column("policy", sa.String(64)),
        sa.Column("policy_version", sa.String(64)),
        sa.Column("code", sa.String(64)),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_index("records_by_id", "records", ["record_id"], unique=True)
    op.create_index(
        "records_by_idempotency",
        "records",
        ["idempotency"],
        unique=True,
        sqlite_where=sa.text("idempotency IS NOT NULL"),
        postgresql_where=sa.text("idempotency IS NOT NULL"),
    )
    op.create_table(
        "customer_keys",
        sa.Column("customer", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("last_used_at", sa.String(32), nullable=False),
        sa.Column("wrapped", sa.LargeBinary),
        sa.Column("restricted_at", sa.String(32)),
        sa.Column("erase_after", sa.String(32)),
        sa.Column("erased_at", sa.String(32)),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "vault",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("master_key", sa.String(16), nullable=False),
    )


def downgrade() -> None:
    """Refuse: to undo the first version would be to delete every decision."""
    raise CommandError("a decision log is never undone: before this version there are no tables")
