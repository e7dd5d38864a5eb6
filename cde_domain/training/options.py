"""Options that change the rows a model is fitted on: outliers, resampling, class weights. All off by default."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cde_domain.features.feature import Feature
from cde_domain.model.ensemble import Tree, TreeEnsemble
from cde_domain.training.learner import FittedTrees, TreeLearner

Array = NDArray[np.float64]

Outliers = Literal["none", "winsorise"]
Resampling = Literal["none", "smote"]

WINSORISED_TO = (0.01, 0.99)
NEIGHBOURS = 5


class TrainingOptionError(ValueError):
    """An option of training that these rows, or this way to learn, cannot have."""


@dataclass(frozen=True)
class TrainingOptions:
    """
    What is done to the rows of each fit, and to no other row.

    `outliers` winsorises numbers at the fit's own 1st and 99th percentile, `resampling` adds synthetic rows of the
    rarer outcome (SMOTE, Chawla et al. 2002) until both are equally many, `class_weights` weighs both outcomes equally.
    """

    outliers: Outliers = "none"
    resampling: Resampling = "none"
    class_weights: bool = False

    def __post_init__(self) -> None:
        if self.outliers not in get_args(Outliers) or self.resampling not in get_args(Resampling):
            raise TrainingOptionError(f"there are no training options {asdict(self)}")

    @property
    def are_off(self) -> bool:
        """Whether models are fitted on rows as they are."""
        return self == AS_THEY_ARE

    @property
    def shifts_the_base_rate(self) -> bool:
        """Whether a fit sees another share of repaid loans than the book has."""
        return self.resampling != "none" or self.class_weights

    @property
    def named(self) -> str:
        """The options that are on, in words."""
        words = {"winsorised outliers": self.outliers != "none", "SMOTE": self.resampling != "none"}
        return ", ".join(name for name, on in (words | {"class weights": self.class_weights}).items() if on) or "none"


AS_THEY_ARE = TrainingOptions()


@dataclass(frozen=True)
class TreatedLearner:
    """
    A learner whose every fit first treats the rows it was given.

    The rows that it scores are never treated, so that a fold held out stays as the book has it, and so does whatever is
    fitted on the fold's margins: the calibrator above all.
    """

    learner: TreeLearner
    options: TrainingOptions

    @property
    def kind(self) -> str:
        """The way to learn."""
        return self.learner.kind

    @property
    def margin(self) -> str:
        """What the trees add up to."""
        return self.learner.margin

    @property
    def seed(self) -> int:
        """What chance in training is drawn from."""
        return self.learner.seed

    def parameters(self) -> dict[str, Any]:
        """The hyperparameters in the library's terms, and the options."""
        return self.learner.parameters() | asdict(self.options)

    def library(self) -> str:
        """The library and its version."""
        return self.learner.library()

    def load(self, features: tuple[Feature, ...], path: Path) -> FittedTrees:
        """Read what a fitted model saved, without the bounds that it was winsorised at."""
        return self.learner.load(features, path)

    def fit(
        self, features: tuple[Feature, ...], matrix: Array, repaid: Array, weights: Array | None = None
    ) -> FittedTrees:
        """
        Fit trees on treated rows.

        Raises:
            TrainingOptionError: the rarer outcome has too few rows for SMOTE.
        """
        assert weights is None
        bounds = None
        if self.options.outliers == "winsorise":
            bounds = bounds_of(features, matrix)
            matrix = clipped(matrix, bounds)
        if self.options.resampling == "smote":
            matrix, repaid = with_smote(features, matrix, repaid, seed=self.seed)
        balanced = balanced_weights(repaid) if self.options.class_weights else None
        fitted = self.learner.fit(features, matrix, repaid, balanced)
        return fitted if bounds is None else WinsorisedTrees(fitted, bounds)


@dataclass(frozen=True)
class WinsorisedTrees:
    """
    Trees grown on winsorised rows, with the (features, 2) bounds of what they were grown on.

    Served, they need no step before them: a split that lies beyond the bounds parts known values from unknown ones
    only, and is moved to infinity. What lies beyond a bound then has the margin of the bound.
    """

    trees: FittedTrees
    bounds: Array

    @property
    def suffix(self) -> str:
        """The suffix of the library's own file."""
        return self.trees.suffix

    def margins(self, matrix: Array) -> Array:
        """The margin of winsorised rows."""
        return self.trees.margins(clipped(matrix, self.bounds))

    def contributions(self, matrix: Array) -> Array:
        """Path-dependent SHAP values of winsorised rows."""
        return self.trees.contributions(clipped(matrix, self.bounds))

    def ensemble(self) -> TreeEnsemble:
        """The trees, which give rows as they are the margin of winsorised ones."""
        own = self.trees.ensemble()
        return TreeEnsemble(tuple(self._beyond_bounds(tree) for tree in own.trees), own.bias, own.features)

    def save(self, path: Path) -> None:
        """Write the trees in their library's own format; the bounds are kept with the model's provenance."""
        self.trees.save(path)

    def bounds_as_json(self) -> list[list[float] | None]:
        """The bounds of each feature, None where it has none."""
        return [[low, high] if np.isfinite(low) else None for low, high in self.bounds.tolist()]

    @classmethod
    def of(cls, trees: FittedTrees, bounds: list[list[float] | None]) -> "WinsorisedTrees":
        """Trees with bounds as `bounds_as_json` gave them."""
        return cls(trees, np.array([pair or [-np.inf, np.inf] for pair in bounds]))

    def _beyond_bounds(self, tree: Tree) -> Tree:
        low, high = self.bounds[tree.feature].T
        numeric = ~tree.categorical & (tree.left >= 0)
        threshold = np.where(numeric & (tree.threshold <= low), -np.inf, tree.threshold)
        threshold = np.where(numeric & (tree.threshold > high), np.inf, threshold)
        return Tree(**vars(tree) | {"threshold": threshold})


