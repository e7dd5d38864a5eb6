"""From a training set to a scoring model: cross-fitted calibration, one final fit, compiled."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from cde_domain.features.feature import Feature
from cde_domain.model.background import Background
from cde_domain.model.baseline import reason_baseline
from cde_domain.model.compilation import compile_trees
from cde_domain.model.metrics import PsiReference
from cde_domain.model.scoring_model import ScoringModel, SigmoidCalibrator
from cde_domain.training.learner import FittedTrees, TreeLearner
from cde_domain.training.options import WinsorisedTrees

Array = NDArray[np.float64]

FOLDS = 5


def folds_of(repaid: Array, customers: NDArray[Any], *, seed: int, folds: int = FOLDS) -> NDArray[np.int64]:
    """The fold of every row, stratified by label, all applications of a customer in one fold."""
    fold = np.empty(len(repaid), dtype=np.int64)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    for number, (_, rows) in enumerate(splitter.split(np.zeros((len(repaid), 1)), repaid, customers)):
        fold[rows] = number
    return fold


def out_of_fold_margins(
    features: tuple[Feature, ...], matrix: Array, repaid: Array, fold: NDArray[np.int64], settings: TreeLearner
) -> Array:
    """For every row the margin by a model that did not see the row's fold."""
    margins = np.empty(len(repaid))
    for number in np.unique(fold):
        inside = fold == number
        margins[inside] = settings.fit(features, matrix[~inside], repaid[~inside]).margins(matrix[inside])
    return margins


def fit_calibrator(margins: Array, repaid: Array) -> SigmoidCalibrator:
    """
    Fit Platt's sigmoid to out-of-fold margins.

    Raises:
        ValueError: higher margins do not mean more repayment, so the model ranks no better than chance.
    """
    regression = LogisticRegression(C=np.inf).fit(margins[:, None], repaid)
    return SigmoidCalibrator(float(regression.coef_[0, 0]), float(regression.intercept_[0]))


def cross_fitted_scores(margins: Array, repaid: Array, fold: NDArray[np.int64]) -> Array:
    """Calibrated out-of-fold scores: each fold's sigmoid is fitted on the margins of the others."""
    scores = np.empty(len(margins))
    for number in np.unique(fold):
        inside = fold == number
        scores[inside] = _calibrator_or_prior(margins[~inside], repaid[~inside]).scores(margins[inside])
    return scores


def _calibrator_or_prior(margins: Array, repaid: Array) -> SigmoidCalibrator:
    # A model without any skill has no increasing calibrator; its numbers must still be shown, and stopped by the check.
    try:
        return fit_calibrator(margins, repaid)
    except ValueError:
        rate = repaid.mean()
        return SigmoidCalibrator(1e-6, float(np.log(rate / (1 - rate))))


@dataclass(frozen=True)
class FittedModel:
    """A scoring model, the library model it was compiled from, and how many rows its calibrator was fitted on."""

    scoring_model: ScoringModel
    library_model: FittedTrees
    calibrated_on: int


def fit_scoring_model(
    features: tuple[Feature, ...],
    matrix: Array,
    repaid: Array,
    customers: NDArray[Any],
    settings: TreeLearner,
    *,
    approve_at: float,
    provenance: dict[str, Any],
    known: Array | None = None,
) -> FittedModel:
    """
    Fit, calibrate and compile a model on a training set of shape (rows, features) with 0/1 labels.

    `known` are rows that a continued champion learned from: ranges, reasons' baseline and stability references are
    theirs too, the calibrator is not.

    Raises:
        CannotCompileError: the trees do not fit the compiled form.
    """
    fold = folds_of(repaid, customers, seed=settings.seed)
    margins = out_of_fold_margins(features, matrix, repaid, fold, settings)
    library_model = settings.fit(features, matrix, repaid)
    trees = compile_trees(library_model.ensemble())
    calibrator = _calibrator_or_prior(margins, repaid)
    learned = matrix if known is None else np.vstack([known, matrix])
    training_margins, contributions = trees.explain(learned)
    baseline = reason_baseline(calibrator.scores(training_margins), contributions, approve_at)
    if isinstance(library_model, WinsorisedTrees):
        provenance = provenance | {"winsorised_at": library_model.bounds_as_json()}
    model = ScoringModel(
        trees=trees,
        calibrator=calibrator,
        feature_names=tuple(feature.name for feature in features),
        ranges=tuple(_range(learned[:, position]) for position in range(len(features))),
        unknown_seen=tuple(bool(np.isnan(values).any()) for values in learned.T),
        reason_baseline=tuple(baseline.tolist()),
        feature_references=tuple(asdict(PsiReference.of(values)) for values in learned.T),
        provenance=provenance,
        importance=tuple(np.abs(contributions).mean(axis=0).tolist()),
        background=Background.of(learned, tuple(bool(feature.categories) for feature in features)),
    )
    return FittedModel(model, library_model, len(margins))


def _range(values: Array) -> tuple[float, float] | None:
    known = values[~np.isnan(values)]
    return (float(known.min()), float(known.max())) if len(known) else None
