"""The features of a personal loan: all that the model sees of an application."""

from typing import get_args

import numpy as np

from cde_domain.features.columns import Array, Columns, Nested, ratio
from cde_domain.features.feature import Feature

from .application import LoanPurpose

DAYS_A_YEAR = 365.25
RECENT_DAYS = 183  # six months

ACCOUNTS = "credit_history.accounts"
INQUIRIES = "credit_history.inquiries"


def age(columns: Columns) -> Array:
    """Years from birth to the application."""
    return (columns["applied_at"] - columns["date_of_birth"]) / DAYS_A_YEAR


def total_accounts(columns: Columns) -> Array:
    """Accounts on file, whatever their state."""
    return columns[ACCOUNTS].count()


def active_accounts(columns: Columns) -> Array:
    """Accounts still open, in arrears or not."""
    accounts: Nested = columns[ACCOUNTS]
    return accounts.count(accounts.is_any("status", "active", "delinquent"))


def delinquent_accounts(columns: Columns) -> Array:
    """Open accounts in arrears."""
    accounts: Nested = columns[ACCOUNTS]
    return accounts.count(accounts.is_any("status", "delinquent"))


def has_defaults(columns: Columns) -> Array:
    """1 if any account was defaulted or written off, else 0."""
    accounts: Nested = columns[ACCOUNTS]
    defaults = accounts.count(accounts.is_any("status", "defaulted", "written_off"))
    return np.where(defaults > 0, 1.0, defaults)  # no default stays 0 and an unknown number stays NaN


def oldest_account_years(columns: Columns) -> Array:
    """Years since the first account on file was opened."""
    accounts: Nested = columns[ACCOUNTS]
    return (columns["applied_at"] - accounts.minimum(accounts["opened_at"])) / DAYS_A_YEAR


def card_utilisation(columns: Columns) -> Array:
    """Balance over limit of all open credit cards for which both are known."""
    accounts: Nested = columns[ACCOUNTS]
    open_card = accounts.is_any("type", "credit_card") & accounts.is_any("status", "active", "delinquent")
    counted = open_card & ~np.isnan(accounts["balance"]) & ~np.isnan(accounts["credit_limit"])
    balance = accounts.sum(np.where(counted, accounts["balance"], 0.0))
    return ratio(balance, accounts.sum(np.where(counted, accounts["credit_limit"], 0.0)))


def recent_inquiries(columns: Columns) -> Array:
    """Inquiries in the six months before the application date; that day's own and later ones do not count."""
    inquiries: Nested = columns[INQUIRIES]
    days_before = inquiries.spread(columns["applied_at"]) - inquiries["date"]
    return inquiries.count((days_before > 0) & (days_before <= RECENT_DAYS))


def balance_to_income(columns: Columns) -> Array:
    """Average bank balance in months of income."""
    statements: Nested = columns["bank_statements"]
    return ratio(statements.mean(statements["average_balance"]), columns["annual_income"] / 12)


def cash_flow_regularity(columns: Columns) -> Array:
    """Mean over mean plus deviation of monthly inflows: 1 is the same every month; unknown with a single month."""
    statements: Nested = columns["bank_statements"]
    mean = statements.mean(statements["inflow"])
    regularity = ratio(mean, mean + statements.deviation(statements["inflow"]))
    return np.where(statements.count() >= 2, regularity, np.nan)


def monthly_overdrafts(columns: Columns) -> Array:
    """Overdrafts a month."""
    statements: Nested = columns["bank_statements"]
    return statements.mean(statements["overdrafts"])


def savings_rate(columns: Columns) -> Array:
    """Share of the inflows that was not spent."""
    statements: Nested = columns["bank_statements"]
    inflow = statements.sum(statements["inflow"])
    return ratio(inflow - statements.sum(statements["outflow"]), inflow)


FEATURES = (
    Feature(
        "age",
        age,
        "Age at the application date",
        "Age of the applicant is low",
        unit="years",
        monotone=1,  # a higher age never counts against an applicant
    ),
    Feature(
        "annual_income",
        lambda columns: columns["annual_income"],
        "Gross income a year",
        "Income is low",
        unit="currency/year",
        monotone=1,
    ),
    Feature(
        "employment_years",
        lambda columns: columns["employment_years"],
        "Years with the present employer",
        "Time with the present employer is short",
        unit="years",
        monotone=1,
    ),
    Feature(
        "credit_score",
        lambda columns: columns["credit_history.score"],
        "Bureau credit score",
        "Credit score is low",
        unit="points",
        monotone=1,
    ),
    Feature(
        "total_accounts",
        total_accounts,
        "Credit accounts on file",
        "Few credit accounts on file",
        unit="accounts",
        monotone=1,
    ),
    Feature(
        "active_accounts",
        active_accounts,
        "Open credit accounts",
        "Many open credit accounts",
        unit="accounts",
        monotone=-1,
    ),
    Feature(
        "delinquent_accounts",
        delinquent_accounts,
        "Open credit accounts in arrears",
        "Credit accounts are in arrears",
        unit="accounts",
        monotone=-1,
    ),
    Feature(
        "has_defaults",
        has_defaults,
        "Whether a credit account was defaulted or written off",
        "A credit account was defaulted or written off",
        unit="0 or 1",
        monotone=-1,
    ),
    Feature(
        "oldest_account_years",
        oldest_account_years,
        "Years since the first credit account was opened",
        "Credit history is short",
        unit="years",
        monotone=1,
    ),
    Feature(
        "card_utilisation",
        card_utilisation,
        "Balance over limit of the open credit cards",
        "Credit cards are used close to their limits",
        unit="share",
        monotone=-1,
    ),
    Feature(
        "recent_inquiries",
        recent_inquiries,
        "Inquiries in the six months before the application",
        "Many recent credit inquiries",
        unit="inquiries",
        monotone=-1,
    ),
    Feature(
        "debt_to_income",
        lambda columns: ratio(columns["existing_debt"], columns["annual_income"]),
        "Debt outstanding over annual income",
        "Debt is high in relation to income",
        unit="years of income",
        monotone=-1,
    ),
    Feature(
        "loan_to_income",
        lambda columns: ratio(columns["loan_amount"], columns["annual_income"]),
        "Amount asked for over annual income",
        "Loan amount is high in relation to income",
        unit="years of income",
        monotone=-1,
    ),
    Feature(
        "loan_purpose",
        lambda columns: columns["loan_purpose"],
        "What the money is for",
        "Loans for this purpose are repaid less often",
        categories=get_args(LoanPurpose),
    ),
    Feature(
        "balance_to_income",
        balance_to_income,
        "Average bank balance in months of income",
        "Bank balance is low in relation to income",
        unit="months of income",
        monotone=1,
    ),
    Feature(
        "cash_flow_regularity",
        cash_flow_regularity,
        "Regularity of the monthly inflows, 1 if always the same",
        "Monthly inflows are irregular",
        unit="share",
        monotone=1,
    ),
    Feature(
        "monthly_overdrafts",
        monthly_overdrafts,
        "Overdrafts a month",
        "Bank account is often overdrawn",
        unit="times a month",
        monotone=-1,
    ),
    Feature(
        "savings_rate",
        savings_rate,
        "Share of the inflows that is not spent",
        "Spending is high in relation to inflows",
        unit="share",
        monotone=1,
    ),
)
