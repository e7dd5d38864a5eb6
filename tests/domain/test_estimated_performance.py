"""What scores promise before outcomes are known, and what outcomes then say."""

import numpy as np
import pandas as pd
import pytest

from cde_domain.decisions.monitoring.drift import approval_alarms
from cde_domain.decisions.monitoring.estimated import (
    MEASURES,
    expected_performance,
    line_alarms,
    measures,
    partly_known_performance,
    promise_limits,
    reference_alarms,
)
from cde_domain.decisions.monitoring.live import live_performance, score_bands
from cde_domain.decisions.monitoring.reference import Reference
from cde_domain.decisions.policy import Outcome
from cde_domain.digests import json_bytes
from cde_domain.features.table import feature_table, labels_of, matrix_of, split
from cde_domain.loan_book import assemble
from cde_domain.model.metrics import Ranking, auc
from cde_domain.model.scoring_model import ScoringModel
from cde_domain.portfolio import Alarms
from cde_domain.portfolios.personal_loan import PORTFOLIO
from cde_domain.portfolios.personal_loan.options import SimulationOptions
from cde_domain.portfolios.personal_loan.simulator import true_probability
from cde_domain.training.boosting import BoostingSettings
from cde_domain.training.challenger import fit_scoring_model

OWNERS = Alarms(min_accuracy=0.75, min_auc=0.80)


def scores_of(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).beta(4, 1.2, rows)


def outcomes_of(chances: np.ndarray, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(chances)) < chances).astype(float)


def reference_of(scores: np.ndarray, repaid: np.ndarray, approve_at: float = 0.8) -> Reference:
    decisions = np.where(scores >= approve_at, Outcome.APPROVED.value, Outcome.REJECTED.value)
    return Reference.of("holdout", repaid, scores, decisions, scores)


def test_a_ranking_gives_the_auc_of_every_labelling_with_ties():
    scores, random = scores_of(500).round(2), np.random.default_rng(3)
    ranking = Ranking(scores)
    for _ in range(5):
        good = outcomes_of(random.random(500), int(random.integers(100)))
        assert ranking.auc(good) == pytest.approx(auc(good, scores), abs=1e-12)
    assert np.isnan(ranking.auc(np.ones(500)))


def test_the_expected_auc_is_that_of_all_pairs():
    scores = np.array([0.2, 0.5, 0.5, 0.9])
    above = below = 0.0
    for i in range(4):
        for j in range(4):
            if i != j:
                chance = scores[i] * (1 - scores[j])  # i is repaid and j is not
                above += chance * (1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0)
                below += chance

    assert Ranking(scores).auc(scores) == pytest.approx(above / below)


def test_calibrated_scores_foretell_what_outcomes_will_show():
    scores = scores_of(8_000)
    estimates = expected_performance(scores, cut_off=0.5)
    later = measures(Ranking(scores), scores, outcomes_of(scores), 0.5)

    for name in MEASURES:
        assert estimates[name].value == pytest.approx(later[name], abs=0.015)


def test_nineteen_of_twenty_outcomes_lie_within_the_interval():
    inside = dict.fromkeys(MEASURES, 0)
    for seed in range(40):
        scores = scores_of(300, seed)
        estimates = expected_performance(scores, cut_off=0.5)
        later = measures(Ranking(scores), scores, outcomes_of(scores, seed + 500), 0.5)
        for name in MEASURES:
            low, high = estimates[name].interval or (1.0, 0.0)
            inside[name] += low <= later[name] <= high

    assert min(inside.values()) >= 34  # fewer in one of three hundred


def test_a_calibrator_fitted_to_few_loans_widens_the_interval():
    scores = scores_of(5_000)
    few = reference_of(scores[:200], outcomes_of(scores[:200])).calibration
    sure, unsure = (expected_performance(scores, cut_off=0.5, calibration=given)["bad_rate"] for given in (None, few))

    assert sure.interval is not None
    assert unsure.interval is not None
    assert unsure.interval[1] - unsure.interval[0] > 2 * (sure.interval[1] - sure.interval[0])


def simulated(rows: int, seed: int, drift: float = 0.0) -> tuple[SimulationOptions, pd.DataFrame]:
    options = SimulationOptions(rows=rows, seed=seed, drift=drift)
    tables = {source.name: next(iter(source.read(options))) for source in PORTFOLIO.sources}
    return options, feature_table(PORTFOLIO, assemble(PORTFOLIO, tables))


