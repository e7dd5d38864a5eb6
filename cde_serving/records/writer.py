"""The one writer of a process: a thread that commits all that wait in one transaction."""

import asyncio
import contextlib
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy.engine import Connection, Engine

from cde_domain.clock import Clock
from cde_serving.records.checkpoints import CheckpointFile
from cde_serving.records.database import LogUnavailableError
from cde_serving.records.erasure import carry_out
from cde_serving.records.follow_ups import FollowUp, follow_up_rows
from cde_serving.records.names import iso, record_id_at
from cde_serving.records.record import Event, Record
from cde_serving.records.rows import Head, chained, decision_row, event_row, keys_of, protected_row
from cde_serving.records.statements import Statements
from cde_serving.records.vault import CustomerKey, MasterKey, VaultError

LARGEST_COMMIT = 256
CHECKPOINT_RECORDS = 1000
CHECKPOINT_SECONDS = 1.0
RETRY_SECONDS = 1.0
LATE_SECONDS = 3.0  # waited behind a failure: with the time that the next takes an answer would not be in time
CLOSE_SECONDS = 9.0  # a connection and a transaction that are given up, and time to tell it
RETRIED = ("40001", "40P01")  # PostgreSQL: serialization failure, deadlock
CONFLICTS = 3  # commits that another process may get ahead of before a batch is given up

log = structlog.get_logger()


class LogBusyError(RuntimeError):
    """More decisions wait to be recorded than the log can hold."""


class KeyInProgressError(RuntimeError):
    """A request with this idempotency key is being answered."""


Entry = Record | Event | FollowUp


@dataclass(frozen=True, slots=True)
class Earlier:
    """The record that an idempotency key was used for before."""

    record_id: str
    fingerprint: str | None


Result = Earlier | Exception | None


class _Waiting:
    """What is to be recorded, with the future of the request that waits for it."""

    __slots__ = ("customer", "entry", "future", "idempotency", "loop", "since")

    def __init__(self, entry: Entry, customer: str, idempotency: str | None) -> None:
        self.entry = entry
        self.customer = customer
        self.idempotency = idempotency
        self.since = time.monotonic()
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Earlier | None] = self.loop.create_future()


