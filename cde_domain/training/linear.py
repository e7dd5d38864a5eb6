"""Plain logistic regression: what a model without any craft reaches."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cde_domain.features.feature import Feature

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LogisticSettings:
    """Hyperparameters of the logistic regression; a larger `C` shrinks coefficients less."""

    kind: ClassVar[str] = "logistic_regression"

    C: float = 1.0
    max_iter: int = 2_000

    def parameters(self) -> dict[str, Any]:
        """The parameters of LogisticRegression."""
        return asdict(self)

    def library(self) -> str:
        """The library and its version."""
        return f"scikit-learn {sklearn.__version__}"

    def fit(self, features: tuple[Feature, ...], matrix: Array, repaid: Array) -> "LogisticScore":
        """Fit on standardised numbers and one column a category; unknown has a column of its own."""
        known = [values[~np.isnan(values)] for values in matrix.T]
        medians = np.array([np.median(values) if len(values) else 0.0 for values in known])
        columns, owner = _design(features, matrix, medians)
        scaler = StandardScaler().fit(columns)
        regression = LogisticRegression(**self.parameters()).fit(scaler.transform(columns), repaid)
        return LogisticScore(features, medians, owner, scaler, regression)


@dataclass(frozen=True)
class LogisticScore:
    """A fitted logistic regression; `owner` is the feature that each of its columns is made from."""

    features: tuple[Feature, ...]
    medians: Array
    owner: NDArray[np.int64]
    scaler: StandardScaler
    regression: LogisticRegression

    def margins(self, matrix: Array) -> Array:
        """The log-odds of repayment."""
        return self.regression.decision_function(self._columns(matrix))

    def importance(self, matrix: Array) -> Array:
        """The mean absolute share of each feature in the log-odds."""
        shares = self._columns(matrix) * self.regression.coef_[0]
        by_feature = np.stack([shares[:, self.owner == i].sum(axis=1) for i in range(len(self.features))], axis=1)
        return np.abs(by_feature).mean(axis=0)

    def _columns(self, matrix: Array) -> Array:
        return self.scaler.transform(_design(self.features, matrix, self.medians)[0])


def _design(features: tuple[Feature, ...], matrix: Array, medians: Array) -> tuple[Array, NDArray[np.int64]]:
    columns: list[Array] = []
    owner: list[int] = []
    for position, feature in enumerate(features):
        values = matrix[:, position]
        unknown = np.isnan(values)
        if feature.categories:
            columns += [(values == category).astype(np.float64) for category in range(len(feature.categories))]
        else:
            columns.append(np.where(unknown, medians[position], values))
        columns.append(unknown.astype(np.float64))
        owner += [position] * (len(columns) - len(owner))
    return np.stack(columns, axis=1), np.array(owner)
