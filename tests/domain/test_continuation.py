"""Incremental training continues the champion on loans that it never met, and refuses what it cannot do honestly."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cde_domain.model.compilation import compile_trees
from cde_domain.model.monotone import monotone_violations
from cde_domain.training.boosting import BoostedTrees, BoostingSettings, to_ensemble
from cde_domain.training.candidates.comparison import compare_continuation
from cde_domain.training.candidates.descriptions import describe
from cde_domain.training.challenger import fit_calibrator, fit_scoring_model, folds_of, out_of_fold_margins
from cde_domain.training.continuation import (
    MOST_TREES,
    ContinuationError,
    ContinuedLearner,
    continued,
    learned_rows,
    new_loans,
    same_features,
    unmet_by,
)
from tests.domain.training_loans import FEATURES, loans

OLD, NEW = 900, 600
SETTINGS = BoostingSettings(rounds=30, seed=3)
ORIGIN = {"model_digest": "c" * 64, "library": {"file": "f", "sha256": "s"}, "learned_from": {}}


def _table(first: int, rows: int, seed: int) -> pd.DataFrame:
    matrix, repaid = loans(seed, rows)
    numbers = range(first, first + rows)
    return pd.DataFrame(matrix, columns=[feature.name for feature in FEATURES]).assign(
        application_id=[f"loan-{number}" for number in numbers],
        customer_id=[f"customer-{number}" for number in numbers],
        repaid=repaid,
    )


def _matrix(table: pd.DataFrame) -> np.ndarray:
    return table[[feature.name for feature in FEATURES]].to_numpy()


@pytest.fixture(scope="module")
def old() -> pd.DataFrame:
    return _table(0, OLD, seed=0)


@pytest.fixture(scope="module")
def book(old: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([old, _table(OLD, NEW, seed=1)], ignore_index=True)


@pytest.fixture(scope="module")
def champion(old: pd.DataFrame) -> BoostedTrees:
    return SETTINGS.fit(FEATURES, _matrix(old), old["repaid"].to_numpy())


@pytest.fixture(scope="module")
def learner(champion: BoostedTrees) -> ContinuedLearner:
    return continued(champion, SETTINGS, 20, ORIGIN)


@pytest.fixture(scope="module")
def new(book: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    return new_loans(FEATURES, book, learned_rows(FEATURES, old))


def _labels(table: pd.DataFrame) -> np.ndarray:
    return table["repaid"].to_numpy()


def test_only_loans_that_the_champion_never_met_are_learned_from(new: pd.DataFrame):
    assert new["application_id"].tolist() == [f"loan-{number}" for number in range(OLD, OLD + NEW)]


def test_a_known_customers_next_loan_is_left_out(book: pd.DataFrame, old: pd.DataFrame):
    returned = book.assign(customer_id=book["customer_id"].mask(book["application_id"] == "loan-1000", "customer-7"))

    assert "loan-1000" not in unmet_by(learned_rows(FEATURES, old), returned)["application_id"].tolist()


def test_the_champions_trees_stay_as_they_are_and_rounds_are_added_behind_them(champion, learner, new):
    before = champion.booster.save_raw("ubj")
    fitted = learner.fit(FEATURES, _matrix(new), _labels(new))
    theirs, ours = to_ensemble(champion.booster), to_ensemble(fitted.booster)

    assert len(ours.trees) == 50
    assert ours.bias == theirs.bias
    for first, second in zip(theirs.trees, ours.trees, strict=False):
        assert all(np.array_equal(vars(first)[name], vars(second)[name]) for name in ("feature", "threshold", "value"))
    assert champion.booster.save_raw("ubj") == before


def test_a_continued_model_is_served_as_xgboost_has_it_and_keeps_every_direction(learner, new):
    fitted = learner.fit(FEATURES, _matrix(new), _labels(new))
    trees = compile_trees(fitted.ensemble())

    assert trees.margins(_matrix(new)) == pytest.approx(fitted.margins(_matrix(new)), abs=1e-5)
    assert monotone_violations(trees, FEATURES, _matrix(new)) == {"income": 0, "debt": 0}


def test_new_loans_are_scored_out_of_fold_by_rounds_that_did_not_see_them(learner, new):
    """Turning the outcomes of a fold changes no margin inside it, and some outside."""
    fold = folds_of(_labels(new), new["customer_id"].to_numpy(), seed=3)
    turned = np.where(fold == 1, 1 - _labels(new), _labels(new))

    first, second = (
        out_of_fold_margins(FEATURES, _matrix(new), labels, fold, learner) for labels in (_labels(new), turned)
    )

    assert np.array_equal(first[fold == 1], second[fold == 1])
    assert not np.array_equal(first[fold != 1], second[fold != 1])


def test_the_calibrator_of_a_continued_champion_knows_new_loans_only(learner, old, new):
    customers = new["customer_id"].to_numpy()
    fitted = fit_scoring_model(
        FEATURES,
        _matrix(new),
        _labels(new),
        customers,
        learner,
        approve_at=0.8,
        provenance={},
        known=_matrix(old),
    )
    fold = folds_of(_labels(new), customers, seed=3)
    margins = out_of_fold_margins(FEATURES, _matrix(new), _labels(new), fold, learner)

    assert fitted.scoring_model.calibrator == fit_calibrator(margins, _labels(new))
    assert fitted.calibrated_on == NEW


def test_what_the_champion_met_is_still_in_range(learner, old, new):
    wider = _matrix(old).copy()
    wider[0, 0] = 500.0
    fitted = fit_scoring_model(
        FEATURES,
        _matrix(new),
        _labels(new),
        new["customer_id"].to_numpy(),
        learner,
        approve_at=0.8,
        provenance={},
        known=wider,
    )

    bounds = fitted.scoring_model.ranges[0]
    assert bounds is not None
    assert bounds[1] == 500.0


def test_the_continued_champion_is_compared_with_benchmarks_that_also_know_its_loans(learner, old, new):
    comparison = compare_continuation(
        learner,
        FEATURES,
        (_matrix(new), _labels(new)),
        new["customer_id"].to_numpy(),
        (_matrix(old), _labels(old)),
    )
    entries = [comparison.entry(candidate) for candidate in comparison.candidates]

    assert [entry["name"] for entry in entries] == ["xgboost", "scorecard", "logistic_regression"]
    assert [entry["name"] for entry in entries if entry["chosen"]] == ["xgboost"]
    assert "continued with 20 rounds on 600 new loans" in comparison.reason
    assert describe(learner)["settings"]["rounds"] == 50


def test_more_trees_than_can_be_explained_in_time_are_refused(champion):
    with pytest.raises(ContinuationError, match=f"has 30 trees and at most {MOST_TREES} are served"):
        continued(champion, SETTINGS, MOST_TREES - 29, ORIGIN)


def test_without_new_loans_there_is_nothing_to_continue_on(old):
    with pytest.raises(ContinuationError, match="0 loans are new to the champion"):
        new_loans(FEATURES, old, learned_rows(FEATURES, old))


def test_new_loans_of_one_outcome_cannot_calibrate(book, old):
    repaid = book.assign(repaid=np.where(book.index < OLD, book["repaid"], 1.0))

    with pytest.raises(ContinuationError, match="600 loans are new to the champion, 0 of the rarer outcome"):
        new_loans(FEATURES, repaid, learned_rows(FEATURES, old))


@pytest.mark.parametrize("column", ["debt", "customer_id"])
def test_a_book_whose_known_loans_are_others_now_is_refused(column, book, old):
    """Numbers given to rows mean nothing in a book that was sorted anew: its known loans would count as new."""
    shuffled = book.copy()
    shuffled.loc[[3, 4], column] = shuffled.loc[[4, 3], column].to_numpy()

    with pytest.raises(ContinuationError, match="2 of the loans that the champion learned from have other features"):
        new_loans(FEATURES, shuffled, learned_rows(FEATURES, old))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (FEATURES[:3], "purpose"),
        ((*FEATURES[:1], replace(FEATURES[1], monotone=0), *FEATURES[2:]), "debt"),
        ((*FEATURES[:3], replace(FEATURES[3], categories=("a", "b"))), "purpose"),
        ((FEATURES[1], FEATURES[0], *FEATURES[2:]), "debt, income"),
    ],
    ids=["one less", "another direction", "other categories", "another order"],
)
def test_a_champion_with_other_features_is_refused_and_they_are_named(other, named):
    with pytest.raises(ContinuationError, match=rf"other features \({named}\)"):
        same_features(other, FEATURES)