class Writer:
    """
    Commits records in a chain of its own, without waiting for more than those that wait already.

    A commit a disk flush long so carries every request of the moment. Keys are looked up and payloads sealed in the
    same transaction. The end of the chain is signed into the checkpoint file every second, every thousand records and
    when the writer closes. `problem` and `sealing_problem` say what fails at the moment; `on_commit` is told of each
    commit how many records and seconds it had, `on_damaged_key` of each customer or decision whose key cannot be read.
    """

    def __init__(
        self, engine: Engine, master: MasterKey, checkpoints: CheckpointFile, clock: Clock, queue_limit: int
    ) -> None:
        self.problem: str | None = None
        self.sealing_problem: str | None = None
        self.on_commit: Callable[[int, float], None] = lambda records, seconds: None
        self.on_damaged_key: Callable[[], None] = lambda: None
        self.chain = uuid.uuid4().hex
        self._engine = engine
        self._statements = Statements(engine.dialect)
        self._master = master
        self._checkpoints = checkpoints
        self._clock = clock
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(queue_limit)
        self._in_progress: set[str] = set()
        self._committing: list[_Waiting] = []
        self._damaged: set[str] = set()  # the tokens or decisions whose keys were found damaged
        self._closed = False
        self._entrance = threading.Lock()  # nothing enters the queue once the writer is told to close
        self._head = Head(self.chain, 0, "")  # the last that was committed
        self._sealed: int | None = None  # the sequence of the last checkpoint
        self._sealed_at = 0.0
        self._thread = threading.Thread(target=self._write_all, name="decision-log", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many wait to be recorded."""
        return self._queue.qsize() + len(self._committing)

    @property
    def oldest_since(self) -> float | None:
        """Since when (`time.monotonic`) the oldest of them waits."""
        with self._queue.mutex:
            first = self._committing[:1] or list(self._queue.queue)[:1]
        return first[0].since if first and first[0] is not None else None

    @property
    def has_ended(self) -> bool:
        """Whether nothing is recorded any more, be it that the writer was closed or that its thread died."""
        return not self._thread.is_alive()

    def in_progress(self, idempotency: str) -> bool:
        """Whether a request with this token waits to be recorded."""
        return idempotency in self._in_progress

    async def write(self, entry: Entry) -> Earlier | None:
        """
        Record; returns None when that is committed, or what was recorded earlier under the same idempotency key.

        Raises:
            LogBusyError: too many wait already.
            LogUnavailableError: the database refused, or the log is closed.
            KeyInProgressError: a request with the same idempotency key waits.
            UnknownDecisionError, ErasedError: there is no decision to follow, or none that may be used.
        """
        waiting = self._waiting(entry)
        token = waiting.idempotency
        if token is not None:
            if token in self._in_progress:
                raise KeyInProgressError
            self._in_progress.add(token)
        try:
            self._enter(waiting)
        except (LogBusyError, LogUnavailableError):
            if token is not None:
                self._in_progress.discard(token)
            raise
        return await waiting.future

    def close(self) -> None:
        """Record what waits and sign the end of the chain, in `CLOSE_SECONDS` at most; idempotent."""
        with self._entrance:
            if self._closed:
                return
            self._closed = True
        until = time.monotonic() + CLOSE_SECONDS
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=CLOSE_SECONDS)
        self._thread.join(max(0.0, until - time.monotonic()))
        if not self.has_ended:  # what waits was not answered, and the thread ends with the process
            log.error("the decision log does not end: what waits may not be recorded", waiting=self.waiting)

    def _enter(self, waiting: _Waiting) -> None:
        with self._entrance:
            if self._closed:
                raise LogUnavailableError("the decision log is closed")
            if self.has_ended:
                raise LogUnavailableError("the decision log's writer has ended")
            try:
                self._queue.put_nowait(waiting)
            except queue.Full:
                raise LogBusyError(f"{self._queue.maxsize} decisions wait to be recorded") from None

    def _waiting(self, entry: Entry) -> _Waiting:
        if isinstance(entry, Event):
            return _Waiting(entry, entry.customer, None)
        master, key = self._master, entry.idempotency_key
        return _Waiting(
            entry,
            master.token("customer", entry.tenant, entry.payload.customer_id) if isinstance(entry, Record) else "",
            master.token("idempotency key", entry.tenant, key) if key is not None else None,
        )

    def _write_all(self) -> None:
        connection: Connection | None = None
        open_ended = True
        while open_ended:
            came, open_ended = self._next_batch()
            batch = self._committing = self._still_awaited(came) if self.problem else came
            try:
                if connection is None:
                    connection = self._connect()
                if batch:
                    began = time.perf_counter()
                    results = self._commit(connection, batch)
                    committed = time.perf_counter()
                elif self.problem:
                    with connection.begin():
                        self._statements.probe(connection)
            except Exception as error:  # every waiting request must be told, whatever went wrong
                self._fail(batch, error)
                with contextlib.suppress(Exception):
                    if connection is not None:
                        connection.invalidate()
                        connection.close()
                connection = None
            else:
                self.problem = None
                if batch:
                    self._answer(batch, results)
                    self.on_commit(len(batch), committed - began)
            self._committing = []
            self._seal_if_due(last=not open_ended)
        if connection is not None:
            connection.close()

    def _next_batch(self) -> tuple[list[_Waiting], bool]:
        """All that wait (none if it is time to try the database or to sign), and whether more may come."""
        try:
            item = self._queue.get(timeout=self._patience())
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

    def _still_awaited(self, batch: list[_Waiting]) -> list[_Waiting]:
        """What a database that fails is yet tried with: the answer of the others, who are told, would come too late."""
        came_after = float("inf") if self._closed else time.monotonic() - LATE_SECONDS
        self._answer([one for one in batch if one.since <= came_after], _not_recorded())
        return [one for one in batch if one.since > came_after]

    def _patience(self) -> float | None:
        if self.problem:
            return RETRY_SECONDS
        if self._sealed == self._head.sequence or self._head.sequence == 0:
            return None
        return max(0.0, self._sealed_at + CHECKPOINT_SECONDS - time.monotonic())

    def _connect(self) -> Connection:
        """A connection to a database that has the whole chain, and perhaps a commit that seemed to fail."""
        with contextlib.ExitStack() as on_error:
            connection = on_error.enter_context(self._engine.connect())
            head = self._head.read(connection)
            connection.rollback()
            if head.sequence < self._head.sequence:
                raise LogUnavailableError("the database lost recorded decisions")
            on_error.pop_all()
        self._head = head
        return connection

    def _commit(self, connection: Connection, batch: list[_Waiting]) -> list[Result]:
        if self._sealed is None:  # a chain whose beginning is not signed could vanish whole
            self._seal(Head(self.chain, 0, ""))
        for conflicts in range(CONFLICTS + 1):
            try:
                with connection.begin():
                    head, results = self._insert(connection, batch)
            except Exception as error:
                if conflicts == CONFLICTS or not self._is_conflict(error):
                    raise
            else:
                self._head = head
                break
        return results

    def _is_conflict(self, error: Exception) -> bool:
        """Whether another process was first with a customer or an idempotency key."""
        cause = getattr(error, "orig", None) or error  # as the driver raised it
        integrity = self._engine.dialect.loaded_dbapi.IntegrityError
        return isinstance(cause, integrity) or getattr(cause, "sqlstate", None) in RETRIED

    def _insert(self, connection: Connection, batch: list[_Waiting]) -> tuple[Head, list[Result]]:
        now = iso(self._clock())
        earlier = self._recorded_earlier(connection, batch)
        results: list[Result] = [earlier.get(waiting.idempotency) for waiting in batch]
        fresh = [waiting for waiting, known in zip(batch, results, strict=True) if known is None]
        done = {one.entry.record_id: carry_out(connection, one.entry) for one in fresh if isinstance(one.entry, Event)}
        customers = {waiting.customer for waiting in fresh if isinstance(waiting.entry, Record)}
        keys = keys_of(connection, self._statements, self._master, customers, now)
        following = [(one.entry, one.idempotency) for one in fresh if isinstance(one.entry, FollowUp)]
        follow_ups = iter(follow_up_rows(connection, self._master, following, now) if following else ())
        rows: list[dict[str, Any]] = []
        for place, waiting in enumerate(batch):
            if results[place] is not None:
                continue
            if isinstance(waiting.entry, Record):
                key = keys[waiting.customer]
                if isinstance(key, VaultError):
                    results[place] = self._unreadable(waiting.customer)
                else:
                    rows += self._rows_of_decision(waiting, waiting.entry, key, now)
            elif isinstance(waiting.entry, Event):
                rows.append(event_row(waiting.entry, now, done[waiting.entry.record_id]))
            elif isinstance(row := next(follow_ups), dict):
                rows.append(row)
            else:
                results[place] = (
                    self._unreadable(waiting.entry.content.decision_id) if isinstance(row, VaultError) else row
                )
        head = chained(self._head, rows)
        if rows:
            self._statements.insert(connection, rows)
        return head, results

    def _unreadable(self, subject: str) -> LogUnavailableError:
        """Why what concerns a customer whose key is damaged cannot be recorded; logged once for each subject."""
        if subject not in self._damaged:
            self._damaged.add(subject)
            self.on_damaged_key()
            log.error("a customer's key cannot be read: run `cde verify-log`", subject=subject[:32])
        return LogUnavailableError("it could not be recorded: the customer's key cannot be read")

    def _rows_of_decision(
        self, waiting: _Waiting, entry: Record, key: CustomerKey, now: str
    ) -> Iterator[dict[str, Any]]:
        row = decision_row(entry, waiting.customer, waiting.idempotency, key, now)
        yield row
        if entry.protected:
            yield protected_row(entry, row, record_id_at(self._clock()), key)

    def _recorded_earlier(self, connection: Connection, batch: list[_Waiting]) -> dict[str | None, Earlier]:
        tokens = [waiting.idempotency for waiting in batch if waiting.idempotency is not None]
        if not tokens:
            return {}
        found = self._statements.earlier(connection, tokens)
        return {token: Earlier(record_id, fingerprint) for token, record_id, fingerprint in found}

    def _seal_if_due(self, *, last: bool) -> None:
        unsigned = self._head.sequence - (self._sealed or 0)
        if self._sealed is None or not (unsigned or last):
            return
        waited = time.monotonic() - self._sealed_at
        if last or unsigned >= CHECKPOINT_RECORDS or waited >= CHECKPOINT_SECONDS:
            try:
                # A commit that was given up may yet come: only an end that is known is signed as one.
                self._seal(self._head, closed=last and self.problem is None)
            except OSError as error:
                self._sealed_at = time.monotonic()  # not again at once
                known, self.sealing_problem = self.sealing_problem, _kind(error)
                if known is None:
                    log.error("checkpoints cannot be written", error=self.sealing_problem)
            else:
                self.sealing_problem = None

    def _seal(self, head: Head, *, closed: bool = False) -> None:
        self._checkpoints.append(head.chain, head.sequence, head.hash, iso(self._clock()), closed=closed)
        self._sealed = head.sequence
        self._sealed_at = time.monotonic()

    def _fail(self, batch: list[_Waiting], error: Exception) -> None:
        known, self.problem = self.problem, _kind(error)
        self._answer(batch, _not_recorded())  # first: they wait
        if known is None:
            log.error("decisions cannot be recorded", error=self.problem)

    def _answer(self, batch: list[_Waiting], results: list[Result] | Exception) -> None:
        """Wake the waiting requests, once for each event loop."""
        self._in_progress.difference_update([waiting.idempotency for waiting in batch if waiting.idempotency])
        given = [results] * len(batch) if isinstance(results, Exception) else results
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future, Result]]] = {}
        for waiting, result in zip(batch, given, strict=True):
            by_loop.setdefault(waiting.loop, []).append((waiting.future, result))
        for loop, answers in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(_resolve, answers)


def _not_recorded() -> LogUnavailableError:
    return LogUnavailableError("the decision could not be recorded")


def _kind(error: Exception) -> str:
    """What may be written of an error: its message quotes the values of a row."""
    return type(getattr(error, "orig", None) or error).__name__  # as the driver raised it


def _resolve(answers: Iterable[tuple[asyncio.Future, Result]]) -> None:
    for future, result in answers:
        if future.done():  # the client has gone
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
