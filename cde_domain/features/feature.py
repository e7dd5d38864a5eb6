"""A feature: one model input, with all that training, explanation and the data dictionary must know of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cde_domain.features.columns import Array, Columns

Direction = Literal[-1, 0, 1]


@dataclass(frozen=True)
class Feature:
    """
    One input of the model.

    `compute` takes `Columns` and returns float64 of shape (rows,), NaN for unknown; it may use elementwise
    arithmetic, `np.sqrt` and the reductions of `Nested`, all of which give a row the same bits alone and in bulk
    (`np.log` and `np.exp` do not). `monotone` is the direction towards repayment: +1 if more of it can only help.
    `reason` is what an applicant reads when it counted against them; a reason's code is the feature's name in capitals.
    """

    name: str
    compute: Callable[[Columns], Array]
    description: str
    reason: str
    unit: str = ""
    monotone: Direction = 0
    categories: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def reason_code(self) -> str:
        """The code of this feature's reason."""
        return self.name.upper()


def feature_matrix(features: tuple[Feature, ...], columns: Columns) -> Array:
    """The features of every row, float64 of shape (rows, features); what is infinite counts as unknown."""
    matrix = np.empty((columns.rows, len(features)))
    for position, feature in enumerate(features):
        matrix[:, position] = feature.compute(columns)
    matrix[np.isinf(matrix)] = np.nan
    return matrix