def bounds_of(features: tuple[Feature, ...], matrix: Array) -> Array:
    """The (features, 2) bounds to winsorise at; categories and features never known have none."""
    bounds = np.tile([-np.inf, np.inf], (len(features), 1))
    for position, feature in enumerate(features):
        known = matrix[~np.isnan(matrix[:, position]), position]
        if not feature.categories and len(known):
            bounds[position] = np.quantile(known, WINSORISED_TO)
    return bounds


def clipped(matrix: Array, bounds: Array) -> Array:
    """A matrix with every known number moved to the nearer bound where it lies beyond."""
    return np.clip(matrix, bounds[:, 0], bounds[:, 1])


def balanced_weights(repaid: Array) -> Array:
    """Weights with which both outcomes count the same, of mean 1."""
    share = repaid.mean()
    return np.where(repaid == 1, 0.5 / share, 0.5 / (1 - share))


def with_smote(features: tuple[Feature, ...], matrix: Array, repaid: Array, *, seed: int) -> tuple[Array, Array]:
    """
    The rows as they are, and behind them synthetic ones of the rarer outcome until both are equally many.

    SMOTE takes no unknown value. Neighbours are therefore found on standardised numbers with unknown ones at the
    median, and whether a feature is unknown is a category of its own: a synthetic row takes it, like every category,
    from the majority of its neighbours, and is unknown there itself. Whole numbers stay whole.

    Raises:
        TrainingOptionError: the rarer outcome has no more rows than a synthetic row has neighbours.
    """
    rarer = int(min(repaid.sum(), len(repaid) - repaid.sum()))
    if rarer <= NEIGHBOURS:
        raise TrainingOptionError(
            f"SMOTE needs more than {NEIGHBOURS} loans of each outcome in a fit; there are {rarer}"
        )
    numeric = [position for position, feature in enumerate(features) if not feature.categories]
    categorical = [position for position, feature in enumerate(features) if feature.categories]
    unknown = np.isnan(matrix)
    flagged = [position for position in numeric if unknown[:, position].any()]
    filled, centre, scale = _standardised(matrix[:, numeric])
    words = np.where(unknown[:, categorical], -1.0, matrix[:, categorical])
    with threadpool_limits(1):  # sums in one order find the same neighbours on every machine
        synthetic, outcome = _oversampled(filled, np.hstack([words, unknown[:, flagged]]), repaid, seed)
    made = np.empty((len(synthetic), len(features)))
    made[:, numeric] = synthetic[:, : len(numeric)] * scale + centre
    made[:, categorical] = synthetic[:, len(numeric) : len(numeric) + len(categorical)]
    whole = [position for position in numeric if (np.nan_to_num(matrix[:, position]) % 1 == 0).all()]
    made[:, whole] = np.round(made[:, whole])
    for position in categorical:
        made[made[:, position] < 0, position] = np.nan
    for column, position in enumerate(flagged, start=len(numeric) + len(categorical)):
        made[synthetic[:, column] == 1, position] = np.nan
    return np.vstack([matrix, made]), np.concatenate([repaid, outcome])


def _standardised(numbers: Array) -> tuple[Array, Array, Array]:
    known = [values[~np.isnan(values)] for values in numbers.T]
    median = np.array([np.median(values) if len(values) else 0.0 for values in known])
    filled = np.where(np.isnan(numbers), median, numbers)
    centre, scale = filled.mean(axis=0), filled.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    return (filled - centre) / scale, centre, scale


def _oversampled(numbers: Array, words: Array, repaid: Array, seed: int) -> tuple[Array, Array]:
    """Only the synthetic rows, numbers before words, and their outcome."""
    from imblearn.over_sampling import SMOTE, SMOTEN, SMOTENC

    settings = {"k_neighbors": NEIGHBOURS, "random_state": seed}
    if not numbers.shape[1]:
        sampler = SMOTEN(**settings)
    elif words.shape[1]:
        sampler = SMOTENC(list(range(numbers.shape[1], numbers.shape[1] + words.shape[1])), **settings)
    else:
        sampler = SMOTE(**settings)
    rows, outcome = sampler.fit_resample(np.hstack([numbers, words]), repaid)
    return np.asarray(rows, dtype=np.float64)[len(repaid) :], np.asarray(outcome, dtype=np.float64)[len(repaid) :]
