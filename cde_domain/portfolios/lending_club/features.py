"""The features of LendingClub loans: thirteen numbers, all but one with a direction."""

from typing import get_args

import numpy as np

from cde_domain.features.columns import Array, Columns, ratio
from cde_domain.features.feature import Feature

from .application import EmploymentLength, Term, VerificationStatus

_UNKNOWN = get_args(EmploymentLength).index("emp_unk")
_LONG_TERM = get_args(Term).index("term_60")


def _term(columns: Columns) -> Array:
    return np.where(columns["term"] == _LONG_TERM, 60.0, 36.0)


def _employment_years(columns: Columns) -> Array:
    # The categories after `emp_unk` stand in the order of years, `emp_lt_1` (none completed) first.
    position = columns["emp_length"]
    return np.where(position == _UNKNOWN, np.nan, position - 1.0)


FEATURES = (
    Feature(
        "loan_amount",
        lambda columns: columns["funded_amnt"],
        description="Amount of the loan",
        reason="The loan is large",
        unit="USD",
        monotone=-1,
    ),
    Feature(
        "term",
        _term,
        description="Number of monthly payments",
        reason="The loan runs for five years",
        unit="months",
        monotone=-1,
    ),
    Feature(
        "annual_income",
        lambda columns: columns["annual_inc"],
        description="Income stated by the applicant",
        reason="Income is low",
        unit="USD a year",
        monotone=1,
    ),
    Feature(
        "payment_to_income",
        lambda columns: ratio(columns["funded_amnt"] / _term(columns), columns["annual_inc"] / 12.0),
        description="Monthly repayment of the loan, without interest, as a share of monthly income",
        reason="The monthly payment is high for the income",
        unit="share",
        monotone=-1,
    ),
    Feature(
        "income_verification",
        lambda columns: columns["verification_status"],
        description=(
            "Whether the lender verified the income or its source. Verified incomes fail more often, because the "
            "lender verifies where it has doubts; so it has no direction"
        ),
        reason="Loans with this state of income verification are repaid less often",
        categories=get_args(VerificationStatus),
    ),
    Feature(
        "employment_years",
        _employment_years,
        description="Completed years in employment, 10 for ten and more, unknown if not stated",
        reason="The time in employment is short or not stated",
        unit="years",
        monotone=1,
    ),
    Feature(
        "inquiries_6m",
        lambda columns: columns["inq_last_6mths"],
        description="Credit inquiries in the last 6 months",
        reason="There were credit inquiries in the last 6 months",
        unit="inquiries",
        monotone=-1,
    ),
    Feature(
        "finance_inquiries",
        lambda columns: columns["inq_fi"],
        description="Inquiries by personal finance companies",
        reason="Personal finance companies have inquired about the applicant",
        unit="inquiries",
        monotone=-1,
    ),
    Feature(
        "accounts_past_due",
        lambda columns: columns["acc_now_delinq"],
        description="Accounts now past due",
        reason="An account is past due",
        unit="accounts",
        monotone=-1,
    ),
    Feature(
        "instalment_accounts_opened_12m",
        lambda columns: columns["open_il_12m"],
        description="Instalment accounts opened in the last 12 months",
        reason="Instalment accounts were opened in the last 12 months",
        unit="accounts",
        monotone=-1,
    ),
    Feature(
        "share_of_new_instalment_accounts",
        lambda columns: ratio(columns["open_il_12m"], columns["num_il_tl"]),
        description="Share of all instalment accounts that were opened in the last 12 months; unknown without any",
        reason="Many of the instalment accounts are new",
        unit="share",
        monotone=-1,
    ),
    Feature(
        "instalment_accounts",
        lambda columns: columns["num_il_tl"],
        description="Instalment accounts ever opened",
        reason="There is little experience with instalment accounts",
        unit="accounts",
        monotone=1,
    ),
    Feature(
        "utilisation",
        lambda columns: columns["all_util"],
        description="Balance of all accounts in percent of their credit limits",
        reason="Balances are high in relation to the credit limits",
        unit="percent",
        monotone=-1,
    ),
)
