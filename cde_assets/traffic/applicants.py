"""Who applies: customers of the portfolio's simulator, or rows of its book drawn again and again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from cde_domain.application import ColumnSpec, columns_of, request_of
from cde_domain.loan_book import PROTECTED_PREFIX, assemble
from cde_domain.portfolio import Portfolio

FEWEST_SIMULATED = 1_000  # rows of a simulated book
SPARE = 0.7  # of a simulated book at least so many loans are old enough to have an outcome

SIMULATED = {"rows", "seed"}  # the options that make a portfolio's sources a simulator
DRIFT = "drift"


class ApplicantsError(ValueError):
    """Applicants that the portfolio's sources cannot give."""


@dataclass(frozen=True)
class Applicant:
    """A request body, and whether the loan will be repaid if it is granted, which no request reveals."""

    application: dict[str, Any]
    repays: bool


class Applicants:
    """
    The applicants of each day, drawn with a seed.

    The same seed, day and number are the same people. Where the sources simulate, every day draws new customers, who
    have drifted by `drift` standard deviations, with the outcome that the simulator drew from their true probability.
    Elsewhere rows of the book with known outcome are drawn with replacement, each as a new customer.

    Raises:
        ApplicantsError: a drift is asked for, but the sources have no such option.
        LoanBookError, ValidationError: the book cannot be read.
    """

    def __init__(self, portfolio: Portfolio, options: Any, *, seed: int, drift: float = 0.0) -> None:
        self._portfolio = portfolio
        self._columns = columns_of(portfolio.application)
        self._seed = seed
        self._drift = drift
        known = set(portfolio.options.model_fields)
        self._simulated = known >= SIMULATED
        if drift and not (self._simulated and DRIFT in known):
            raise ApplicantsError(f"the sources of {portfolio.name} are a fixed book, which cannot drift")
        self._book = None if self._simulated else _with_outcome(portfolio, options)

    def of_day(self, day: date, number: int) -> list[Applicant]:
        """The applicants of a day; dates in their applications lie as far before it as before their own day."""
        draw = np.random.SeedSequence(self._seed, spawn_key=(day.toordinal(),))
        rows = self._rows(draw, number)
        return [
            self._applicant(row, day, f"traffic-{self._seed}-{day:%Y%m%d}-{place:05d}")
            for place, row in enumerate(rows.to_dict("records"))
        ]

    def _rows(self, draw: np.random.SeedSequence, number: int) -> pd.DataFrame:
        if self._book is not None:
            return self._book.iloc[np.random.default_rng(draw).integers(0, len(self._book), number)]
        drawn = {
            "rows": max(FEWEST_SIMULATED, int(number / SPARE) + 1),
            "seed": int(draw.generate_state(1)[0]),
            **({DRIFT: self._drift} if self._drift else {}),
        }
        simulated = _with_outcome(self._portfolio, self._portfolio.options.model_validate(drawn))
        # In the order of the book the first would all be of its first months.
        return simulated.iloc[np.random.default_rng(draw).permutation(len(simulated))[:number]]

    def _applicant(self, row: dict[Any, Any], day: date, customer_id: str) -> Applicant:
        body = request_of(row, self._columns)
        if not pd.isna(row["applied_at"]):
            _move_dates(body, self._columns, day - row["applied_at"].date())
        asked = {one.name: one.monitoring.values for one in self._portfolio.protected if one.monitoring is not None}
        groups = {name: row[PROTECTED_PREFIX + name] for name, values in asked.items()}
        told = {name: group for name, group in groups.items() if group in asked[name]}
        return Applicant({**body, **told, "customer_id": customer_id}, repays=row["repaid"] == 1)


def _with_outcome(portfolio: Portfolio, options: Any) -> pd.DataFrame:
    tables = {source.name: _whole(source.read(options)) for source in portfolio.sources}
    book = assemble(portfolio, tables)
    return book[book["repaid"].notna()]


def _whole(rows: Any) -> pd.DataFrame:
    return rows if isinstance(rows, pd.DataFrame) else pd.concat(rows, ignore_index=True)


def _move_dates(body: dict[str, Any], columns: Sequence[ColumnSpec], by: timedelta) -> None:
    """Move every date in a body, also in its lists, so that each lies as far before the application as it did."""
    for column in columns:
        *parents, leaf = column.path
        holder = body
        for parent in parents:
            holder = holder.get(parent, {})
        if leaf not in holder:
            continue
        if column.kind == "date":
            holder[leaf] = (date.fromisoformat(holder[leaf]) + by).isoformat()
        elif column.kind == "list":
            for item in holder[leaf]:
                _move_dates(item, column.items, by)
