"""Personal loans: the contract of an application, what features mean, what a join may know, how the model decides."""

import json
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError

from cde_domain.application import columns_of
from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.engine import DecidedBy, DecisionEngine, Routing, check_policy
from cde_domain.decisions.policy import Outcome, Policy
from cde_domain.features.columns import columns_of_applications
from cde_domain.features.feature import feature_matrix
from cde_domain.features.table import feature_table, matrix_of, online_parity, split
from cde_domain.loan_book import LoanBookError, assemble
from cde_domain.model import metrics
from cde_domain.model.scoring_model import ScoringModel
from cde_domain.portfolio import load_portfolio
from cde_domain.portfolios.personal_loan import PORTFOLIO
from cde_domain.portfolios.personal_loan.application import PersonalLoanApplication
from cde_domain.portfolios.personal_loan.options import SimulationOptions
from cde_domain.portfolios.personal_loan.simulator import true_probability
from cde_domain.training.boosting import BoostingSettings
from cde_domain.training.challenger import fit_scoring_model

OPTIONS = SimulationOptions(rows=20_000)
SPECS = columns_of(PORTFOLIO.application)
NAMES = [feature.name for feature in PORTFOLIO.features]
APPLIED = date(2026, 3, 15)


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return {source.name: pd.concat(list(source.read(OPTIONS)), ignore_index=True) for source in PORTFOLIO.sources}


@pytest.fixture(scope="module")
def book(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return assemble(PORTFOLIO, tables)


@pytest.fixture(scope="module")
def table(book: pd.DataFrame) -> pd.DataFrame:
    return feature_table(PORTFOLIO, book)


@dataclass(frozen=True)
class Trained:
    model: ScoringModel
    engine: DecisionEngine
    holdout: pd.DataFrame


@pytest.fixture(scope="module")
def trained(table: pd.DataFrame) -> Trained:
    training, holdout = split(table, seed=7)
    policy = Policy.read(PORTFOLIO.policy_file)
    fitted = fit_scoring_model(
        PORTFOLIO.features,
        matrix_of(PORTFOLIO, training),
        training["repaid"].to_numpy(),
        training["customer_id"].to_numpy(),
        BoostingSettings(**PORTFOLIO.boosting),
        approve_at=policy.approve_at,
        provenance={},
    )
    return Trained(fitted.scoring_model, DecisionEngine(PORTFOLIO, fitted.scoring_model, policy), holdout)


def application(**changes: Any) -> PersonalLoanApplication:
    """The example with some fields changed, read as a request is."""
    return PersonalLoanApplication.model_validate_json(json.dumps({**PORTFOLIO.example, **changes}, default=str))


def with_history(**changes: Any) -> PersonalLoanApplication:
    """The example with some parts of its credit history changed."""
    return application(credit_history={**PORTFOLIO.example["credit_history"], **changes})


def features_of(applied_for: PersonalLoanApplication) -> dict[str, float]:
    row = feature_matrix(PORTFOLIO.features, columns_of_applications([applied_for], SPECS, APPLIED))[0]
    return dict(zip(NAMES, row.tolist(), strict=True))


def unknown(value: float) -> bool:
    return value != value


def statement(month: int, **changes: Any) -> dict[str, Any]:
    usual = {"average_balance": 4000.0, "inflow": 5000.0, "outflow": 4500.0, "overdrafts": 0}
    return {"month_end": date(2025, month + 1, 1) - timedelta(days=1), **usual, **changes}


def test_the_portfolio_is_shipped():
    assert load_portfolio("personal_loan") is PORTFOLIO


def test_the_example_is_an_acceptable_application():
    assert application().customer_id == "test_123"


def test_an_application_without_customer_and_with_negative_income_is_refused_on_those_fields():
    with pytest.raises(ValidationError) as refusal:
        PersonalLoanApplication.model_validate_json('{"customer_id": "", "annual_income": -1000}')

    wrong = {error["loc"][0] for error in refusal.value.errors() if error["type"] != "missing"}
    assert wrong == {"customer_id", "annual_income"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("annual_income", "75000"),
        ("employment_years", 71),
        ("existing_debt", -1),
        ("loan_amount", 0),
        ("loan_purpose", "gambling"),
        ("credit_history", {"score": 299}),
        ("credit_history", {"accounts": [{"type": "credit_card", "status": "unheard_of"}]}),
        ("credit_history", {"inquiries": [{"date": "2026-01-01"}] * 201}),
        ("bank_statements", [{"month_end": "2026-01-31"}]),
        ("religion", "Hindu"),
    ],
)
def test_a_value_out_of_bounds_or_unknown_is_refused(field: str, value: Any):
    with pytest.raises(ValidationError) as refusal:
        application(**{field: value})

    assert {error["loc"][0] for error in refusal.value.errors()} == {field}


