"""Run by Alembic: migrates over the connection that `cde_serving.records.database` hands in."""

from alembic import context

from cde_serving.records.schema import metadata

# One transaction on both databases: SQLite can roll a CREATE TABLE back, which Alembic does not assume.
context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
