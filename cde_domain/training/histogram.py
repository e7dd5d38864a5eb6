"""Histogram gradient boosting of scikit-learn, monotone, and its trees in neutral form: additive in the log-odds."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from cde_domain.features.feature import Feature
from cde_domain.model.ensemble import LEAF, Tree, TreeEnsemble
from cde_domain.training.encoding import Encoding
from cde_domain.training.stored import read_skops, write_skops

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HistogramSettings:
    """Hyperparameters of histogram gradient boosting; `max_features` is the share that each split may choose from."""

    kind: ClassVar[str] = "hist_gradient_boosting"
    margin: ClassVar[str] = "log-odds of repayment"

    rounds: int = 200
    max_depth: int = 3
    learning_rate: float = 0.05
    min_samples_leaf: int = 20
    l2_regularization: float = 1.0
    max_features: float = 0.5
    seed: int = 7

    def parameters(self) -> dict[str, Any]:
        """The parameters of HistGradientBoostingClassifier, without what depends on the portfolio."""
        own = asdict(self)
        return {"max_iter": own.pop("rounds"), "random_state": own.pop("seed"), "early_stopping": False, **own}

    def library(self) -> str:
        """The library and its version."""
        return f"scikit-learn {sklearn.__version__}"

    def load(self, features: tuple[Feature, ...], path: Path) -> "HistogramTrees":
        """Read what a fitted model saved; whoever loads has verified the file's digest before."""
        return HistogramTrees.load(features, path)

    def fit(
        self, features: tuple[Feature, ...], matrix: Array, repaid: Array, weights: Array | None = None
    ) -> "HistogramTrees":
        """Fit boosted trees; unknown values take the branch that training found better for them."""
        encoding = Encoding.of(features, matrix, repaid, fill_unknown=False)
        boosting = HistGradientBoostingClassifier(
            **self.parameters(), monotonic_cst=[feature.monotone for feature in features]
        )
        with threadpool_limits(1, user_api="openmp"):  # sums in one order give the same bits on every machine
            boosting.fit(encoding.encode(matrix), repaid, sample_weight=weights)
        return HistogramTrees(boosting, encoding)


@dataclass(frozen=True)
class HistogramTrees:
    """Fitted boosted trees."""

    suffix: ClassVar[str] = ".skops"

    estimator: HistGradientBoostingClassifier
    encoding: Encoding

    def margins(self, matrix: Array) -> Array:
        """The log-odds of repayment."""
        with threadpool_limits(1, user_api="openmp"):  # waiting threads take longer than the work
            return self.estimator.decision_function(self.encoding.encode(matrix))

    def contributions(self, matrix: Array) -> Array:
        """Path-dependent SHAP values of the log-odds, by shap."""
        import shap

        explainer = shap.TreeExplainer(self.estimator, feature_perturbation="tree_path_dependent")
        return explainer.shap_values(self.encoding.encode(matrix), check_additivity=False)

    def ensemble(self) -> TreeEnsemble:
        """The trees of every round."""
        return TreeEnsemble(
            trees=tuple(self._tree(predictor.nodes) for (predictor,) in self.estimator._predictors),
            bias=float(np.ravel(self.estimator._baseline_prediction)[0]),
            features=int(self.estimator.n_features_in_),
        )

    def _tree(self, nodes: NDArray[Any]) -> Tree:
        inner = nodes["is_leaf"] == 0
        missing_left = inner & (nodes["missing_go_to_left"] != 0)
        feature = np.where(inner, nodes["feature_idx"], 0).astype(np.int32)
        categorical = inner & np.isin(feature, list(self.encoding.ranks))
        left_categories = np.zeros(len(nodes), dtype=np.uint64)
        for node in np.flatnonzero(categorical):
            left_categories[node] = self.encoding.left_categories(
                int(feature[node]), float(nodes["num_threshold"][node]), missing_left=bool(missing_left[node])
            )
        return Tree(
            left=np.where(inner, nodes["left"], LEAF).astype(np.int32),
            right=np.where(inner, nodes["right"], LEAF).astype(np.int32),
            feature=feature,
            # scikit-learn goes left where a value is at most the threshold, the neutral form where it is below.
            threshold=np.where(inner, np.nextafter(nodes["num_threshold"], np.inf), 0.0),
            categorical=categorical,
            left_categories=left_categories,
            missing_left=missing_left,
            value=np.where(inner, 0.0, nodes["value"]),
            cover=nodes["count"].astype(np.float64),
        )

    def save(self, path: Path) -> None:
        """Write trees and encoding."""
        ranks = {str(position): ranks for position, ranks in self.encoding.ranks.items()}
        write_skops(path, {"estimator": self.estimator, "ranks": ranks})

    @classmethod
    def load(cls, features: tuple[Feature, ...], path: Path) -> "HistogramTrees":
        """Read what `save` wrote."""
        content = read_skops(path)
        return cls(content["estimator"], Encoding({int(at): ranks for at, ranks in content["ranks"].items()}))
