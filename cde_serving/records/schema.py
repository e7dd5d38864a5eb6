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
    sa.Column("about", sa.String(32)),  # of a review or outcome the decision, of a stop or resumption the event before
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Index("records_by_id", "record_id", unique=True),
    sa.Index(
        "records_by_idempotency",
        "idempotency",
        unique=True,
        sqlite_where=sa.text("idempotency IS NOT NULL"),
        postgresql_where=sa.text("idempotency IS NOT NULL"),
    ),
    # Both hold what is about another record: a decision writes to neither.
    sa.Index(
        "records_by_decision",
        "about",
        sqlite_where=sa.text("about IS NOT NULL"),
        postgresql_where=sa.text("about IS NOT NULL"),
    ),
    sa.Index(
        "follow_ups_by_time",
        "recorded_at",
        sqlite_where=sa.text("about IS NOT NULL"),
        postgresql_where=sa.text("about IS NOT NULL"),
    ),
    # Holds outcomes alone: whether one came is asked every minute, of every day since the first.
    sa.Index(
        "outcomes_by_decision",
        "about",
        sqlite_where=sa.text("kind = 'outcome'"),
        postgresql_where=sa.text("kind = 'outcome'"),
    ),
    # Holds stops and resumptions alone: a decision does not write to it.
    sa.Index(
        "records_of_kill_switch",
        "portfolio",
        "recorded_at",
        sqlite_where=sa.text("kind IN ('stop_auto', 'resume_auto')"),
        postgresql_where=sa.text("kind IN ('stop_auto', 'resume_auto')"),
    ),
)

# A customer has one key in use, the one with the highest number; after an erasure the next application starts another.
customer_keys = sa.Table(
    "customer_keys",
    metadata,
    sa.Column("customer", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("last_used_at", sa.String(32), nullable=False),
    sa.Column("wrapped", sa.LargeBinary),  # null once shredded
    sa.Column("restricted_at", sa.String(32)),
    sa.Column("erase_after", sa.String(32)),
    sa.Column("erased_at", sa.String(32)),
    # Its rows come in random order: one tree to write, not two.
    sqlite_with_rowid=False,
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("key_id", sa.String(12), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("scopes", sa.String(64), nullable=False),  # with spaces between
    sa.Column("rate", sa.String(64)),
    sa.Column("name", sa.String(100)),
    sa.Column("last_digits", sa.String(8), nullable=False),
    sa.Column("digest", sa.String(64)),  # null once revoked
    sa.Column("created_at", sa.String(32), nullable=False),
    sa.Column("created_by", sa.String(64), nullable=False),
    sa.Column("expires_at", sa.String(32)),
    sa.Column("revoked_at", sa.String(32)),
    sa.Column("revoked_by", sa.String(64)),
)

vault = sa.Table(
    "vault",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("master_key", sa.String(16), nullable=False),
    sa.Column("portfolio", sa.String(64)),  # whose log it is; null where several wrote to it before one was asked for
)
