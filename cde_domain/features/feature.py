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
    `reason` is what an applicant reads when a known value counted against them.
    """

    name: str
    compute: Callable[[Columns], Array]
    description: str
    reason: str
    unit: str = ""
    monotone: Direction = 0
    categories: tuple[str, ...] = field(default=(), kw_only=True)

    def reason_code(self, *, known: bool) -> str:
        """The code of the reason that this feature gives: its name in capitals, and its absence a reason of its own."""
        return self.name.upper() if known else f"{self.name.upper()}_UNKNOWN"

    def reason_text(self, *, known: bool) -> str:
        """What the applicant reads."""
        return self.reason if known else f"Not known: {self.description[:1].lower()}{self.description[1:]}"


def feature_matrix(features: tuple[Feature, ...], columns: Columns) -> Array:
    """The features of every row, float64 of shape (rows, features); what is infinite counts as unknown."""
    matrix = np.empty((columns.rows, len(features)))
    for position, feature in enumerate(features):
        matrix[:, position] = feature.compute(columns)
    matrix[np.isinf(matrix)] = np.nan
    return matrix
