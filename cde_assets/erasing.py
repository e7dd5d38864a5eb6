"""Erasing customers: in the decision log, and in what was made from it."""

import asyncio
from pathlib import Path

from cde_assets.derived_rows import drop_customer_rows
from cde_domain.clock import Clock
from cde_domain.portfolio import Portfolio
from cde_serving.decision_log import DecisionLog
from cde_serving.records.erasure import CopiesRemainError, Eraser, Erasure, gone_customers
from cde_serving.records.record import DEFAULT_TENANT
from cde_serving.settings import Settings


class Erasing:
    """
    Erases customers of one portfolio in the name of `by`, over an open log.

    A decision is kept as long as the portfolio's `retention` says, unless the settings name other days. Without a
    `clock` it is the one of the settings.
    """

    def __init__(
        self, log: DecisionLog, settings: Settings, portfolio: Portfolio, *, by: str, clock: Clock | None = None
    ) -> None:
        self._log = log
        self._folder: Path = settings.portfolio_home(portfolio.name)
        self.retention_days = portfolio.retention.days if settings.retention_days is None else settings.retention_days
        self._eraser = Eraser(
            log, portfolio.name, retention_days=self.retention_days, by=by, clock=clock or settings.clock()
        )

    def erase(self, customer_id: str, *, at_once: bool, tenant: str = DEFAULT_TENANT) -> tuple[Erasure, int]:
        """
        Restrict or shred a customer's records, and take them out of all tables at once; what is made need not be kept.

        Returns what became of the records, and how many rows the tables lost.

        Raises:
            UnknownCustomerError: nothing is recorded of this customer.
            LogUnavailableError: the erasure could not be recorded, so it was not done.
            CopiesRemainError: it was done, but the write-ahead log still holds the key.
        """
        customers = {self._log.master.token("customer", tenant, customer_id)}
        try:
            done = asyncio.run(self._eraser.erase(customer_id, at_once=at_once, tenant=tenant))
        except CopiesRemainError:
            self._drop(customers)
            raise
        return done, self._drop(customers)

    def erase_due(self) -> tuple[int, int]:
        """
        Shred whoever's retention has ended; return how many customers, and how many rows the tables lost.

        Raises:
            LogUnavailableError: an erasure could not be recorded.
            CopiesRemainError: as `erase`.
        """
        try:
            shredded = asyncio.run(self._eraser.shred_due())
        except CopiesRemainError:
            self._drop(gone_customers(self._log.read_engine))
            raise
        return shredded, self._drop(gone_customers(self._log.read_engine))

    def _drop(self, customers: set[str]) -> int:
        def token_of(tenant: str, customer_id: str) -> str:
            return self._log.master.token("customer", tenant, customer_id)

        return sum(drop_customer_rows(self._folder, customers, token_of).values())
