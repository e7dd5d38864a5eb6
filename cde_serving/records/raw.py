"""Reading rows whose columns may hold anything: SQLite keeps a value of any type in any column."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

ROWS_AT_ONCE = 1000


@contextlib.contextmanager
def raw_reader(engine: Engine) -> Iterator[Connection]:
    """A connection that sees one moment of the database, and reads text that is no UTF-8 with surrogates in it."""
    with engine.connect() as connection:
        if connection.dialect.name != "sqlite":
            yield connection.execution_options(isolation_level="REPEATABLE READ")
            return
        driver: Any = connection.connection.dbapi_connection
        driver.text_factory = lambda text: text.decode(errors="surrogateescape")
        try:
            yield connection
        finally:
            driver.text_factory = str


def raw_rows(connection: Connection, query: sa.Select) -> Iterator[Mapping[str, Any]]:
    """The rows of a query as the driver gives them, few at a time."""
    as_it_is = query.with_only_columns(
        *(sa.type_coerce(column, sa.types.NullType()).label(column.name) for column in query.selected_columns)
    )
    for row in connection.execution_options(yield_per=ROWS_AT_ONCE).execute(as_it_is):
        yield dict(row._mapping)


def shown(value: object) -> str:
    """A value in a message, whatever it is."""
    return str(value).encode("ascii", "backslashreplace").decode()
