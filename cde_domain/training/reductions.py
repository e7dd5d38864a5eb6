"""Fairlearn's grid search over reductions, with our monotone boosting as its learner."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from fairlearn.reductions import DemographicParity, EqualizedOdds, GridSearch, UtilityParity
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from cde_domain.features.feature import Feature
from cde_domain.training.boosting import BoostedTrees, BoostingSettings, fit

Array = NDArray[np.float64]

CONSTRAINTS: dict[str, type[UtilityParity]] = {
    "demographic parity": DemographicParity,
    "equalized odds": EqualizedOdds,
}


class _Weighted(ClassifierMixin, BaseEstimator):
    """What GridSearch asks of an estimator."""

    def __init__(self, features: tuple[Feature, ...], settings: BoostingSettings) -> None:
        self.features = features
        self.settings = settings

    def fit(self, matrix: Array, labels: Any, sample_weight: Any) -> Self:
        """Fit weighted boosted trees."""
        repaid, weights = np.asarray(labels, dtype=np.float64), np.asarray(sample_weight, dtype=np.float64)
        booster = fit(self.features, matrix, repaid, self.settings, weights=weights)
        self.trees_ = BoostedTrees(self.features, booster)
        return self

    def predict(self, matrix: Array) -> NDArray[np.int64]:
        """1 where repayment is the likelier outcome."""
        return (self.trees_.margins(matrix) > 0).astype(np.int64)


@dataclass(frozen=True)
class Reductions:
    """
    Models that weigh mistakes otherwise within one group (Agarwal et al. 2018), one for each strength between 0 and 1.

    The protected group enters through the weights of training rows alone: at strength 1 a row could lose all its
    weight, so below it no outcome is ever relabelled, and no model has the group as an input. Each model is one
    deterministic ensemble that compiles like any other.
    """

    constraint: str
    strengths: tuple[float, ...]
    settings: BoostingSettings

    def fit(
        self, features: tuple[Feature, ...], matrix: Array, repaid: Array, member: NDArray[np.bool_]
    ) -> tuple[BoostedTrees, ...]:
        """Fit one model for each strength; `member` marks the rows of the group that is to be approved more often."""
        group = pd.Series(np.where(member, "member", "other"))
        moment = CONSTRAINTS[self.constraint]()
        moment.load_data(matrix, pd.Series(repaid), sensitive_features=group)
        search = GridSearch(
            _Weighted(features, self.settings),
            constraints=CONSTRAINTS[self.constraint](),
            grid=_multipliers(moment, self.strengths),
        )
        search.fit(matrix, pd.Series(repaid), sensitive_features=group)
        return tuple(predictor.trees_ for predictor in search.predictors_)


def _multipliers(moment: UtilityParity, strengths: Sequence[float]) -> pd.DataFrame:
    """Lagrange multipliers that raise the group's rate in every event; a strength is the largest shift of a weight."""
    grid = pd.DataFrame(0.0, index=moment.index, columns=range(len(strengths)))
    for entry in moment.index:
        sign, _, group = entry
        if sign == "-" and group == "member":
            grid.loc[entry] = np.array(strengths) / float(moment.U[entry].abs().max())
    return grid
