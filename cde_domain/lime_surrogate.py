"""LIME (Ribeiro et al. 2016): a linear model of the margin around one application, as the `lime` package fits it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.model.background import Background

Array = NDArray[np.float64]

SAMPLES = 1_000


@dataclass(frozen=True)
class Surrogate:
    """`weights` of shape (features,): positive ones raise the margin. `fit` is the weighted R² near the application."""

    weights: Array
    fit: float


def lime_surrogate(
    background: Background, margins_of: Callable[[Array], Array], row: Array, *, seed: int, samples: int = SAMPLES
) -> Surrogate:
    """
    Explain one row of features; the same seed gives the same weights.

    LIME knows no unknown values, so that they are filled as in the background.

    Raises:
        ImportError: `lime` is not installed.
    """
    from lime.lime_tabular import LimeTabularExplainer

    numbers = [position for position, borders in enumerate(background.borders) if borders]
    statistics: dict[str, Any] = {
        "bins": {position: list(background.borders[position]) for position in numbers},
        "means": {position: list(background.means[position]) for position in numbers},
        "stds": {position: list(background.deviations[position]) for position in numbers},
        "mins": {position: list(background.lowest[position]) for position in numbers},
        "maxs": {position: list(background.highest[position]) for position in numbers},
        "feature_values": dict(enumerate(map(list, background.values))),
        "feature_frequencies": dict(enumerate(map(list, background.counts))),
    }
    explainer = LimeTabularExplainer(
        np.array([background.fill]),
        mode="regression",
        categorical_features=[position for position in range(len(row)) if position not in numbers],
        random_state=seed,
        training_data_stats=statistics,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a feature of a single value has no spread
        found = explainer.explain_instance(
            background.filled(row), margins_of, num_features=len(row), num_samples=samples
        )
    weights = np.zeros(len(row))
    for position, weight in found.local_exp[1]:
        weights[position] = weight
    return Surrogate(weights, float(found.score))
