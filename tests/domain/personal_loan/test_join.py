"""What the join of personal loans may know."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cde_domain.loan_book import LoanBookError, assemble
from cde_domain.portfolios.personal_loan import PORTFOLIO


def test_nothing_known_after_the_application_date_enters_the_join(tables: dict[str, pd.DataFrame]):
    dates = {"bureau_reports": "pulled_at", "kyc_records": "verified_at", "bank_statements": "month_end"}
    latest = tables["applications"].groupby("customer_id")["applied_at"].max()
    known_then = {
        name: tables[name][tables[name][date_column] <= tables[name]["customer_id"].map(latest)]
        for name, date_column in dates.items()
    }
    assert all(len(known_then[name]) < len(tables[name]) for name in dates)  # the sources do hold later facts

    with_later, without_later = PORTFOLIO.join(tables), PORTFOLIO.join({**tables, **known_then})

    pd.testing.assert_frame_equal(with_later, without_later)


def one_customer(**changed: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """One customer who applies on 15 March and 15 October 2025."""
    accounts = pd.ArrowDtype(pa.list_(pa.struct([("type", pa.string()), ("status", pa.string())])))
    raw = {
        "applications": pd.DataFrame(
            {
                "application_id": ["first", "second"],
                "customer_id": ["c", "c"],
                "applied_at": pd.to_datetime(["2025-03-15", "2025-10-15"]),
                "annual_income": [50_000.0, 60_000.0],
            }
        ),
        "bureau_reports": pd.DataFrame(
            {
                "customer_id": ["c"] * 4,
                "pulled_at": pd.to_datetime(["2025-11-01", "2025-03-15", "2024-01-01", "2025-10-01"]),
                "score": [400.0, 650.0, 600.0, 700.0],
                "accounts": pd.Series([[], None, [], [{"type": "other", "status": "active"}]], dtype=accounts),
            }
        ),
        "bank_statements": pd.DataFrame(
            {
                "customer_id": "c",
                "month_end": pd.date_range("2024-07-31", "2025-12-31", freq="ME"),
                "average_balance": np.arange(18.0),
                "inflow": 1.0,
                "outflow": 1.0,
                "overdrafts": 0,
            }
        ),
        "kyc_records": pd.DataFrame(
            {
                "customer_id": ["c"],
                "verified_at": pd.to_datetime(["2025-04-01"]),
                "date_of_birth": pd.to_datetime(["1990-01-01"]),
                "gender": ["female"],
            }
        ),
        "loan_outcomes": pd.DataFrame(
            {"application_id": ["first"], "status": ["repaid"], "known_at": pd.to_datetime(["2026-03-20"])}
        ),
    }
    return {**raw, **changed}


def test_the_latest_report_on_or_before_the_application_counts():
    joined = PORTFOLIO.join(one_customer())

    assert joined["credit_history.score"].tolist() == [650, 700]
    assert joined["credit_history.accounts"].isna().tolist() == [True, False]


def test_an_identity_verified_later_is_unknown():
    assert PORTFOLIO.join(one_customer())["gender"].tolist()[1] == "female"
    assert PORTFOLIO.join(one_customer())["date_of_birth"].isna().tolist() == [True, False]


def test_the_six_months_ended_before_the_application_count():
    joined = PORTFOLIO.join(one_customer())["bank_statements"]

    months = [[item["month_end"].month for item in statements] for statements in joined]
    assert months == [[9, 10, 11, 12, 1, 2], [4, 5, 6, 7, 8, 9]]


def test_the_month_of_the_application_does_not_count_even_on_its_last_day():
    raw = one_customer()
    raw["applications"] = raw["applications"].assign(applied_at=pd.to_datetime(["2025-03-31", "2025-11-01"]))

    last_months = [statements[-1]["month_end"].month for statements in PORTFOLIO.join(raw)["bank_statements"]]
    assert last_months == [2, 10]


def test_a_young_loan_has_no_outcome():
    joined = PORTFOLIO.join(one_customer())

    assert joined["status"].isna().tolist() == [False, True]


def test_a_source_without_a_key_is_named():
    raw = one_customer()
    raw["bureau_reports"] = raw["bureau_reports"].drop(columns="pulled_at")

    with pytest.raises(ValueError, match="bureau_reports has no column pulled_at"):
        PORTFOLIO.join(raw)


def test_missing_columns_are_reported_by_name_and_do_not_stop_the_join(tables: dict[str, pd.DataFrame]):
    without = {
        **tables,
        "applications": tables["applications"].drop(columns="annual_income"),
        "bureau_reports": tables["bureau_reports"].drop(columns=["score", "accounts"]),
        "kyc_records": tables["kyc_records"].drop(columns="caste"),
    }
    with pytest.raises(LoanBookError) as refusal:
        assemble(PORTFOLIO, without)

    named = {problem.column for problem in refusal.value.problems}
    assert named == {"annual_income", "credit_history.score", "credit_history.accounts", "caste"}
