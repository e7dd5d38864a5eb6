"""LendingClub loans: what the model may see, and how well it tells good loans from bad ones."""

import inspect
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from cde_domain.application import columns_of, request_of
from cde_domain.decisions.engine import check_policy
from cde_domain.decisions.policy import Outcome, Policy
from cde_domain.features.columns import columns_of_applications
from cde_domain.features.feature import feature_matrix
from cde_domain.features.frame import columns_of_frame
from cde_domain.loan_book import assemble
from cde_domain.portfolios.lending_club import PORTFOLIO, FileOptions
from cde_domain.training.boosting import BoostingSettings, fit, to_dmatrix

COLUMNS = columns_of(PORTFOLIO.application)
UNUSED = ("int_rate", "sub_grade", "addr_state")


@pytest.fixture(scope="module")
def funded_loans() -> pd.DataFrame:
    return PORTFOLIO.sources[0].read(FileOptions())


@pytest.fixture(scope="module")
def book(funded_loans: pd.DataFrame) -> pd.DataFrame:
    return assemble(PORTFOLIO, {"funded_loans": funded_loans})


@pytest.fixture(scope="module")
def matrix(book: pd.DataFrame) -> np.ndarray:
    return feature_matrix(PORTFOLIO.features, columns_of_frame(book, COLUMNS))


def features_of(request: dict) -> dict[str, float]:
    application = PORTFOLIO.application.model_validate(request)
    (row,) = feature_matrix(PORTFOLIO.features, columns_of_applications([application], COLUMNS, date(2026, 1, 2)))
    return {feature.name: value for feature, value in zip(PORTFOLIO.features, row.tolist(), strict=True)}


@pytest.mark.parametrize("column", UNUSED)
def test_the_old_lenders_grade_and_the_address_do_not_reach_the_loan_book(book: pd.DataFrame, column: str):
    assert column not in book


@pytest.mark.parametrize("column", UNUSED)
def test_no_feature_reads_the_old_lenders_grade_or_the_address(column: str):
    assert column not in inspect.getsource(inspect.getmodule(PORTFOLIO.features[0].compute))


def test_the_book_has_no_attribute_to_measure_fairness_by_and_says_so():
    assert PORTFOLIO.protected == ()
    assert any("no protected attribute" in limit for limit in PORTFOLIO.limits)


def test_the_example_lies_within_what_the_book_has_seen(matrix: np.ndarray):
    row = np.array(list(features_of(PORTFOLIO.example).values()))

    assert (row >= np.nanmin(matrix, axis=0)).all() and (row <= np.nanmax(matrix, axis=0)).all()


@pytest.mark.parametrize("column", [column for column in COLUMNS if column.categories], ids=lambda column: column.name)
def test_every_category_of_the_book_is_known_to_the_application(column, funded_loans: pd.DataFrame):
    assert set(funded_loans[column.name]) == set(column.categories)


def test_an_applicant_alone_has_the_same_features_as_in_the_book(book: pd.DataFrame, matrix: np.ndarray):
    sample = np.random.default_rng(1).choice(len(book), 500, replace=False)
    alone = [list(features_of(request_of(row, COLUMNS)).values()) for row in book.iloc[sample].to_dict("records")]

    assert np.array(alone).tobytes() == matrix[sample].tobytes()


def test_an_employment_that_is_not_stated_is_unknown():
    assert np.isnan(features_of({**PORTFOLIO.example, "emp_length": "emp_unk"})["employment_years"])


@pytest.mark.parametrize(("length", "years"), [("emp_lt_1", 0), ("emp_1", 1), ("emp_9", 9), ("emp_ge_10", 10)])
def test_employment_counts_completed_years(length: str, years: int):
    assert features_of({**PORTFOLIO.example, "emp_length": length})["employment_years"] == years


def test_the_monthly_payment_is_set_against_the_monthly_income():
    request = {**PORTFOLIO.example, "funded_amnt": 36_000, "term": "term_60", "annual_inc": 36_000.0}

    assert features_of(request)["payment_to_income"] == pytest.approx(0.2)


def test_without_income_the_burden_of_the_payment_is_unknown():
    assert np.isnan(features_of({**PORTFOLIO.example, "annual_inc": 0.0})["payment_to_income"])


def test_three_accounts_past_due_are_rejected_by_rule():
    policy = Policy.read(PORTFOLIO.policy_file)
    check_policy(PORTFOLIO, policy)

    rule, _ = policy.matching_rule(features_of({**PORTFOLIO.example, "acc_now_delinq": 3}))

    assert (rule.code, rule.decision) == ("THREE_ACCOUNTS_PAST_DUE", Outcome.REJECTED)


def test_an_income_of_zero_goes_to_a_person():
    rule, _ = Policy.read(PORTFOLIO.policy_file).matching_rule(features_of({**PORTFOLIO.example, "annual_inc": 0.0}))

    assert rule.decision is Outcome.MANUAL_REVIEW


def test_no_rule_decides_the_example():
    assert Policy.read(PORTFOLIO.policy_file).matching_rule(features_of(PORTFOLIO.example)) is None


def test_the_approval_cut_off_is_near_where_a_loan_breaks_even():
    assert Policy.read(PORTFOLIO.policy_file).approve_at == pytest.approx(PORTFOLIO.economics.break_even, abs=0.005)


def test_the_lender_can_bring_a_file_of_its_own(tmp_path: Path, funded_loans: pd.DataFrame):
    funded_loans.head(10).to_parquet(tmp_path / "own.parquet")

    assert len(PORTFOLIO.sources[0].read(FileOptions(path=tmp_path / "own.parquet"))) == 10


def test_good_loans_are_told_from_bad_ones_out_of_fold(book: pd.DataFrame, matrix: np.ndarray):
    repaid = book["repaid"].to_numpy()
    settings = BoostingSettings(**PORTFOLIO.boosting)
    aucs = []
    for training, test in StratifiedKFold(5, shuffle=True, random_state=0).split(matrix, repaid):
        booster = fit(PORTFOLIO.features, matrix[training], repaid[training], settings)
        aucs.append(roc_auc_score(repaid[test], booster.predict(to_dmatrix(PORTFOLIO.features, matrix[test]))))

    assert np.mean(aucs) >= 0.67
