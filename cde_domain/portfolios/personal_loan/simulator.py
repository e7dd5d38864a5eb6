"""A documented simulator of a personal loan book.

It draws five years of applications (2021-07-01 to 2026-06-30) for loans that were all granted, with what a lender
collects about them. No real person is behind any row.

Customers have a latent creditworthiness ("standing") and earning power ("means"), correlated by 0.3. Standing moves
the bureau score, defaults, arrears, inquiries, card use, debt, overdrafts and balances; means move income. One
application in ten is a customer's second. Gender, ethnicity, religion and caste shift income by a few per cent
(`population.GROUPS`) and nothing else.

Outcomes are drawn from the probability in `ground_truth`, which rests on the state at the application date: a loan is
`repaid` or `defaulted` after 365 days, known up to two weeks later, and younger loans have no outcome yet.

The book has the gaps and traps of real ones: a quarter gives no bank statements, one in twenty no date of birth, thin
files have no score, a fifth of the reports lists accounts by type and status alone, sections are absent, KYC comes
late. Gaps do not depend on the outcome. Bureau reports, bank statements and KYC records from after the application
are in the sources too, and the first two show how the loan went: a join that looks ahead is found out.

`drift` makes another population: standing and means of all customers are lower by so many standard deviations, hence
incomes (in logarithms) and credit scores by 0.8 to 1.0 times as many of theirs. How risk follows stays the same.

Every block of 10,000 applications has its own child seed, so the same seed and number of rows give the same bytes
however they are read, and memory does not grow with the rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .banking import draw_later_statements, draw_statements
from .bureau import draw_earlier_reports, draw_later_reports, draw_reports
from .ground_truth import repayment_probability
from .options import OUTCOME_AFTER_DAYS, SimulationOptions
from .population import (
    REPEATS,
    SNAPSHOT,
    Applications,
    Customers,
    draw_applications,
    draw_customers,
)

BLOCK = 10_000
NO_DATE_OF_BIRTH = 0.05
KYC_AFTER_APPLICATION = 0.02
GROUP_NOT_STATED = 0.01


@dataclass(frozen=True)
class SimulatedBlock:
    """The tables of up to 10,000 applications, by source, and each application's true probability of repayment."""

    applications: pd.DataFrame
    bureau_reports: pd.DataFrame
    bank_statements: pd.DataFrame
    kyc_records: pd.DataFrame
    loan_outcomes: pd.DataFrame
    probability: NDArray[np.float64]


def simulate(options: SimulationOptions) -> Iterator[SimulatedBlock]:
    """Draw the book block by block."""
    for block, first in enumerate(range(0, options.rows, BLOCK)):
        seed = np.random.SeedSequence(options.seed, spawn_key=(block,))
        yield _draw_block(np.random.default_rng(seed), first, min(BLOCK, options.rows - first), options.drift)


def true_probability(options: SimulationOptions) -> pd.DataFrame:
    """The true P(repaid) of every application, which no source reveals."""
    blocks = [(block.applications["application_id"], block.probability) for block in simulate(options)]
    return pd.DataFrame(
        {
            "application_id": np.concatenate([identifier for identifier, _ in blocks]),
            "probability": np.concatenate([probability for _, probability in blocks]),
        }
    )


def _draw_block(generator: np.random.Generator, first: int, rows: int, drift: float) -> SimulatedBlock:
    repeats = int(rows * REPEATS)
    customers = draw_customers(generator, rows - repeats, first, drift)
    applications = draw_applications(generator, customers, repeats, first)
    reports = draw_reports(generator, applications, customers)
    statements = draw_statements(generator, applications)
    probability = repayment_probability(
        {
            "age": applications.age,
            "annual_income": applications.annual_income,
            "employment_years": applications.employment_years,
            "debt_to_income": applications.existing_debt / applications.annual_income,
            "loan_to_income": applications.loan_amount / applications.annual_income,
            **reports.characteristics(applications.applied),
            **statements.characteristics(applications.annual_income),
        },
        applications.loan_purpose,
    )
    repaid = generator.random(rows) < probability
    all_reports = (
        reports,
        draw_earlier_reports(generator, applications, customers),
        draw_later_reports(generator, applications, customers, repaid),
    )
    all_statements = (statements, draw_later_statements(generator, applications, repaid))
    holder = customers.identifier[applications.customer]
    return SimulatedBlock(
        applications=_applications_table(applications, customers),
        bureau_reports=pd.concat([drawn.table(customers) for drawn in all_reports], ignore_index=True),
        bank_statements=pd.concat([drawn.table(holder) for drawn in all_statements], ignore_index=True),
        kyc_records=_kyc_table(generator, customers),
        loan_outcomes=_outcomes_table(generator, applications, repaid),
        probability=probability,
    )


def _applications_table(applications: Applications, customers: Customers) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "application_id": applications.identifier,
            "customer_id": customers.identifier[applications.customer],
            "applied_at": applications.applied.astype("datetime64[ns]"),
            "annual_income": applications.annual_income,
            "employment_years": applications.employment_years,
            "existing_debt": applications.existing_debt,
            "loan_amount": applications.loan_amount,
            "loan_purpose": applications.loan_purpose,
        }
    )


def _kyc_table(generator: np.random.Generator, customers: Customers) -> pd.DataFrame:
    number = len(customers)
    late = generator.random(number) < KYC_AFTER_APPLICATION
    days = np.where(late, generator.integers(1, 15, number), -generator.integers(0, 11, number))
    born = customers.born.astype("datetime64[ns]")
    unknown = generator.random(number) < NO_DATE_OF_BIRTH
    first = pd.DataFrame(
        {
            "customer_id": customers.identifier,
            "verified_at": (customers.first_application + days).astype("datetime64[ns]"),
            "date_of_birth": np.where(unknown, np.datetime64("NaT", "ns"), born),
            **{
                name: pd.Series(groups).mask(generator.random(number) < GROUP_NOT_STATED, None)
                for name, groups in customers.groups.items()
            },
        }
    )
    again = np.flatnonzero(generator.random(number) < 0.05)
    renewed = first.iloc[again].assign(
        verified_at=first["verified_at"].iloc[again] + pd.to_timedelta(generator.integers(30, 600, len(again)), "D"),
        date_of_birth=born[again],
    )
    table = pd.concat([first, renewed], ignore_index=True)
    return table[table["verified_at"] <= pd.Timestamp(SNAPSHOT)].reset_index(drop=True)


def _outcomes_table(
    generator: np.random.Generator, applications: Applications, repaid: NDArray[np.bool_]
) -> pd.DataFrame:
    known_at = applications.applied + OUTCOME_AFTER_DAYS + generator.integers(0, 15, len(applications))
    known = known_at <= SNAPSHOT
    return pd.DataFrame(
        {
            "application_id": applications.identifier[known],
            "status": np.where(repaid, "repaid", "defaulted")[known].astype(object),
            "known_at": known_at[known].astype("datetime64[ns]"),
        }
    )
