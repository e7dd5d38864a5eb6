"""What every way to learn has in common: settings that fit, and models that give margins."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cde_domain.features.feature import Feature
from cde_domain.model.ensemble import TreeEnsemble

Array = NDArray[np.float64]


class FittedScore(Protocol):
    """A fitted model of repayment in its library's form."""

    def margins(self, matrix: Array) -> Array:
        """A number for each row that rises with the probability of repayment."""


class Learner(Protocol):
    """Hyperparameters that know how to fit."""

    @property
    def kind(self) -> str:
        """The name of the way to learn."""

    def parameters(self) -> dict[str, Any]:
        """The hyperparameters in the library's terms."""

    def fit(self, features: tuple[Feature, ...], matrix: Array, repaid: Array) -> FittedScore:
        """Fit P(repaid) on a (rows, features) matrix and 0/1 labels, monotone in the declared directions."""


class FittedTrees(FittedScore, Protocol):
    """An additive ensemble of trees in its library's form: what is compiled, and kept to compare with."""

    @property
    def suffix(self) -> str:
        """The suffix of the library's own file."""

    def ensemble(self) -> TreeEnsemble:
        """The trees in neutral form."""

    def contributions(self, matrix: Array) -> Array:
        """Path-dependent SHAP values of shape (rows, features), by the library or by shap."""

    def save(self, path: Path) -> None:
        """Write the model in its library's own format, without pickle."""


class TreeLearner(Protocol):
    """Hyperparameters of an ensemble that can be compiled and served."""

    @property
    def kind(self) -> str:
        """The name of the way to learn."""

    @property
    def margin(self) -> str:
        """What the trees add up to."""

    @property
    def seed(self) -> int:
        """What chance in training, and the folds, are drawn from."""

    def fit(
        self, features: tuple[Feature, ...], matrix: Array, repaid: Array, weights: Array | None = None
    ) -> FittedTrees:
        """Fit trees on rows of these weights; see `Learner.fit`."""

    def load(self, features: tuple[Feature, ...], path: Path) -> FittedTrees:
        """Read what a fitted model saved; whoever loads has verified the file's digest before."""

    def parameters(self) -> dict[str, Any]:
        """The hyperparameters in the library's terms."""

    def library(self) -> str:
        """The library and its version."""
