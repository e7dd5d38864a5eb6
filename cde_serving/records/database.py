"""Opening the decision log's database: durable, at the newest schema, and no table that is not ours."""

import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url

from cde_serving.records.schema import vault

BUSY_TIMEOUT_SECONDS = 5
CONNECT_SECONDS = 3  # for a new connection to PostgreSQL
FOLDING_SECONDS = 10.0
WAL_PAGES = 4000  # 16 MB: a page that changes often is moved to the database once, not each time
MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 4_021_977  # any number that the other users of the database do not lock


class LogUnavailableError(RuntimeError):
    """The decision log cannot be opened, or a decision could not be recorded."""


def open_engines(url: str, *, hasty_reads: bool = True) -> tuple[Engine, Engine]:
    """
    The engine of the writer and that of readers, over a database at the newest schema.

    There are two since a writing transaction on SQLite begins by taking the lock, which a reader must not. On
    PostgreSQL a transaction that is not answered is given up: a write always, a read where that is asked for.

    Raises:
        LogUnavailableError: the database cannot be opened, does not flush commits, or holds a log of another kind.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    opener = _engine(url, writes=True)  # which waits: another service may be migrating
    try:
        with opener.begin() as connection:
            _migrate(connection)
        with opener.connect() as connection:
            _assert_durable(connection)
    except sa.exc.SQLAlchemyError as error:
        raise LogUnavailableError(f"the decision log cannot be opened: {error}") from error
    finally:
        opener.dispose()
    return _engine(url, writes=True, hasty=True), _engine(url, writes=False, hasty=hasty_reads)


def open_reader(url: str, portfolio: str | None = None) -> Engine:
    """
    An engine for reading a log that exists, of a portfolio where one is named.

    Raises:
        LogUnavailableError: there is none, or it is another portfolio's.
    """
    database = make_url(url).database
    if url.startswith("sqlite") and not (database and Path(database).exists()):
        raise LogUnavailableError(f"there is no decision log at {url}: nothing was decided yet")
    engine = _engine(url, writes=False)
    try:
        known = sa.inspect(engine).has_table("records")
    except sa.exc.SQLAlchemyError as error:
        raise LogUnavailableError(f"the decision log cannot be opened: {type(error).__name__}") from error
    if not known:
        raise LogUnavailableError("the database holds no decision log of this version")
    if portfolio is not None:
        with engine.connect() as connection:
            refuse_another(connection, portfolio)
    return engine


def refuse_another(connection: Connection, portfolio: str) -> None:
    """
    Refuse a log that is not this portfolio's; one that no service of this version has opened yet is nobody's.

    Raises:
        LogUnavailableError: it is another portfolio's, or several wrote to it when they still could.
    """
    if "portfolio" not in {column["name"] for column in sa.inspect(connection).get_columns(vault.name)}:
        return
    owner = connection.execute(sa.select(vault.c.portfolio)).scalar()
    if owner != portfolio:
        raise LogUnavailableError(
            f"the database holds the decision log of {owner or 'several portfolios'}: give {portfolio} a database of "
            "its own (CDE_DECISION_LOG_URL)"
        )


def fold_in(engine: Engine) -> bool:
    """
    Move all of SQLite's write-ahead log into the database and empty it; whether that could be done.

    What was overwritten in the database is otherwise still in the pages that were written before. It waits for other
    connections up to `FOLDING_SECONDS`.
    """
    if engine.dialect.name != "sqlite":
        return True
    until = time.monotonic() + FOLDING_SECONDS
    pooled = engine.raw_connection()  # outside a transaction, in which it cannot be done
    try:
        cursor = pooled.cursor()
        while True:
            try:
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                row = cursor.fetchone()
                if row is not None and row[0] == 0:
                    return True
            except engine.dialect.loaded_dbapi.OperationalError:
                pass  # locked: another connection is at it
            if time.monotonic() >= until:
                return False
            time.sleep(0.05)
    finally:
        pooled.close()


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":  # several services may start at once; SQLite's BEGIN holds its lock
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
    tables = set(sa.inspect(connection).get_table_names())
    if "decisions" in tables and "records" not in tables:
        raise LogUnavailableError(
            "the database holds a decision log of an earlier version, which was neither encrypted nor chained: "
            "keep it, and start with a new CDE_HOME or CDE_DECISION_LOG_URL"
        )
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _engine(url: str, *, writes: bool, hasty: bool = False) -> Engine:
    parsed = make_url(url)
    postgres = parsed.get_backend_name() == "postgresql"
    within = {"connect_timeout": CONNECT_SECONDS} if postgres and "connect_timeout" not in parsed.query else {}
    engine = sa.create_engine(parsed, hide_parameters=True, connect_args=within)
    if hasty and engine.driver == "psycopg":
        from cde_serving.records.impatient import hurry

        hurry(engine)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _configure_sqlite)
        begin = "BEGIN IMMEDIATE" if writes else "BEGIN"
        sa.event.listen(engine, "begin", lambda connection: connection.connection.dbapi_connection.execute(begin))
    return engine


def _configure_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver would begin transactions itself, without the lock
    # The timeout first: switching to WAL waits for a lock too.
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}",
        "journal_mode=WAL",
        "synchronous=FULL",
        f"wal_autocheckpoint={WAL_PAGES}",
        "secure_delete=ON",  # a shredded key is overwritten, not left in a free part of a page
    ):
        connection.execute(f"PRAGMA {pragma}")


def _assert_durable(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
        if mode != "wal" or synchronous != 2:
            raise LogUnavailableError(
                f"SQLite runs with journal_mode={mode}, synchronous={synchronous}; need wal and 2"
            )
    elif connection.dialect.name == "postgresql":
        for setting in ("fsync", "synchronous_commit"):
            if connection.exec_driver_sql(f"SHOW {setting}").scalar_one() == "off":
                raise LogUnavailableError(f"PostgreSQL runs with {setting}=off and can lose answered decisions")
    else:
        raise LogUnavailableError(f"decisions are kept in SQLite or PostgreSQL, not in {connection.dialect.name}")
