"""PostgreSQL that stopped answering: each transaction has a time, after which its connection is given up."""

import time
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy.engine import Engine

TRANSACTION_SECONDS = 5.0
LOCK_SECONDS = 4.0  # for a lock, which the server itself gives up, so that no forgotten statement waits there for it


class ImpatientConnection(psycopg.Connection[Any]):
    """
    A connection that is closed when a transaction has not ended in `TRANSACTION_SECONDS`.

    A server that is stopped, or a network that drops packets, answers nothing and breaks nothing: libpq would wait for
    ever, and limits that the server keeps (`statement_timeout`) stop with it. Whether the server yet commits what was
    abandoned is not known then, as after any connection that broke.
    """

    _until = 0.0

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """
        Run a step of the protocol.

        Raises:
            OperationalError: the transaction took too long, or whatever else happened to the connection.
        """
        now = time.monotonic()
        if self.pgconn.transaction_status == TransactionStatus.IDLE:
            self._until = now + TRANSACTION_SECONDS
        left = max(0.0, self._until - now)
        try:
            return super().wait(gen, interval, left if timeout is None else min(left, timeout))
        except psycopg.OperationalError:
            if time.monotonic() >= self._until:
                self.close()  # what it would say next belongs to the step that was given up
            raise


def hurry(engine: Engine) -> None:
    """Let an engine of psycopg open impatient connections."""

    def connect(_: object, __: object, arguments: Any, parameters: Any) -> ImpatientConnection:
        connection = ImpatientConnection.connect(*arguments, **{**parameters, "autocommit": True})
        connection.execute(b"SET lock_timeout = %d" % round(LOCK_SECONDS * 1000))
        connection.autocommit = False
        return connection

    sa.event.listen(engine, "do_connect", connect)
