"""A German consumer credit application of the 1970s, in the words of the Statlog file.

Categories are declared from the least to the most favourable where they have an order. The order is that of the
corrected code tables (Grömping 2019): the file's words are wrong for several codes, most of all `no checking account`
and `unknown/ no savings account`, which mark the richest accounts. `DATA.md` sets both readings side by side.
"""

from typing import Literal

from cde_domain.application import Actionable, Application, field

REPAYMENT = "assess whether the credit will be repaid"

CheckingAccount = Literal[
    "... < 0 DM",
    "0 <= ... < 200 DM",
    "... >= 200 DM / salary assignments for at least 1 year",
    "no checking account",
]
CreditHistory = Literal[
    "no credits taken/ all credits paid back duly",
    "all credits at this bank paid back duly",
    "existing credits paid back duly till now",
    "delay in paying off in the past",
    "critical account/ other credits existing (not at this bank)",
]
Purpose = Literal[
    "business",
    "car (new)",
    "car (used)",
    "domestic appliances",
    "education",
    "furniture/equipment",
    "others",
    "radio/television",
    "repairs",
    "retraining",
]
Savings = Literal[
    "... < 100 DM",
    "100 <= ... < 500 DM",
    "500 <= ... < 1000 DM",
    "... >= 1000 DM",
    "unknown/ no savings account",
]
Employment = Literal["unemployed", "... < 1 year", "1 <= ... < 4 years", "4 <= ... < 7 years", "... >= 7 years"]
OtherDebtors = Literal["co-applicant", "none", "guarantor"]
OtherInstallmentPlans = Literal["bank", "stores", "none"]


class CreditApplication(Application):
    """A request for an instalment credit; only what the model uses is asked for."""

    status_of_existing_checking_account: CheckingAccount = field(
        "Standing of the checking account, in the file's coding",
        purpose=REPAYMENT,
        source="lender",
        unit="DM",
        actionable=Actionable(
            "Keep more in the checking account",
            to=("0 <= ... < 200 DM", "... >= 200 DM / salary assignments for at least 1 year"),
        ),
    )
    duration_in_month: int = field(
        "Term of the credit",
        purpose=REPAYMENT,
        unit="months",
        ge=1,
        le=600,
        actionable=Actionable("Change the term of the credit", "any"),
    )
    credit_history: CreditHistory = field(
        "How earlier and running credits were paid, in the file's coding", purpose=REPAYMENT, source="lender"
    )
    purpose: Purpose = field("What the credit is for, in the file's coding", purpose=REPAYMENT)
    credit_amount: int = field(
        "Amount of the credit",
        purpose=REPAYMENT,
        unit="DM",
        ge=1,
        le=1_000_000_000,
        actionable=Actionable("Lower the amount of the credit", "lower", step=50),
    )
    savings_account_and_bonds: Savings = field(
        "Savings and bonds, in the file's coding",
        purpose=REPAYMENT,
        source="lender",
        unit="DM",
        actionable=Actionable(
            "Save more with the bank",
            to=("... < 100 DM", "100 <= ... < 500 DM", "500 <= ... < 1000 DM", "... >= 1000 DM"),
        ),
    )
    present_employment_since: Employment = field("Time with the present employer", purpose=REPAYMENT, unit="years")
    other_debtors_or_guarantors: OtherDebtors = field(
        "Who else answers for the credit",
        purpose=REPAYMENT,
        actionable=Actionable("Name a guarantor for the credit", to=("guarantor",)),
    )
    other_installment_plans: OtherInstallmentPlans = field(
        "Who else is paid in instalments",
        purpose=REPAYMENT,
        actionable=Actionable("Pay off the other instalment plans", to=("none",)),
    )
