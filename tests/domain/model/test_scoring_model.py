"""The scoring model: files are data, scores are calibrated, and it knows what training knew."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cde_domain.model.baseline import reason_baseline
from cde_domain.model.compiled import CompiledTrees
from cde_domain.model.scoring_model import ScoringModel, SigmoidCalibrator, model_digest
from cde_domain.training.boosting import BoostingSettings
from cde_domain.training.challenger import cross_fitted_scores, fit_scoring_model, folds_of
from tests.domain.model.trades import FEATURES, applicants, outcomes


@pytest.fixture(scope="module")
def model() -> ScoringModel:
    rows = applicants(800, seed=5)
    rows[np.isnan(rows[:, 0]), 0] = 1000.0  # income is always known
    fitted = fit_scoring_model(
        FEATURES,
        rows,
        outcomes(rows, seed=5),
        np.arange(len(rows)),
        BoostingSettings(rounds=10),
        approve_at=0.8,
        provenance={"made": "for a test"},
    )
    return fitted.scoring_model


def test_a_loaded_model_saves_to_the_same_digest(model: ScoringModel, tmp_path: Path):
    digest = model.save(tmp_path / "first")

    assert ScoringModel.load(tmp_path / "first").save(tmp_path / "second") == digest


def test_a_loaded_model_scores_to_the_bit(model: ScoringModel, matrix: np.ndarray, tmp_path: Path):
    model.save(tmp_path)

    assert ScoringModel.load(tmp_path).scores(matrix).tobytes() == model.scores(matrix).tobytes()


@pytest.mark.parametrize("name", [item.name for item in fields(CompiledTrees)])
def test_any_edited_array_changes_the_digest(name: str, model: ScoringModel, tmp_path: Path):
    digest = model.save(tmp_path)
    file = tmp_path / "trees" / f"{name}.npy"
    array = np.load(file)
    array[-1] = array[-1] == 0
    np.save(file, array)

    assert model_digest(tmp_path) != digest


def test_a_pickle_in_place_of_an_array_is_refused(model: ScoringModel, tmp_path: Path):
    model.save(tmp_path)
    np.save(tmp_path / "trees" / "table.npy", np.array([{"a": "dictionary"}]), allow_pickle=True)

    with pytest.raises(ValueError, match="pickle"):
        ScoringModel.load(tmp_path)


@pytest.mark.parametrize("slope", [0.0, -0.5, float("nan")])
def test_a_calibrator_must_increase(slope: float):
    with pytest.raises(ValueError, match="must increase"):
        SigmoidCalibrator(slope, 0.0)


MARGIN = st.floats(-50, 50)
CALIBRATORS = st.builds(SigmoidCalibrator, st.floats(0.01, 5), st.floats(-3, 3))


@given(calibrator=CALIBRATORS, margins=st.lists(MARGIN, min_size=2, max_size=30))
def test_a_higher_margin_never_gives_a_lower_score(calibrator: SigmoidCalibrator, margins: list[float]):
    assert (np.diff(calibrator.scores(np.sort(margins))) >= 0).all()


@given(calibrator=CALIBRATORS, margin=MARGIN)
def test_a_score_is_a_probability_of_six_decimals(calibrator: SigmoidCalibrator, margin: float):
    score = calibrator.scores(np.array([margin]))[0]

    assert 0 <= score <= 1
    assert float(f"{score:.6f}") == score


@given(calibrator=CALIBRATORS, margins=st.lists(MARGIN, min_size=1, max_size=40))
def test_a_margin_has_the_same_score_alone_and_among_many(calibrator: SigmoidCalibrator, margins: list[float]):
    alone = [calibrator.scores(np.array([margin]))[0] for margin in margins]

    assert calibrator.scores(np.array(margins)).tolist() == alone


def test_the_sigmoid_is_platts():
    scores = SigmoidCalibrator(2.0, -1.0).scores(np.array([0.5, 1.0, -1.0]))

    np.testing.assert_allclose(scores, [0.5, 0.731059, 0.047426], rtol=0, atol=1e-12)


def test_ranges_hold_what_training_knew(model: ScoringModel):
    rows = applicants(800, seed=5)
    rows[np.isnan(rows[:, 0]), 0] = 1000.0

    assert model.ranges == tuple((np.nanmin(column), np.nanmax(column)) for column in rows.T)
    assert model.unknown_seen == (False, True, True, True, True)


def test_the_ends_of_a_range_are_inside_and_beyond_is_named(model: ScoringModel):
    ends = np.array(model.ranges)

    assert model.outside_range(ends[:, 0]) == model.outside_range(ends[:, 1]) == []
    beyond = ends[:, 1].copy()
    beyond[1] = np.nextafter(beyond[1], np.inf)
    assert model.outside_range(beyond) == ["debt"]


def test_an_absence_that_training_never_met_is_outside(model: ScoringModel):
    nothing_known = np.full(len(FEATURES), np.nan)

    assert model.outside_range(nothing_known) == ["income"]


def test_a_feature_that_training_never_knew_has_no_range():
    unknown = np.full((200, 1), np.nan)
    rows = np.hstack([applicants(200, seed=1)[:, :1], unknown])
    rows[np.isnan(rows[:, 0]), 0] = 1.0
    repaid = (np.arange(200) % 3 > 0).astype(float)
    two = (FEATURES[0], FEATURES[2])

    model = fit_scoring_model(
        two, rows, repaid, np.arange(200), BoostingSettings(rounds=2), approve_at=0.8, provenance={}
    ).scoring_model

    assert model.ranges[1] is None
    assert model.outside_range(np.array([rows[0, 0], 0.0])) == ["age_of_file"]
    assert model.outside_range(np.array([rows[0, 0], np.nan])) == []


def test_the_baseline_is_of_applicants_scored_up_to_five_hundredths_above_the_cut_off():
    scores = np.concatenate([np.full(100, 0.79), np.full(300, 0.80), np.full(300, 0.849), np.full(300, 0.851)])
    contributions = np.concatenate([np.full((100, 1), 9.0), np.full((600, 1), 1.0), np.full((300, 1), 5.0)])

    assert reason_baseline(scores, contributions, 0.80).tolist() == [1.0]


def test_where_few_just_passed_the_nearest_two_hundred_above_are_the_baseline():
    scores = np.concatenate([np.full(50, 0.5), np.full(20, 0.81), np.linspace(0.9, 0.95, 400)])
    contributions = np.concatenate([np.full(50, 9.0), np.zeros(20), np.ones(180), np.full(220, 9.0)])[:, None]

    assert reason_baseline(scores, contributions, 0.80).tolist() == [0.9]


def test_where_nobody_passes_the_best_scored_are_the_baseline():
    scores = np.linspace(0.1, 0.5, 1000)
    contributions = np.where(np.arange(1000) >= 800, 1.0, 9.0)[:, None]

    assert reason_baseline(scores, contributions, 0.80).tolist() == [1.0]


def test_all_applications_of_a_customer_fall_into_one_fold():
    customers = np.random.default_rng(0).integers(0, 150, 600)

    fold = folds_of((np.arange(600) % 4 > 0).astype(float), customers, seed=1)

    assert sorted(set(fold.tolist())) == [0, 1, 2, 3, 4]
    assert all(len(set(fold[customers == customer])) == 1 for customer in set(customers.tolist()))


def test_a_model_without_skill_scores_everyone_near_the_repayment_rate():
    random = np.random.default_rng(0)
    repaid = (random.random(500) < 0.7).astype(float)
    margins = -repaid + random.normal(0, 0.1, 500)  # worse than chance, so no sigmoid increases with it

    scores = cross_fitted_scores(margins, repaid, np.arange(500) % 5)

    np.testing.assert_allclose(scores, repaid.mean(), rtol=0, atol=0.03)
    assert np.ptp(scores[::5]) < 2e-6  # within a fold nobody is told apart
