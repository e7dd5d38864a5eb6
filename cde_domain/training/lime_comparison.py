"""LIME beside the exact contributions: a second opinion on what drives a score, never the source of a notice."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cde_domain.features.feature import Feature
from cde_domain.lime_surrogate import SAMPLES, lime_surrogate
from cde_domain.model.background import Background

Array = NDArray[np.float64]

SEEDS = 3
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

    The background's first rows are LIME's training data, as its own statistics.
    """
    known = Background.of(background[:MOST_BACKGROUND], tuple(bool(feature.categories) for feature in features))
    weights = np.zeros((seeds, len(rows), len(features)))
    for seed in range(seeds):
        for place, row in enumerate(rows):
            weights[seed, place] = lime_surrogate(known, margins_of, row, seed=seed, samples=samples).weights
    return weights


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
