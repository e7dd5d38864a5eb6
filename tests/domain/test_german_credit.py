"""German credit: what the model may see, and how well it tells good credits from bad ones."""

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
from cde_domain.decisions.policy import Policy
from cde_domain.features.columns import columns_of_applications
from cde_domain.features.feature import feature_matrix
from cde_domain.features.frame import columns_of_frame
from cde_domain.loan_book import assemble
from cde_domain.portfolios.german_credit import PORTFOLIO, FileOptions
from cde_domain.training.boosting import BoostingSettings, fit, to_dmatrix

COLUMNS = columns_of(PORTFOLIO.application)
PROTECTED_COLUMNS = ("personal_status_and_sex", "age_in_years", "foreign_worker")


@pytest.fixture(scope="module")
def credit_files() -> pd.DataFrame:
    return PORTFOLIO.sources[0].read(FileOptions())


@pytest.fixture(scope="module")
def book(credit_files: pd.DataFrame) -> pd.DataFrame:
    return assemble(PORTFOLIO, {"credit_files": credit_files})


@pytest.fixture(scope="module")
def matrix(book: pd.DataFrame) -> np.ndarray:
    return feature_matrix(PORTFOLIO.features, columns_of_frame(book, COLUMNS))


@pytest.mark.parametrize("column", PROTECTED_COLUMNS)
def test_no_applicant_is_asked_for_a_protected_attribute(column: str):
    assert column not in PORTFOLIO.application.model_fields


@pytest.mark.parametrize("column", PROTECTED_COLUMNS)
def test_no_feature_reads_a_protected_attribute(column: str):
    assert column not in inspect.getsource(inspect.getmodule(PORTFOLIO.features[0].compute))


def test_the_features_need_nothing_but_the_application(book: pd.DataFrame):
    asked_for = book[["applied_at", *(column.name for column in COLUMNS)]]

    assert feature_matrix(PORTFOLIO.features, columns_of_frame(asked_for, COLUMNS)).shape == (1000, 10)


def test_the_example_is_an_acceptable_application():
    assert PORTFOLIO.application.model_validate(PORTFOLIO.example).customer_id == "C-1001"


def test_the_example_lies_within_what_the_book_has_seen(matrix: np.ndarray):
    example = PORTFOLIO.application.model_validate(PORTFOLIO.example)

    row = feature_matrix(PORTFOLIO.features, columns_of_applications([example], COLUMNS, date(2026, 1, 2)))

    assert (row >= matrix.min(axis=0)).all() and (row <= matrix.max(axis=0)).all()


@pytest.mark.parametrize("column", [column for column in COLUMNS if column.categories], ids=lambda column: column.name)
def test_every_category_of_the_book_is_known_to_the_application(column, credit_files: pd.DataFrame):
    assert set(credit_files[column.name]) == set(column.categories)


def test_the_word_none_is_a_category_and_no_missing_value(book: pd.DataFrame):
    assert (book["other_debtors_or_guarantors"] == "none").sum() == 907


def test_no_feature_of_the_book_is_unknown(matrix: np.ndarray):
    assert np.isfinite(matrix).all()


def test_an_applicant_alone_has_the_same_features_as_in_the_book(book: pd.DataFrame, matrix: np.ndarray):
    alone = [
        feature_matrix(
            PORTFOLIO.features,
            columns_of_applications(
                [PORTFOLIO.application.model_validate(request_of(row, COLUMNS))], COLUMNS, date(2026, 1, 2)
            ),
        )
        for row in book.to_dict("records")
    ]

    assert np.concatenate(alone).tobytes() == matrix.tobytes()


@pytest.mark.parametrize(
    ("attribute", "sizes"),
    [
        ("sex", {"female": 310, "male": 690}),
        ("age", {"25 or younger": 190, "older than 25": 810}),
        ("foreign_worker", {"yes": 963, "no": 37}),
    ],
)
def test_the_groups_have_the_sizes_of_the_published_book(book: pd.DataFrame, attribute: str, sizes: dict[str, int]):
    assert book[f"protected.{attribute}"].value_counts().to_dict() == sizes


def test_an_applicant_of_unknown_age_belongs_to_no_age_group(credit_files: pd.DataFrame):
    (age,) = [attribute for attribute in PORTFOLIO.protected if attribute.name == "age"]

    groups = age.groups(credit_files.head(2).assign(age_in_years=[np.nan, 25]))

    assert groups.isna().tolist() == [True, False]


def test_a_lenders_own_identifiers_are_kept(credit_files: pd.DataFrame):
    own = credit_files.assign(application_id=[f"A{row}" for row in range(1000)], customer_id="K-7")

    book = assemble(PORTFOLIO, {"credit_files": own})

    assert book.loc[0, ["application_id", "customer_id"]].tolist() == ["A0", "K-7"]


def test_the_lender_can_bring_a_file_of_its_own(tmp_path: Path, credit_files: pd.DataFrame):
    credit_files.head(10).to_parquet(tmp_path / "own.parquet")

    assert len(PORTFOLIO.sources[0].read(FileOptions(path=tmp_path / "own.parquet"))) == 10


def test_the_policy_asks_only_for_what_there_is():
    check_policy(PORTFOLIO, Policy.read(PORTFOLIO.policy_file))


def test_the_approval_cut_off_is_where_a_credit_breaks_even():
    assert Policy.read(PORTFOLIO.policy_file).approve_at == pytest.approx(PORTFOLIO.economics.break_even)


def test_good_credits_are_told_from_bad_ones_out_of_fold(book: pd.DataFrame, matrix: np.ndarray):
    repaid = book["repaid"].to_numpy()
    settings = BoostingSettings(**PORTFOLIO.boosting)
    aucs = []
    for training, test in StratifiedKFold(5, shuffle=True, random_state=0).split(matrix, repaid):
        booster = fit(PORTFOLIO.features, matrix[training], repaid[training], settings)
        aucs.append(roc_auc_score(repaid[test], booster.predict(to_dmatrix(PORTFOLIO.features, matrix[test]))))

    assert np.mean(aucs) >= 0.78
