"""Simulated bureau reports with nested accounts and inquiries."""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from cde_domain.application import columns_of
from cde_domain.features.frame import arrow_type

from .application import AccountStatus, AccountType, CreditHistory
from .population import SNAPSHOT, Applications, Customers

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Days = NDArray[np.datetime64]

BARE = 0.20  # share of reports whose accounts carry only type and status
THIN_FILE = 0.015  # share of reports without a score
NO_ACCOUNTS_SECTION = 0.04
NO_INQUIRIES_SECTION = 0.04
NO_INQUIRIES_SECTION_IF_BARE = 0.30

TYPES: tuple[str, ...] = get_args(AccountType)
STATUSES: tuple[str, ...] = get_args(AccountStatus)
TYPE_SHARES = (0.40, 0.12, 0.14, 0.06, 0.05, 0.04, 0.06, 0.08, 0.03, 0.02)
CARD, LINE = TYPES.index("credit_card"), TYPES.index("line_of_credit")
ACTIVE, CLOSED, DELINQUENT, DEFAULTED, WRITTEN_OFF = range(5)

LIST_TYPES = {column.name: arrow_type(column) for column in columns_of(CreditHistory) if column.kind == "list"}


@dataclass(frozen=True)
class Lists:
    """One list a report, as flat arrays over all items: `report` says whose an item is, in ascending order."""

    report: Integers
    fields: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        """The values of one field over all items."""
        return self.fields[name]


@dataclass(frozen=True)
class Reports:
    """Bureau reports with everything the bureau knows; `hidden` sections and fields do not reach the lender."""

    customer: Integers
    pulled: Days
    score: Array
    accounts: Lists
    inquiries: Lists
    thin: Flags
    bare: Flags
    accounts_hidden: Flags
    inquiries_hidden: Flags

    def __len__(self) -> int:
        """The number of reports."""
        return len(self.customer)

    def characteristics(self, applied: Days) -> dict[str, Array]:
        """What each report says on the date of an application, by feature name."""
        accounts, reports = self.accounts, len(self)
        status, opened = accounts["status"], accounts["opened_at"]
        open_now = (status == ACTIVE) | (status == DELINQUENT)
        card = (accounts["type"] == CARD) & open_now
        earliest = np.full(reports, np.datetime64("2200-01-01"))
        np.minimum.at(earliest, accounts.report, opened)
        total = np.bincount(accounts.report, minlength=reports).astype(np.float64)
        limit = np.bincount(accounts.report, np.where(card, accounts["credit_limit"], 0), reports)
        balance = np.bincount(accounts.report, np.where(card, accounts["balance"], 0), reports)
        days_before = (applied[self.inquiries.report] - self.inquiries["date"]).astype(np.int64)
        recent = (days_before > 0) & (days_before <= 183)
        age_of_oldest = (applied - earliest).astype(np.float64) / 365.25
        return {
            "credit_score": self.score,
            "total_accounts": total,
            "active_accounts": np.bincount(accounts.report, open_now, reports),
            "delinquent_accounts": np.bincount(accounts.report, status == DELINQUENT, reports),
            "has_defaults": (np.bincount(accounts.report, status >= DEFAULTED, reports) > 0).astype(np.float64),
            "oldest_account_years": np.where(total > 0, age_of_oldest, np.nan),
            "card_utilisation": np.divide(balance, limit, out=np.full(reports, np.nan), where=limit > 0),
            "recent_inquiries": np.bincount(self.inquiries.report, recent, reports),
        }

    def table(self, customers: Customers) -> pd.DataFrame:
        """The reports as they reach the lender, lists in Arrow type."""
        accounts, inquiries, item_bare = self.accounts, self.inquiries, self.bare[self.accounts.report]
        amount_hidden = {
            "balance": item_bare | ~np.isin(accounts["status"], (ACTIVE, DELINQUENT)),
            "credit_limit": item_bare | ~np.isin(accounts["type"], (CARD, LINE)),
        }
        account_fields = {
            "type": pa.array(TYPES).take(pa.array(accounts["type"])),
            "status": pa.array(STATUSES).take(pa.array(accounts["status"])),
            "opened_at": pa.array(accounts["opened_at"], mask=item_bare),
            **{name: pa.array(accounts[name], mask=hidden) for name, hidden in amount_hidden.items()},
        }
        return pd.DataFrame(
            {
                "customer_id": customers.identifier[self.customer],
                "pulled_at": self.pulled.astype("datetime64[ns]"),
                "score": np.where(self.thin, np.nan, self.score),
                "accounts": _list_column("accounts", accounts.report, account_fields, self.accounts_hidden),
                "inquiries": _list_column(
                    "inquiries", inquiries.report, {"date": pa.array(inquiries["date"])}, self.inquiries_hidden
                ),
            }
        )


def draw_reports(generator: np.random.Generator, applications: Applications, customers: Customers) -> Reports:
    """Draw the report that each application rests on, pulled within three weeks before it or on its day."""
    pulled = applications.applied - generator.integers(0, 21, len(applications))
    return _draw(generator, applications.customer, pulled, applications.standing, customers)


def draw_earlier_reports(generator: np.random.Generator, applications: Applications, customers: Customers) -> Reports:
    """Draw superseded reports of three in ten customers, from before their first application."""
    chosen = np.flatnonzero(applications.first & (generator.random(len(applications)) < 0.3))
    pulled = applications.applied[chosen] - generator.integers(120, 900, len(chosen))
    standing = applications.standing[chosen] + 0.5 * generator.standard_normal(len(chosen))
    return _draw(generator, applications.customer[chosen], pulled, standing, customers)


