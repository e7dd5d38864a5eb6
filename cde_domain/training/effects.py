"""What an option of training does: the same learner with and without it, on the same folds, on rows as they are."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from cde_domain.decisions.policy import Policy
from cde_domain.features.feature import Feature
from cde_domain.intervals import Interval, mean_interval
from cde_domain.model import metrics
from cde_domain.training.challenger import cross_fitted_scores, out_of_fold_margins
from cde_domain.training.forest import ForestSettings
from cde_domain.training.learner import TreeLearner
from cde_domain.training.options import AS_THEY_ARE, TrainingOptions, TreatedLearner

Array = NDArray[np.float64]


def effect_of(
    options: TrainingOptions,
    learner: TreeLearner,
    features: tuple[Feature, ...],
    matrix: Array,
    repaid: Array,
    fold: NDArray[np.int64],
    policy: Policy,
) -> dict[str, Any]:
    """
    Measures of a learner fitted on rows as they are, with each option that is on, and with all of them.

    Every row is scored where no fit saw it, and no treated row is scored. `calibrated` are the scores that are served,
    each fold's sigmoid fitted on the margins of the others; `raw` are the probabilities before that.
    """
    without = _margins(AS_THEY_ARE, learner, features, matrix, repaid, fold)
    found = {"without": without} | {
        name: _margins(tried, learner, features, matrix, repaid, fold) for name, tried in _variants(options).items()
    }
    scored = {
        name: {
            "calibrated": cross_fitted_scores(margins, repaid, fold),
            "raw": margins if learner.kind == ForestSettings.kind else expit(margins),
        }
        for name, margins in found.items()
    }
    return {
        "rows": len(repaid),
        "folds": len(np.unique(fold)),
        "variants": [
            {
                "name": name,
                **{form: _measures(scores, repaid, policy) for form, scores in forms.items()},
                "against_without": _differences(forms["calibrated"], scored["without"]["calibrated"], repaid),
            }
            for name, forms in scored.items()
        ],
    }


def _variants(options: TrainingOptions) -> dict[str, TrainingOptions]:
    off = asdict(AS_THEY_ARE)
    on = {item.name: getattr(options, item.name) for item in fields(options)}
    single = [TrainingOptions(**off | {name: value}) for name, value in on.items() if value != off[name]]
    return {tried.named: tried for tried in (*single, options)}


def _margins(
    options: TrainingOptions,
    learner: TreeLearner,
    features: tuple[Feature, ...],
    matrix: Array,
    repaid: Array,
    fold: NDArray[np.int64],
) -> Array:
    treated = learner if options.are_off else TreatedLearner(learner, options)
    return out_of_fold_margins(features, matrix, repaid, fold, treated)


def _measures(scores: Array, repaid: Array, policy: Policy) -> Mapping[str, Any]:
    gap, interval = _mean(scores - repaid)
    return {
        "auc": metrics.auc(repaid, scores),
        "brier": metrics.brier(repaid, scores),
        "calibration_error": metrics.calibration_error(repaid, scores),
        "mean_minus_observed": gap,
        "mean_minus_observed_interval": list(interval),
        "approval_rate": float((scores >= policy.approve_at).mean()),
        "rejection_rate": float((scores < policy.review_at).mean()),
    }


def _differences(scores: Array, without: Array, repaid: Array) -> Mapping[str, Any]:
    brier, interval = _mean((scores - repaid) ** 2 - (without - repaid) ** 2)
    return {
        "auc": metrics.auc(repaid, scores) - metrics.auc(repaid, without),
        "brier": brier,
        "brier_interval": list(interval),
    }


def _mean(values: Array) -> tuple[float, Interval]:
    return float(values.mean()), mean_interval(values)
