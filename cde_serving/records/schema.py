"""The tables of the decision log, the same on SQLite and PostgreSQL; `migrations` makes and changes them."""

import sqlalchemy as sa

metadata = sa.MetaData()

records = sa.Table(
    "records",
    metadata,
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
    sa.Column("key_id", sa.String(32)),
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
    sa.Index("records_by_id", "record_id", unique=True),
    sa.Index("records_by_idempotency", "idempotency", unique=True),
    sa.Index("records_by_key", "key_id"),
)

customer_keys = sa.Table(
    "customer_keys",
    metadata,
    sa.Column("key_id", sa.String(32), primary_key=True),
    sa.Column("customer", sa.String(64), nullable=False),
    sa.Column("created_at", sa.String(32), nullable=False),
    sa.Column("wrapped", sa.LargeBinary),  # null once shredded
    sa.Column("restricted_at", sa.String(32)),
    sa.Column("erase_after", sa.String(32)),
    sa.Column("erased_at", sa.String(32)),
    # One key in use a customer; who comes again after an erasure gets a new one.
    sa.Index(
        "customer_keys_in_use",
        "customer",
        unique=True,
        sqlite_where=sa.text("restricted_at IS NULL"),
        postgresql_where=sa.text("restricted_at IS NULL"),
    ),
    sa.Index("customer_keys_by_customer", "customer"),
)

vault = sa.Table(
    "vault",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("master_key", sa.String(16), nullable=False),
)
