"""A points scorecard on weights of evidence, as lenders have used for decades: the benchmark a simple method sets."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from cde_domain.features.feature import Feature

Array = NDArray[np.float64]

_TRENDS = {1: "descending", -1: "ascending"}  # of the share of bad loans


@dataclass(frozen=True)
class ScorecardSettings:
    """Bins and points: at `points` the odds of repayment are `odds` to one, and `double` more points double them."""

    kind: ClassVar[str] = "scorecard"

    min_bin_share: float = 0.05
    max_prebins: int = 12
    points: float = 600.0
    odds: float = 50.0
    double: float = 20.0

    def parameters(self) -> dict[str, Any]:
        """The settings by name."""
        return asdict(self)

    def library(self) -> str:
        """The library and its version."""
        return f"optbinning {_optbinning().__version__}"

    def fit(self, features: tuple[Feature, ...], matrix: Array, repaid: Array) -> "PointsScorecard":
        """Bin every feature optimally, monotone in its declared direction, and weigh the bins by regression."""
        optbinning = _optbinning()
        names = [feature.name for feature in features]
        binning = optbinning.BinningProcess(
            names,
            categorical_variables=[feature.name for feature in features if feature.categories],
            min_prebin_size=self.min_bin_share,
            max_n_prebins=self.max_prebins,
            binning_fit_params={
                feature.name: {"monotonic_trend": _TRENDS[feature.monotone]} for feature in features if feature.monotone
            },
        )
        scorecard = optbinning.Scorecard(
            binning,
            LogisticRegression(max_iter=1_000),
            scaling_method="pdo_odds",
            scaling_method_params={"pdo": self.double, "odds": self.odds, "scorecard_points": self.points},
        )
        scorecard.fit(pd.DataFrame(matrix, columns=names), 1.0 - repaid, metric_missing="empirical")
        return PointsScorecard(features, scorecard)


@dataclass(frozen=True)
class PointsScorecard:
    """A fitted scorecard."""

    features: tuple[Feature, ...]
    scorecard: Any

    def margins(self, matrix: Array) -> Array:
        """The log-odds of repayment."""
        bad = self.scorecard.predict_proba(self._frame(matrix))[:, 1]
        return np.log1p(-bad) - np.log(bad)

    def points(self, matrix: Array) -> Array:
        """The points of every row."""
        return np.asarray(self.scorecard.score(self._frame(matrix)), dtype=np.float64)

    def importance(self, matrix: Array) -> Array:
        """The mean absolute share of each feature in the log-odds; 0 for features that the binning left out."""
        table = self.scorecard.table(style="detailed")
        spread = table.assign(moved=(table["WoE"] * table["Coefficient"]).abs() * table["Count (%)"])
        by_name = spread.groupby("Variable")["moved"].sum()
        return np.array([float(by_name.get(feature.name, 0.0)) for feature in self.features])

    def card(self) -> list[dict[str, Any]]:
        """The card itself: feature, bin, share of the training rows, share of bad loans and points of every bin."""
        table = self.scorecard.table(style="detailed")
        names = {feature.name: feature.categories for feature in self.features}
        return [
            {
                "feature": row["Variable"],
                "bin": _bin_text(row["Bin"], names[row["Variable"]]),
                "share": float(row["Count (%)"]),
                "bad_rate": float(row["Event rate"]),
                "points": round(float(row["Points"]), 1),
            }
            for row in table.to_dict("records")
            if row["Count"]
        ]

    def _frame(self, matrix: Array) -> pd.DataFrame:
        return pd.DataFrame(matrix, columns=[feature.name for feature in self.features])


def _bin_text(found: Any, categories: tuple[str, ...]) -> str:
    if categories and not isinstance(found, str):
        return ", ".join(categories[int(category)] for category in found)
    return str(found)


def _optbinning() -> Any:
    import optbinning  # with OR-Tools and CVXPY it takes two seconds

    return optbinning
