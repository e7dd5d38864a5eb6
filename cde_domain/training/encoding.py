"""How scikit-learn's trees see a row: categories as ranks of their repayment rate, unknown values filled in or not."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cde_domain.features.feature import Feature

Array = NDArray[np.float64]

PRIOR_ROWS = 20.0  # a category's rate is drawn to the mean as if so many average applicants belonged to it


@dataclass(frozen=True)
class Encoding:
    """
    Maps a (rows, features) matrix to what a library is given.

    `ranks` holds for each categorical feature the rank of each of its categories by repayment rate, NaN for those that
    training never met. With `fill`, unknown values become it; otherwise they stay NaN.
    """

    ranks: dict[int, Array]
    fill: Array | None = None

    @classmethod
    def of(cls, features: tuple[Feature, ...], matrix: Array, repaid: Array, *, fill_unknown: bool) -> "Encoding":
        """The encoding that training rows give; unknown values are filled with medians."""
        ranks = {
            position: _ranks(matrix[:, position], repaid, len(feature.categories))
            for position, feature in enumerate(features)
            if feature.categories
        }
        encoded = cls(ranks).encode(matrix)
        return cls(ranks, np.array([_median(values) for values in encoded.T]) if fill_unknown else None)

    def encode(self, matrix: Array) -> Array:
        """The encoded matrix."""
        encoded = matrix.copy()
        for position, ranks in self.ranks.items():
            encoded[:, position] = self._rank_of(ranks, matrix[:, position])
        return encoded if self.fill is None else np.where(np.isnan(encoded), self.fill, encoded)

    @staticmethod
    def _rank_of(ranks: Array, values: Array) -> Array:
        known = ~np.isnan(values)
        found = np.full(len(values), np.nan)
        found[known] = ranks[values[known].astype(np.int64)]
        return found

    def left_categories(self, position: int, threshold: float, *, missing_left: bool) -> np.uint64:
        """The categories of a feature that go left where ranks up to `threshold` do, as a set of bits."""
        ranks = self.ranks[position]
        goes_left = np.where(np.isnan(ranks), missing_left, ranks <= threshold)
        return np.uint64(sum(1 << category for category in np.flatnonzero(goes_left)))


def _ranks(values: Array, repaid: Array, categories: int) -> Array:
    known = ~np.isnan(values)
    positions = values[known].astype(np.int64)
    counts = np.bincount(positions, minlength=categories)
    rates = (np.bincount(positions, repaid[known], categories) + PRIOR_ROWS * repaid.mean()) / (counts + PRIOR_ROWS)
    ranks = np.argsort(np.argsort(rates, kind="stable"), kind="stable").astype(np.float64)
    ranks[counts == 0] = np.nan
    return ranks


def _median(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else 0.0
