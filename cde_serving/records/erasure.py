"""Erasing a customer: restricted at once, shredded when the law no longer asks to keep (GDPR articles 17 and 18)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from cde_domain.clock import Clock, utc_now
from cde_serving.records.database import fold_in
from cde_serving.records.names import iso
from cde_serving.records.record import DEFAULT_TENANT, Event, Kind
from cde_serving.records.schema import api_keys, customer_keys, records

if TYPE_CHECKING:
    from cde_serving.decision_log import DecisionLog

_whole = customer_keys.c.wrapped.is_not(None)


class UnknownCustomerError(LookupError):
    """Nothing is recorded of a customer."""


class CopiesRemainError(RuntimeError):
    """A key was shredded, but the database's write-ahead log still holds it."""


@dataclass(frozen=True)
class Erasure:
    """
    What became of a customer's data; what the law keeps is shredded after `erase_after` (ISO 8601).

    A customer who applies meanwhile starts anew with a key of their own, which is none of it.
    """

    shredded: int
    erase_after: str | None


class Eraser:
    """Erases customers of one portfolio, in the name of `by`; the law keeps a decision for `retention_days`."""

    def __init__(
        self, log: "DecisionLog", portfolio: str, *, retention_days: int, by: str, clock: Clock = utc_now
    ) -> None:
        self._log = log
        self._portfolio = portfolio
        self._retention_days = retention_days
        self._by = by
        self._clock = clock

    async def erase(self, customer_id: str, *, at_once: bool = False, tenant: str = DEFAULT_TENANT) -> Erasure:
        """
        Restrict all data of a customer, and shred what need not be kept; with `at_once`, all of it.

        Raises:
            UnknownCustomerError: nothing is recorded of this customer.
            LogUnavailableError: the erasure could not be recorded, so it was not done.
            CopiesRemainError: it was done, but for copies that another connection keeps from being removed; asking
                again removes them.
        """
        customer = self._log.master.token("customer", tenant, customer_id)
        before = self._keys(customer)
        if not before:
            raise UnknownCustomerError(f"nothing is recorded of this customer of the tenant {tenant}")
        if at_once or any(key.wrapped and key.restricted_at is None for key in before):
            await self._note("restriction", customer, tenant, keep_days=0 if at_once else self._retention_days)
        if any(until <= iso(self._clock()) for until in _kept_until(self._keys(customer))):
            await self._note("erasure", customer, tenant)
        await self._remove_copies()
        after = self._keys(customer)
        return Erasure(_shredded(after) - _shredded(before), max(_kept_until(after), default=None))

    async def shred_due(self) -> int:
        """
        Shred the data of every customer who was restricted and whose retention has ended; return how many.

        Raises:
            LogUnavailableError, CopiesRemainError: as `erase`.
        """
        due = (
            sa.select(customer_keys.c.customer, sa.func.min(records.c.tenant).label("tenant"))
            .join(records, records.c.customer == customer_keys.c.customer)
            .where(_whole, customer_keys.c.erase_after <= iso(self._clock()))
            .group_by(customer_keys.c.customer)
            .order_by(customer_keys.c.customer)
        )
        customers = self._ask(due)
        for row in customers:
            await self._note("erasure", row.customer, row.tenant)
        await self._remove_copies()
        return len(customers)

    async def _remove_copies(self) -> None:
        # Even if nothing was shredded now: an earlier erasure may have left some.
        if not await asyncio.to_thread(fold_in, self._log.read_engine):
            raise CopiesRemainError(
                "copies of shredded keys may remain in the database's write-ahead log, since another connection is "
                "reading it: run this again, and stop what reads the log if that does not help"
            )

    async def _note(self, kind: Kind, customer: str, tenant: str, keep_days: int = 0) -> None:
        await self._log.note(
            Event.of(
                kind,
                self._clock(),
                portfolio=self._portfolio,
                customer=customer,
                by=self._by,
                tenant=tenant,
                keep_days=keep_days,
            )
        )

    def _keys(self, customer: str) -> Sequence[Any]:
        return self._ask(sa.select(customer_keys).where(customer_keys.c.customer == customer))

    def _ask(self, query: sa.Select) -> Sequence[Any]:
        with self._log.read_engine.connect() as connection:
            return connection.execute(query).all()


def _shredded(keys: Sequence[Any]) -> int:
    return sum(key.wrapped is None for key in keys)


def _kept_until(keys: Sequence[Any]) -> list[str]:
    """Until when each restricted key is kept; one of an application that came since is not restricted."""
    return [key.erase_after for key in keys if key.wrapped is not None and key.erase_after is not None]


def gone_customers(engine: Engine) -> set[str]:
    """The tokens of customers none of whose keys may still be used: erased or restricted, and not come back."""
    usable = sa.select(customer_keys.c.customer).where(_whole, customer_keys.c.restricted_at.is_(None))
    gone = sa.select(customer_keys.c.customer).distinct().where(customer_keys.c.customer.not_in(usable))
    with engine.connect() as connection:
        return set(connection.execute(gone).scalars())


def carry_out(connection: Connection, event: Event) -> dict[str, str | None]:
    """
    Do what an event says, in the transaction that records it: neither happens without the other.

    Returns the numbers of the customer's keys that it was done to, with the time until which a restricted one is kept.
    """
    if event.kind in ("key_created", "key_revoked"):
        _carry_out_on_api_key(connection, event)
        return {}
    done: dict[str, str | None] = {}
    of_customer = customer_keys.c.customer == event.customer
    if event.kind == "erasure":
        due = customer_keys.c.erase_after <= event.at
        shredded = sa.update(customer_keys).where(of_customer, _whole, due).values(wrapped=None, erased_at=event.at)
        numbers = connection.execute(shredded.returning(customer_keys.c.number)).scalars()
        done = dict.fromkeys(map(str, sorted(numbers)))
    elif event.kind == "restriction":
        for key in connection.execute(sa.select(customer_keys).where(of_customer, _whole).with_for_update()).all():
            until = iso(datetime.fromisoformat(key.last_used_at) + timedelta(days=event.keep_days))
            connection.execute(
                sa.update(customer_keys)
                .where(of_customer, customer_keys.c.number == key.number)
                .values(restricted_at=key.restricted_at or event.at, erase_after=min(key.erase_after or until, until))
            )
            done[str(key.number)] = min(key.erase_after or until, until)
    return done


def _carry_out_on_api_key(connection: Connection, event: Event) -> None:
    if event.kind == "key_created":
        connection.execute(sa.insert(api_keys), dict(event.row or {}))
        return
    live = sa.and_(api_keys.c.key_id == event.customer, api_keys.c.revoked_at.is_(None))
    connection.execute(sa.update(api_keys).where(live).values(digest=None, revoked_at=event.at, revoked_by=event.by))
