"""The decision log: no decision is answered before it is recorded."""

import asyncio
import time
from typing import Self

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from cde_domain.clock import Clock, utc_now
from cde_serving.records.checkpoints import CheckpointFile
from cde_serving.records.database import LogUnavailableError, open_engines, open_reader, refuse_another
from cde_serving.records.follow_ups import FollowUp, FollowUpStore
from cde_serving.records.record import ErasedError, Event, Record
from cde_serving.records.schema import records, vault
from cde_serving.records.store import RecordStore
from cde_serving.records.vault import MasterKey, VaultError
from cde_serving.records.writer import Earlier, KeyInProgressError, LogBusyError, Writer
from cde_serving.settings import Settings
from cde_serving.signing import SignatureError, open_signing_key

QUEUE_LIMIT = 2048
STALLED_SECONDS = 5.0  # that a decision waits before the log counts as failing

__all__ = [
    "DecisionLog",
    "ErasedError",
    "KeyInProgressError",
    "KeyReusedError",
    "LogBusyError",
    "LogUnavailableError",
    "Record",
]


class KeyReusedError(ValueError):
    """An idempotency key that was used for another request."""


class DecisionLog:
    """
    A portfolio's decisions in a SQL database: what is personal encrypted, each record chained to the one before.

    With `hasty_reads`, as a service needs, a database that does not answer fails a read after some seconds; a program
    that looks through the whole log waits.

    Raises:
        LogUnavailableError: the database cannot be opened, does not flush commits, was written with another master
            key, or is another portfolio's.
    """

    def __init__(
        self,
        url: str,
        portfolio: str,
        master: MasterKey,
        checkpoints: CheckpointFile,
        clock: Clock = utc_now,
        queue_limit: int = QUEUE_LIMIT,
        *,
        hasty_reads: bool = True,
    ) -> None:
        self.master = master
        self._write_engine, self.read_engine = open_engines(url, hasty_reads=hasty_reads)
        _claim(self._write_engine, portfolio, master)
        self.store = RecordStore(self.read_engine, master)
        self.follow_ups = FollowUpStore(self.read_engine, master)
        self.writer = Writer(self._write_engine, master, checkpoints, clock, queue_limit)

    @classmethod
    def open(cls, settings: Settings, name: str, *, hasty_reads: bool = True) -> Self:
        """
        The log of a portfolio, with the keys that the settings name; missing keys are generated.

        Raises:
            ClockFileError: the settings name a clock file that tells no time.
            LogUnavailableError: the log or a key cannot be opened.
        """
        clock = settings.clock()
        try:
            master = MasterKey.open(settings.master_key_file(), create=True)
            key = open_signing_key(settings.log_key_file(), settings.log_public_key_file(), create=True)
        except (VaultError, SignatureError) as error:
            raise LogUnavailableError(f"the decision log cannot be opened: {error}") from error
        checkpoints = CheckpointFile(settings.checkpoints_file(name), key)
        return cls(settings.log_url(name), name, master, checkpoints, clock, hasty_reads=hasty_reads)

    @classmethod
    def open_existing(cls, settings: Settings, name: str) -> Self:
        """
        The log of a portfolio that was written before: an empty one made here would hide a mistyped `CDE_HOME`.

        It is for a person's command or a job: reads take the time they take.

        Raises:
            LogUnavailableError: there is none, or it cannot be opened.
        """
        open_reader(settings.log_url(name), name).dispose()
        return cls.open(settings, name, hasty_reads=False)

    @property
    def problem(self) -> str | None:
        """Why decisions cannot be recorded or sealed at the moment."""
        if self.writer.has_ended:
            return "the writer has ended"
        return self.writer.problem or self.writer.sealing_problem or self._stall()

    def _stall(self) -> str | None:
        since = self.writer.oldest_since
        stalled = since is not None and time.monotonic() - since > STALLED_SECONDS
        return "the database does not answer" if stalled else None

    async def record(self, record: Record) -> bytes:
        """
        Record a decision; returns the answer to give once it is committed.

        It is the record's own, or, if the idempotency key was used before for the same request, the one given then.

        Raises:
            LogBusyError: too many decisions wait already.
            LogUnavailableError: the database refused, or the log is closed.
            KeyInProgressError: a request with the same idempotency key is being answered.
            KeyReusedError: the idempotency key was used for another request.
            ErasedError: it was used for a customer whose data was erased since.
        """
        try:
            earlier = await self.writer.write(record)
        except KeyInProgressError:  # perhaps by one who asks again, too
            known = await asyncio.to_thread(self.store.find, record.idempotency_key or "", record.tenant)
            if known is None:
                raise
            earlier = Earlier(known.record_id, known.fingerprint)
        if earlier is None:
            return record.payload.answer
        if earlier.fingerprint != record.fingerprint:
            raise KeyReusedError
        known = await asyncio.to_thread(self.store.get, earlier.record_id, record.tenant)
        if known is None:
            raise LogUnavailableError("the earlier decision cannot be found")
        return known.payload.answer

    async def note(self, event: Event) -> None:
        """Record an event, as `record` does a decision."""
        await self.writer.write(event)

    async def follow_up(self, entry: FollowUp) -> bytes:
        """
        Record a review or an outcome; returns the answer to give once it is committed, as `record` does.

        Raises:
            UnknownDecisionError: the tenant has no such decision.
            LogBusyError, LogUnavailableError, KeyInProgressError, KeyReusedError, ErasedError: as `record`.
        """
        in_progress: KeyInProgressError | None = None
        try:
            if await self.writer.write(entry) is None:
                return entry.answer
        except KeyInProgressError as error:  # perhaps by one who asks again, too
            in_progress = error
        known = await asyncio.to_thread(self.follow_ups.find, entry.idempotency_key or "", entry.tenant)
        if known is None and in_progress is not None:
            raise in_progress
        if known is None or known[1] != entry.fingerprint:
            raise KeyReusedError
        return known[0]

    def get(self, record_id: str, tenant: str) -> Record | None:
        """A decision, as `RecordStore.get` gives it."""
        return self.store.get(record_id, tenant)

    def find(self, idempotency_key: str, tenant: str) -> Record | None:
        """
        The decision that was asked for under an idempotency key, or None.

        Raises:
            KeyInProgressError: it is being answered.
            ErasedError, VaultError: as `get`.
        """
        # Asked before the database, so that what is committed in between is found there.
        in_progress = self.writer.in_progress(self.master.token("idempotency key", tenant, idempotency_key))
        known = self.store.find(idempotency_key, tenant)
        if known is None and in_progress:
            raise KeyInProgressError
        return known

    def fingerprint(self, body: bytes, tenant: str) -> str:
        """What a request body is known by beside an idempotency key."""
        return self.master.token("request", tenant, body)

    def count(self) -> int:
        """How many decisions are recorded."""
        return self.store.count()

    def close(self) -> None:
        """Record what waits, sign the end of the chain, then close the database; idempotent."""
        self.writer.close()
        self._write_engine.dispose()
        self.read_engine.dispose()


