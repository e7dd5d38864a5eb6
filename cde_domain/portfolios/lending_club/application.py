"""An application for an unsecured US instalment loan, with the bureau's figures as LendingClub published them."""

from typing import Literal

from cde_domain.application import Actionable, Application, field

ABILITY = "assess the ability to repay"
RECORD = "assess the record of borrowing"

Term = Literal["term_36", "term_60"]
VerificationStatus = Literal["Not_Verified", "Source_Verified", "Verified"]
EmploymentLength = Literal[
    "emp_unk",
    "emp_lt_1",
    "emp_1",
    "emp_2",
    "emp_3",
    "emp_4",
    "emp_5",
    "emp_6",
    "emp_7",
    "emp_8",
    "emp_9",
    "emp_ge_10",
]


class LoanApplication(Application):
    """A request for a loan of three or five years; only what the model uses is asked for."""

    funded_amnt: int = field(
        "Amount of the loan",
        purpose=ABILITY,
        unit="USD",
        ge=1,
        le=1_000_000_000,
        actionable=Actionable("Lower the amount of the loan", "lower", step=25),
    )
    term: Term = field(
        "Number of monthly payments: 36 or 60",
        purpose=ABILITY,
        unit="months",
        actionable=Actionable("Shorten the loan", to=("term_36",)),
    )
    annual_inc: float = field(
        "Income stated by the applicant, before tax", purpose=ABILITY, unit="USD a year", ge=0, le=1e9
    )
    verification_status: VerificationStatus = field(
        "Whether the lender verified the income, or its source", purpose=ABILITY, source="lender"
    )
    emp_length: EmploymentLength = field(
        "Years in employment, from under one to ten or more; `emp_unk` if not stated", purpose=ABILITY, unit="years"
    )
    inq_last_6mths: int = field(
        "Credit inquiries in the last 6 months, car and mortgage inquiries left out",
        purpose=RECORD,
        source="credit bureau",
        unit="inquiries",
        ge=0,
        le=10_000,
    )
    inq_fi: int = field(
        "Inquiries by personal finance companies",
        purpose=RECORD,
        source="credit bureau",
        unit="inquiries",
        ge=0,
        le=10_000,
    )
    acc_now_delinq: int = field(
        "Accounts now past due", purpose=RECORD, source="credit bureau", unit="accounts", ge=0, le=10_000
    )
    open_il_12m: int = field(
        "Instalment accounts opened in the last 12 months",
        purpose=RECORD,
        source="credit bureau",
        unit="accounts",
        ge=0,
        le=10_000,
    )
    num_il_tl: int = field(
        "Instalment accounts ever opened", purpose=RECORD, source="credit bureau", unit="accounts", ge=0, le=10_000
    )
    all_util: float = field(
        "Balance of all accounts in percent of their credit limits",
        purpose=RECORD,
        source="credit bureau",
        unit="percent",
        ge=0,
        le=10_000,
        actionable=Actionable("Pay down the balances in percent of the credit limits", "lower"),
    )
