"""Random forests of scikit-learn, monotone, and their trees in neutral form: additive in the mean probability."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from cde_domain.features.feature import Feature
from cde_domain.model.ensemble import LEAF, Tree, TreeEnsemble
from cde_domain.training.boosting import float64_threshold
from cde_domain.training.encoding import Encoding
from cde_domain.training.stored import read_skops, write_skops

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ForestSettings:
    """
    Hyperparameters of a random forest.

    `max_features` is the share of features that each split may choose from, `max_samples` the number of rows that a
    tree grows on at most: shallow trees learn no more from more.
    """

    kind: ClassVar[str] = "random_forest"
    margin: ClassVar[str] = "the mean of the trees' probabilities of repayment"

    trees: int = 100
    max_depth: int = 5
    max_samples: int = 4_000
    min_samples_leaf: int = 10
    max_features: float = 0.3
    seed: int = 7
    threads: int = 2

    def parameters(self) -> dict[str, Any]:
        """The parameters of RandomForestClassifier, without what depends on the portfolio."""
        own = asdict(self)
        del own["threads"]  # it changes no tree
        return {"n_estimators": own.pop("trees"), "random_state": own.pop("seed"), **own}

    def library(self) -> str:
        """The library and its version."""
        return f"scikit-learn {sklearn.__version__}"

    def load(self, features: tuple[Feature, ...], path: Path) -> "Forest":
        """Read what a fitted model saved; whoever loads has verified the file's digest before."""
        return Forest.load(features, path)

    def fit(
        self, features: tuple[Feature, ...], matrix: Array, repaid: Array, weights: Array | None = None
    ) -> "Forest":
        """Fit a forest; unknown values are filled in, because scikit-learn's monotone trees take none."""
        encoding = Encoding.of(features, matrix, repaid, fill_unknown=True)
        forest = RandomForestClassifier(
            **self.parameters() | {"max_samples": min(self.max_samples, len(matrix))},
            monotonic_cst=[feature.monotone for feature in features],
            n_jobs=self.threads,
        )
        forest.fit(encoding.encode(matrix), repaid, sample_weight=weights)
        forest.n_jobs = 1  # several threads add the trees' votes in any order, which changes the last bits
        return Forest(forest, encoding)


@dataclass(frozen=True)
class Forest:
    """A fitted forest. Its margin is the mean of its trees' probabilities, and the calibrator works on that."""

    suffix: ClassVar[str] = ".skops"

    estimator: RandomForestClassifier
    encoding: Encoding

    def margins(self, matrix: Array) -> Array:
        """The mean probability of repayment over the trees."""
        return self.estimator.predict_proba(self.encoding.encode(matrix))[:, 1]

    def contributions(self, matrix: Array) -> Array:
        """Path-dependent SHAP values of the mean probability, by shap."""
        import shap

        explainer = shap.TreeExplainer(self.estimator, feature_perturbation="tree_path_dependent")
        return explainer.shap_values(self.encoding.encode(matrix), check_additivity=False)[:, :, 1]

    def ensemble(self) -> TreeEnsemble:
        """The trees, each with its share of the mean."""
        return TreeEnsemble(
            trees=tuple(self._tree(estimator.tree_) for estimator in self.estimator.estimators_),
            bias=0.0,
            features=int(self.estimator.n_features_in_),
        )

    def _tree(self, tree: Any) -> Tree:
        assert self.encoding.fill is not None
        inner = tree.children_left != -1
        nodes = np.flatnonzero(inner)
        feature = np.where(inner, tree.feature, 0).astype(np.int32)
        # The inputs are rounded to float32 and compared with <=, so the first float32 above the threshold goes right.
        reached = tree.threshold.astype(np.float32)
        reached = np.where(reached > tree.threshold, np.nextafter(reached, np.float32(-np.inf)), reached)
        threshold = float64_threshold(np.nextafter(reached, np.float32(np.inf)))
        missing_left = inner & (self.encoding.fill[feature].astype(np.float32) <= tree.threshold)
        left_categories = np.zeros(len(inner), dtype=np.uint64)
        categorical = inner & np.isin(feature, list(self.encoding.ranks))
        for node in nodes[categorical[nodes]]:
            left_categories[node] = self.encoding.left_categories(
                int(feature[node]), float(tree.threshold[node]), missing_left=bool(missing_left[node])
            )
        return Tree(
            left=np.where(inner, tree.children_left, LEAF).astype(np.int32),
            right=np.where(inner, tree.children_right, LEAF).astype(np.int32),
            feature=feature,
            threshold=np.where(inner, threshold, 0.0),
            categorical=categorical,
            left_categories=left_categories,
            missing_left=missing_left,
            value=np.where(inner, 0.0, tree.value[:, 0, 1] / tree.value[:, 0].sum(axis=1) / len(self.estimator)),
            cover=tree.weighted_n_node_samples.astype(np.float64),
        )

    def save(self, path: Path) -> None:
        """Write forest and encoding."""
        ranks = {str(position): ranks for position, ranks in self.encoding.ranks.items()}
        write_skops(path, {"estimator": self.estimator, "ranks": ranks, "fill": self.encoding.fill})

    @classmethod
    def load(cls, features: tuple[Feature, ...], path: Path) -> "Forest":
        """Read what `save` wrote."""
        content = read_skops(path)
        ranks = {int(position): ranks for position, ranks in content["ranks"].items()}
        return cls(content["estimator"], Encoding(ranks, content["fill"]))