@pytest.fixture(scope="module")
def model() -> ScoringModel:
    """A model of simulated loans."""
    training, _ = split(simulated(5_000, 1)[1], seed=7)
    return fit_scoring_model(
        PORTFOLIO.features,
        matrix_of(PORTFOLIO, training),
        labels_of(training),
        training["customer_id"].to_numpy(),
        BoostingSettings(rounds=50, learning_rate=0.1, threads=1),
        approve_at=0.8,
        provenance={},
    ).scoring_model


@pytest.mark.parametrize("drift", [0.0, 0.7])
def test_on_the_simulator_the_estimate_is_near_the_truth_also_where_applicants_have_drifted(
    model: ScoringModel, drift: float
):
    options, today = simulated(2_000, 2, drift)
    truth = true_probability(options).set_index("application_id")["probability"]
    scores = model.scores(matrix_of(PORTFOLIO, today))
    true = measures(Ranking(scores), scores, truth.loc[today["application_id"]].to_numpy(), 0.5)

    estimates = expected_performance(scores, cut_off=0.5)

    for name, within in {"accuracy": 0.025, "auc": 0.035, "brier": 0.02, "bad_rate": 0.035}.items():
        assert estimates[name].value == pytest.approx(true[name], abs=within), name


def test_outcomes_of_approved_loans_alone_do_not_make_the_auc_of_all_applicants_look_low():
    scores = scores_of(8_000)
    repaid = outcomes_of(scores)
    approved = np.where(scores >= 0.8, repaid, np.nan)
    of_all = auc(repaid, scores)

    known = ~np.isnan(approved)
    told = partly_known_performance(scores, approved, cut_off=0.5)["auc"]

    assert auc(repaid[known], scores[known]) < of_all - 0.05
    assert told.value == pytest.approx(of_all, abs=0.02)


def test_a_collapse_to_approve_all_is_not_seen_by_accuracy_but_by_auc_and_the_share_approved():
    repaid = outcomes_of(np.full(2_000, 0.83))  # four in five repay, whatever the score says
    scores = np.random.default_rng(5).uniform(0.81, 0.99, 2_000)  # everybody is good enough
    before = scores_of(4_000)

    report = live_performance(scores, repaid, reference_of(before, outcomes_of(before)), OWNERS)
    raised = {one["what"] for one in report["alarms"]}

    assert report["loans"]["accuracy"]["value"] > 0.75
    assert "live_accuracy_low" not in raised
    assert {"live_auc_low", "live_auc_drop", "live_auc_not_as_promised"} <= raised
    approvals = approval_alarms(2_000, 2_000, reference_of(before, outcomes_of(before)), OWNERS)
    assert {"approval_rate_high", "approval_rate_change"} == {one.what for one in approvals}


def test_loans_that_go_as_promised_raise_no_alarm_though_only_good_ones_were_granted():
    scores = scores_of(6_000)
    repaid = np.where(scores >= 0.8, outcomes_of(scores), np.nan)
    before = scores_of(4_000, 8)
    reference = reference_of(before, outcomes_of(before, 9))

    report = live_performance(scores, repaid, reference, Alarms(min_accuracy=0.75, min_auc=0.72))

    assert report["judged"]
    assert [] == report["alarms"]
    assert report["loans"]["auc"]["value"] < 0.72  # of the loans alone
    assert report["outcomes"] < report["mature"] == 6_000


def test_borrowers_who_repay_less_than_their_scores_promised_raise_an_alarm():
    scores = scores_of(3_000)
    repaid = outcomes_of(np.clip(scores - 0.15, 0, 1))
    reference = reference_of(scores_of(4_000, 8), outcomes_of(scores_of(4_000, 8), 9))

    report = live_performance(scores, repaid, reference, Alarms())
    raised = {one["what"]: one for one in report["alarms"]}

    assert "live_bad_rate_not_as_promised" in raised
    assert "their scores promised" in raised["live_bad_rate_not_as_promised"]["said"]


@pytest.mark.parametrize(
    ("bad", "rate", "raised"),
    [
        (32, 0.01, set()),  # beyond 95 % of what scores of 0.9 promise of 200 loans
        (40, 0.01, {"live_bad_rate_not_as_promised", "live_brier_not_as_promised"}),
        (32, 0.2, {"live_bad_rate_not_as_promised", "live_brier_not_as_promised"}),
    ],
)
def test_a_promise_is_broken_where_the_stated_rate_of_false_alarms_leaves_no_room_for_chance(
    bad: int, rate: float, raised: set[str]
):
    report = live_performance(
        np.full(200, 0.9), (np.arange(200) >= bad).astype(float), None, Alarms(false_alarm_rate=rate)
    )

    assert {one["what"] for one in report["alarms"]} == raised


