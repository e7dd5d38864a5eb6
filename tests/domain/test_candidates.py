"""Candidates: every kind of trees is served as its library has it, and the better one is chosen by a stated rule."""

from pathlib import Path

import numpy as np
import pytest
import shap
import skops.io
from skops.io.exceptions import UntrustedTypesFoundException

from cde_domain.application import columns_of
from cde_domain.features.feature import feature_matrix
from cde_domain.features.frame import columns_of_frame
from cde_domain.features.table import feature_table, labels_of, matrix_of, split
from cde_domain.loan_book import assemble
from cde_domain.model.compilation import CannotCompileError, compile_trees
from cde_domain.model.metrics import auc, brier
from cde_domain.model.monotone import monotone_violations
from cde_domain.portfolio import load_portfolio
from cde_domain.training.boosting import BoostingSettings
from cde_domain.training.candidates.choice import choose
from cde_domain.training.candidates.comparison import compare_candidates, settings_to_try
from cde_domain.training.candidates.cross_validation import CrossValidated, PairedDifference
from cde_domain.training.candidates.descriptions import describe, learner_of
from cde_domain.training.candidates.final import unfit_to_serve
from cde_domain.training.challenger import cross_fitted_scores, fit_scoring_model, folds_of, out_of_fold_margins
from cde_domain.training.forest import ForestSettings
from cde_domain.training.histogram import HistogramSettings
from cde_domain.training.linear import LogisticSettings
from cde_domain.training.scorecard import ScorecardSettings
from tests.domain.training_loans import FEATURES, LEARNERS, ROWS, kind_of
from tests.domain.training_loans import loans as training_loans

SCIKIT_LEARN, TREES = LEARNERS[1:], LEARNERS


@pytest.fixture(scope="module")
def loans() -> tuple[np.ndarray, np.ndarray]:
    return training_loans()


def _unusual(matrix: np.ndarray, ensemble) -> np.ndarray:
    """Rows at, just below and just above the thresholds, with unknown values and a purpose never seen."""
    rows = [matrix[:200].copy()]
    rows[0][:50, 3] = 5.0
    for tree in ensemble.trees[:15]:
        for node in np.flatnonzero((tree.left >= 0) & ~tree.categorical & np.isfinite(tree.threshold)):
            for value in (tree.threshold[node], np.nextafter(tree.threshold[node], -np.inf)):
                row = matrix[node].copy()
                row[tree.feature[node]] = value
                rows.append(row[None])
    return np.concatenate(rows)


@pytest.mark.parametrize("learner", SCIKIT_LEARN, ids=kind_of)
def test_the_served_form_gives_the_margin_of_the_library_itself(learner, loans):
    fitted = learner.fit(FEATURES, *loans)
    trees = compile_trees(fitted.ensemble())

    unusual = _unusual(loans[0], fitted.ensemble())

    assert len(unusual) > 300
    assert trees.margins(unusual) == pytest.approx(fitted.margins(unusual), abs=1e-9)


@pytest.mark.parametrize("learner", TREES, ids=kind_of)
def test_the_served_form_gives_the_shap_values_of_the_library_or_of_shap(learner, loans):
    fitted = learner.fit(FEATURES, *loans)
    unusual = _unusual(loans[0], fitted.ensemble())

    trees = compile_trees(fitted.ensemble())
    margins, contributions = trees.explain(unusual)

    assert contributions == pytest.approx(fitted.contributions(unusual), abs=1e-5)
    assert trees.base[0] + contributions.sum(axis=1) == pytest.approx(margins, abs=1e-9)


