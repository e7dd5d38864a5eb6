"""Evaluation: the numbers that a credit officer reads, checked by hand on a few loans."""

import numpy as np
import pytest

from cde_domain.model import metrics
from cde_domain.model.cut_offs import (
    classification,
    cut_off_table,
    expected_profit,
    profit,
    profit_curve,
    score_bands,
)
from cde_domain.model.evaluation import Performance, by_quarter, swap_set
from cde_domain.portfolio import Economics

REPAID = np.array([1.0, 1.0, 0.0, 1.0, 0.0])
SCORES = np.array([0.9, 0.8, 0.7, 0.4, 0.1])
EARNED = Economics(margin=0.10, loss_given_default=0.50)


@pytest.fixture(scope="module")
def calibrated() -> tuple[np.ndarray, np.ndarray]:
    """Outcomes drawn from the scores themselves."""
    random = np.random.default_rng(0)
    scores = np.round(random.beta(4, 2, 6_000), 2)
    return (random.random(6_000) < scores).astype(float), scores


def test_a_cut_off_is_measured_as_if_every_score_from_it_on_were_called_good():
    at = classification(REPAID, SCORES, 0.7)

    assert (at["accuracy"], at["precision"], at["recall"]) == pytest.approx((0.6, 2 / 3, 2 / 3))
    assert at["f1"] == pytest.approx(2 / 3)


def test_a_cut_off_that_nobody_reaches_has_no_precision():
    at = classification(REPAID, SCORES, 0.95)

    assert (at["precision"], at["recall"]) == (None, 0.0)


def test_approved_loans_earn_their_margin_and_bad_ones_lose():
    approved = SCORES >= 0.7

    assert profit(REPAID, approved, EARNED) == pytest.approx(100 * (0.1 + 0.1 - 0.5) / 5)


def test_well_calibrated_scores_expect_the_profit_that_comes(calibrated):
    repaid, scores = calibrated
    approved = scores >= 0.8

    assert expected_profit(scores, approved, EARNED) == pytest.approx(profit(repaid, approved, EARNED), abs=0.6)


def test_the_most_is_earned_where_a_loan_breaks_even(calibrated):
    repaid, scores = calibrated
    curve = profit_curve(repaid, scores, EARNED)

    best = curve["cut_offs"][int(np.argmax(curve["expected_profit"]))]

    assert best == pytest.approx(EARNED.break_even, abs=0.02)


def test_a_higher_cut_off_approves_fewer_and_better_loans(calibrated):
    rows = cut_off_table(*calibrated, EARNED, {"approve_at": 0.8})

    assert [row["name"] for row in rows if row["name"]] == ["approve_at"]
    assert np.all(np.diff([row["approval_rate"] for row in rows]) <= 0)
    assert rows[0]["bad_rate"] > rows[-1]["bad_rate"]


def test_every_application_is_in_one_score_band_best_first(calibrated):
    repaid, scores = calibrated
    bands = score_bands(repaid, scores, np.where(scores >= 0.8, "APPROVED", "MANUAL_REVIEW"))

    assert sum(band["rows"] for band in bands) == len(scores)
    assert np.all(np.diff([band["lowest_score"] for band in bands]) <= 0)
    assert bands[-1]["bad_rate_so_far"] == pytest.approx(1 - repaid.mean())
    assert bands[0]["approved"] == 1.0 and bands[-1]["reviewed"] == 1.0


def test_the_swap_set_says_whom_only_one_of_two_models_approves():
    champion = np.array(["APPROVED", "MANUAL_REVIEW", "APPROVED", "REJECTED", "REJECTED"])
    challenger = np.array(["APPROVED", "APPROVED", "REJECTED", "REJECTED", "MANUAL_REVIEW"])

    swapped = swap_set(REPAID, challenger, champion)

    assert swapped["swapped_in"] == {"count": 1, "bad_rate": 0.0}
    assert swapped["swapped_out"] == {"count": 1, "bad_rate": 1.0}
    assert swapped["changed"] == 3 == sum(move["count"] for move in swapped["moves"])


def test_identical_decisions_have_an_empty_swap_set_without_rates():
    decisions = np.full(5, "APPROVED")

    swapped = swap_set(REPAID, decisions, decisions)

    assert (swapped["changed"], swapped["moves"]) == (0, [])
    assert swapped["swapped_in"] == {"count": 0, "bad_rate": None}


def test_quarters_are_those_of_the_calendar_and_one_without_bad_loans_has_no_auc():
    applied_at = np.array(["2024-12-31", "2025-01-01", "2025-03-31", "2025-04-01", "2025-04-02"], "datetime64[D]")

    quarters = by_quarter(applied_at, REPAID, SCORES)

    assert [(row["quarter"], row["rows"]) for row in quarters] == [("2024-Q4", 1), ("2025-Q1", 2), ("2025-Q2", 2)]
    assert [row["auc"] for row in quarters] == [None, 1.0, 1.0]


def test_the_calibration_slope_of_scores_that_are_too_sure_is_below_one(calibrated):
    repaid, scores = calibrated
    odds = np.log(scores.clip(0.01, 0.99) / (1 - scores.clip(0.01, 0.99)))

    slope, _ = metrics.calibration_slope(repaid, 1 / (1 + np.exp(-2 * odds)))

    assert slope == pytest.approx(0.5, abs=0.05)


def test_scores_that_separate_all_loans_have_no_calibration_slope():
    assert Performance.of(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.2, 0.8, 0.9])).calibration_slope is None


def test_intervals_from_sorted_scores_are_those_of_the_plain_bootstrap(calibrated):
    repaid, scores = calibrated[0][:400], calibrated[1][:400]
    plain = {
        "auc": metrics.bootstrap_interval(lambda rows: metrics.auc(repaid[rows], scores[rows]), 400),
        "ks": metrics.bootstrap_interval(lambda rows: metrics.ks(repaid[rows], scores[rows]), 400),
        "brier": metrics.bootstrap_interval(lambda rows: metrics.brier(repaid[rows], scores[rows]), 400),
    }

    sorted_once = metrics.bootstrap_intervals(repaid, scores)

    assert {name: getattr(sorted_once, name) for name in plain} == {
        name: pytest.approx(interval) for name, interval in plain.items()
    }