@pytest.mark.parametrize("level", [0.04, 0.002, 0.0002])
def test_the_limits_of_a_promised_bad_rate_are_those_of_a_binomial(level: float):
    from scipy.stats import binom

    low, high = promise_limits(np.full(400, 0.9), cut_off=0.5, calibration=None, level=level)["bad_rate"]

    assert low == pytest.approx(binom.ppf(level, 400, 0.1) / 400, abs=0.006)
    assert high == pytest.approx(binom.isf(level, 400, 0.1) / 400, abs=0.006)


@pytest.mark.slow
def test_calibrated_scores_alarm_no_more_often_than_stated():
    random, alarms, raised = np.random.default_rng(4), Alarms(false_alarm_rate=0.05), 0
    for seed in range(100):
        before = random.beta(4, 1.2, 2_000)
        reference = reference_of(before, outcomes_of(before, 1_000 + seed))
        scores = random.beta(4, 1.2, 200)
        repaid = np.where(scores >= 0.7, outcomes_of(scores, seed), np.nan)
        raised += bool(live_performance(scores, repaid, reference, alarms)["alarms"])

    assert raised <= 0.05 * 100


def test_few_outcomes_are_not_judged():
    scores = scores_of(400)

    few = live_performance(scores, np.where(np.arange(400) < 99, outcomes_of(scores), np.nan), None, OWNERS)

    assert (False, []) == (few["judged"], few["alarms"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("others", [0, 500])
def test_loans_that_all_defaulted_are_judged_by_all_but_their_auc(others: int):
    scores = np.random.default_rng(0).uniform(0.8, 0.99, 600)
    repaid = np.zeros(600)
    reference = reference_of(scores_of(4_000, 8), outcomes_of(scores_of(4_000, 8), 9))
    undecided = np.random.default_rng(1).uniform(0.1, 0.79, others)
    mature = np.concatenate([scores, undecided]), np.concatenate([repaid, np.full(others, np.nan)])

    report = live_performance(*mature, reference, OWNERS)

    assert report["judged"]
    assert {"live_accuracy_low", "live_brier_not_as_promised", "live_bad_rate_not_as_promised"} <= {
        one["what"] for one in report["alarms"]
    }
    assert report["loans"]["auc"] == {"value": None, "interval": None}
    assert report["performance"]["auc"] is report["performance"]["ks_interval"] is None
    assert json_bytes(report)


@pytest.mark.filterwarnings("error")
def test_loans_that_were_all_repaid_as_promised_raise_no_alarm():
    scores = np.random.default_rng(0).uniform(0.99, 0.9999, 400)

    report = live_performance(scores, np.ones(400), None, Alarms(min_accuracy=0.75))

    assert (True, []) == (report["judged"], report["alarms"])


def test_a_drop_that_chance_explains_raises_no_alarm():
    before = scores_of(4_000)
    reference = reference_of(before, outcomes_of(before))
    flat = np.clip(scores_of(60, 4) * 0.2 + 0.7, 0, 1)
    many = np.clip(scores_of(6_000, 4) * 0.2 + 0.7, 0, 1)

    def raised(scores: np.ndarray) -> list[str]:
        found = expected_performance(scores, cut_off=0.5)
        return [one.what for one in reference_alarms(found, reference, Alarms(max_auc_drop=0.15), "", "estimated")]

    assert raised(flat) == []
    assert raised(many) == ["estimated_auc_drop"]


def test_an_owner_who_draws_no_line_is_told_of_none():
    estimates = expected_performance(np.full(200, 0.55), cut_off=0.5)

    assert line_alarms(estimates, Alarms(), "", "estimated") == []
    assert [one.what for one in line_alarms(estimates, OWNERS, "", "estimated")] == [
        "estimated_accuracy_low",
        "estimated_auc_low",
    ]


def test_score_bands_end_where_those_of_the_reference_do():
    before, scores = scores_of(4_000), scores_of(1_000, 3)
    repaid = outcomes_of(scores)
    bands = score_bands(scores, repaid, reference_of(before, outcomes_of(before)))

    assert len(bands) == 10
    assert sum(band["rows"] for band in bands) == 1_000
    assert [band["from"] for band in bands] == sorted((band["from"] for band in bands), reverse=True)
    assert all(low <= band["bad_rate"] <= high for band in bands for low, high in [band["interval"]])
