"""Measures of a score: the numbers of the field's own libraries, or of a pencil."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from sklearn import metrics as peer

from cde_domain.decisions.policy import Outcome
from cde_domain.model import metrics
from cde_domain.model.evaluation import Performance, compare, decision_mix
from cde_domain.model.metrics import PsiReference

RANDOM = np.random.default_rng(4)
SCORES = RANDOM.random(3000).round(2)  # many ties
REPAID = (RANDOM.random(3000) < SCORES).astype(float)


def test_the_auc_is_scikit_learns_with_ties():
    assert metrics.auc(REPAID, SCORES) == pytest.approx(peer.roc_auc_score(REPAID, SCORES), abs=1e-12)


def test_scores_that_are_all_the_same_rank_like_chance():
    assert metrics.auc(np.array([1.0, 0.0, 1.0]), np.full(3, 0.4)) == 0.5


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_without_both_outcomes_there_is_no_auc(label: float):
    assert np.isnan(metrics.auc(np.full(3, label), np.array([0.1, 0.2, 0.3])))


def test_ks_is_the_two_sample_distance_of_scipy():
    theirs = ks_2samp(SCORES[REPAID == 1], SCORES[REPAID == 0]).statistic

    assert metrics.ks(REPAID, SCORES) == pytest.approx(theirs, abs=1e-12)


def test_ks_sees_no_distance_within_a_tie():
    assert metrics.ks(np.array([0.0, 1.0, 0.0, 1.0]), np.full(4, 0.5)) == 0.0


def test_the_brier_score_is_scikit_learns():
    assert metrics.brier(REPAID, SCORES) == pytest.approx(peer.brier_score_loss(REPAID, SCORES), abs=1e-12)


def test_the_log_loss_is_scikit_learns():
    scores = SCORES.clip(0.01, 0.99)

    assert metrics.log_loss(REPAID, scores) == pytest.approx(peer.log_loss(REPAID, scores), abs=1e-12)


def test_a_certain_score_that_was_wrong_has_a_finite_log_loss():
    assert metrics.log_loss(np.array([0.0]), np.array([1.0])) == pytest.approx(-np.log(1e-6))


def test_calibration_is_measured_in_bins_of_equally_many_rows():
    repaid = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    scores = np.array([0.1, 0.3, 0.2, 0.9, 0.7, 0.8])

    table = metrics.calibration_bins(repaid, scores, bins=2)

    np.testing.assert_allclose(table, [[0.2, 1 / 3, 3], [0.8, 1.0, 3]])
    assert metrics.calibration_error(repaid, scores, bins=2) == pytest.approx((1 / 3 - 0.2 + 0.2) / 2)


def test_bins_count_by_their_rows():
    repaid = np.array([0.0, 0.0, 1.0])
    scores = np.array([0.0, 0.0, 0.4])

    assert metrics.calibration_error(repaid, scores, bins=2) == pytest.approx(0.6 / 3)


def test_calibrated_scores_stay_within_what_chance_does_and_others_do_not():
    scores = np.random.default_rng(1).uniform(0.5, 1, 1000)
    repaid = (np.random.default_rng(2).random(1000) < scores).astype(float)
    by_chance = metrics.calibration_error_by_chance(scores, draws=200)

    assert metrics.calibration_error(repaid, scores) < by_chance
    assert metrics.calibration_error(repaid, (scores - 0.15).clip(0, 1)) > by_chance


def test_chance_exceeds_its_limit_in_one_of_twenty_samples():
    scores = np.random.default_rng(1).uniform(0.5, 1, 300)
    limit = metrics.calibration_error_by_chance(scores)
    random = np.random.default_rng(9)
    exceeded = [
        metrics.calibration_error((random.random(300) < scores).astype(float), scores) > limit for _ in range(400)
    ]

    assert 0.02 < np.mean(exceeded) < 0.09


def test_the_interval_holds_the_estimate():
    low, high = metrics.bootstrap_interval(lambda rows: metrics.auc(REPAID[rows], SCORES[rows]), len(REPAID), draws=200)

    assert low < metrics.auc(REPAID, SCORES) < high


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(0, 1, 1000)

    low, high = metrics.bootstrap_interval(lambda rows: float(values[rows].mean()), 1000)

    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(1000), rel=0.15)


def test_the_same_rows_have_the_same_interval_again():
    first, second = (metrics.bootstrap_interval(lambda rows: float(rows.mean()), 50, draws=20) for _ in range(2))

    assert first == second


def test_the_same_values_have_not_shifted():
    values = np.random.default_rng(0).normal(size=500)

    assert PsiReference.of(values).psi(values) == 0.0


def test_values_from_the_same_population_are_stable():
    random = np.random.default_rng(0)

    assert PsiReference.of(random.normal(size=5000)).psi(random.normal(size=5000)) < 0.02


def test_a_shift_by_a_standard_deviation_is_large():
    random = np.random.default_rng(0)

    assert PsiReference.of(random.normal(size=5000)).psi(random.normal(size=5000) + 1) > 0.5


def test_values_that_go_missing_have_shifted():
    values = np.random.default_rng(0).normal(size=1000)
    half_missing = np.where(np.arange(1000) % 2, np.nan, values)

    assert PsiReference.of(values).psi(half_missing) > 0.5


def test_the_stability_index_is_the_sum_over_bins_and_the_missing():
    reference = PsiReference((0.0,), (0.5, 0.3, 0.2))
    values = np.array([-1.0, 1.0, 1.0, np.nan])
    shares = np.array([1.5, 2.5, 1.5]) / 5.5  # half a count is added to every bin

    expected = ((shares - [0.5, 0.3, 0.2]) * np.log(shares / [0.5, 0.3, 0.2])).sum()

    assert reference.psi(values) == pytest.approx(expected)


def test_a_value_that_stands_for_a_bin_has_one_of_its_own():
    random = np.random.default_rng(0)
    debts = np.where(random.random(2000) < 0.95, 0.0, random.exponential(1, 2000))
    reference = PsiReference.of(debts)

    assert reference.psi(np.where(random.random(2000) < 0.6, 0.0, random.exponential(1, 2000))) > 0.5


def test_a_value_on_an_edge_belongs_to_the_bin_above_it():
    on_the_edge, above = PsiReference((0.0,), (0.5, 0.3, 0.2)), np.array([1.0])

    assert on_the_edge.psi(np.array([0.0])) == on_the_edge.psi(above)


@given(
    values=st.lists(st.one_of(st.just(float("nan")), st.floats(-1e9, 1e9)), min_size=1, max_size=50),
    others=st.lists(st.one_of(st.just(float("nan")), st.floats(-1e12, 1e12)), min_size=1, max_size=50),
)
def test_the_stability_index_is_finite_and_never_negative(values: list[float], others: list[float]):
    psi = PsiReference.of(np.array(values)).psi(np.array(others))

    assert 0 <= psi < np.inf


def test_performance_holds_the_single_measures():
    measured = Performance.of(REPAID[:400], SCORES[:400])

    assert measured.rows == 400
    assert measured.repayment_rate == REPAID[:400].mean()
    assert measured.gini == pytest.approx(2 * measured.auc - 1)
    assert measured.auc_interval[0] < measured.auc < measured.auc_interval[1]
    assert measured.ks == metrics.ks(REPAID[:400], SCORES[:400])
    assert measured.as_json()["auc_interval"] == list(measured.auc_interval)


def test_the_mix_of_decisions_names_bad_loans_among_approved_and_rejected():
    decisions = np.array([Outcome.APPROVED] * 4 + [Outcome.MANUAL_REVIEW] * 4 + [Outcome.REJECTED] * 2)
    repaid = np.array([1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0])

    assert decision_mix(decisions, repaid) == {
        "approval_rate": 0.4,
        "review_rate": 0.4,
        "rejection_rate": 0.2,
        "bad_rate_of_approved": 0.25,
        "bad_rate_of_rejected": 0.5,
    }


def test_where_nobody_is_rejected_the_rejected_have_no_bad_rate():
    assert decision_mix(np.array([Outcome.APPROVED]), np.array([1.0]))["bad_rate_of_rejected"] is None


def test_a_score_compared_with_itself_gains_nothing():
    assert compare(REPAID[:300], SCORES[:300], SCORES[:300]) == {
        "champion_auc": metrics.auc(REPAID[:300], SCORES[:300]),
        "auc_difference": 0.0,
        "interval": [0.0, 0.0],
    }


def test_a_better_challenger_gains_auc():
    noise = np.random.default_rng(0).random(600)

    compared = compare(REPAID[:600], SCORES[:600], noise)

    assert compared["auc_difference"] == pytest.approx(
        metrics.auc(REPAID[:600], SCORES[:600]) - metrics.auc(REPAID[:600], noise)
    )
    assert compared["interval"][0] > 0.1