def draw_later_reports(
    generator: np.random.Generator, applications: Applications, customers: Customers, repaid: Flags
) -> Reports:
    """Draw reports from after the last application, which show how the loan went: a trap for joins that look ahead."""
    days = generator.integers(1, 500, len(applications))
    chosen = np.flatnonzero(
        applications.last & (generator.random(len(applications)) < 0.2) & (applications.applied + days <= SNAPSHOT)
    )
    standing = np.where(repaid, applications.standing, applications.standing - 2.5)[chosen]
    return _draw(generator, applications.customer[chosen], (applications.applied + days)[chosen], standing, customers)


def _draw(
    generator: np.random.Generator, customer: Integers, pulled: Days, standing: Array, customers: Customers
) -> Reports:
    reports = len(customer)
    adult_days = (pulled - customers.born[customer]).astype(np.float64) - 18 * 365.25
    thin = generator.random(reports) < THIN_FILE
    defaulter = (generator.random(reports) < 1 / (1 + np.exp(2.5 + 1.0 * standing))) & ~thin
    noise = generator.standard_normal(reports)
    score = 703 + 80 * (0.88 * standing + 0.47 * noise) - 55 * defaulter
    accounts = _draw_accounts(generator, pulled, standing, thin, defaulter, adult_days)
    inquiries = _draw_inquiries(generator, pulled, standing)
    bare = generator.random(reports) < BARE
    accounts_hidden = (generator.random(reports) < NO_ACCOUNTS_SECTION) & ~thin
    no_inquiries = np.where(bare, NO_INQUIRIES_SECTION_IF_BARE, NO_INQUIRIES_SECTION)
    return Reports(
        customer=customer,
        pulled=pulled,
        score=np.clip(np.round(score), 300, 900),
        accounts=accounts,
        inquiries=inquiries,
        thin=thin,
        bare=bare,
        accounts_hidden=accounts_hidden,
        inquiries_hidden=generator.random(reports) < no_inquiries,
    )


def _draw_accounts(
    generator: np.random.Generator, pulled: Days, standing: Array, thin: Flags, defaulter: Flags, adult_days: Array
) -> Lists:
    number = np.where(thin, generator.integers(0, 2, len(pulled)), generator.poisson(4.8, len(pulled)))
    number = np.minimum(np.maximum(number, defaulter), 40)
    report = np.repeat(np.arange(len(pulled)), number)
    items = len(report)
    place = np.arange(items) - np.repeat(np.cumsum(number) - number, number)  # of an account within its report

    kind = _choose_codes(generator, TYPE_SHARES, items)
    late = 0.02 * np.exp(-0.6 * standing)[report]
    draw = generator.random(items)
    status = np.where(draw < late, DELINQUENT, np.where(draw < 0.60, ACTIVE, CLOSED))
    bad = defaulter[report] & ((place == 0) | ((place == 1) & (generator.random(items) < 0.3)))
    status = np.where(bad, np.where(generator.random(items) < 0.6, DEFAULTED, WRITTEN_OFF), status)

    history = np.minimum(np.maximum(adult_days, 60), 25 * 365)[report]
    opened = pulled[report] - (history * generator.uniform(0.02, 1, items)).astype(np.int64)
    use = 1 / (1 + np.exp(0.6 + 0.5 * standing + 0.7 * generator.standard_normal(len(pulled))))
    limit = np.round(np.exp(np.log(8_000) + 0.7 * generator.standard_normal(items)), -2)
    used = use[report] * generator.uniform(0.6, 1.4, items)
    owed = np.exp(np.log(9_000) + 0.9 * generator.standard_normal(items))
    revolving = (kind == CARD) | (kind == LINE)
    balance = np.round(np.where(revolving, used * limit, owed), 2)
    return Lists(
        report, {"type": kind, "status": status, "opened_at": opened, "balance": balance, "credit_limit": limit}
    )


def _draw_inquiries(generator: np.random.Generator, pulled: Days, standing: Array) -> Lists:
    rate = 3.6 * np.exp(-0.3 * standing + 0.4 * generator.standard_normal(len(standing)))
    number = np.minimum(generator.poisson(np.minimum(rate, 25)), 60)
    report = np.repeat(np.arange(len(pulled)), number)
    return Lists(report, {"date": pulled[report] - generator.integers(1, 731, len(report))})


def _choose_codes(generator: np.random.Generator, shares: tuple[float, ...], number: int) -> Integers:
    edges = np.cumsum(shares)
    return np.searchsorted(edges / edges[-1], generator.random(number), side="right")


def _list_column(name: str, report: Integers, fields: dict[str, Any], hidden: Flags) -> pd.Series:
    given = pa.array(~hidden[report])
    numbers = np.bincount(report, minlength=len(hidden)) * ~hidden
    struct: Any = LIST_TYPES[name].value_type
    items = pa.StructArray.from_arrays(
        [fields[item.name].cast(item.type).filter(given) for item in struct], fields=list(struct)
    )
    offsets = pa.array(np.concatenate([[0], np.cumsum(numbers)]), type=pa.int32())
    lists = pa.ListArray.from_arrays(offsets, items, type=LIST_TYPES[name], mask=pa.array(hidden))
    return pd.Series(pd.arrays.ArrowExtensionArray(lists))