def test_every_field_says_what_it_is_for():
    assert all(column.description and column.purpose and column.source for column in SPECS)


def test_no_applicant_is_asked_for_a_protected_attribute():
    asked = {column.name for column in SPECS}

    assert asked.isdisjoint(attribute.name for attribute in PORTFOLIO.protected)


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


def test_the_policy_fits_the_portfolio_and_its_economics():
    policy = Policy.read(PORTFOLIO.policy_file)

    check_policy(PORTFOLIO, policy)
    assert policy.approve_at == pytest.approx(PORTFOLIO.economics.break_even)


def test_the_model_decides_the_example(trained: Trained):
    decision = trained.engine.decide(application(), APPLIED)

    assert decision.decided_by is DecidedBy.MODEL
    assert decision.decision is Outcome.APPROVED


def test_a_loan_beyond_five_years_of_income_is_rejected_by_rule(trained: Trained):
    decision = trained.engine.decide(application(loan_amount=400_000), APPLIED)

    assert (decision.decision, decision.reason_codes) == (Outcome.REJECTED, ("LOAN_EXCEEDS_INCOME",))


def test_a_credit_score_below_450_is_rejected_by_rule(trained: Trained):
    decision = trained.engine.decide(with_history(score=449), APPLIED)

    assert (decision.decision, decision.reason_codes) == (Outcome.REJECTED, ("CREDIT_SCORE_TOO_LOW",))


def test_a_thin_file_goes_to_a_person(trained: Trained):
    decision = trained.engine.decide(with_history(score=None), APPLIED)

    assert (decision.decision, decision.reason_codes) == (Outcome.MANUAL_REVIEW, (Routing.RULE_INPUT_UNKNOWN,))


def test_a_burdened_applicant_is_rejected_by_the_model_with_reasons(trained: Trained):
    burdened = application(
        annual_income=30_000,
        employment_years=0.5,
        existing_debt=40_000,
        loan_amount=40_000,
        credit_history={"score": 540, "accounts": [{"type": "credit_card", "status": "defaulted"}]},
    )
    decision = trained.engine.decide(burdened, APPLIED)

    assert (decision.decision, decision.decided_by) == (Outcome.REJECTED, DecidedBy.MODEL)
    assert "CREDIT_SCORE" in decision.reason_codes
    assert 1 <= len(decision.reason_codes) <= 4


def test_the_credit_score_is_among_the_strongest_drivers(trained: Trained):
    _, contributions = trained.model.trees.explain(matrix_of(PORTFOLIO, trained.holdout))
    strength = np.abs(contributions).mean(axis=0)

    assert "credit_score" in [NAMES[position] for position in np.argsort(-strength)[:2]]


def test_the_model_comes_within_a_hundredth_of_the_true_auc(trained: Trained):
    holdout = trained.holdout.merge(true_probability(OPTIONS), on="application_id", validate="one_to_one")
    repaid = holdout["repaid"].to_numpy()
    scores = trained.model.scores(matrix_of(PORTFOLIO, holdout))

    assert metrics.auc(repaid, scores) > metrics.auc(repaid, holdout["probability"].to_numpy()) - 0.01
    assert metrics.auc(repaid, scores) > PORTFOLIO.thresholds.min_auc


def test_the_scores_are_calibrated(trained: Trained):
    scores = trained.model.scores(matrix_of(PORTFOLIO, trained.holdout))

    assert metrics.calibration_error(trained.holdout["repaid"].to_numpy(), scores) < 0.03


@pytest.fixture(scope="module")
def decisions(trained: Trained, table: pd.DataFrame) -> np.ndarray:
    matrix = matrix_of(PORTFOLIO, table)
    policy = Policy.read(PORTFOLIO.policy_file)
    return decide_all(PORTFOLIO.features, matrix, trained.model.scores(matrix), policy, trained.model)


def test_most_applicants_are_approved_and_few_rejected(decisions: np.ndarray):
    assert 0.55 < (decisions == Outcome.APPROVED).mean() < 0.70
    assert 0.02 < (decisions == Outcome.REJECTED).mean() < 0.10


@pytest.mark.parametrize("attribute", [attribute.name for attribute in PORTFOLIO.protected])
def test_every_group_is_approved_nearly_as_often_as_the_others(
    attribute: str, decisions: np.ndarray, book: pd.DataFrame
):
    approved = pd.Series(decisions == Outcome.APPROVED).groupby(book[f"protected.{attribute}"].to_numpy())
    rates = approved.agg(["mean", "size"]).query("size >= 250")["mean"]

    assert rates.min() / rates.max() > 0.90
