"""The rows that are searched."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cde_domain.features.feature import Feature

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Book:
    """
    The rows that are searched: a (rows, features) matrix with outcomes, customers, and groups by attribute.

    `reported` are the groups of attributes that gate nothing; what is found for them changes nothing else.
    """

    features: tuple[Feature, ...]
    matrix: Array
    repaid: Array
    customers: NDArray[Any]
    attributes: Mapping[str, pd.Series]
    reported: Mapping[str, pd.Series] = field(default_factory=dict)

    def sample(self, most: int, *, seed: int) -> "Book":
        """At most so many rows, good and bad loans in their proportion."""
        if len(self.repaid) <= most:
            return self
        random, share = np.random.default_rng(seed), most / len(self.repaid)
        drawn = [
            random.permutation(rows)[: round(share * len(rows))]
            for rows in (np.flatnonzero(self.repaid == label) for label in (0, 1))
        ]
        rows = np.sort(np.concatenate(drawn))
        attributes, reported = (
            {name: groups.iloc[rows].reset_index(drop=True) for name, groups in given.items()}
            for given in (self.attributes, self.reported)
        )
        return Book(self.features, self.matrix[rows], self.repaid[rows], self.customers[rows], attributes, reported)
