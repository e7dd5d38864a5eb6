"""Learners on the same folds, and by how much one is better than another."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from cde_domain.features.feature import Feature
from cde_domain.model import metrics
from cde_domain.training.challenger import cross_fitted_scores
from cde_domain.training.learner import Learner

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CrossValidated:
    """A learner on the folds: out-of-fold scores, calibrated on the other folds, and its measures fold by fold."""

    kind: str
    learner: Learner | None
    scores: Array
    auc: Array
    brier: Array
    log_loss: Array

    @classmethod
    def of(
        cls, kind: str, learner: Learner | None, scores: Array, repaid: Array, fold: NDArray[np.int64]
    ) -> "CrossValidated":
        """Measure out-of-fold scores in every fold."""
        parts = [fold == number for number in np.unique(fold)]

        def each(measure: Callable[[Array, Array], float]) -> Array:
            return np.array([measure(repaid[part], scores[part]) for part in parts])

        return cls(kind, learner, scores, each(metrics.auc), each(metrics.brier), each(metrics.log_loss))

    def as_json(self) -> dict[str, Any]:
        """Mean, standard deviation and values by fold of each measure."""
        return {
            name: value
            for measure in ("auc", "brier", "log_loss")
            for values in [getattr(self, measure)]
            for name, value in (
                (f"{measure}_mean", float(values.mean())),
                (f"{measure}_sd", float(values.std(ddof=1))),
                (f"{measure}_by_fold", values.tolist()),
            )
        }


def cross_validate(
    learner: Learner,
    features: tuple[Feature, ...],
    matrix: Array,
    repaid: Array,
    fold: NDArray[np.int64],
    *,
    besides: tuple[Array, Array] | None = None,
) -> CrossValidated:
    """Fit on all folds but one, and on the rows and labels of `besides`; score that one, for every fold."""
    margins = np.empty(len(repaid))
    for number in np.unique(fold):
        inside = fold == number
        rows, labels = matrix[~inside], repaid[~inside]
        if besides is not None:
            rows, labels = np.vstack([besides[0], rows]), np.concatenate([besides[1], labels])
        margins[inside] = learner.fit(features, rows, labels).margins(matrix[inside])
    return CrossValidated.of(learner.kind, learner, cross_fitted_scores(margins, repaid, fold), repaid, fold)


@dataclass(frozen=True)
class PairedDifference:
    """
    The mean difference in a measure of two candidates over the folds.

    The standard error allows for training sets that overlap (Nadeau and Bengio 2003); the interval is Student's.
    """

    mean: float
    standard_error: float
    interval: tuple[float, float]

    @classmethod
    def of(
        cls, first: CrossValidated, second: CrossValidated, measure: Literal["auc", "brier"] = "auc"
    ) -> "PairedDifference":
        """First minus second."""
        differences = getattr(first, measure) - getattr(second, measure)
        folds = len(differences)
        error = float(np.sqrt((1 / folds + 1 / (folds - 1)) * differences.var(ddof=1)))
        mean, reach = float(differences.mean()), float(student.ppf(0.975, folds - 1)) * error
        return cls(mean, error, (mean - reach, mean + reach))

    @property
    def exceeds_one_error(self) -> bool:
        """Whether the first is better by more than one standard error."""
        return self.mean > self.standard_error

    def as_json(self) -> dict[str, Any]:
        """The difference as JSON."""
        return {"mean": self.mean, "standard_error": self.standard_error, "interval": list(self.interval)}
