"""How the model of personal loans decides."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from cde_domain.decisions.bulk import decide_all
from cde_domain.decisions.engine import DecidedBy, DecisionEngine, Routing, check_policy
from cde_domain.decisions.policy import Outcome, Policy
from cde_domain.features.table import matrix_of, split
from cde_domain.model import metrics
from cde_domain.model.scoring_model import ScoringModel
from cde_domain.portfolios.personal_loan import PORTFOLIO
from cde_domain.portfolios.personal_loan.simulator import true_probability
from cde_domain.training.boosting import BoostingSettings
from cde_domain.training.challenger import fit_scoring_model
from tests.domain.personal_loan.applications import APPLIED, NAMES, OPTIONS, application, with_history


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