def test_the_contributions_of_a_forest_start_from_its_mean_probability(loans):
    forest = ForestSettings(trees=20).fit(FEATURES, *loans)

    trees = compile_trees(forest.ensemble())

    expected = shap.TreeExplainer(forest.estimator, feature_perturbation="tree_path_dependent").expected_value[1]
    assert trees.base[0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("learner", TREES, ids=kind_of)
def test_no_candidate_moves_against_a_declared_direction(learner, loans):
    trees = compile_trees(learner.fit(FEATURES, *loans).ensemble())

    assert monotone_violations(trees, FEATURES, loans[0]) == {"income": 0, "debt": 0}


@pytest.mark.parametrize("learner", TREES, ids=kind_of)
def test_the_same_loans_give_the_same_trees_to_the_bit(learner, loans):
    first, second = (compile_trees(learner.fit(FEATURES, *loans).ensemble()) for _ in range(2))

    assert all(np.array_equal(getattr(first, name), getattr(second, name)) for name in vars(first))


@pytest.mark.parametrize("learner", TREES, ids=kind_of)
def test_a_model_stored_in_its_librarys_form_comes_back_as_it_was(learner, loans, tmp_path: Path):
    fitted = learner.fit(FEATURES, *loans)
    fitted.save(tmp_path / f"model{fitted.suffix}")

    read = learner_of(describe(learner)).load(FEATURES, tmp_path / f"model{fitted.suffix}")

    assert np.array_equal(read.margins(loans[0]), fitted.margins(loans[0]))


def test_a_stored_model_with_anything_else_inside_is_not_loaded(tmp_path: Path):
    path = tmp_path / "model.skops"
    path.write_bytes(skops.io.dumps({"estimator": Path("evil"), "ranks": {}}))

    with pytest.raises(UntrustedTypesFoundException):
        HistogramSettings().load(FEATURES, path)


def test_trees_too_deep_to_be_explained_quickly_cannot_be_served(loans):
    deep = ForestSettings(trees=3, max_depth=9, min_samples_leaf=1).fit(FEATURES, *loans)

    with pytest.raises(CannotCompileError, match="deeper than 5"):
        compile_trees(deep.ensemble())


@pytest.mark.parametrize("learner", TREES, ids=kind_of)
def test_every_kind_of_trees_makes_a_calibrated_scoring_model(learner, loans):
    matrix, repaid = loans
    fitted = fit_scoring_model(
        FEATURES, matrix, repaid, np.arange(ROWS), learner, approve_at=0.8, provenance={"test": True}
    )

    fresh, outcomes = training_loans(seed=1)
    scores = fitted.scoring_model.scores(fresh)

    assert abs(scores.mean() - outcomes.mean()) < 0.04
    assert auc(outcomes, scores) > 0.7


def test_a_scorecards_points_double_the_odds_every_twenty(loans):
    scorecard = ScorecardSettings().fit(FEATURES, *loans)

    points, margins = scorecard.points(loans[0]), scorecard.margins(loans[0])

    assert points == pytest.approx(600 + 20 * (margins - np.log(50)) / np.log(2), abs=1e-6)
    assert {row["feature"] for row in scorecard.card()} <= {feature.name for feature in FEATURES}


def test_a_category_without_an_applicant_in_training_gets_a_margin_from_both_benchmarks(loans):
    matrix = loans[0][:5].copy()
    matrix[:, 3] = 5.0

    for benchmark in (ScorecardSettings(), LogisticSettings()):
        assert np.isfinite(benchmark.fit(FEATURES, *loans).margins(matrix)).all()


def _candidate(kind: str, *areas: float, brier: float = 0.1) -> CrossValidated:
    nothing = np.zeros(len(areas))
    return CrossValidated(kind, None, nothing, np.array(areas), np.full(len(areas), brier), nothing)


def test_xgboost_stays_where_another_is_better_only_within_one_standard_error():
    chosen, reason = choose([_candidate("xgboost", 0.70, 0.72, 0.74), _candidate("other", 0.74, 0.69, 0.74)])

    assert chosen.kind == "xgboost"
    assert "no other candidate that can be served is better by more than one standard error" in reason


def test_another_is_chosen_where_it_is_clearly_better_and_the_reason_says_by_how_much():
    chosen, reason = choose([_candidate("xgboost", 0.70, 0.72, 0.74), _candidate("other", 0.72, 0.74, 0.77)])

    assert chosen.kind == "other"
    assert "0.0233 above xgboost" in reason


@pytest.mark.parametrize(("brier", "kept"), [(0.1001, "xgboost"), (0.1, "other"), (0.09, "other")])
def test_xgboost_stays_where_a_better_auc_comes_with_a_worse_brier_score(brier: float, kept: str):
    better = (0.72, 0.74, 0.77)

    chosen, reason = choose([_candidate("xgboost", 0.70, 0.72, 0.74), _candidate("other", *better, brier=brier)])

    assert chosen.kind == kept
    assert f"{brier - 0.1:+.5f}" in reason


def test_a_winner_that_cannot_be_served_gives_way_to_the_next_and_the_reason_names_it():
    ranked = [
        _candidate("xgboost", 0.70, 0.72, 0.74),
        _candidate("slow", 0.74, 0.76, 0.79),
        _candidate("next", 0.72, 0.74, 0.77),
    ]

    chosen, reason = choose(ranked, lambda one: "too slow" if one.kind == "slow" else "")
    assert chosen.kind == "next"
    assert "slow cannot be served: too slow" in reason
    assert choose(ranked, lambda _: "too slow")[0].kind == "xgboost"


def test_trees_that_do_not_compile_or_are_explained_too_slowly_are_unfit_to_serve(loans):
    matrix, repaid = loans
    flat, deep = (
        CrossValidated("random_forest", learner, repaid, repaid, repaid, repaid)
        for learner in (ForestSettings(trees=3), ForestSettings(trees=3, max_depth=9, min_samples_leaf=1))
    )

    assert unfit_to_serve(flat, FEATURES, matrix, repaid, 1000.0) == ""
    assert "0.0001 are allowed" in unfit_to_serve(flat, FEATURES, matrix, repaid, 0.0001)
    assert "deeper than 5" in unfit_to_serve(deep, FEATURES, matrix, repaid, 1000.0)


def test_a_paired_difference_allows_for_training_sets_that_overlap():
    difference = PairedDifference.of(_candidate("a", 0.8, 0.7, 0.9), _candidate("b", 0.7, 0.7, 0.7))

    assert difference.mean == pytest.approx(0.1)
    assert difference.standard_error == pytest.approx(0.1 * np.sqrt(1 / 3 + 1 / 2))


def test_no_more_settings_are_tried_than_the_stated_budget():
    for budget in (1, 2, 3):
        kinds = settings_to_try({"rounds": 30}, budget)
        assert [len({repr(settings) for settings in kind}) for kind in kinds] == [budget] * 3


def test_the_vote_and_the_benchmarks_are_compared_and_never_chosen(loans):
    matrix, repaid = loans
    comparison = compare_candidates(
        FEATURES, matrix, repaid, np.arange(ROWS) // 2, boosting={"rounds": 30}, budget=1, max_decision_ms=1000.0
    )

    entries = [comparison.entry(candidate) for candidate in comparison.candidates]

    assert [entry["name"] for entry in entries if not entry["promotable"]] == [
        "soft_voting",
        "scorecard",
        "logistic_regression",
    ]
    assert [entry["promotable"] for entry in entries if entry["chosen"]] == [True]


@pytest.mark.slow
def test_xgboost_stays_on_the_lending_club_where_a_forest_orders_better_with_worse_probabilities():
    portfolio = load_portfolio("lending_club")
    book = assemble(portfolio, {source.name: source.read(portfolio.options()) for source in portfolio.sources})
    training, _ = split(feature_table(portfolio, book), seed=20)

    comparison = compare_candidates(
        portfolio.features,
        matrix_of(portfolio, training),
        labels_of(training),
        training["customer_id"].to_numpy(),
        boosting=portfolio.boosting,
        budget=portfolio.tuning_budget,
        max_decision_ms=portfolio.thresholds.max_decision_ms,
    )

    assert comparison.chosen.learner == BoostingSettings(**portfolio.boosting)
    xgboost, forest = comparison.tried[0][0], max(comparison.tried[2], key=lambda one: float(one.auc.mean()))
    assert PairedDifference.of(forest, xgboost).exceeds_one_error
    assert forest.brier.mean() > xgboost.brier.mean()


def _measured(name: str) -> tuple[float, float]:
    """Mean AUC and Brier of the portfolio's XGBoost, over 5 folds and 3 seeds, nothing fitted outside the folds."""
    portfolio = load_portfolio(name)
    book = assemble(portfolio, {source.name: source.read(portfolio.options()) for source in portfolio.sources})
    matrix = feature_matrix(portfolio.features, columns_of_frame(book, columns_of(portfolio.application)))
    repaid, customers = book["repaid"].to_numpy(dtype=float), book["customer_id"].to_numpy()
    learner = BoostingSettings(**portfolio.boosting)
    areas, errors = [], []
    for seed in range(3):
        fold = folds_of(repaid, customers, seed=seed)
        margins = out_of_fold_margins(portfolio.features, matrix, repaid, fold, learner)
        scores = cross_fitted_scores(margins, repaid, fold)
        areas += [auc(repaid[fold == number], scores[fold == number]) for number in range(5)]
        errors += [brier(repaid[fold == number], scores[fold == number]) for number in range(5)]
    compile_trees(learner.fit(portfolio.features, matrix, repaid).ensemble())
    return float(np.mean(areas)), float(np.mean(errors))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least_auc", "most_brier"), [("german_credit", 0.798, 0.159), ("lending_club", 0.685, 0.0486)]
)
def test_one_monotone_model_reaches_what_the_best_reach_on_this_book(name: str, least_auc: float, most_brier: float):
    area, error = _measured(name)
    print(f"{name}: AUC {area:.4f}, Brier {error:.5f}")

    assert area >= least_auc
    assert error <= most_brier
