"""The decision log: no decision is answered before it is recorded."""

import asyncio
import queue
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection, Engine, make_url

from cde_domain.clock import Clock, utc_now

QUEUE_LIMIT = 2048
LARGEST_COMMIT = 256
BUSY_TIMEOUT_SECONDS = 5
RETRY_SECONDS = 1.0

log = structlog.get_logger()

_metadata = sa.MetaData()

decisions = sa.Table(
    "decisions",
    _metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("decision_id", sa.String(32), nullable=False, unique=True),
    sa.Column("applied_at", sa.String(32), nullable=False),
    sa.Column("recorded_at", sa.String(32), nullable=False),
    sa.Column("portfolio", sa.String(64), nullable=False),
    sa.Column("customer_id", sa.String(64), nullable=False),
    sa.Column("request", sa.LargeBinary, nullable=False),
    sa.Column("features", sa.LargeBinary, nullable=False),
    sa.Column("answer", sa.LargeBinary, nullable=False),
    sa.Column("decision", sa.String(16), nullable=False),
    sa.Column("score", sa.Float),
    sa.Column("bundle", sa.String(64), nullable=False),
    sa.Column("policy_version", sa.String(64), nullable=False),
    sa.Column("variant", sa.String(16), nullable=False),
    sqlite_autoincrement=True,
)

_insert = sa.insert(decisions)


class LogBusyError(RuntimeError):
    """More decisions wait to be recorded than the log can hold."""


class LogUnavailableError(RuntimeError):
    """The decision could not be recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """
    One decision as it is kept: the validated request, the features and the exact bytes of the answer.

    `request` is the application as its model writes it (its order of fields, unset ones left out), `features` a JSON
    object; times are ISO 8601 in UTC. `sequence` and `recorded_at` are given by the log.
    """

    decision_id: str
    applied_at: str
    portfolio: str
    customer_id: str
    request: bytes
    features: bytes
    answer: bytes
    decision: str
    score: float | None
    bundle: str
    policy_version: str
    variant: str
    sequence: int | None = None
    recorded_at: str | None = None


_GIVEN = tuple(field.name for field in fields(Record) if field.name not in ("sequence", "recorded_at"))


class _Waiting:
    """A record with the future of the request that waits for it."""

    __slots__ = ("future", "loop", "record")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()


class DecisionLog:
    """
    Decisions in a SQL database, written by one thread.

    The thread commits all records that wait in one transaction, without waiting for more, so that a commit a disk
    flush long carries every request of the moment. SQLite runs with a write-ahead log and flushes on every commit.

    Raises:
        LogUnavailableError: the database cannot be opened, or does not flush commits.
    """

    def __init__(self, url: str, clock: Clock = utc_now, queue_limit: int = QUEUE_LIMIT) -> None:
        self.problem: str | None = None
        self._clock = clock
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(queue_limit)
        self._closed = False
        _make_folder(url)
        # Two engines, since a writing transaction on SQLite begins by taking the lock, which a reader must not.
        self._writer = _engine(url, writes=True)
        self._reader = _engine(url, writes=False)
        try:
            _metadata.create_all(self._writer)
            with self._writer.connect() as connection:
                _assert_durable(connection)
        except sa.exc.SQLAlchemyError as error:
            raise LogUnavailableError(f"the decision log cannot be opened: {error}") from error
        self._thread = threading.Thread(target=self._write_all, name="decision-log", daemon=True)
        self._thread.start()

    async def record(self, record: Record) -> None:
        """
        Record a decision; returns when it is committed.

        Raises:
            LogBusyError: too many decisions wait already.
            LogUnavailableError: the database refused, or the log is closed.
        """
        if self._closed:
            raise LogUnavailableError("the decision log is closed")
        waiting = _Waiting(record)
        try:
            self._queue.put_nowait(waiting)
        except queue.Full:
            raise LogBusyError(f"{self._queue.maxsize} decisions wait to be recorded") from None
        await waiting.future

    def get(self, decision_id: str) -> Record | None:
        """The record of a decision, or None."""
        with self._reader.connect() as connection:
            row = connection.execute(sa.select(decisions).where(decisions.c.decision_id == decision_id)).first()
        return Record(**row._mapping) if row else None

    def count(self) -> int:
        """How many decisions are recorded."""
        with self._reader.connect() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(decisions)).scalar_one()

    def close(self) -> None:
        """Record what waits, then close the database; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        self._writer.dispose()
        self._reader.dispose()

    def _write_all(self) -> None:
        connection: Connection | None = None
        open_ended = True
        while open_ended:
            batch, open_ended = self._next_batch()
            try:
                connection = connection or self._writer.connect()
                if batch:
                    self._commit(connection, batch)
                else:
                    connection.execute(sa.select(1)).all()
                    connection.rollback()
            except Exception as error:  # every waiting request must be told, whatever went wrong
                self._fail(batch, error)
                with suppress(Exception):
                    if connection is not None:
                        connection.invalidate()
                        connection.close()
                connection = None
            else:
                self.problem = None
                _answer(batch, None)
        if connection is not None:
            connection.close()

    def _next_batch(self) -> tuple[list[_Waiting], bool]:
        """All that wait (none only while failing, to try the database again), and whether more may come."""
        try:
            item = self._queue.get(timeout=RETRY_SECONDS if self.problem else None)
        except queue.Empty:
            return [], True
        batch: list[_Waiting] = []
        while item is not None:
            batch.append(item)
            if len(batch) == LARGEST_COMMIT:
                return batch, True
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _commit(self, connection: Connection, batch: list[_Waiting]) -> None:
        now = iso(self._clock())
        with connection.begin():
            connection.execute(_insert, [_row(waiting.record, now) for waiting in batch])

    def _fail(self, batch: list[_Waiting], error: Exception) -> None:
        # The driver's message quotes the values of the row: only the kind of error may be written anywhere.
        cause = getattr(error, "orig", None) or error
        if self.problem is None:
            log.error("decisions cannot be recorded", error=type(cause).__name__, waiting=len(batch))
        self.problem = type(cause).__name__
        _answer(batch, LogUnavailableError("the decision could not be recorded"))


def iso(moment: datetime) -> str:
    """A moment as ISO 8601 in UTC with microseconds, which sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _row(record: Record, recorded_at: str) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in _GIVEN}  # `asdict` would copy every value, at ten times the cost
    row["recorded_at"] = recorded_at
    return row


def _answer(batch: Iterable[_Waiting], error: Exception | None) -> None:
    """Wake the waiting requests, once for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for waiting in batch:
        by_loop.setdefault(waiting.loop, []).append(waiting.future)
    for loop, futures in by_loop.items():
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, futures, error)


def _resolve(futures: list[asyncio.Future[None]], error: Exception | None) -> None:
    for future in futures:
        if future.done():  # the client has gone
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _make_folder(url: str) -> None:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)


def _engine(url: str, *, writes: bool) -> Engine:
    engine = sa.create_engine(url, hide_parameters=True)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _configure_sqlite)
        begin = "BEGIN IMMEDIATE" if writes else "BEGIN"
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _configure_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the driver would begin transactions itself, without the lock
    # The timeout first: switching to WAL waits for a lock too.
    for pragma in (f"busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _assert_durable(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        return
    mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
    if mode != "wal" or synchronous != 2:
        raise LogUnavailableError(f"SQLite runs with journal_mode={mode}, synchronous={synchronous}; need wal and 2")
