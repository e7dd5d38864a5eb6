"""What the features of a personal loan mean."""

from datetime import timedelta
from typing import Any

import pandas as pd
import pytest

from cde_domain.features.table import online_parity
from cde_domain.portfolios.personal_loan import PORTFOLIO
from tests.domain.personal_loan.applications import APPLIED, application, features_of, statement, unknown, with_history


def test_age_is_counted_in_years_at_the_application_date():
    assert features_of(application(date_of_birth="1986-03-15"))["age"] == pytest.approx(40, abs=0.01)


def test_inquiries_count_six_months_before_the_application_never_before_today():
    days_before = {"that day": 0, "the day before": 1, "six months before": 183, "longer ago": 184, "after": -10}
    inquiries = [{"date": APPLIED - timedelta(days=days)} for days in days_before.values()]

    assert features_of(with_history(inquiries=inquiries))["recent_inquiries"] == 2


def test_an_absent_section_is_unknown_and_an_empty_one_is_none():
    absent = features_of(application(credit_history={"score": 700}))
    empty = features_of(application(credit_history={"score": 700, "accounts": [], "inquiries": []}))

    for name in ("total_accounts", "active_accounts", "delinquent_accounts", "has_defaults", "recent_inquiries"):
        assert unknown(absent[name]), name
        assert empty[name] == 0, name


def test_accounts_are_counted_by_status():
    statuses = ("active", "active", "delinquent", "closed", "defaulted")
    values = features_of(with_history(accounts=[{"type": "auto_loan", "status": status} for status in statuses]))

    assert [values[name] for name in ("total_accounts", "active_accounts", "delinquent_accounts")] == [5, 3, 1]


@pytest.mark.parametrize("status", ["defaulted", "written_off"])
def test_one_bad_account_is_a_default_however_many_are_good(status: str):
    good = {"type": "mortgage", "status": "closed"}

    assert features_of(with_history(accounts=[good, {"type": "other", "status": status}, good]))["has_defaults"] == 1
    assert features_of(with_history(accounts=[good, good]))["has_defaults"] == 0


def test_card_utilisation_counts_open_cards_with_known_limits():
    def card(**fields: Any) -> dict[str, Any]:
        return {"type": "credit_card", "status": "active", **fields}

    accounts = [
        card(balance=300, credit_limit=1000),
        card(balance=500, credit_limit=1000),
        card(balance=900),
        card(balance=900, credit_limit=1000, status="closed"),
        {"type": "mortgage", "status": "active", "balance": 90_000},
    ]
    assert features_of(with_history(accounts=accounts))["card_utilisation"] == 0.4
    assert unknown(features_of(application())["card_utilisation"])


def test_debt_and_loan_are_measured_in_years_of_income():
    values = features_of(application(annual_income=50_000, existing_debt=25_000, loan_amount=10_000))

    assert values["debt_to_income"] == 0.5
    assert values["loan_to_income"] == 0.2


def test_ratios_to_no_income_are_unknown():
    assert unknown(features_of(application(annual_income=0))["loan_to_income"])


def test_the_same_inflow_every_month_is_perfectly_regular():
    steady = features_of(application(bank_statements=[statement(9), statement(10)]))
    irregular = features_of(application(bank_statements=[statement(9), statement(10, inflow=500.0)]))

    assert steady["cash_flow_regularity"] == 1
    assert irregular["cash_flow_regularity"] < 0.7


def test_a_single_statement_says_nothing_about_regularity():
    assert unknown(features_of(application(bank_statements=[statement(9)]))["cash_flow_regularity"])


def test_statements_give_reserves_overdrafts_and_savings():
    values = features_of(
        application(annual_income=60_000, bank_statements=[statement(9, overdrafts=3), statement(10, overdrafts=0)])
    )

    assert values["balance_to_income"] == pytest.approx(0.8)
    assert values["monthly_overdrafts"] == 1.5
    assert values["savings_rate"] == pytest.approx(0.1)


def test_one_row_and_a_whole_book_give_the_same_features_to_the_bit(book: pd.DataFrame, table: pd.DataFrame):
    parity = online_parity(PORTFOLIO, book, table, rows=1_000, seed=7)

    assert parity.rows == 1_000
    assert not parity.differing
