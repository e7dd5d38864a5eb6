"""The simulated loan book: reproducible, bounded, gappy like a real one, and true to its documented ground truth."""

import time
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cde_domain.application import columns_of
from cde_domain.features.feature import feature_matrix
from cde_domain.features.frame import columns_of_frame
from cde_domain.model import metrics
from cde_domain.portfolios.personal_loan import PORTFOLIO
from cde_domain.portfolios.personal_loan.ground_truth import repayment_probability
from cde_domain.portfolios.personal_loan.options import SimulationOptions
from cde_domain.portfolios.personal_loan.simulator import BLOCK, simulate, true_probability

OPTIONS = SimulationOptions(rows=20_000)


def read_tables(options: SimulationOptions) -> dict[str, pd.DataFrame]:
    return {source.name: pd.concat(list(source.read(options)), ignore_index=True) for source in PORTFOLIO.sources}


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return read_tables(OPTIONS)


@pytest.fixture(scope="module")
def book(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return PORTFOLIO.join(tables)


@pytest.fixture(scope="module")
def features(book: pd.DataFrame) -> pd.DataFrame:
    matrix = feature_matrix(PORTFOLIO.features, columns_of_frame(book, columns_of(PORTFOLIO.application)))
    return pd.DataFrame(matrix, columns=[feature.name for feature in PORTFOLIO.features])


def test_the_same_seed_draws_the_same_book(tables: dict[str, pd.DataFrame]):
    again = read_tables(OPTIONS)

    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, again[name])


def test_a_larger_book_begins_with_the_smaller_one(tables: dict[str, pd.DataFrame]):
    larger = next(iter(simulate(SimulationOptions(rows=50_000))))

    pd.testing.assert_frame_equal(larger.applications, tables["applications"].iloc[:BLOCK])


def test_another_seed_draws_another_book(tables: dict[str, pd.DataFrame]):
    other = next(iter(simulate(SimulationOptions(rows=BLOCK, seed=8)))).applications

    assert (other["annual_income"] != tables["applications"]["annual_income"].iloc[:BLOCK]).mean() > 0.9


def test_ten_thousand_applications_are_drawn_in_under_five_seconds():
    start = time.perf_counter()
    drawn = read_tables(SimulationOptions(rows=10_000))

    assert len(drawn["applications"]) == 10_000
    assert time.perf_counter() - start < 5


def test_memory_stays_bounded_however_many_applications_are_drawn():
    def peak(rows: int) -> int:
        before, arrow = pa.total_allocated_bytes(), 0  # Arrow has its own memory, which tracemalloc does not see
        tracemalloc.start()
        for block in simulate(SimulationOptions(rows=rows)):
            assert len(block.applications) <= BLOCK
            arrow = max(arrow, pa.total_allocated_bytes() - before)
        _, python = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return python + arrow

    assert peak(100_000) < 1.3 * peak(20_000)


def test_application_ids_are_unique(tables: dict[str, pd.DataFrame]):
    assert tables["applications"]["application_id"].is_unique


def test_a_tenth_of_the_applications_comes_from_customers_who_applied_before(tables: dict[str, pd.DataFrame]):
    assert tables["applications"]["customer_id"].duplicated().mean() == pytest.approx(0.10, abs=0.001)


def test_no_customer_has_two_statements_of_one_month(tables: dict[str, pd.DataFrame]):
    assert not tables["bank_statements"].duplicated(["customer_id", "month_end"]).any()


def test_outcomes_mature_for_a_year_and_young_loans_have_none(book: pd.DataFrame):
    age = (book["outcome_known_at"] - book["applied_at"]).dt.days

    assert age.min() >= PORTFOLIO.outcome.matures_after_days
    assert book.loc[book["applied_at"] > "2025-06-30", "status"].isna().all()
    assert book.loc[book["applied_at"] < "2025-06-01", "status"].notna().all()


def test_about_a_fifth_of_the_loans_defaults(book: pd.DataFrame):
    assert 0.18 < (book["status"].dropna() == "defaulted").mean() < 0.22