def _claim(engine: Engine, portfolio: str, master: MasterKey) -> None:
    """
    Refuse another master key than the log's own, and another portfolio; a new database becomes the log of this one.

    With another key its decisions could not be read nor its customers matched. Another portfolio would answer for this
    one: the same customer has one key in a log, and an idempotency key one answer.
    """
    try:
        with engine.begin() as connection:
            known = connection.execute(sa.select(vault.c.master_key)).scalar()
            if known is None:
                connection.execute(sa.insert(vault), {"id": 1, "master_key": master.id, "portfolio": portfolio})
            elif known != master.id:
                raise LogUnavailableError(
                    f"the decision log was written with the master key {known}, but CDE_MASTER_KEY names {master.id}"
                )
            else:
                decisions = sa.select(records.c.record_id).where(records.c.kind == "decision")
                if connection.execute(decisions.limit(1)).first() is None:
                    unclaimed = vault.c.portfolio.is_(None)
                    connection.execute(sa.update(vault).where(unclaimed).values(portfolio=portfolio))
                refuse_another(connection, portfolio)
    except sa.exc.IntegrityError:  # another service was first
        _claim(engine, portfolio, master)
    except sa.exc.SQLAlchemyError as error:
        raise LogUnavailableError(f"the decision log cannot be opened: {type(error).__name__}") from error
