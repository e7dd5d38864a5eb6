"""The application for a personal loan: what the lender asks for, within which bounds, and why."""

import datetime
from typing import Literal

from cde_domain.application import Actionable, Application, Pii, Record, field

LoanPurpose = Literal[
    "home_improvement",
    "debt_consolidation",
    "car",
    "education",
    "medical",
    "business",
    "wedding",
    "travel",
    "moving",
    "household_goods",
    "other",
]
AccountType = Literal[
    "credit_card",
    "auto_loan",
    "personal_loan",
    "mortgage",
    "student_loan",
    "business_loan",
    "gold_loan",
    "consumer_loan",
    "line_of_credit",
    "other",
]
AccountStatus = Literal["active", "closed", "delinquent", "defaulted", "written_off"]

LARGEST_AMOUNT = 1e9
LONGEST_LIST = 200


class Account(Record):
    """One credit account in a bureau report."""

    type: AccountType = field("Kind of credit", purpose="tell cards from loans", source="bureau")
    status: AccountStatus = field("State of the account", purpose="assess repayment history", source="bureau")
    opened_at: datetime.date | None = field(
        "Day the account was opened", purpose="length of credit history", source="bureau", default=None
    )
    balance: float | None = field(
        "Amount owed",
        purpose="use of credit lines",
        source="bureau",
        unit="currency",
        default=None,
        ge=0,
        le=LARGEST_AMOUNT,
    )
    credit_limit: float | None = field(
        "Limit of a card or credit line",
        purpose="use of credit lines",
        source="bureau",
        unit="currency",
        default=None,
        ge=0,
        le=LARGEST_AMOUNT,
    )


class Inquiry(Record):
    """One lender's inquiry at the bureau."""

    date: datetime.date = field("Day of the inquiry", purpose="recent search for credit", source="bureau")


class CreditHistory(Record):
    """What the bureau knew; an absent section is unknown, an empty one is none."""

    score: float | None = field(
        "Bureau credit score; absent for a thin file",
        purpose="assess repayment history",
        source="bureau",
        unit="points",
        default=None,
        ge=300,
        le=900,
    )
    accounts: list[Account] | None = field(
        "Credit accounts on file",
        purpose="assess repayment history",
        source="bureau",
        default=None,
        max_length=LONGEST_LIST,
    )
    inquiries: list[Inquiry] | None = field(
        "Inquiries of lenders on file",
        purpose="recent search for credit",
        source="bureau",
        default=None,
        max_length=LONGEST_LIST,
    )


class BankStatement(Record):
    """One month of the applicant's current account."""

    month_end: datetime.date = field("Last day of the month", purpose="order of the statements", source="bank")
    average_balance: float = field(
        "Average balance of the month",
        purpose="assess reserves",
        source="bank",
        unit="currency",
        ge=-LARGEST_AMOUNT,
        le=LARGEST_AMOUNT,
    )
    inflow: float = field(
        "Money received in the month",
        purpose="assess regularity of income",
        source="bank",
        unit="currency",
        ge=0,
        le=LARGEST_AMOUNT,
    )
    outflow: float = field(
        "Money spent in the month",
        purpose="assess capacity to repay",
        source="bank",
        unit="currency",
        ge=0,
        le=LARGEST_AMOUNT,
    )
    overdrafts: int = field(
        "Times the account was overdrawn", purpose="assess reserves", source="bank", unit="times", ge=0, le=1000
    )


class PersonalLoanApplication(Application):
    """An application for a personal loan."""

    annual_income: float = field(
        "Gross income a year", purpose="assess capacity to repay", unit="currency/year", ge=0, le=LARGEST_AMOUNT
    )
    employment_years: float = field(
        "Years with the present employer", purpose="assess stability of income", unit="years", ge=0, le=70
    )
    existing_debt: float = field(
        "Debt outstanding with all lenders",
        purpose="assess capacity to repay",
        unit="currency",
        ge=0,
        le=LARGEST_AMOUNT,
        actionable=Actionable("Pay off debt", "lower", step=100),
    )
    loan_amount: float = field(
        "Amount asked for",
        purpose="assess affordability",
        unit="currency",
        pii=Pii.NONE,
        gt=0,
        le=LARGEST_AMOUNT,
        actionable=Actionable("Ask for a smaller loan", "lower", step=100),
    )
    loan_purpose: LoanPurpose = field("What the money is for", purpose="assess risk of the purpose", pii=Pii.NONE)
    credit_history: CreditHistory = field(
        "Latest bureau report on the application date", purpose="assess repayment history", source="bureau"
    )
    date_of_birth: datetime.date | None = field(
        "Date of birth", purpose="age in years", source="kyc", pii=Pii.DIRECT, default=None
    )
    bank_statements: list[BankStatement] | None = field(
        "Monthly statements of the six months before the application",
        purpose="assess capacity to repay",
        source="bank",
        default=None,
        max_length=LONGEST_LIST,
    )
