"""Monotone gradient boosting with XGBoost, and its trees in neutral form."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from cde_domain.features.feature import Feature
from cde_domain.model.ensemble import LEAF, Tree, TreeEnsemble

Array = NDArray[np.float64]

MAX_CATEGORIES = 64  # the compiled form keeps a split's categories in one 64-bit word


@dataclass(frozen=True)
class BoostingSettings:
    """Hyperparameters in XGBoost's terms; more `threads` than free cores make fitting slower."""

    kind: ClassVar[str] = "xgboost"
    margin: ClassVar[str] = "log-odds of repayment"

    rounds: int = 300
    max_depth: int = 3
    learning_rate: float = 0.05
    min_child_weight: float = 5.0
    reg_lambda: float = 1.0
    subsample: float = 0.8
    colsample_bytree: float = 0.6
    max_cat_to_onehot: int = 4
    seed: int = 7
    threads: int = 1

    def parameters(self) -> dict[str, Any]:
        """The parameters for `xgb.train`, without the number of rounds."""
        own = asdict(self)
        own.pop("rounds")
        return {"objective": "binary:logistic", "tree_method": "hist", "nthread": own.pop("threads"), **own}

    def library(self) -> str:
        """The library and its version."""
        return f"xgboost {xgb.__version__}"

    def load(self, features: tuple[Feature, ...], path: Path) -> "BoostedTrees":
        """Read what a fitted model saved; whoever loads has verified the file's digest before."""
        return BoostedTrees.load(features, path)

    def fit(
        self, features: tuple[Feature, ...], matrix: Array, repaid: Array, weights: Array | None = None
    ) -> "BoostedTrees":
        """Fit boosted trees; see `fit`."""
        return BoostedTrees(features, fit(features, matrix, repaid, self, weights=weights))


@dataclass(frozen=True)
class BoostedTrees:
    """A fitted booster with the features it was made for."""

    suffix: ClassVar[str] = ".ubj"

    features: tuple[Feature, ...]
    booster: xgb.Booster

    def margins(self, matrix: Array) -> Array:
        """The log-odds of repayment."""
        return self.booster.predict(to_dmatrix(self.features, matrix), output_margin=True).astype(np.float64)

    def contributions(self, matrix: Array) -> Array:
        """Path-dependent SHAP values of the log-odds, by XGBoost itself."""
        return self.booster.predict(to_dmatrix(self.features, matrix), pred_contribs=True)[:, :-1].astype(np.float64)

    def ensemble(self) -> TreeEnsemble:
        """The trees of every round."""
        return to_ensemble(self.booster)

    def save(self, path: Path) -> None:
        """Write XGBoost's own binary JSON."""
        self.booster.save_model(path)

    @classmethod
    def load(cls, features: tuple[Feature, ...], path: Path) -> "BoostedTrees":
        """Read what `save` wrote."""
        return cls(features, xgb.Booster(model_file=path))


def to_dmatrix(
    features: tuple[Feature, ...], matrix: Array, repaid: Array | None = None, weights: Array | None = None
) -> xgb.DMatrix:
    """A DMatrix with the features' names and kinds."""
    return xgb.DMatrix(
        matrix,
        label=repaid,
        weight=weights,
        feature_names=[feature.name for feature in features],
        feature_types=["c" if feature.categories else "q" for feature in features],
        enable_categorical=True,
        nthread=1,  # threads that wait for each other take longer than the copy
    )


def fit(
    features: tuple[Feature, ...],
    matrix: Array,
    repaid: Array,
    settings: BoostingSettings,
    *,
    weights: Array | None = None,
    onto: xgb.Booster | None = None,
) -> xgb.Booster:
    """
    Fit P(repaid) on a (rows, features) matrix and 0/1 labels, monotone in the declared directions.

    With `onto`, the rounds are added behind the trees of that booster, which stays as it is.

    Raises:
        ValueError: a categorical feature has more categories than the compiled form can hold.
    """
    for feature in features:
        if len(feature.categories) > MAX_CATEGORIES:
            raise ValueError(
                f"{feature.name} has {len(feature.categories)} categories; at most {MAX_CATEGORIES} can be served"
            )
    parameters = settings.parameters() | {
        "monotone_constraints": "(" + ",".join(str(feature.monotone) for feature in features) + ")"
    }
    if onto is not None:
        parameters["seed_per_iteration"] = True  # or the rows drawn depend on what else was fitted in this process
    rows = to_dmatrix(features, matrix, repaid, weights)
    return xgb.train(parameters, rows, num_boost_round=settings.rounds, xgb_model=onto)


def to_ensemble(booster: xgb.Booster) -> TreeEnsemble:
    """The trees of a booster, read from its own JSON."""
    model = json.loads(booster.save_raw("json"))["learner"]
    base_score = float(np.array(json.loads(model["learner_model_param"]["base_score"])).ravel()[0])
    return TreeEnsemble(
        trees=tuple(_tree(tree) for tree in model["gradient_booster"]["model"]["trees"]),
        bias=float(np.log(base_score / (1.0 - base_score))),
        features=int(model["learner_model_param"]["num_feature"]),
    )


def _tree(tree: dict[str, Any]) -> Tree:
    left = np.array(tree["left_children"], dtype=np.int32)
    right = np.array(tree["right_children"], dtype=np.int32)
    condition = np.array(tree["split_conditions"], dtype=np.float32)
    categorical = np.array(tree["split_type"], dtype=np.bool_)
    right_categories = np.zeros(len(left), dtype=np.uint64)
    starts, sizes = tree["categories_segments"], tree["categories_sizes"]
    for node, start, size in zip(tree["categories_nodes"], starts, sizes, strict=True):
        for category in tree["categories"][start : start + size]:
            right_categories[node] |= np.uint64(1) << np.uint64(category)
    return Tree(
        left=np.where(left < 0, LEAF, left),
        right=np.where(right < 0, LEAF, right),
        feature=np.array(tree["split_indices"], dtype=np.int32),
        threshold=float64_threshold(condition),
        categorical=categorical,
        left_categories=~right_categories,  # XGBoost sends the listed categories to the right
        missing_left=np.array(tree["default_left"], dtype=np.bool_),
        value=np.where(left < 0, condition, 0).astype(np.float64),
        cover=np.array(tree["sum_hessian"], dtype=np.float64),
    )


def float64_threshold(threshold: NDArray[np.float32]) -> Array:
    """
    The smallest doubles that XGBoost, which rounds its inputs to float32, does not take for less than `threshold`.

    With them `float64 value < result` is the same as `float32(value) < threshold`.
    """
    below = np.nextafter(threshold, np.float32(-np.inf))
    halfway = (below.astype(np.float64) + threshold.astype(np.float64)) / 2
    rounds_up = halfway.astype(np.float32) >= threshold
    return np.where(rounds_up, halfway, np.nextafter(halfway, np.inf))
