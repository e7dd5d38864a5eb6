"""The writer's statements, rendered once and given to the driver: SQLAlchemy's way there costs more than the rows."""

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

from cde_serving.records.schema import customer_keys, records, vault

Rows = Sequence[Mapping[str, Any]]


class Statements:
    """Statements of one kind of database, run with the parameters of its driver."""

    def __init__(self, dialect: Dialect) -> None:
        named = cast(Any, type(dialect))(paramstyle="named" if dialect.name == "sqlite" else "pyformat")

        def render(statement: sa.sql.ClauseElement) -> str:
            return str(statement.compile(dialect=named))

        self._insert_records = render(sa.insert(records))
        self._insert_keys = render(
            sa.insert(customer_keys).values(
                {name: sa.bindparam(name) for name in ("customer", "number", "last_used_at", "wrapped")}
            )
        )
        self._use_key = render(
            sa.update(customer_keys)
            .where(
                customer_keys.c.customer == sa.bindparam("in_use"),
                customer_keys.c.number == sa.bindparam("in_use_number"),
            )
            .values(last_used_at=sa.bindparam("last_used_at"))
        )
        # A write, since a full disk can still be read; on PostgreSQL it asks for the locks that a decision needs, too.
        locks = f"LOCK TABLE {records.name}, {customer_keys.name} IN ROW EXCLUSIVE MODE"
        self._probe = [locks] if dialect.name == "postgresql" else []
        self._probe.append(render(sa.update(vault).values(id=sa.literal_column("1"))))
        self._keys = _by_count(
            lambda names: render(
                sa.select(
                    customer_keys.c.customer,
                    customer_keys.c.number,
                    customer_keys.c.wrapped,
                    customer_keys.c.restricted_at,
                )
                .where(customer_keys.c.customer.in_(names))
                # On PostgreSQL nobody shreds a key between here and the commit; in order, so that no two writers wait
                # for each other.
                .order_by(customer_keys.c.customer, customer_keys.c.number)
                .with_for_update()
            )
        )
        self._earlier = _by_count(
            lambda names: render(
                sa.select(records.c.idempotency, records.c.record_id, records.c.fingerprint).where(
                    records.c.idempotency.in_(names)
                )
            )
        )

    def probe(self, connection: Connection) -> None:
        """Write what changes nothing, to see whether the database takes it."""
        for statement in self._probe:
            connection.exec_driver_sql(statement)

    def insert(self, connection: Connection, rows: Rows) -> None:
        """Insert records."""
        _run(connection, self._insert_records, rows)

    def keep_keys(self, connection: Connection, fresh: Rows, used: Rows) -> None:
        """Insert customers' keys, and note that others were used."""
        _run(connection, self._insert_keys, fresh)
        _run(connection, self._use_key, used)

    def keys_of(self, connection: Connection, customers: Collection[str]) -> Sequence[Any]:
        """Customer, number, wrapped key and time of restriction of all keys of customers."""
        return _ask(connection, self._keys, customers)

    def earlier(self, connection: Connection, tokens: Collection[str]) -> Sequence[Any]:
        """Token, record id and fingerprint of the decisions that idempotency keys were used for."""
        return _ask(connection, self._earlier, tokens)


def _by_count(render: Callable[[list[sa.BindParameter]], str]) -> Callable[[int], str]:
    @cache  # a batch has at most as many as a commit takes
    def statement(count: int) -> str:
        return render([sa.bindparam(f"p{position}", type_=sa.String) for position in range(count)])

    return statement


def _run(connection: Connection, statement: str, rows: Rows) -> None:
    if rows:
        with contextlib.closing(connection.connection.cursor()) as cursor:
            cursor.executemany(statement, rows)


def _ask(connection: Connection, statement: Callable[[int], str], values: Collection[str]) -> Sequence[Any]:
    parameters = {f"p{position}": value for position, value in enumerate(values)}
    with contextlib.closing(connection.connection.cursor()) as cursor:
        cursor.execute(statement(len(parameters)), parameters)
        return list(cursor.fetchall())
