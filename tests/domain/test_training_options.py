"""Options of training reach the rows of a fit and no other row, and their effect is measured on rows as they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cde_domain.clock import utc_now
from cde_domain.decisions.policy import Policy
from cde_domain.features.feature import Feature
from cde_domain.governance.rulebook import Rulebook
from cde_domain.governance.training_facts import resampling_facts
from cde_domain.governance.verdicts import RuleResult, Status, evaluate
from cde_domain.model.compilation import compile_trees
from cde_domain.model.monotone import monotone_violations
from cde_domain.training.boosting import BoostingSettings
from cde_domain.training.challenger import fit_scoring_model, folds_of, out_of_fold_margins
from cde_domain.training.effects import effect_of
from cde_domain.training.options import (
    TrainingOptionError,
    TrainingOptions,
    TreatedLearner,
    WinsorisedTrees,
    balanced_weights,
    bounds_of,
    clipped,
    with_smote,
)
from tests.domain.training_loans import FEATURES, LEARNERS, ROWS, kind_of, loans

SMOTE = TrainingOptions(resampling="smote")
WEIGHTS = TrainingOptions(class_weights=True)
WINSORISED = TrainingOptions(outliers="winsorise")


@pytest.fixture(scope="module")
def book() -> tuple[np.ndarray, np.ndarray]:
    return loans()


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text('version: "1"\napprove_at: 0.8\nreview_at: 0.4\n', encoding="utf-8")
    return Policy.read(path)


def test_an_option_that_nobody_knows_is_refused():
    with pytest.raises(TrainingOptionError, match="undersample"):
        TrainingOptions(resampling="undersample")


def test_smote_leaves_the_loans_as_they_are_and_adds_the_rarer_outcome_until_both_are_equal(book):
    matrix, repaid = book
    rows, outcome = with_smote(FEATURES, matrix, repaid, seed=1)

    assert np.array_equal(rows[:ROWS], matrix, equal_nan=True)
    assert np.array_equal(outcome[:ROWS], repaid)
    assert outcome.mean() == 0.5
    assert (outcome[ROWS:] == 0).all()


def test_a_synthetic_loan_could_be_one_categories_are_known_ones_and_counts_whole(book):
    matrix, repaid = book
    made = with_smote(FEATURES, matrix, repaid, seed=1)[0][ROWS:]

    assert set(made[~np.isnan(made[:, 3]), 3]) <= set(range(5))
    assert np.array_equal(np.round(made[:, 2]), made[:, 2], equal_nan=True)
    assert np.nanmin(made[:, 0]) >= np.nanmin(matrix[:, 0])
    assert np.nanmax(made[:, 0]) <= np.nanmax(matrix[:, 0])


def test_whether_a_value_is_unknown_is_synthesised_as_a_category(book):
    matrix, repaid = book
    often = matrix.copy()
    often[repaid == 0, 0] = np.nan  # all bad loans state no income

    made = with_smote(FEATURES, often, repaid, seed=1)[0][ROWS:]

    assert np.isnan(made[:, 0]).all()
    assert 0 < np.isnan(with_smote(FEATURES, matrix, repaid, seed=1)[0][ROWS:]).mean() < 0.1


def test_a_unit_does_not_decide_which_loans_are_neighbours(book):
    matrix, repaid = book
    in_cents = matrix * np.array([100.0, 1.0, 1.0, 1.0])

    first, second = (with_smote(FEATURES, rows, repaid, seed=1)[0] for rows in (matrix, in_cents))

    assert second[:, 0] == pytest.approx(first[:, 0] * 100, nan_ok=True)
    assert np.array_equal(second[:, 3], first[:, 3], equal_nan=True)


def test_smote_needs_more_bad_loans_than_a_synthetic_one_has_neighbours(book):
    matrix, _ = book
    few = np.ones(ROWS)
    few[:5] = 0

    with pytest.raises(TrainingOptionError, match="more than 5 loans of each outcome in a fit; there are 5"):
        with_smote(FEATURES, matrix, few, seed=1)


def test_smote_works_on_words_alone_and_on_numbers_alone(book):
    matrix, repaid = book
    words = FEATURES[3:]
    numbers = FEATURES[:2]

    assert with_smote(words, matrix[:, 3:], repaid, seed=1)[1].mean() == 0.5
    assert with_smote(numbers, np.nan_to_num(matrix[:, :2]), repaid, seed=1)[1].mean() == 0.5


def test_both_outcomes_weigh_the_same_and_the_whole_as_before(book):
    weights = balanced_weights(book[1])

    assert weights[book[1] == 1].sum() == pytest.approx(weights[book[1] == 0].sum())
    assert weights.mean() == pytest.approx(1.0)


def test_bounds_are_learned_from_the_rows_of_the_fit(book):
    matrix, repaid = book
    spoiled = matrix.copy()
    spoiled[:300, 0] = 1e9

    fitted = TreatedLearner(LEARNERS[0], WINSORISED).fit(FEATURES, matrix[300:], repaid[300:])

    assert isinstance(fitted, WinsorisedTrees)
    assert np.array_equal(fitted.bounds, bounds_of(FEATURES, spoiled[300:]))
    assert fitted.bounds[0] == pytest.approx(np.nanquantile(matrix[300:, 0], [0.01, 0.99]))
    assert fitted.bounds_as_json()[3] is None


@pytest.mark.parametrize("learner", LEARNERS, ids=kind_of)
def test_the_served_form_needs_no_winsorising_before_it(learner, book):
    matrix, repaid = book
    fitted = TreatedLearner(learner, WINSORISED).fit(FEATURES, matrix, repaid)
    trees = compile_trees(fitted.ensemble())
    far = np.concatenate([matrix, matrix * [1e3, 1e3, 1e3, 1], matrix * [-1e3, -1e3, -1e3, 1]])

    assert np.array_equal(trees.margins(far), trees.margins(clipped(far, fitted.bounds)))
    assert trees.margins(far) == pytest.approx(fitted.margins(far), abs=1e-5)
    assert trees.explain(far)[1] == pytest.approx(fitted.contributions(far), abs=1e-5)


def test_winsorised_trees_come_back_from_file_and_provenance(book, tmp_path: Path):
    matrix, repaid = book
    learner = TreatedLearner(LEARNERS[0], WINSORISED)
    fitted = fit_scoring_model(FEATURES, matrix, repaid, np.arange(ROWS), learner, approve_at=0.8, provenance={})
    fitted.library_model.save(tmp_path / "model.ubj")

    plain = learner.load(FEATURES, tmp_path / "model.ubj")
    read = WinsorisedTrees.of(plain, fitted.scoring_model.provenance["winsorised_at"])

    assert np.array_equal(read.margins(matrix * 50), fitted.library_model.margins(matrix * 50))


@pytest.mark.parametrize("options", [SMOTE, WEIGHTS, WINSORISED], ids=lambda options: options.named)
@pytest.mark.parametrize("learner", LEARNERS, ids=kind_of)
def test_no_option_lets_a_model_move_against_a_declared_direction(learner, options, book):
    trees = compile_trees(TreatedLearner(learner, options).fit(FEATURES, *book).ensemble())

    assert monotone_violations(trees, FEATURES, book[0]) == {"income": 0, "debt": 0}


def test_a_fold_held_out_is_scored_as_it_is_whatever_the_other_folds_are_made_into(book):
    """The labels and neighbours of a fold cannot reach its own margins: changing them changes nothing there."""
    matrix, repaid = book
    fold = folds_of(repaid, np.arange(ROWS), seed=3)
    everything = TreatedLearner(LEARNERS[0], TrainingOptions("winsorise", "smote", True))
    turned = np.where(fold == 2, 1 - repaid, repaid)

    first, second = (out_of_fold_margins(FEATURES, matrix, labels, fold, everything) for labels in (repaid, turned))

    assert np.array_equal(first[fold == 2], second[fold == 2])
    assert not np.array_equal(first[fold != 2], second[fold != 2])


def test_the_calibrator_of_a_resampled_model_is_fitted_on_the_loans_as_they_are(book):
    fitted = fit_scoring_model(
        FEATURES, *book, np.arange(ROWS), TreatedLearner(LEARNERS[0], SMOTE), approve_at=0.8, provenance={}
    )
    fresh, outcomes = loans(seed=1)

    assert fitted.calibrated_on == ROWS
    assert abs(fitted.scoring_model.scores(fresh).mean() - outcomes.mean()) < 0.04


def _training(effect, options) -> dict:
    chosen = {"outliers": options.outliers, "resampling": options.resampling, "class_weights": options.class_weights}
    return {"options": chosen, "effect": effect}


def _perf_03(training: dict) -> RuleResult:
    rulebook = Rulebook.read()
    only = rulebook.model_copy(update={"rules": tuple(rule for rule in rulebook.rules if rule.id == "PERF-03")})
    (result,) = evaluate(only, resampling_facts(training), "IN", thresholds={}, today=utc_now().date())
    return result


def _status(result: RuleResult) -> dict[str, Status]:
    return {check.metric: check.status for check in result.checks}


@pytest.fixture(scope="module", params=[SMOTE, WEIGHTS], ids=lambda options: options.named)
def measured(request, book, policy):
    matrix, repaid = book
    fold = folds_of(repaid, np.arange(ROWS), seed=3)
    effect = effect_of(request.param, LEARNERS[0], FEATURES, matrix, repaid, fold, policy)
    return request.param, effect


def test_resampling_empties_the_approvals_of_a_fixed_cut_off_until_it_is_calibrated(measured):
    _, effect = measured
    without, resampled = effect["variants"][0], effect["variants"][-1]

    assert resampled["raw"]["mean_minus_observed"] < -0.05
    assert resampled["raw"]["approval_rate"] < without["raw"]["approval_rate"] - 0.1
    assert abs(resampled["calibrated"]["mean_minus_observed"]) < 0.01


def test_the_rule_warns_of_the_cut_offs_that_resampling_moved_and_measures_what_calibration_repaired(measured):
    options, effect = measured
    result = _perf_03(_training(effect, options))

    assert _status(result)["mean_score_shift_before_calibration"] is Status.WARN
    assert _status(result)["mean_score_shift_after_calibration"] is Status.PASS
    assert not result.blocks


def test_a_resampled_model_whose_scores_stay_off_is_stopped(measured):
    options, effect = measured
    *others, last = effect["variants"]
    uncalibrated = effect | {"variants": [*others, last | {"calibrated": last["raw"]}]}

    result = _perf_03(_training(uncalibrated, options))

    assert _status(result)["mean_score_shift_after_calibration"] is Status.FAIL
    assert result.blocks


def test_resampling_whose_effect_nobody_measured_is_no_pass():
    with pytest.raises(TypeError):
        resampling_facts(_training(None, SMOTE))


def test_without_resampling_the_rule_has_nothing_to_prove():
    assert _perf_03(_training(None, WINSORISED)).status is Status.NOT_APPLICABLE


def test_each_option_is_measured_alone_and_with_the_others(book, policy):
    matrix, repaid = book
    fold = folds_of(repaid, np.arange(ROWS), seed=3)
    quick = replace(LEARNERS[0], rounds=5)

    effect = effect_of(TrainingOptions("winsorise", "smote"), quick, FEATURES, matrix, repaid, fold, policy)

    names = [variant["name"] for variant in effect["variants"]]
    assert names == ["without", "winsorised outliers", "SMOTE", "winsorised outliers, SMOTE"]
    assert effect["variants"][0]["against_without"] == {"auc": 0.0, "brier": 0.0, "brier_interval": [0.0, 0.0]}


def test_a_feature_that_is_never_known_does_not_stop_smote(book):
    matrix, repaid = book
    features = (*FEATURES, Feature("empty", lambda c: c["empty"], "Empty", "Empty"))
    rows = np.column_stack([matrix, np.full(ROWS, np.nan)])

    fitted = TreatedLearner(BoostingSettings(rounds=5), SMOTE).fit(features, rows, repaid)

    assert np.isfinite(fitted.margins(rows)).all()
