"""Simulated customers and their applications."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .options import LAST_DAY

Array = NDArray[np.float64]
Days = NDArray[np.datetime64]

FIRST_DAY = np.datetime64("2021-07-01")
SNAPSHOT = np.datetime64(LAST_DAY)
REPEATS = 0.10  # share of applications by customers who had applied before
REPEAT_AFTER_DAYS = 220  # beyond six months, so that no bank statement belongs to two applications

GROUPS: dict[str, dict[str, tuple[float, float]]] = {
    # attribute: {group: (share of customers, shift of the logarithm of income)}
    "gender": {"male": (0.61, 0.0), "female": (0.385, -0.05), "other": (0.005, -0.05)},
    "ethnicity": {
        "Indo-Aryan": (0.67, 0.0),
        "Dravidian": (0.23, 0.01),
        "Tibeto-Burman": (0.05, -0.03),
        "Austroasiatic": (0.05, -0.04),
    },
    "religion": {
        "Hindu": (0.755, 0.0),
        "Muslim": (0.14, -0.03),
        "Christian": (0.05, 0.02),
        "Sikh": (0.045, 0.02),
        "Other": (0.01, 0.0),
    },
    "caste": {"General": (0.33, 0.02), "OBC": (0.42, 0.0), "SC": (0.165, -0.05), "ST": (0.085, -0.06)},
}

PURPOSES: dict[str, tuple[float, float]] = {
    # purpose: (share of applications, median loan in years of income)
    "home_improvement": (0.16, 0.40),
    "debt_consolidation": (0.20, 0.40),
    "car": (0.12, 0.45),
    "education": (0.09, 0.35),
    "medical": (0.08, 0.25),
    "business": (0.09, 0.50),
    "wedding": (0.08, 0.35),
    "travel": (0.05, 0.15),
    "moving": (0.03, 0.20),
    "household_goods": (0.06, 0.15),
    "other": (0.04, 0.25),
}


@dataclass(frozen=True)
class Customers:
    """
    Customers.

    `standing` is the creditworthiness and `means` the earning power behind what can be seen of them, both standard
    normal without drift.
    """

    identifier: NDArray[np.object_]
    first_application: Days
    born: Days
    standing: Array
    means: Array
    groups: dict[str, NDArray[np.object_]]

    def __len__(self) -> int:
        """The number of customers."""
        return len(self.identifier)


@dataclass(frozen=True)
class Applications:
    """Applications in the order of their dates; `customer` is a position among the customers."""

    identifier: NDArray[np.object_]
    customer: NDArray[np.int64]
    applied: Days
    first: NDArray[np.bool_]
    last: NDArray[np.bool_]
    age: Array
    standing: Array
    annual_income: Array
    employment_years: Array
    existing_debt: Array
    loan_amount: Array
    loan_purpose: NDArray[np.object_]

    def __len__(self) -> int:
        """The number of applications."""
        return len(self.identifier)


def draw_customers(generator: np.random.Generator, number: int, first_number: int, drift: float) -> Customers:
    """Draw the customers who apply first at some day of the five years."""
    span = int((SNAPSHOT - FIRST_DAY).astype(int)) + 1
    first_application = FIRST_DAY + generator.integers(0, span, number)
    age_days = (18.2 + 51 * generator.beta(1.9, 3.0, number)) * 365.25
    standing = generator.standard_normal(number)
    means = 0.3 * standing + np.sqrt(1 - 0.3**2) * generator.standard_normal(number)
    return Customers(
        identifier=identifiers("cust", first_number, number),
        first_application=first_application,
        born=first_application - age_days.astype(np.int64),
        standing=standing - drift,
        means=means - drift,
        groups={name: _choose(generator, shares, number) for name, shares in GROUPS.items()},
    )


def draw_applications(
    generator: np.random.Generator, customers: Customers, repeats: int, first_number: int
) -> Applications:
    """Draw everybody's first application and the second ones of as many as `repeats`."""
    latest_first = SNAPSHOT - REPEAT_AFTER_DAYS
    may_return = np.flatnonzero(customers.first_application <= latest_first)
    returning = generator.permutation(may_return)[:repeats]
    room = (latest_first - customers.first_application[returning]).astype(np.int64)
    wait = REPEAT_AFTER_DAYS + (np.minimum(room, 700) * generator.random(repeats)).astype(np.int64)

    customer = np.concatenate([np.arange(len(customers)), returning])
    applied = np.concatenate([customers.first_application, customers.first_application[returning] + wait])
    first = np.arange(len(customer)) < len(customers)
    last = ~np.isin(customer, returning) | ~first
    by_date = np.argsort(applied, kind="stable")
    customer, applied, first, last = customer[by_date], applied[by_date], first[by_date], last[by_date]

    number = len(customer)
    age = (applied - customers.born[customer]).astype(np.float64) / 365.25
    standing = customers.standing[customer] + 0.2 * generator.standard_normal(number)
    group_shift = sum(_income_shift(name, groups[customer]) for name, groups in customers.groups.items())
    income = np.exp(
        np.log(60_000)
        + 0.5 * customers.means[customer]
        + 0.012 * (np.minimum(age, 50) - 38)
        + group_shift
        + 0.05 * generator.standard_normal(number)
    )
    annual_income = np.maximum(np.round(income, -2), 3_000)
    debt_free = generator.random(number) < 0.12
    debt_share = np.exp(np.log(0.32) - 0.2 * standing + 0.75 * generator.standard_normal(number))
    purpose = _choose(generator, PURPOSES, number)
    median_share = np.array([PURPOSES[name][1] for name in purpose])
    loan_share = median_share * np.exp(0.75 * generator.standard_normal(number))
    return Applications(
        identifier=identifiers("loan", first_number, number),
        customer=customer,
        applied=applied,
        first=first,
        last=last,
        age=age,
        standing=standing,
        annual_income=annual_income,
        employment_years=np.round(np.minimum(generator.gamma(1.3, 4.5, number), age - 18), 1),
        existing_debt=np.where(debt_free, 0.0, np.round(debt_share * annual_income)),
        loan_amount=np.maximum(np.round(loan_share * annual_income, -2), 500),
        loan_purpose=purpose,
    )


def identifiers(prefix: str, first: int, number: int) -> NDArray[np.object_]:
    """Numbered identifiers."""
    return np.array([f"{prefix}_{i:09d}" for i in range(first, first + number)], dtype=object)


def _choose(
    generator: np.random.Generator, weights: dict[str, tuple[float, float]], number: int
) -> NDArray[np.object_]:
    names = np.array(list(weights), dtype=object)
    edges = np.cumsum([share for share, _ in weights.values()])
    return names[np.searchsorted(edges / edges[-1], generator.random(number), side="right")]


def _income_shift(attribute: str, groups: NDArray[np.object_]) -> Any:
    return np.array([GROUPS[attribute][group][1] for group in groups])
