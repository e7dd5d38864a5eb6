"""An additive tree ensemble in neutral form, whatever library grew it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAF = -1


@dataclass(frozen=True)
class Tree:
    """
    One regression tree as arrays over its nodes; node 0 is the root.

    A row goes left at an inner node if its value is below `threshold` (numeric), or if the bit of its category is set
    in `left_categories` (categorical), or if the value is missing and `missing_left`. `cover` is the weight of the
    training rows that passed the node. `left` is LEAF for leaves, whose output is `value`.
    """

    left: NDArray[np.int32]
    right: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    categorical: NDArray[np.bool_]
    left_categories: NDArray[np.uint64]
    missing_left: NDArray[np.bool_]
    value: NDArray[np.float64]
    cover: NDArray[np.float64]


@dataclass(frozen=True)
class TreeEnsemble:
    """Trees whose outputs add up, with `bias`, to the margin."""

    trees: tuple[Tree, ...]
    bias: float
    features: int
