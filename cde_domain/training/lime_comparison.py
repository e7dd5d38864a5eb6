"""LIME beside the exact contributions: a second opinion on what drives a score, never the source of a notice."""

import warnings
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
from lime.lime_tabular import LimeTabularExplainer
from numpy.typing import NDArray

from cde_domain.features.feature import Feature

Array = NDArray[np.float64]

SEEDS = 3
SAMPLES = 1_000
MOST_BACKGROUND = 2_000
TOP = 4


def lime_weights(
    features: tuple[Feature, ...],
    margins_of: Callable[[Array], Array],
    background: Array,
    rows: Array,
    *,
    seeds: int = SEEDS,
    samples: int = SAMPLES,
) -> Array:
    """
    LIME's weights for a (rows, features) matrix, of shape (seeds, rows, features): positive ones raise the margin.

    LIME knows no unknown values, so that they are filled with the background's medians and commonest categories here.
    """
    categorical = [position for position, feature in enumerate(features) if feature.categories]
    fill = _fill(background, categorical)
    known, asked = (np.where(np.isnan(matrix), fill, matrix) for matrix in (background, rows))
    weights = np.zeros((seeds, len(rows), len(features)))
    for seed in range(seeds):
        explainer = LimeTabularExplainer(
            known[:MOST_BACKGROUND], mode="regression", categorical_features=categorical, random_state=seed
        )
        for place, row in enumerate(asked):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a feature of a single value has no spread
                found = explainer.explain_instance(row, margins_of, num_features=len(features), num_samples=samples)
            for position, weight in found.local_exp[1]:
                weights[seed, place, position] = weight
    return weights


def _fill(background: Array, categorical: list[int]) -> Array:
    fill = np.zeros(background.shape[1])
    for position, values in enumerate(background.T):
        known = values[~np.isnan(values)]
        if len(known):
            fill[position] = (
                np.bincount(known.astype(np.int64)).argmax() if position in categorical else np.median(known)
            )
    return fill


def lime_facts(weights: Array, contributions: Array, rank_agreement: Callable[[Array, Array], Array]) -> dict[str, Any]:
    """
    How LIME's weights agree with the exact contributions of the same rows, and with themselves over seeds.

    `own_top4_jaccard` is the stability of the variables selected (Visani et al. 2020, VSI): how far two seeds name the
    same four features that hold an applicant back. `own_rank_correlation` is that of two seeds' weights.
    """
    seeds, rows, _ = weights.shape
    pairs = list(combinations(range(seeds), 2))
    return {
        "rows": rows,
        "seeds": seeds,
        "rank_correlation": float(np.mean([rank_agreement(own, contributions) for own in weights])),
        "top4_jaccard": float(np.mean([_same_lowest(own, contributions) for own in weights])),
        "same_first": float(np.mean([own.argmin(axis=1) == contributions.argmin(axis=1) for own in weights])),
        "own_rank_correlation": float(np.mean([rank_agreement(weights[a], weights[b]) for a, b in pairs])),
        "own_top4_jaccard": float(np.mean([_same_lowest(weights[a], weights[b]) for a, b in pairs])),
    }


def _same_lowest(one: Array, other: Array) -> Array:
    first, second = (np.argsort(values, axis=1, kind="stable")[:, :TOP] for values in (one, other))
    shared = np.array([len(np.intersect1d(a, b)) for a, b in zip(first, second, strict=True)])
    return shared / (2 * first.shape[1] - shared)
