"""Small errors of measurement, under which decisions and reasons should stay as they are."""

import numpy as np
from numpy.typing import NDArray

from cde_domain.features.feature import Feature

Array = NDArray[np.float64]

NOISE = 0.01


def moved_a_little(features: tuple[Feature, ...], matrix: Array, random: np.random.Generator) -> Array:
    """
    The numbers of a (rows, features) matrix moved by a relative 1 % of normal noise, categories left alone.

    A rank or a count has no hundredth: whole numbers move to whole numbers.
    """
    numeric = np.array([not feature.categories for feature in features])
    moved = matrix * np.where(numeric, 1 + NOISE * random.standard_normal(matrix.shape), 1.0)
    return np.where((np.nan_to_num(matrix) % 1 == 0).all(axis=0), np.round(moved), moved)