def test_the_true_probabilities_are_calibrated_and_as_sharp_as_documented(book: pd.DataFrame):
    truth = true_probability(OPTIONS)
    known = book["status"].notna().to_numpy()
    repaid = (book["status"] == "repaid").to_numpy(dtype=np.float64)[known]
    probability = truth["probability"].to_numpy()[known]

    assert (truth["application_id"] == book["application_id"]).all()
    assert 0.80 < metrics.auc(repaid, probability) < 0.84
    assert metrics.calibration_error(repaid, probability) < 0.02


def test_the_ground_truth_is_a_function_of_the_features_where_nothing_is_missing(
    book: pd.DataFrame, features: pd.DataFrame
):
    nothing_unknown = features.drop(columns=["card_utilisation", "oldest_account_years"]).notna().all(axis=1)
    accounts_in_full = features["oldest_account_years"].notna() & features["card_utilisation"].notna()
    rows = nothing_unknown & accounts_in_full
    known = {name: features.loc[rows, name].to_numpy() for name in features}

    expected = true_probability(OPTIONS)["probability"][rows]
    computed = repayment_probability(known, book.loc[rows, "loan_purpose"].to_numpy())

    assert rows.sum() > 5_000
    np.testing.assert_allclose(computed, expected, rtol=1e-9)


def test_missing_facts_are_as_frequent_as_in_real_books(book: pd.DataFrame):
    missing = book.isna().mean()

    assert 0.22 < missing["bank_statements"] < 0.28
    assert 0.04 < missing["date_of_birth"] < 0.09
    assert 0.01 < missing["credit_history.score"] < 0.04
    assert 0.02 < missing["credit_history.accounts"] < 0.08
    assert 0.05 < missing["credit_history.inquiries"] < 0.15
    assert missing[["annual_income", "employment_years", "existing_debt", "loan_amount", "loan_purpose"]].eq(0).all()


def test_a_fifth_of_the_reports_lists_accounts_by_type_and_status_alone(book: pd.DataFrame):
    accounts = book["credit_history.accounts"].dropna().iloc[:2_000]
    bare = [all(account["opened_at"] is None for account in listed) for listed in accounts if len(listed)]

    assert 0.16 < np.mean(bare) < 0.24


def test_missing_statements_say_nothing_about_repayment(book: pd.DataFrame):
    probability = true_probability(OPTIONS)["probability"]
    given = book["bank_statements"].notna().to_numpy()

    assert abs(probability[given].mean() - probability[~given].mean()) < 0.015


def test_drift_lowers_incomes_and_credit_scores_by_about_so_many_standard_deviations(tables: dict[str, pd.DataFrame]):
    drifted = read_tables(SimulationOptions(rows=20_000, drift=1.0))

    def shift(before: pd.Series, after: pd.Series) -> float:
        return (after.mean() - before.mean()) / before.std()

    incomes = [np.log(drawn["applications"]["annual_income"]) for drawn in (tables, drifted)]
    scores = [drawn["bureau_reports"]["score"] for drawn in (tables, drifted)]
    assert -1.05 < shift(*incomes) < -0.75
    assert -1.05 < shift(*scores) < -0.75


def test_a_drifted_book_follows_the_same_ground_truth():
    options = SimulationOptions(rows=20_000, drift=1.0)
    outcomes = read_tables(options)["loan_outcomes"].merge(true_probability(options), on="application_id")

    repaid = (outcomes["status"] == "repaid").to_numpy(dtype=np.float64)
    assert metrics.calibration_error(repaid, outcomes["probability"].to_numpy()) < 0.02


def test_protected_attributes_are_nearly_independent_of_the_risk(book: pd.DataFrame):
    passes = true_probability(OPTIONS)["probability"] >= 0.80

    for name in ("gender", "religion", "caste", "ethnicity"):
        rates = passes.groupby(book[name].to_numpy()).agg(["mean", "size"]).query("size >= 250")["mean"]
        assert rates.min() / rates.max() > 0.90, name
